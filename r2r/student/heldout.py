"""How well a student in training orders queries that it does not learn from.

Owns the measure: agreement with the teacher's order, since judgements of the test queries are none of its business.
Does not know tables or checkpoints.

    total, queries = ndcg(torch.tensor([[2.0, 1.0]]), torch.tensor([[0, 1]])).sum(), 1
"""

from __future__ import annotations

import torch

_DEPTH = 10


def ndcg(scores: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """Return nDCG@10 of each example's order by score, a passage's relevance being what the teacher's rank leaves it:

        sum over the first 10 places p, from 1, of (n - rank) / log2(p + 1), divided by that of the teacher's order

    with n passages and ranks from 0, so that the best has relevance n and the last 1. scores: [B, N]; ranks: [B, N], -1
    where a window has no passage. Returns [B].
    """
    here = ranks >= 0
    gains = ((here.sum(-1, keepdim=True) - ranks) * here).double()
    order = scores.double().masked_fill(~here, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    depth = min(_DEPTH, ranks.shape[1])
    discounts = 1 / torch.arange(2, depth + 2, dtype=torch.float64, device=ranks.device).log2()

    def gained(sorted_gains: torch.Tensor) -> torch.Tensor:
        return (sorted_gains[:, :depth] * discounts).sum(-1)

    return gained(gains.gather(-1, order)) / gained(gains.sort(-1, descending=True).values).clamp(min=1e-12)
