"""boilerplate: the share of direct reasons whose words fit another passage of the query at least as well as their own.

Lower is better. A reason fits a passage by the share of its content words (`words.py`) that the passage has: the
precision of ROUGE-1 (Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004), without the query's words.
"This passage does not answer the query" fits any passage, and counts. A reason in other words than its passage's may
count too: it is a measure of wording, not of truth.
"""

from __future__ import annotations

from r2r.judge.explained import Explained
from r2r.judge.measure import Measure
from r2r.judge.words import own_and_others


def values(row: Explained) -> list[float | None]:
    """Return 1 for a reason that fits another passage as well, 0 for another one, None where there is none."""
    return [_value(row, at) for at in range(len(row.docids))]


def _value(row: Explained, at: int) -> float | None:
    if not row.direct[at].strip():
        return None
    found = own_and_others(row, at)
    if found is None:
        # Without a word of its own, a reason fits all; without another passage, there is nothing to fit.
        return 1.0 if len(set(row.texts)) > 1 else None
    _, own, others = found
    return float(max(map(len, others)) >= len(own))


MEASURE = Measure(
    "boilerplate", "direct", values, "lower", lambda value: value == 1, "its reason fits another passage as well"
)
