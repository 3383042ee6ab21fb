"""Checks of reasons by their words alone: evidence stands in its passage, comparisons name only passages shown.

Owns these checks, for teacher and student, and the renaming of the passages in a comparison. Does not judge whether a
reason is true or well written, and does not decide what to do with a reply that fails.

    is_verbatim("A flea lives  100 days.", "A flea lives 100 days. Most live less.")
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NAMED = re.compile(r"\[([0-9]+)\]|\b(?:passage|document)s? #?([0-9]+)\b(?!\.[0-9])", re.IGNORECASE)
# A sentence may end with a quotation mark. Chinese and Japanese have no space between sentences.
_ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"')\]\u2019\u201d])\s+|(?<=[\u3002\uff01\uff1f])|\n+")
_NONE = re.compile(r"\W*(?:n/?a|none|null|not applicable|not available)\W*", re.IGNORECASE)


def fold(text: str) -> str:
    """Return the text with one space for each run of white space."""
    return " ".join(text.split())


def sentences(text: str, longest: int) -> list[str]:
    """Return the distinct sentences of a text, in its order, each cut after a word to at most `longest` characters."""
    found = (fold(piece) for piece in _ENDS.split(text))
    return list(dict.fromkeys(_first_words(one, longest) for one in found if one))


def _first_words(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest + 1].rpartition(" ")[0] or text[:longest]


def is_verbatim(evidence: str, passage: str) -> bool:
    """Return whether evidence stands word for word in the passage; white space may differ."""
    return bool(fold(evidence)) and fold(evidence) in fold(passage)


def says_none(evidence: str) -> bool:
    """Return whether evidence only says that there is none, such as "N/A"."""
    return _NONE.fullmatch(evidence) is not None


def named(comparison: str) -> set[int]:
    """Return the numbers of the passages that a comparison names, as "[2]" or "passage 2"."""
    return {int(first or second) for first, second in _NAMED.findall(comparison)}


_NUMBERS = r"\d+(?:(?:\s*,\s*(?:and\s+|or\s+)?|\s+and\s+|\s+or\s+|\s*&\s*)\d+)*"
_NAMES = re.compile(rf"\[(\d+(?:\s*,\s*\d+)*)\]|\b((?:[Pp]assage|[Dd]ocument)s?)\s+#?({_NUMBERS})\b(?!\.\d)")


def rename(comparison: str, names: dict[int, str]) -> str:
    """Return a teacher's comparison with its passage numbers, as in `[2]`, `[2, 3]` or `passages 2 and 3`, replaced by
    names in brackets.

    A number that is not in `names` stays.
    """

    def one(number: str) -> str:
        return f"[{names[int(number)]}]" if int(number) in names else number

    def each(match: re.Match) -> str:
        if match[1]:
            numbers = re.findall(r"\d+", match[1])
            return ", ".join(map(one, numbers)) if all(int(number) in names for number in numbers) else match[0]
        return f"{match[2]} " + re.sub(r"\d+", lambda number: one(number[0]), match[3])

    return _NAMES.sub(each, comparison)


class CheckedReasons(NamedTuple):
    """evidence: aligned with the passages, "" where it is missing, says "N/A", or is not in its passage. given: pieces
    of evidence in the reply. verbatim: those found in their passage. fault: what is wrong with comparisons, or ""."""

    evidence: list[str]
    given: int
    verbatim: int
    fault: str


def check_reasons(evidence: list[str], comparison: list[str], texts: list[str], shown: int) -> CheckedReasons:
    """Check the reasons of one reply. `evidence`, `comparison` and `texts` (the passages) are aligned; comparisons name
    passages by their numbers, from 1 to `shown`."""
    given = ["" if says_none(piece) else piece.strip() for piece in evidence]
    kept = [piece if is_verbatim(piece, text) else "" for piece, text in zip(given, texts, strict=True)]
    unknown = any(not 1 <= number <= shown for text in comparison for number in named(text))
    fault = "a comparison names a passage that is not shown" if unknown else ""
    return CheckedReasons(kept, sum(map(bool, given)), sum(map(bool, kept)), fault)
