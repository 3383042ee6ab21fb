"""The three losses of Reason-to-Rank, each a function of plain tensors.

Owns the formulas. Does not know models, tokenizers or tables. In all of them B counts examples and N the most passages
of one; `ranks` is the teacher's order as each passage's rank, 0 for the best, and -1 where a window has no passage.

Each is a mean, over the examples or tokens that are given, or, where a step is made of several batches, over `over` of
them: the batches' losses then add up to the step's.

    pairwise(torch.tensor([[2.0, 1.0]]), torch.tensor([[0, 1]]))
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def pairwise(scores: torch.Tensor, ranks: torch.Tensor, over: int | None = None) -> torch.Tensor:
    """RankNet over all pairs, weighted by rank: the mean over examples of

        sum over i above j of w_ij log(1 + exp(s_j - s_i)) / sum of w_ij,  w_ij = 1 / (rank_i + rank_j), ranks from 1

    (Burges et al. 2005; the weights as in FIRST, arXiv 2406.15657; the division makes windows of any size weigh the
    same). scores, ranks: [B, N]. An example of fewer than two passages has no order: it adds nothing and is not
    counted.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    here = ranks >= 0
    above = (ranks[:, :, None] < ranks[:, None, :]) & here[:, :, None] & here[:, None, :]
    weights = above.to(scores.dtype) / (ranks[:, :, None] + ranks[:, None, :] + 2).clamp(min=1)
    losses = F.softplus(scores[:, None, :] - scores[:, :, None])
    totals = weights.sum((1, 2))
    each = (weights * losses).sum((1, 2)) / totals.clamp(min=1e-12)
    return each.sum() / (over or ordered(ranks).clamp(min=1))


def listwise(scores: torch.Tensor, ranks: torch.Tensor, tau: float, over: int | None = None) -> torch.Tensor:
    """KL divergence from the teacher's distribution over the window to the student's: the mean over examples of

        sum over i of p_i (log p_i - log q_i),  p = softmax(-rank / tau),  q = softmax(s)

    (ListNet's top-one distributions, Cao et al. 2007). scores, ranks: [B, N]. An example of fewer than two passages has
    no order: it adds nothing and is not counted.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    here = ranks >= 0
    # A finite stand-in for minus infinity keeps the gradients of absent passages at zero instead of not-a-number.
    absent = torch.finfo(torch.float32).min
    teacher = F.log_softmax((-ranks.to(scores.dtype) / tau).masked_fill(~here, absent), dim=-1)
    student = F.log_softmax(scores.masked_fill(~here, absent), dim=-1)
    each = (teacher.exp() * (teacher - student)).masked_fill(~here, 0.0).sum(-1)
    return (each * (here.sum(-1) > 1)).sum() / (over or ordered(ranks).clamp(min=1))


def generation(logits: torch.Tensor, targets: torch.Tensor, over: int | None = None) -> torch.Tensor:
    """Cross-entropy of the reply's tokens, the mean over all of them.

    logits: [B, T, V], where position t predicts targets[:, t]; targets: [B, T], -100 where there is nothing to predict.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    return total / (over or (targets != -100).sum().clamp(min=1))


def ordered(ranks: torch.Tensor) -> torch.Tensor:
    """Return how many examples have an order to learn: those of two passages or more."""
    return ((ranks >= 0).sum(-1) > 1).sum()
