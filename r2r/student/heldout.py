"""How well a student in training orders the passages of held-out queries.

Owns the measure: agreement with the teacher's order. Training must not see the qrels of the test queries. Does not know
tables or checkpoints.

    total, queries = ndcg(torch.tensor([[2.0, 1.0]]), torch.tensor([[0, 1]])).sum(), 1
"""

from __future__ import annotations

import torch

_DEPTH = 10


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
