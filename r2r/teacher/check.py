"""What is checked of a teacher's reasons: evidence stands in its passage, comparisons name passages that were shown.

Owns these checks on one reply or recorded annotation. Does not decide what becomes of one that fails.

    check(["It lives 100 days.", ""], ["Better than [2].", "Less than [1]."], ["It lives 100 days.", "Dogs."]).fault
"""

from __future__ import annotations

from typing import NamedTuple

from r2r.reasons import is_verbatim, named, says_none


class Checked(NamedTuple):
    """`evidence` is what is true of it: words for there being none, and what is not in its passage, are left out.
    `given` pieces there were, `verbatim` of them in their passage. `fault` says what is wrong with the rest, "" if
    nothing."""

    evidence: list[str]
    given: int
    verbatim: int
    fault: str


def check(evidence: list[str], comparison: list[str], texts: list[str]) -> Checked:
    """Check the reasons of one reply; all three lists are aligned, in the order in which the passages were shown."""
    given = ["" if says_none(piece) else piece.strip() for piece in evidence]
    kept = [piece if is_verbatim(piece, text) else "" for piece, text in zip(given, texts, strict=True)]
    strange = any(not 1 <= number <= len(texts) for text in comparison for number in named(text))
    fault = "a comparison names a passage that is not shown" if strange else ""
    return Checked(kept, sum(map(bool, given)), sum(map(bool, kept)), fault)
