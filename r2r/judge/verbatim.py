"""verbatim: the share of evidence that stands word for word in its passage. White space may differ.

Higher is better. Evidence that says "N/A" counts as none. Source: the check of quotations in r2r.reasons; as a
measure of answers that cite, compare the citation precision of Gao et al., "Enabling Large Language Models to Generate
Text with Citations" (ALCE, 2023), which asks a model whether the text supports the claim.
"""

from __future__ import annotations

from r2r.judge.explained import Explained
from r2r.judge.measure import Measure
from r2r.reasons import is_verbatim, says_none


def values(row: Explained) -> list[float | None]:
    """Return 1 for evidence that is in its passage, 0 for other evidence, None where there is none."""
    return [
        float(is_verbatim(evidence, text)) if evidence.strip() and not says_none(evidence) else None
        for evidence, text in zip(row.evidence, row.texts, strict=True)
    ]


MEASURE = Measure(
    "verbatim",
    "evidence",
    values,
    "higher",
    lambda value: value == 0,
    "its evidence is not in the passage word for word",
)
