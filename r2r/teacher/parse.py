"""Reading the teacher's JSON reply, as strictly as all replies (`r2r.replies`).

Owns the reply's format: passages in rank order, each with its identifier and the texts asked for. Does not check what
the reasons say (`r2r.reasons`), and does not ask again.

    parse_reply('{"ranked_passages": [{"identifier": 2}, {"identifier": 1}]}', 2, "none").order == [2, 1]
"""

from __future__ import annotations

import re
from typing import Any

from r2r.replies import Parsed, Unsound, complete_order, decoded, text_field
from r2r.teacher.prompt import fields

_EVIDENCE = "direct_answer_sentence"


def parse_reply(text: str, n: int, reasoning: str) -> Parsed:
    """Read a JSON reply about `n` passages. reasoning: its reasons: none, direct, comparison or both."""
    repairs: set[str] = set()
    try:
        ranked = _ranked_passages(text, repairs)
        numbers = [_identifier(passage, n, repairs) for passage in ranked]
        by_position: dict[int, dict[str, Any]] = {}
        for number, passage in zip(numbers, ranked, strict=True):
            by_position.setdefault(number, passage)
        # A missing passage has no reasons, so it cannot be appended.
        if fields(reasoning) and len(by_position) < n:
            raise Unsound(f"identifiers are no permutation of 1 to {n}")
        order = complete_order(numbers, n, repairs)
        found = {
            # Only evidence may be empty, since a passage may hold no answer.
            name: text_field(name, [by_position[at].get(name) for at in range(1, n + 1)], repairs, name == _EVIDENCE)
            for name in fields(reasoning)
        }
    except Unsound as error:
        return Parsed("failed", str(error))
    direct, evidence, comparison = (found.get(key, [""] * n) for key in ("direct_reason", _EVIDENCE, "listwise_reason"))
    return Parsed("repaired" if repairs else "ok", "", order, direct, evidence, comparison, sorted(repairs))


def _ranked_passages(text: str, repairs: set[str]) -> list[dict[str, Any]]:
    """Return the objects under ranked_passages, in the order of the reply. Raises Unsound."""
    reply = decoded(text, repairs)
    ranked = reply.get("ranked_passages") if isinstance(reply, dict) else None
    if not isinstance(ranked, list) or not all(isinstance(passage, dict) for passage in ranked):
        raise Unsound("no list of objects under ranked_passages")
    # If ranks or scores contradict the order of the list, the list may just repeat the order shown.
    for name in ranked[0] if ranked else ():
        values = [passage.get(name) for passage in ranked]
        numeric = all(isinstance(value, int | float) for value in values)
        if _RANK_OR_SCORE.search(name) and numeric and values != sorted(values, reverse="rank" not in name.lower()):
            raise Unsound("not listed in the order of its ranks or scores")
    return ranked


_RANK_OR_SCORE = re.compile("rank|score|relevance", re.IGNORECASE)
_IDENTIFIER = re.compile(r"(?:passage )?(?:\[([0-9]{1,9})\]|([0-9]{1,9}))", re.IGNORECASE)


def _identifier(passage: dict[str, Any], n: int, repairs: set[str]) -> int:
    """Return a passage's number, from 1 to `n`. Raises Unsound."""
    number = passage.get("identifier")
    if isinstance(number, str) and (match := _IDENTIFIER.fullmatch(number.strip())):
        repairs.add("identifier was text")
        number = int(match[1] or match[2])
    if type(number) is not int or not 1 <= number <= n:
        raise Unsound(f"identifiers are no permutation of 1 to {n}")
    return number
