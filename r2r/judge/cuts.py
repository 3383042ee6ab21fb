"""A passage without its evidence, its evidence alone, two passages with theirs swapped; and the same of random words.

Owns where to cut. Does not rank.

    cuts("A flea lives 100 days. It jumps far on most dogs.", "A flea lives 100 days.", random.Random(0)).without
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

Span = tuple[int, int]


class Cuts(NamedTuple):
    """What is left of a passage. without, only: its evidence taken out, and alone. The other two: the same of random
    words."""

    without: str
    without_random: str
    only: str
    only_random: str


def cuts(text: str, evidence: str, rng: random.Random) -> Cuts | None:
    """Return the cuts of a passage, None if the evidence is not in it, or leaves too few words to draw from.

    The random words are as many as those of the evidence, have none of them, and stand together. They begin with a
    sentence if one fits.
    """
    found = _find(text, evidence)
    drawn = _draw(text, len(evidence.split()), found, rng) if found else None
    if found is None or drawn is None:
        return None
    return Cuts(
        without=_without(text, *found),
        without_random=_without(text, *drawn),
        only=text[slice(*found)],
        only_random=text[slice(*drawn)],
    )


class Swapped(NamedTuple):
    """Two passages that have given each other their evidence, and that have given each other random words."""

    evidence: tuple[str, str]
    random: tuple[str, str]


def swapped(first: str, first_evidence: str, second: str, second_evidence: str, rng: random.Random) -> Swapped | None:
    """Return two passages that swap their evidence; None if the first has none in it, or too few words are left.

    A second passage without evidence of its own gives as many random words as the first one's evidence has. The swapped
    random words are as many as the evidence, passage by passage, and have none of it.
    """
    one, other = _find(first, first_evidence), _find(second, second_evidence)
    if one is None:
        return None
    count = len(first_evidence.split())
    other_count = len(second_evidence.split()) if other else count
    other = other or _draw(second, count, None, rng)
    if other is None:
        return None
    one_random, other_random = _draw(first, count, one, rng), _draw(second, other_count, other, rng)
    if one_random is None or other_random is None:
        return None
    return Swapped(_exchanged(first, one, second, other), _exchanged(first, one_random, second, other_random))


def _find(text: str, evidence: str) -> Span | None:
    found = re.search(r"\s+".join(map(re.escape, evidence.split())), text) if evidence.strip() else None
    return found.span() if found else None


def _draw(text: str, count: int, taken: Span | None, rng: random.Random) -> Span | None:
    """Return where `count` words stand together that have none of those taken; None if there are none."""
    words = [match.span() for match in re.finditer(r"\S+", text)]
    spans = [(words[at][0], words[at + count - 1][1]) for at in range(len(words) - count + 1)]
    apart = [span for span in spans if taken is None or span[1] <= taken[0] or span[0] >= taken[1]]
    if not apart:
        return None
    return rng.choice([span for span in apart if _begins_sentence(text[: span[0]])] or apart)


def _exchanged(first: str, one: Span, second: str, other: Span) -> tuple[str, str]:
    return (
        first[: one[0]] + second[slice(*other)] + first[one[1] :],
        second[: other[0]] + first[slice(*one)] + second[other[1] :],
    )


def _begins_sentence(before: str) -> bool:
    return not before.strip() or "\n" in before[len(before.rstrip()) :] or before.rstrip()[-1] in ".!?\"')"


def _without(text: str, start: int, end: int) -> str:
    return f"{text[:start].rstrip(' ')} {text[end:].lstrip(' ')}".strip(" ")
