"""A passage without its evidence, and its evidence alone; and the same of random words of the same number.

Owns where to cut. Does not rank.

    cuts("A flea lives 100 days. It jumps far on most dogs.", "A flea lives 100 days.", random.Random(0)).without
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple


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
    found = re.search(r"\s+".join(map(re.escape, evidence.split())), text) if evidence.strip() else None
    if found is None:
        return None
    words, count = [match.span() for match in re.finditer(r"\S+", text)], len(evidence.split())
    spans = [(words[at][0], words[at + count - 1][1]) for at in range(len(words) - count + 1)]
    apart = [span for span in spans if span[1] <= found.start() or span[0] >= found.end()]
    if not apart:
        return None
    start, end = rng.choice([span for span in apart if _begins_sentence(text[: span[0]])] or apart)
    return Cuts(
        without=_without(text, *found.span()),
        without_random=_without(text, start, end),
        only=found[0],
        only_random=text[start:end],
    )


def _begins_sentence(before: str) -> bool:
    return not before.strip() or "\n" in before[len(before.rstrip()) :] or before.rstrip()[-1] in ".!?\"')"


def _without(text: str, start: int, end: int) -> str:
    return f"{text[:start].rstrip(' ')} {text[end:].lstrip(' ')}".strip(" ")
