"""The losses of Reason-to-Rank: one function each, over what the student made of a batch.

Owns the formulas and their list, `LOSSES`; the weights, the step log, TensorBoard and the progress line follow from it.
To add a loss, write its function, add it to `LOSSES`, and give `config.DistillSettings` a weight of the same name.
Does not know models, tokenizers or tables.

    pairwise(Outputs(scores, ranks, logits, targets, tau=1.0, ordered=len(scores), replies=(targets != -100).sum()))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from r2r.config import DistillSettings


class Outputs(NamedTuple):
    """What a loss reads: a batch of B examples with up to N passages, T reply tokens and a vocabulary of V.

    A loss is a mean over examples or tokens. A step may consist of several batches: `ordered` and `replies` are then
    the counts of the whole step, and the losses of its batches add up to the loss of the step.

    Args:
        scores: [B, N], each passage's score: the logit of its label where the order begins.
        ranks: [B, N], the teacher's rank of each passage, 0 for the best; -1 where there is no passage.
        logits: [B, T, V], the logits that predict the reply.
        targets: [B, T], the reply's token ids; -100 where there is no token.
        tau: temperature of the teacher's distribution, in ranks.
        ordered: number of examples with two passages or more, at least 1.
        replies: number of reply tokens, at least 1.
    """

    scores: torch.Tensor
    ranks: torch.Tensor
    logits: torch.Tensor
    targets: torch.Tensor
    tau: float
    ordered: int | torch.Tensor
    replies: int | torch.Tensor


def pairwise(outputs: Outputs) -> torch.Tensor:
    """RankNet over all pairs of an example, weighted by rank; the mean over ordered examples of

        sum over i above j of w_ij log(1 + exp(s_j - s_i)) / sum of w_ij,  w_ij = 1 / (rank_i + rank_j), ranks from 1

    RankNet: Burges et al. 2005. Weights: FIRST, arXiv 2406.15657. Dividing by their sum is ours: windows of all sizes
    then weigh the same. An example with one passage adds 0.

    Returns: a scalar, in nats.
    """
    scores, ranks = _at_least_float32(outputs.scores), outputs.ranks
    present = ranks >= 0
    above = (ranks[:, :, None] < ranks[:, None, :]) & present[:, :, None] & present[:, None, :]
    weights = above.to(scores.dtype) / (ranks[:, :, None] + ranks[:, None, :] + 2).clamp(min=1)
    losses = F.softplus(scores[:, None, :] - scores[:, :, None])
    totals = weights.sum((1, 2))
    per_example = (weights * losses).sum((1, 2)) / totals.clamp(min=1e-12)
    return per_example.sum() / outputs.ordered


def listwise(outputs: Outputs) -> torch.Tensor:
    """KL divergence KL(teacher || student) of distributions over the passages; the mean over ordered examples of

        sum over i of p_i (log p_i - log q_i),  p = softmax(-rank / tau),  q = softmax(s)

    The distributions are ListNet's top-one probabilities: Cao et al. 2007. An example with one passage adds 0.

    Returns: a scalar, in nats.
    """
    scores, ranks = _at_least_float32(outputs.scores), outputs.ranks
    present = ranks >= 0
    # With minus infinity, the gradients of absent passages would be not-a-number.
    absent = torch.finfo(torch.float32).min
    teacher = F.log_softmax((-ranks.to(scores.dtype) / outputs.tau).masked_fill(~present, absent), dim=-1)
    student = F.log_softmax(scores.masked_fill(~present, absent), dim=-1)
    per_example = (teacher.exp() * (teacher - student)).masked_fill(~present, 0.0).sum(-1)
    return (per_example * (present.sum(-1) > 1)).sum() / outputs.ordered


def generation(outputs: Outputs) -> torch.Tensor:
    """Cross-entropy of the reply's tokens, the mean over them: the usual loss of fine-tuning on replies.

    Returns: a scalar, in nats.
    """
    logits = _at_least_float32(outputs.logits)
    total = F.cross_entropy(logits.flatten(0, 1), outputs.targets.flatten(), ignore_index=-100, reduction="sum")
    return total / outputs.replies


class Loss(NamedTuple):
    """`name` is the loss's name in the log, and the field of `DistillSettings` that holds its weight."""

    name: str
    function: Callable[[Outputs], torch.Tensor]


LOSSES = (Loss("pairwise", pairwise), Loss("listwise", listwise), Loss("generation", generation))


def weights(settings: DistillSettings) -> list[float]:
    """Return the weight of each of `LOSSES`."""
    return [getattr(settings, loss.name) for loss in LOSSES]


def count_ordered(ranks: torch.Tensor) -> torch.Tensor:
    """Return how many examples have an order to learn: two passages or more. ranks: [B, N], as in `Outputs`."""
    return ((ranks >= 0).sum(-1) > 1).sum()


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
