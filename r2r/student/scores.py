"""Scores of a ranking: from the log-probabilities of single windows to figures that can be compared within a query, and
their fusion with those of a first stage.

Owns the formulas. Does not own how a window is scored (rank), nor how the temperature is fitted (heldout).

    values = aligned([([2, 3], [-1.0, -4.0]), ([0, 1, 2], [-0.5, -3.0, -2.0])], [0, 2, 1, 3])   # -0.5, -2, -3, -5
    shares(values, temperature=2.0)                                          # 0.82, 0.59, 0.43, 0.15
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class FirstStage(NamedTuple):
    """scores: of each passage, in the order of the passages, higher is better. weight: from 0 to 1, of these scores."""

    scores: Sequence[float]
    weight: float


def by_rank(n: int) -> list[float]:
    """Return 1 / rank for a ranking of `n` passages, best first."""
    return [1 / rank for rank in range(1, n + 1)]


def aligned(windows: Sequence[tuple[list[int], list[float]]], order: list[int]) -> list[float]:
    """Return a value for each passage of a ranking, best first, on the scale of the last window.

    windows: passages and their log-probabilities, in the order in which they were scored. A log-probability is a
    passage's own value plus an offset of its window. So, from the last window backwards, each window is shifted by the
    mean difference over the passages that later windows also hold; a passage keeps the value of the latest. A window
    that shares none begins where the others end. Values are then made to fall along the order: one that is higher than
    the one before it is set to that, and so is that of a passage which no window holds.
    """
    values: dict[int, float] = {}
    for shown, scores in reversed(windows):
        shared = [values[index] - score for index, score in zip(shown, scores, strict=True) if index in values]
        below = min(values.values()) - max(scores) if values else 0.0
        offset = sum(shared) / len(shared) if shared else below
        for index, score in zip(shown, scores, strict=True):
            values.setdefault(index, score + offset)
    best = max(values.values())
    found: list[float] = np.minimum.accumulate([values.get(index, best) for index in order]).tolist()
    return found


def shares(values: Sequence[float], temperature: float) -> list[float]:
    """Return, for each passage, the share of the others that the teacher is expected to put below it:

        mean over the others j of sigmoid((u_i - u_j) / temperature)

    from 0 to 1, with a mean of 0.5. A single passage gets 1.
    """
    n = len(values)
    if n == 1:
        return [1.0]
    scaled = np.asarray(values, float) / temperature
    # sigmoid(x) = (1 + tanh(x / 2)) / 2, without an overflow. A passage compared with itself adds 0.
    found: list[float] = (0.5 + np.tanh((scaled[:, None] - scaled) / 2).sum(1) / (2 * (n - 1))).tolist()
    return found


def fused(order: list[int], scores: Sequence[float], first: FirstStage) -> tuple[list[int], list[float]]:
    """Return a ranking by both stages, best first, and its scores:

        (1 - weight) * normalised(score) + weight * normalised(first-stage score)

    where normalised(x) = (x - least) / (most - least) over the passages; all 0 if they are equal. Equal results keep
    the given order. (Convex combination of min-max-normalised scores: Bruch et al. 2023, arXiv 2210.11934.)
    """
    second = dict(zip(order, _normalised(scores), strict=True))
    both = [
        (1 - first.weight) * second[index] + first.weight * given
        for index, given in enumerate(_normalised(first.scores))
    ]
    found = sorted(order, key=lambda index: -both[index])
    return found, [both[index] for index in found]


def _normalised(values: Sequence[float]) -> list[float]:
    least, most = min(values), max(values)
    return [(value - least) / (most - least) if most > least else 0.0 for value in values]
