"""What can be checked of reasons without judging them: is evidence in its passage, is every passage named there.

Owns these checks, for the teacher's reasons and the student's. Does not judge whether a reason is true or well put, and
does not decide what becomes of a reply that fails.

    is_verbatim("A flea lives  100 days.", "A flea lives 100 days. Most live less.")
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NAMED = re.compile(r"\[([0-9]+)\]|\b(?:passage|document)s? #?([0-9]+)\b(?!\.[0-9])", re.IGNORECASE)
_NONE = re.compile(r"\W*(?:n/?a|none|null|not applicable|not available)\W*", re.IGNORECASE)


def fold(text: str) -> str:
    """Return the text with every stretch of white space made one space."""
    return " ".join(text.split())


def is_verbatim(evidence: str, passage: str) -> bool:
    """Say whether evidence stands word for word in the passage; only white space may differ."""
    return bool(fold(evidence)) and fold(evidence) in fold(passage)


def says_none(evidence: str) -> bool:
    """Say whether evidence is no sentence but words for there being none, such as "N/A"."""
    return _NONE.fullmatch(evidence) is not None


def named(comparison: str) -> set[int]:
    """Return the numbers of the passages that a comparison names, as "[2]" or "passage 2"."""
    return {int(first or second) for first, second in _NAMED.findall(comparison)}


class Checked(NamedTuple):
    """`evidence` is what is true of it: words for there being none, and what is not in its passage, are left out.
    `given` pieces there were, `verbatim` of them in their passage. `fault` says what is wrong with the rest, "" if
    nothing."""

    evidence: list[str]
    given: int
    verbatim: int
    fault: str


def check(evidence: list[str], comparison: list[str], texts: list[str], shown: int) -> Checked:
    """Check the reasons of one reply.

    `evidence` and `texts` are aligned; comparisons name passages by their numbers among all that were shown, from 1 to
    `shown`.
    """
    given = ["" if says_none(piece) else piece.strip() for piece in evidence]
    kept = [piece if is_verbatim(piece, text) else "" for piece, text in zip(given, texts, strict=True)]
    strange = any(not 1 <= number <= shown for text in comparison for number in named(text))
    fault = "a comparison names a passage that is not shown" if strange else ""
    return Checked(kept, sum(map(bool, given)), sum(map(bool, kept)), fault)
