"""transitivity: the share of comparisons whose claims do not contradict the other claims about the same query.

Higher is better. A above B, B above C and C above A contradict each other, whatever the ranking is. Only claims that
can be read count, as for `consistency`, and only those about a passage that another comparison makes a claim about,
since no other could be contradicted. Source: the transitivity of preference judgements, as in Carterette et al., "Here
or There: Preference Judgments for Relevance" (ECIR 2008).
"""

from __future__ import annotations

from r2r.judge.claims import claims
from r2r.judge.explained import Explained
from r2r.judge.measure import Measure

Pairs = frozenset[tuple[int, int]]


def values(row: Explained) -> list[float | None]:
    """Return 0 for a comparison with a claim that is part of a circle, 1 for another one, None where none can be
    read, or where no other comparison speaks of its passages."""
    of = len(row.docids)
    read = [claims(text, rank, of) for rank, text in enumerate(row.comparison, start=1)]
    found: list[float | None] = []
    for at, own in enumerate(read):
        others = frozenset[tuple[int, int]]().union(*(one for place, one in enumerate(read) if place != at))
        named = {one for pair in own for one in pair}
        met = [pair for pair in others if named.intersection(pair)]
        found.append(
            float(not any(_leads(below, above, own | others) for above, below in own)) if own and met else None
        )
    return found


def _leads(start: int, end: int, pairs: Pairs) -> bool:
    """Return whether claims lead from `start` down to `end`."""
    reached, waiting = {start}, [start]
    while waiting:
        one = waiting.pop()
        if one == end:
            return True
        below = {second for first, second in pairs if first == one} - reached
        reached |= below
        waiting += below
    return False


MEASURE = Measure(
    "transitivity",
    "comparison",
    values,
    "higher",
    lambda value: value == 0,
    "its comparison contradicts those of other passages",
)
