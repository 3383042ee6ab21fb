"""Krippendorff's alpha: how far several raters agree beyond chance, where some may have left out some units.

alpha([[1, 1], [2, 2, 3], [4, 4]], "ordinal")    # a list of ratings a unit
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from typing import Literal


def alpha(units: Sequence[Sequence[int]], level: Literal["nominal", "ordinal"]) -> float | None:
    """Return 1 - observed / expected disagreement; None if no unit has two ratings, or all ratings are the same.

    units: the ratings of each unit, by whichever raters rated it. nominal: any two different ratings disagree equally.
    ordinal: the more ratings lie between two, the more they disagree. Source: K. Krippendorff, "Computing
    Krippendorff's Alpha-Reliability", 2011, whose section on four observers the tests compute again.
    """
    together: Counter[tuple[int, int]] = Counter()
    for ratings in units:
        # A unit with m ratings has m (m - 1) ordered pairs, which weigh 1 / (m - 1) each.
        for pair in permutations(ratings, 2):
            together[pair] += 1 / (len(ratings) - 1)  # type: ignore[assignment] # a Counter adds floats as well
    totals: Counter[int] = Counter()
    for (one, _), count in together.items():
        totals[one] += count
    values = sorted(totals)

    def distance(one: int, other: int) -> float:
        if level == "nominal" or one == other:
            return float(one != other)
        low, high = sorted((one, other))
        between = sum(totals[value] for value in values if low <= value <= high)
        return (between - (totals[low] + totals[high]) / 2) ** 2

    if len(values) < 2:
        return None
    observed = sum(count * distance(*pair) for pair, count in together.items())
    expected = sum(totals[one] * totals[other] * distance(one, other) for one in values for other in values)
    return 1 - (sum(totals.values()) - 1) * observed / expected
