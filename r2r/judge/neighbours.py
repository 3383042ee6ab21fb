"""neighbours: the share of comparisons that name the passage directly above or below their own, or both, and no third.

Higher is better. A comparison that names no passage counts 0. Source: the check of `r2r.evaluation.explanations`, which
this measure gives an interval and a known error.
"""

from __future__ import annotations

from r2r.evaluation.explanations import names_neighbours
from r2r.judge.explained import Explained
from r2r.judge.measure import Measure


def values(row: Explained) -> list[float | None]:
    """Return 1 for a comparison that names neighbours only, 0 for another one, None where there is none."""
    ranks = [str(rank) for rank in range(1, len(row.docids) + 1)]
    return [
        float(names_neighbours(text, rank, ranks)) if text.strip() else None
        for text, rank in zip(row.comparison, ranks, strict=True)
    ]


MEASURE = Measure("neighbours", "comparison", values, "higher", lambda value: value == 0)
