"""What the teacher is asked: the prompt, and the JSON schema of its reply.

Owns the wording, in `prompt.j2` beside this file; its hash is the prompt's version and part of every row's key.

    print(prompt("how long do fleas live", ["A flea lives ...", "Dogs ..."], "both"))
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from jinja2 import Environment, StrictUndefined

_SOURCE = Path(__file__).with_name("prompt.j2").read_text(encoding="utf-8")
_TEMPLATE = Environment(undefined=StrictUndefined, autoescape=False).from_string(_SOURCE)

VERSION = hashlib.sha256(_SOURCE.encode()).hexdigest()[:12]


def prompt(query: str, passages: list[str], reasoning: str) -> str:
    """Return the message for one query and its passages, numbered from 1 in the order given."""
    direct, comparison = asked(reasoning)
    return _TEMPLATE.render(query=query, passages=passages, direct=direct, comparison=comparison)


def asked(reasoning: str) -> tuple[bool, bool]:
    """Return whether direct reasons (with their evidence), and whether comparison reasons, are asked for."""
    return reasoning in ("direct", "both"), reasoning in ("comparison", "both")


def fields(reasoning: str) -> list[str]:
    """Return the names of the texts that each passage has in the reply, in the order in which they are written."""
    direct, comparison = asked(reasoning)
    return ["direct_answer_sentence", "direct_reason"] * direct + ["listwise_reason"] * comparison


def schema(n: int, reasoning: str, longest: int) -> dict:
    """Return the JSON schema of a reply about `n` passages; no text in it is longer than `longest` characters.

    It cannot say that no passage is named twice: that is for `parse.parse_reply` to check.
    """
    properties: dict = {"identifier": {"type": "integer", "enum": list(range(1, n + 1))}}
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
