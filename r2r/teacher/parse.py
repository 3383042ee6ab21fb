"""How the teacher's JSON reply is read: strictly, as all of `r2r.replies`.

Owns the reply's format: passages in rank order, each with its identifier and the texts asked for. Does not ask again,
and does not check what the reasons say.

    parse_reply('{"ranked_passages": [{"identifier": 2}, {"identifier": 1}]}', 2, "none").order == [2, 1]
"""

from __future__ import annotations

import re

from r2r.replies import DECODER, Parsed, Unsound, answer, only_object, parse_order, settle, texts
from r2r.teacher.prompt import fields

__all__ = ["Parsed", "parse_order", "parse_reply"]

_EVIDENCE = "direct_answer_sentence"


def parse_reply(text: str, n: int, reasoning: str) -> Parsed:
    """Read the JSON reply about `n` passages for which the reasons of `reasoning` were asked."""
    mended: set[str] = set()
    try:
        ranked = _ranked_passages(text, mended)
        numbers = [_identifier(passage, n, mended) for passage in ranked]
        by_position: dict[int, dict] = {}
        for number, passage in zip(numbers, ranked, strict=True):
            by_position.setdefault(number, passage)
        # A passage put in at the end would have no reasons.
        if fields(reasoning) and len(by_position) < n:
            raise Unsound(f"identifiers are no permutation of 1 to {n}")
        order = settle(numbers, n, mended)
        found = {
            # A passage may hold no answer, and then has no sentence to show; a reason there always is.
            name: texts(name, [by_position[at].get(name) for at in range(1, n + 1)], mended, name == _EVIDENCE)
            for name in fields(reasoning)
        }
    except Unsound as error:
        return Parsed("failed", str(error))
    empty = [""] * n
    return Parsed(
        "repaired" if mended else "ok",
        order=order,
        direct=found.get("direct_reason", empty),
        evidence=found.get(_EVIDENCE, empty),
        comparison=found.get("listwise_reason", empty),
        mended=sorted(mended),
    )


def _ranked_passages(text: str, mended: set[str]) -> list[dict]:
    """Return what is listed under ranked_passages, in the order in which it stands there."""
    try:
        reply = DECODER.decode(text)
    except (ValueError, RecursionError):
        reply = only_object(answer(text, mended), mended)
    ranked = reply.get("ranked_passages") if isinstance(reply, dict) else None
    if not isinstance(ranked, list) or not all(isinstance(passage, dict) for passage in ranked):
        raise Unsound("no list of objects under ranked_passages")
    # Where a rank or a score beside each passage tells another order, the list's own is only the one shown.
    for name in ranked[0] if ranked else ():
        told = [passage.get(name) for passage in ranked]
        numeric = all(isinstance(value, int | float) for value in told)
        if _TOLD.search(name) and numeric and told != sorted(told, reverse="rank" not in name.lower()):
            raise Unsound("not listed in the order of its ranks or scores")
    return ranked


_TOLD = re.compile("rank|score|relevance", re.IGNORECASE)
_IDENTIFIER = re.compile(r"(?:passage )?(?:\[([0-9]{1,9})\]|([0-9]{1,9}))", re.IGNORECASE)


def _identifier(passage: dict, n: int, mended: set[str]) -> int:
    number = passage.get("identifier")
    if isinstance(number, str) and (match := _IDENTIFIER.fullmatch(number.strip())):
        mended.add("identifier was text")
        number = int(match[1] or match[2])
    if type(number) is not int or not 1 <= number <= n:
        raise Unsound(f"identifiers are no permutation of 1 to {n}")
    return number
