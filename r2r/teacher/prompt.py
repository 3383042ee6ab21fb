"""The teacher's prompt, and the JSON schema of its reply.

Owns the wording, in `prompt.j2` beside this file. Its hash is the prompt's version, which is part of every row's key.

    print(prompt("how long do fleas live", ["A flea lives ...", "Dogs ..."], "both"))
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from r2r.templates import wording

_TEMPLATE, VERSION = wording(Path(__file__).with_name("prompt.j2"))


def prompt(query: str, passages: list[str], reasoning: str, language: str | None = None) -> str:
    """Return the message about one query. The passages are numbered from 1, in the order given.

    language: of the reasons, by its English name; None leaves it to the teacher.
    """
    direct, comparison = asked(reasoning)
    text = _TEMPLATE.render(query=query, passages=passages, direct=direct, comparison=comparison)
    # Not in the template, whose hash is the version: prompts without a language are as they were.
    return f"{text}\n\nWrite the reasons in {language}." if language else text


def asked(reasoning: str) -> tuple[bool, bool]:
    """Return whether direct reasons with evidence are asked for, and whether comparison reasons are."""
    return reasoning in ("direct", "both"), reasoning in ("comparison", "both")


def fields(reasoning: str) -> list[str]:
    """Return the names of each passage's texts in the reply, in the order of the reply."""
    direct, comparison = asked(reasoning)
    return ["direct_answer_sentence", "direct_reason"] * direct + ["listwise_reason"] * comparison


def schema(n: int, reasoning: str, longest: int) -> dict[str, Any]:
    """Return the JSON schema of a reply about `n` passages, with texts of at most `longest` characters.

    A schema cannot forbid that a passage comes twice; `parse.parse_reply` checks it.
    """
    properties: dict[str, Any] = {"identifier": {"type": "integer", "enum": list(range(1, n + 1))}}
    for name in fields(reasoning):
        properties[name] = {"type": "string", "maxLength": longest}
        if name != "direct_answer_sentence":
            properties[name]["minLength"] = 1
    passage = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"ranked_passages": {"type": "array", "items": passage, "minItems": n, "maxItems": n}},
        "required": ["ranked_passages"],
        "additionalProperties": False,
    }
