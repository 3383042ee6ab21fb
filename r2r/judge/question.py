"""What the judge is asked about one query, and how its reply is read.

Owns the wording, in `question.j2` beside this file, the JSON schema and the reading, as strict as that of all replies
(`r2r.replies`). Does not ask (`judging.py`), nor count (`supported.py`, `right.py`).

    read('{"judged": [{"passage": 1, "comparison": "right"}]}', [Written(1, "", "It is above [2].")])[0].comparison
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r2r.replies import Unsound, decoded, text_field
from r2r.templates import wording

CLAIM = ("supported", "not in the passage", "contradicted")
COMPARISON = ("right", "empty", "wrong")
_NONE = "none"
# A reason is a sentence or two.
_MOST_CLAIMS, _CLAIM_CHARS = 8, 200

_TEMPLATE, VERSION = wording(Path(__file__).with_name("question.j2"))


class Written(NamedTuple):
    """What was written about the passage that is shown with this number, from 1. Comparisons name passages so, too."""

    number: int
    direct: str
    comparison: str


class Verdict(NamedTuple):
    """direct: the worst verdict of the reason's claims, one of CLAIM. comparison: one of COMPARISON. Both are "" where
    nothing was written. claims: "verdict: claim", a line each."""

    direct: str
    comparison: str
    claims: str


def prompt(query: str, passages: list[str], written: Sequence[Written]) -> str:
    """Return the message about one query. The passages are numbered from 1, in the order given."""
    direct, comparison = _asked(written)
    return _TEMPLATE.render(
        query=query, passages=passages, written=[one._asdict() for one in written], direct=direct, comparison=comparison
    )


def schema(written: Sequence[Written]) -> dict[str, Any]:
    """Return the JSON schema of the reply. It cannot say which reasons there are; `read` checks that."""
    direct, comparison = _asked(written)
    properties: dict[str, Any] = {"passage": {"type": "integer", "enum": [one.number for one in written]}}
    if direct:
        claim = {
            "claim": {"type": "string", "minLength": 1, "maxLength": _CLAIM_CHARS},
            "verdict": _choice(CLAIM),
        }
        properties["claims"] = {"type": "array", "items": _object(claim), "maxItems": _MOST_CLAIMS}
    if comparison:
        properties["comparison"] = _choice([*COMPARISON, _NONE])
    judged = {"type": "array", "items": _object(properties), "minItems": len(written), "maxItems": len(written)}
    return _object({"judged": judged})


def read(text: str, written: Sequence[Written]) -> list[Verdict]:
    """Return the verdicts of a reply, aligned with `written`. Raises Unsound for any reply that leaves a doubt."""
    reply = decoded(text, set())
    judged = reply.get("judged") if isinstance(reply, dict) else None
    if not isinstance(judged, list) or not all(isinstance(one, dict) for one in judged):
        raise Unsound("no list of objects under judged")
    if [one.get("passage") for one in judged] != [one.number for one in written]:
        raise Unsound("judged are not the passages that were asked about")
    return [_verdict(one, about) for one, about in zip(judged, written, strict=True)]


def _verdict(judged: dict[str, Any], about: Written) -> Verdict:
    claims = judged.get("claims", [])
    if not isinstance(claims, list) or not all(isinstance(claim, dict) for claim in claims):
        raise Unsound("claims is no list of objects")
    verdicts = [claim.get("verdict") for claim in claims]
    if bool(claims) != bool(about.direct) or not all(verdict in CLAIM for verdict in verdicts):
        raise Unsound("claims without a verdict, or none for a reason")
    texts = text_field("claim", [claim.get("claim") for claim in claims], set())
    comparison = judged.get("comparison", _NONE)
    if comparison not in (COMPARISON if about.comparison else (_NONE,)):
        raise Unsound("comparison without a verdict")
    return Verdict(
        direct=max(verdicts, key=CLAIM.index) if verdicts else "",
        comparison=comparison if about.comparison else "",
        claims="\n".join(f"{verdict}: {claim}" for verdict, claim in zip(verdicts, texts, strict=True)),
    )


def _asked(written: Sequence[Written]) -> tuple[bool, bool]:
    return any(one.direct for one in written), any(one.comparison for one in written)


def _choice(values: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
