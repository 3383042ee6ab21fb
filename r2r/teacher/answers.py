"""A teacher's answer to one passage order, from one call, or from the calls of several windows.

Owns how windows become one answer. Does not ask (`ask.py`).

    one = joined([4, 0, 2, 1, 3], [0, 4, 2, 3, 1], [bottom, top])
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from r2r.reasons import rename
from r2r.replies import Parsed


class Sample(NamedTuple):
    """The teacher's answer to one passage order.

    shown: the passage order. order: the teacher's order, best first. Both are indices into the row's passages. parsed:
    the reply. attempts: calls made. reason: why all replies were rejected, "" for a sound answer. text: the last reply.
    counts: tokens and other counts of all attempts.
    """

    shown: list[int]
    order: list[int]
    parsed: Parsed
    attempts: int
    reason: str
    text: str
    counts: Counter[str]


def joined(shown: list[int], order: list[int], windows: list[Sample]) -> Sample:
    """Return the answer to the passage order `shown` from the answers to its windows, in the order asked.

    order: the merged order; it does not count if the last answer was rejected. A passage has the reasons of the last
    window that it was in, whose comparisons are true in the merged order, too: of the passages in that window, those
    that moved on are above. They get the numbers of `shown`.
    """
    *_, last = windows
    if len(windows) == 1:
        return last
    attempts, counts = sum(one.attempts for one in windows), sum((one.counts for one in windows), Counter[str]())
    if last.reason:
        return last._replace(shown=shown, attempts=attempts, counts=counts)
    number = {index: place for place, index in enumerate(shown, 1)}
    direct, evidence, comparison = dict[int, str](), dict[int, str](), dict[int, str]()
    for one in windows:
        names = {place: str(number[index]) for place, index in enumerate(one.shown, 1)}
        direct.update(zip(one.shown, one.parsed.direct, strict=True))
        evidence.update(zip(one.shown, one.parsed.evidence, strict=True))
        renamed = (rename(text, names) for text in one.parsed.comparison)
        comparison.update(zip(one.shown, renamed, strict=True))
    columns = ([texts[index] for index in shown] for texts in (direct, evidence, comparison))
    parsed = Parsed("ok", "", [number[index] for index in order], *columns)
    return Sample(shown, order, parsed, attempts, "", last.text, counts)
