"""Intervals: a seeded bootstrap over queries.

Owns the resampling. The reasons of one query depend on each other, so queries are drawn, not reasons.

    interval([[3.0, 4.0], [1.0, 2.0]], ratio, seed=0)    # of the mean over the reasons of two queries
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 1000


def ratio(sums: np.ndarray) -> np.ndarray:
    """Return sum / count for rows of (sum, count); not a number where the count is 0."""
    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)


def interval(
    by_query: Sequence[Sequence[float]], statistic: Callable[[np.ndarray], np.ndarray], seed: int
) -> tuple[float, float] | tuple[None, None]:
    """Return the 95 % percentile interval of a statistic of sums over queries.

    by_query: a row of numbers for each query. statistic: from rows of such sums to a value for each row. (None, None)
    if no resample has a value. Source: B. Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.
    """
    numbers = np.asarray(by_query, dtype=float)
    rng = np.random.default_rng(seed)
    sums = np.stack([numbers[rng.integers(0, len(numbers), len(numbers))].sum(axis=0) for _ in range(RESAMPLES)])
    values = statistic(sums)
    values = values[~np.isnan(values)]
    if not len(values):
        return None, None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
