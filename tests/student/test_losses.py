"""The three losses against values worked out from their formulas."""

import math

import pytest
import torch

from r2r.student.losses import generation, listwise, pairwise

SCORES = torch.tensor([[0.3, -1.2, 2.0], [1.5, 0.5, 0.0]], dtype=torch.float32)
RANKS = torch.tensor([[1, 2, 0], [0, 1, -1]])


def pairwise_by_hand(scores, ranks):
    losses = []
    for row, order in zip(scores.double().tolist(), ranks.tolist(), strict=True):
        total = weights = 0.0
        for i in range(len(row)):
            for j in range(len(row)):
                if 0 <= order[i] < order[j]:
                    weight = 1 / (order[i] + 1 + order[j] + 1)
                    total += weight * math.log(1 + math.exp(row[j] - row[i]))
                    weights += weight
        if weights:
            losses.append(total / weights)
    return sum(losses) / len(losses)


def listwise_by_hand(scores, ranks, tau):
    losses = []
    for row, order in zip(scores.double().tolist(), ranks.tolist(), strict=True):
        here = [place for place in range(len(row)) if order[place] >= 0]
        p = [math.exp(-order[place] / tau) for place in here]
        q = [math.exp(row[place]) for place in here]
        p, q = [one / sum(p) for one in p], [one / sum(q) for one in q]
        losses.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return sum(losses) / len(losses)


def test_pairwise_is_the_formula():
    assert pairwise(SCORES, RANKS).item() == pytest.approx(pairwise_by_hand(SCORES, RANKS), rel=1e-6)


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_listwise_is_the_formula(tau):
    assert listwise(SCORES, RANKS, tau).item() == pytest.approx(listwise_by_hand(SCORES, RANKS, tau), rel=1e-5)


def test_listwise_is_zero_where_the_student_agrees():
    scores = (-RANKS.float() / 2).requires_grad_()
    loss = listwise(scores, RANKS, 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert scores.grad.abs().max() < 1e-6


def test_the_right_order_costs_less_than_the_wrong_one():
    ranks = torch.tensor([[0, 1, 2]])
    right, wrong = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    assert pairwise(right, ranks) < pairwise(wrong, ranks)
    assert listwise(right, ranks, 1.0) < listwise(wrong, ranks, 1.0)


@pytest.mark.parametrize("loss", [pairwise, lambda scores, ranks: listwise(scores, ranks, 1.0)])
def test_padding_and_relabelling_change_nothing(loss):
    padded = torch.cat([SCORES, torch.full((2, 2), 7.0)], dim=1)
    more = torch.cat([RANKS, torch.full((2, 2), -1)], dim=1)
    mixed = torch.tensor([2, 0, 1])
    assert loss(padded, more).item() == pytest.approx(loss(SCORES, RANKS).item(), rel=1e-6)
    assert loss(SCORES[:, mixed], RANKS[:, mixed]).item() == pytest.approx(loss(SCORES, RANKS).item(), rel=1e-6)


@pytest.mark.parametrize("loss", [pairwise, lambda scores, ranks: listwise(scores, ranks, 1.0)])
def test_one_passage_has_no_order_and_no_gradient(loss):
    scores = torch.tensor([[0.7, 5.0]], requires_grad=True)
    value = loss(scores, torch.tensor([[0, -1]]))
    value.backward()
    assert value.item() == 0 and scores.grad.abs().sum() == 0


@pytest.mark.parametrize("loss", [pairwise, lambda scores, ranks: listwise(scores, ranks, 1.0)])
def test_extreme_scores_in_bfloat16_stay_finite(loss):
    scores = torch.tensor([[3e4, -3e4, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    value = loss(scores, torch.tensor([[2, 0, -1]]))
    value.backward()
    assert value.isfinite() and scores.grad.isfinite().all()


def test_generation_counts_the_targets_only():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[-100, 1, 4], [-100, -100, 0]])
    chosen = [logits[0, 1].log_softmax(-1)[1], logits[0, 2].log_softmax(-1)[4], logits[1, 2].log_softmax(-1)[0]]
    assert generation(logits, targets).item() == pytest.approx(-sum(chosen).item() / 3, rel=1e-6)
