"""What can be checked of reasons without judging them: is evidence in its passage, is every passage named there.

Owns these checks, for the teacher's reasons and the student's. Does not judge whether a reason is true or well put, and
does not decide what becomes of a reply that fails.

    is_verbatim("A flea lives  100 days.", "A flea lives 100 days. Most live less.")
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NAMED = re.compile(r"\[([0-9]+)\]|\b(?:passage|document)s? #?([0-9]+)\b(?!\.[0-9])", re.IGNORECASE)
# A full stop may stand before a quotation's end, and where words have no spaces between them, sentences have none.
_ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"')\]\u2019\u201d])\s+|(?<=[\u3002\uff01\uff1f])|\n+")
_NONE = re.compile(r"\W*(?:n/?a|none|null|not applicable|not available)\W*", re.IGNORECASE)


def fold(text: str) -> str:
    """Return the text with every stretch of white space made one space."""
    return " ".join(text.split())


def sentences(text: str, longest: int) -> list[str]:
    """Return the different sentences of a text, in its order, each cut to its first words if it has more than `longest`
    characters."""
    found = (fold(piece) for piece in _ENDS.split(text))
    return list(dict.fromkeys(_first_words(one, longest) for one in found if one))


def _first_words(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest + 1].rpartition(" ")[0] or text[:longest]


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
