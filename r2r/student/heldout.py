"""How well a student in training orders the passages of held-out queries, and how sure it may be of an order.

Owns the measures: agreement with the teacher's order, and the temperature of the scores. Training must not see the
qrels of the test queries. Does not know tables or checkpoints.

    total, queries = ndcg(torch.tensor([[2.0, 1.0]]), torch.tensor([[0, 1]])).sum(), 1
    temperature(pair_losses(torch.tensor([[2.0, 1.0]]), torch.tensor([[0, 1]])).sum(0))
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

_DEPTH = 10
# From scores of which a hundredth is a difference, to scores of which none says anything: steps of 1.08 times.
TEMPERATURES = tuple(10 ** (step / 30) for step in range(-60, 61))


def ndcg(scores: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """Return the nDCG@10 of each example's order by score, with the teacher's rank as relevance:

        sum over the first 10 places p, from 1, of (n - rank) / log2(p + 1), divided by the sum for the teacher's order

    n is the number of passages, and ranks count from 0: the teacher's best passage has relevance n, its last has 1.
    (nDCG: Järvelin and Kekäläinen 2002, with linear gains.)

    Args:
        scores: [B, N], each passage's score.
        ranks: [B, N], the teacher's rank of each passage, -1 where there is no passage.

    Returns: [B], in float64.
    """
    present = ranks >= 0
    gains = ((present.sum(-1, keepdim=True) - ranks) * present).double()
    order = scores.double().masked_fill(~present, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    depth = min(_DEPTH, ranks.shape[1])
    discounts = 1 / torch.arange(2, depth + 2, dtype=torch.float64, device=ranks.device).log2()

    def gained(sorted_gains: torch.Tensor) -> torch.Tensor:
        return (sorted_gains[:, :depth] * discounts).sum(-1)

    return gained(gains.gather(-1, order)) / gained(gains.sort(-1, descending=True).values).clamp(min=1e-12)


def pair_losses(scores: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """Return each example's log loss of the teacher's pairs, for each temperature T that is tried:

        sum over i above j of log(1 + exp(-(s_i - s_j) / T)), divided by the number of pairs

    That is the log loss of sigmoid((s_i - s_j) / T) as the probability that i stands above j (Bradley and Terry 1952;
    a temperature for calibration: Guo et al. 2017, arXiv 1706.04599). scores, ranks: [B, N], as for `ndcg`.

    Returns: [B, temperatures], in nats, in float64. Sums of them, over workers too, go into `temperature`.
    """
    present = ranks >= 0
    above = (ranks[:, :, None] < ranks[:, None, :]) & present[:, :, None] & present[:, None, :]
    apart = scores.double()[:, :, None] - scores.double()[:, None, :]
    losses = [F.softplus(-apart / tried).masked_fill(~above, 0).sum((1, 2)) for tried in TEMPERATURES]
    return torch.stack(losses, -1) / above.sum((1, 2)).clamp(min=1)[:, None]


def temperature(losses: torch.Tensor) -> float:
    """Return the temperature of the smallest loss. losses: [temperatures], a sum of those of `pair_losses`."""
    return TEMPERATURES[int(losses.argmin())]
