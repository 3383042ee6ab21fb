"""nDCG by the teacher's order, against its formula."""

import math

import pytest
import torch

from r2r.student.heldout import ndcg


def test_it_is_the_formula():
    scores, ranks = torch.tensor([[0.1, 3.0, 2.0, 9.0]]), torch.tensor([[0, 2, 1, -1]])
    # By score: the passages of ranks 2, 1 and 0, whose relevance is 1, 2 and 3.
    found = 1 / math.log2(2) + 2 / math.log2(3) + 3 / math.log2(4)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(scores, ranks).tolist() == pytest.approx([found / ideal])


def test_the_teachers_order_is_perfect_and_its_reverse_is_worst():
    ranks = torch.stack([torch.randperm(20) for _ in range(5)])
    assert ndcg(-ranks.float(), ranks).tolist() == pytest.approx([1.0] * 5)
    worst = ndcg(ranks.float(), ranks)
    assert (worst < 0.6).all() and (ndcg(torch.rand(5, 20), ranks) >= worst).all()


def test_only_the_first_ten_count():
    ranks = torch.arange(20)[None]
    changed = -ranks.float()
    changed[0, 10:] = changed[0, 10:].flip(0)
    assert ndcg(changed, ranks).item() == pytest.approx(1)
