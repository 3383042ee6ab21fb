"""The figures of a measure: its value with an interval, its bounds, and whether it notices planted errors.

Owns how values become figures. `bootstrap.py` owns the intervals, `planted.py` the errors.

    figures(verbatim.MEASURE, plant(rows, rate=0.2, seed=0), seed=0)["value"]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from r2r.judge import planted
from r2r.judge.bootstrap import interval, ratio
from r2r.judge.explained import Explained
from r2r.judge.measure import Measure

# For each query, a value for each passage, None where there is nothing to judge.
Values = Sequence[Sequence[float | None]]
T = TypeVar("T")


class Planted(NamedTuple):
    """Rows, and what is made of them to test a measure. `wrong` has the indices of the swapped reasons of each row."""

    rows: Sequence[Explained]
    swapped: Sequence[Explained]
    wrong: Sequence[set[int]]
    handed_round: Sequence[Explained]
    sound: Sequence[Explained]

    def changed(self, part: str) -> list[list[bool]]:
        """Return for each passage of each row whether an error was planted in this part of its reasons.

        Two passages that swap may have the same text in one part: there it is no error.
        """
        pairs = zip(self.rows, self.swapped, strict=True)
        return [
            [one != other for one, other in zip(getattr(row, part), getattr(after, part), strict=True)]
            for row, after in pairs
        ]


def plant(rows: Sequence[Explained], rate: float, seed: int) -> Planted:
    """Return the rows with planted errors, and those of the bounds. Arguments as for `planted.swap`."""
    swapped, wrong = planted.swap(rows, rate, seed)
    return Planted(rows, swapped, wrong, planted.handed_round(rows, seed), planted.sound(rows))


def figures(measure: Measure, made: Planted, seed: int) -> dict[str, Any]:
    """Return a measure's entry of measures.json.

    value: mean over the reasons that it can judge, with the 95 % interval (low, high). floor: the value with all
    reasons handed to another passage of their query. ceiling: the value with reasons that are sound. n: reasons judged.
    of: reasons of its kind. detected: share of the planted errors that it flags, with their number, `planted`.
    false_alarms: share of the other reasons that it flags. noticed: whether it flags planted errors more often than
    other reasons, by a difference whose interval lies above 0. A share of nothing is None.
    """
    values = by_query((row.qid for row in made.rows), [measure.values(row) for row in made.rows])
    return {
        **mean(values, seed),
        "floor": _mean([measure.values(row) for row in made.handed_round]),
        "ceiling": _mean([measure.values(row) for row in made.sound]),
        "of": sum(bool(text.strip()) for row in made.rows for text in getattr(row, measure.part)),
        "better": measure.better,
        **honesty(_flagged(measure, made), seed),
    }


def by_query(qids: Iterable[str], lists: Iterable[Sequence[T]]) -> list[list[T]]:
    """Return the lists of rows, joined for each query: several draws of its passages are several rows."""
    found: dict[str, list[T]] = {}
    for qid, one in zip(qids, lists, strict=True):
        found.setdefault(qid, []).extend(one)
    return list(found.values())


def mean(values: Values, seed: int) -> dict[str, Any]:
    """Return value, low, high and n of values by query."""
    sums = [_sum(one) for one in values]
    low, high = interval(sums, ratio, seed)
    return {"value": _mean(values), "low": low, "high": high, "n": sum(int(count) for _, count in sums)}


def _sum(row: Sequence[float | None]) -> tuple[float, float]:
    found = [value for value in row if value is not None]
    return sum(found), float(len(found))


def _mean(values: Values) -> float | None:
    found = [value for row in values for value in row if value is not None]
    return sum(found) / len(found) if found else None


def _flagged(measure: Measure, made: Planted) -> list[tuple[int, int, int, int]]:
    """Return the counts by query that `honesty` takes."""
    counts = []
    rows = [
        [(wrong, value) for wrong, value in zip(changed, measure.values(row), strict=True) if value is not None]
        for row, changed in zip(made.swapped, made.changed(measure.part), strict=True)
    ]
    for judged in by_query((row.qid for row in made.swapped), rows):
        bad, good = ([measure.flags(value) for wrong, value in judged if wrong == is_bad] for is_bad in (True, False))
        counts.append((sum(bad), len(bad), sum(good), len(good)))
    return counts


def honesty(counts: Sequence[Sequence[float]], seed: int) -> dict[str, Any]:
    """Return planted, detected, false_alarms and noticed, as `figures` does.

    counts: for each query the planted errors that were flagged, all of them, the other reasons that were flagged, and
    all of those.
    """
    if not counts:
        return {"planted": 0, "detected": None, "false_alarms": None, "noticed": False}
    detected, of, alarms, others = np.asarray(counts).sum(axis=0).tolist()
    low, _ = interval(counts, lambda sums: ratio(sums[:, :2]) - ratio(sums[:, 2:]), seed)
    return {
        "planted": int(of),
        "detected": detected / of if of else None,
        "false_alarms": alarms / others if others else None,
        "noticed": low is not None and low > 0,
    }
