"""specificity: how much of a direct reason could be said of its own passage only.

The share of its content words (`words.py`) that its passage has and no other passage of the query has, from 0 to 1.
Higher is better; 0 is a fault. Source: our own, of the same counts as `boilerplate`; the idea is that of discriminative
descriptions, such as Luo et al., "Discriminability Objective for Training Descriptive Captions" (CVPR 2018).
"""

from __future__ import annotations

from r2r.judge.explained import Explained
from r2r.judge.measure import Measure
from r2r.judge.words import own_and_others


def values(row: Explained) -> list[float | None]:
    """Return the share for each direct reason, None where there is none or no other passage to compare with."""
    return [_value(row, at) for at in range(len(row.docids))]


def _value(row: Explained, at: int) -> float | None:
    if not row.direct[at].strip():
        return None
    found = own_and_others(row, at)
    if found is None:
        return 0.0 if len(set(row.texts)) > 1 else None
    content, own, others = found
    return len(own.difference(*others)) / len(content)


MEASURE = Measure(
    "specificity",
    "direct",
    values,
    "higher",
    lambda value: value == 0,
    "its reason has no word that only its passage has",
)
