"""consistency: the share of comparisons whose claims about the order all agree with the ranking that they explain.

Higher is better. `claims.py` says how a comparison is read; one that makes no claim which can be read is not judged,
and `n` beside `of` gives the share that could be. Source: our own; the faithfulness of an explanation to the decision
that it explains, as in Jacovi and Goldberg, "Towards Faithfully Interpretable NLP Systems" (ACL 2020).
"""

from __future__ import annotations

from r2r.judge.claims import claims
from r2r.judge.explained import Explained
from r2r.judge.measure import Measure


def values(row: Explained) -> list[float | None]:
    """Return 1 where all claims agree with the ranking, 0 where one does not, None where none can be read."""
    of = len(row.docids)
    read = [claims(text, rank, of) for rank, text in enumerate(row.comparison, start=1)]
    return [float(all(above < below for above, below in one)) if one else None for one in read]


MEASURE = Measure(
    "consistency", "comparison", values, "higher", lambda value: value == 0, "its comparison contradicts the ranking"
)
