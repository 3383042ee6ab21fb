"""nDCG by the teacher's order, against its formula, and the temperature, against a planted one."""

import math

import pytest
import torch

from r2r.student.heldout import TEMPERATURES, ndcg, pair_losses, temperature


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


@pytest.mark.parametrize("planted", [0.3, 4.0])
def test_a_planted_temperature_is_found(planted):
    torch.manual_seed(0)
    scores = 3 * torch.randn(20_000, 2)
    first = torch.rand(20_000) < torch.sigmoid((scores[:, 0] - scores[:, 1]) / planted)
    ranks = torch.stack([(~first).long(), first.long()], 1)
    # As two workers would sum them.
    losses = pair_losses(scores[:5], ranks[:5]).sum(0) + pair_losses(scores[5:], ranks[5:]).sum(0)
    assert temperature(losses) == pytest.approx(planted, rel=0.1)


def test_a_pair_loss_is_the_formula_and_absent_passages_add_nothing():
    scores, ranks = torch.tensor([[1.0, 3.0, 2.0, torch.inf]]), torch.tensor([[0, 2, 1, -1]])
    tried = TEMPERATURES[30]
    wanted = sum(math.log(1 + math.exp(apart / tried)) for apart in (2, 1, 1)) / 3
    assert pair_losses(scores, ranks)[0, 30].item() == pytest.approx(wanted)
