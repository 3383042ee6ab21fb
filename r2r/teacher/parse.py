"""How the teacher's reply is read: strictly, since an order guessed from a broken reply looks like a ranking.

Owns the reading of one reply. Does not ask again and does not repair: what is not sound is failed, with a reason.

    parse_reply('{"ranked_passages": [{"identifier": 2}, {"identifier": 1}]}', 2, "none").order == [2, 1]
"""

from __future__ import annotations

import json
from typing import NamedTuple

from r2r.teacher.prompt import fields


class Parsed(NamedTuple):
    """One reply, read. `status` is "ok" or "failed"; `reason` says why it failed.

    `order` holds positions from 1, best first; `direct`, `evidence` and `comparison` are aligned with the passages as
    shown, each empty where it was not asked for. All four are empty where the reply failed.
    """

    status: str
    reason: str = ""
    order: list[int] = []  # noqa: RUF012 (never changed)
    direct: list[str] = []  # noqa: RUF012
    evidence: list[str] = []  # noqa: RUF012
    comparison: list[str] = []  # noqa: RUF012


def parse_reply(text: str, n: int, reasoning: str) -> Parsed:
    """Read the JSON reply about `n` passages for which the reasons of `reasoning` were asked."""
    try:
        # Line ends and tabs inside a text are written as they are by many a model, and harm nothing.
        reply = json.loads(text, strict=False)
    except ValueError as error:
        return Parsed("failed", f"not JSON: {error}")
    ranked = reply.get("ranked_passages") if isinstance(reply, dict) else None
    if not isinstance(ranked, list) or not all(isinstance(passage, dict) for passage in ranked):
        return Parsed("failed", "no list of objects under ranked_passages")
    order = [passage.get("identifier") for passage in ranked]
    if sorted(order, key=str) != sorted(range(1, n + 1), key=str) or any(type(number) is not int for number in order):
        return Parsed("failed", f"identifiers are no permutation of 1 to {n}")
    by_position = {passage["identifier"]: passage for passage in ranked}
    texts: dict[str, list[str]] = {}
    for name in fields(reasoning):
        values = [by_position[position].get(name) for position in range(1, n + 1)]
        if not all(isinstance(value, str) for value in values):
            return Parsed("failed", f"{name} is missing or no text")
        # A passage may hold no answer, and then has no sentence to show; a reason there always is.
        if name != "direct_answer_sentence" and not all(value.strip() for value in values):
            return Parsed("failed", f"{name} is empty")
        texts[name] = [value.strip() for value in values]
    empty = [""] * n
    return Parsed(
        "ok",
        order=order,
        direct=texts.get("direct_reason", empty),
        evidence=texts.get("direct_answer_sentence", empty),
        comparison=texts.get("listwise_reason", empty),
    )
