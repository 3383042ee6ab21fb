"""The content words of a reason, and how many of them a passage has.

Owns what a content word is: a word of a reason that is no function word and does not come from the query, which every
reason repeats. Endings are cut, so that "ranks" and "ranking" are one word.

    own_and_others(row, 0)    # words of the first reason, and those of them in each passage
"""

from __future__ import annotations

import re
from functools import lru_cache

from r2r.judge.explained import Explained
from r2r.reasons import fold

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_ENDINGS = re.compile(r"(?:['\u2019]s|ing|ies|ed|es|ly|s|e|y)$")
_FUNCTION_WORDS = """
a about above after all also although an and any are as at be because been being below both but by can could did do
does for from had has have how however if in into is it its itself may might more most no nor not of on only or
other our out over own should so some such than that the their them then there these they this those through to too
under until up very was were what when where which while who whom why will with would you your
"""
_FUNCTION = frozenset(_FUNCTION_WORDS.split())


@lru_cache(maxsize=8192)
def words(text: str) -> frozenset[str]:
    """Return the words of a text without their endings; function words are left out."""
    found = (word for word in _WORD.findall(text.lower()) if word not in _FUNCTION)
    return frozenset(_ENDINGS.sub("", word) if len(word) > 4 else word for word in found)


def own_and_others(row: Explained, at: int) -> tuple[frozenset[str], frozenset[str], list[frozenset[str]]] | None:
    """Return the content words of a direct reason, those of them in its own passage, and those in each other passage.

    Passages with the same text are one: what fits one fits the other. None if the passage has no direct reason, its
    reason has no content word, or there is no other passage.
    """
    content = words(row.direct[at]) - words(row.query)
    own = fold(row.texts[at])
    others = [words(text) for text in row.texts if fold(text) != own]
    if not content or not others:
        return None
    return content, content & words(row.texts[at]), [content & other for other in others]
