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
    weights = _above(ranks).to(scores.dtype) / (ranks[:, :, None] + ranks[:, None, :] + 2).clamp(min=1)
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


def margin(outputs: Outputs) -> torch.Tensor:
    """Hinge loss over all pairs of an example; the mean over ordered examples of

        sum over i above j of max(0, 1 - (s_i - s_j)) / number of pairs

    The ranking SVM's loss: Herbrich et al. 2000, Joachims 2002. An example with one passage adds 0.

    Returns: a scalar, in units of the scores.
    """
    scores = _at_least_float32(outputs.scores)
    above = _above(outputs.ranks).to(scores.dtype)
    losses = F.relu(1 - (scores[:, :, None] - scores[:, None, :]))
    per_example = (above * losses).sum((1, 2)) / above.sum((1, 2)).clamp(min=1)
    return per_example.sum() / outputs.ordered


def lambdarank(outputs: Outputs) -> torch.Tensor:
    """RankNet over all pairs, weighted by what exchanging the two would change in nDCG; the mean over ordered examples
    of

        sum over i above j of |G_i - G_j| |1 / D(p_i) - 1 / D(p_j)| log(1 + exp(s_j - s_i))

    G_i = (n - rank_i) / maxDCG, ranks from 0, for n passages: the gains of the held-out nDCG (see `heldout`), over all
    places. D(p) = log2(p + 1), where p_i is the place, from 1, that the student now gives to passage i.

    LambdaRank as one of the LambdaLoss framework's losses: Wang et al. 2018. An example with one passage adds 0.

    Returns: a scalar, in nats.
    """
    scores, ranks = _at_least_float32(outputs.scores), outputs.ranks
    present = ranks >= 0
    ordered = scores.detach().masked_fill(~present, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(1, ranks.shape[1] + 1, device=ranks.device, dtype=scores.dtype)
    # The place of each passage: the inverse of the order.
    discounts = 1 / (1 + places[ordered.argsort(dim=-1)]).log2()
    gains = ((present.sum(-1, keepdim=True) - ranks) * present).to(scores.dtype)
    most = (gains.sort(-1, descending=True).values / (1 + places).log2()).sum(-1, keepdim=True)
    gains = gains / most.clamp(min=1)
    changes = (gains[:, :, None] - gains[:, None, :]) * (discounts[:, :, None] - discounts[:, None, :])
    losses = F.softplus(scores[:, None, :] - scores[:, :, None])
    per_example = (changes.abs() * losses * _above(ranks)).sum((1, 2))
    return per_example.sum() / outputs.ordered


def _above(ranks: torch.Tensor) -> torch.Tensor:
    """Return [B, N, N]: whether the teacher puts passage i above passage j. ranks: [B, N], as in `Outputs`."""
    present = ranks >= 0
    return (ranks[:, :, None] < ranks[:, None, :]) & present[:, :, None] & present[:, None, :]


class Loss(NamedTuple):
    """`name` is the loss's name in the log, and the field of `DistillSettings` that holds its weight. `always`: whether
    it is calculated and logged without a weight, too."""

    name: str
    function: Callable[[Outputs], torch.Tensor]
    always: bool = False


LOSSES = (
    Loss("pairwise", pairwise, always=True),
    Loss("listwise", listwise, always=True),
    Loss("generation", generation, always=True),
    Loss("margin", margin),
    Loss("lambdarank", lambdarank),
)


def used(settings: DistillSettings) -> dict[Loss, float]:
    """Return the losses of a training, with their weights."""
    weights = {loss: float(getattr(settings, loss.name)) for loss in LOSSES}
    return {loss: weight for loss, weight in weights.items() if weight or loss.always}


def count_ordered(ranks: torch.Tensor) -> torch.Tensor:
    """Return how many examples have an order to learn: two passages or more. ranks: [B, N], as in `Outputs`."""
    return ((ranks >= 0).sum(-1) > 1).sum()


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
