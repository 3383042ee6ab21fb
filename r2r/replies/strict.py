"""What all readers of replies share: the result, the order, the thinking, JSON and the texts in it.

A reader repairs only what is beyond doubt and adds the kind of each repair to the set `repairs`. Otherwise it raises
Unsound. Does not know any format.

    only_object('```json\\n{"a": 1}\\n```', repairs) == {"a": 1}
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from r2r.datasets.documents import clean


class Parsed(NamedTuple):
    """One reply, read. All lists are empty if it failed.

    status: "ok", "repaired" or "failed". reason: why it failed. order: positions from 1, best first. direct, evidence,
    comparison: one text a passage, in the order shown, empty if not asked for. repairs: each kind of repair once.
    """

    status: str
    reason: str = ""
    order: list[int] = []  # noqa: RUF012 (never changed)
    direct: list[str] = []  # noqa: RUF012
    evidence: list[str] = []  # noqa: RUF012
    comparison: list[str] = []  # noqa: RUF012
    repairs: list[str] = []  # noqa: RUF012


class Unsound(Exception):
    """A reply that gives no clear answer; the message says why."""


def complete_order(numbers: list[int], n: int, repairs: set[str]) -> list[int]:
    """Return the order of all `n` passages: first the ones in `numbers`, then the missing ones as shown.

    Raises Unsound if `numbers` names less than half of them, or mostly other numbers.
    """
    if 0 in numbers:
        raise Unsound("names a passage 0: it may count from 0")
    named = list(dict.fromkeys(numbers))
    known = [number for number in named if number <= n]
    if 2 * len(known) < n or len(known) < min(n, 2):
        raise Unsound(f"names {len(known)} of {n} passages")
    if len(named) > 2 * len(known):
        raise Unsound(f"most of its numbers are not from 1 to {n}")
    missing = [number for number in range(1, n + 1) if number not in known]
    repairs |= {"duplicate dropped"} if len(numbers) > len(named) else set()
    repairs |= {"out of range dropped"} if len(named) > len(known) else set()
    repairs |= {"missing appended"} if missing else set()
    return known + missing


_THINKING = re.compile(r"[<\[◁]\s?(/?)\s?(?:think|thinking|thought|reasoning)\s?[>\]▷]", re.IGNORECASE)


def without_thinking(text: str, repairs: set[str]) -> str:
    """Return the text outside of `<think>…</think>`. Raises Unsound if the thinking does not end."""
    kept, start, thinking = "", 0, False
    for tag in _THINKING.finditer(text):
        repairs.add("thinking removed")
        if not tag[1]:
            kept += "" if thinking else text[start : tag.start()] + "\n"
            thinking = True
            continue
        if not thinking:
            # Many chat templates write the opening tag themselves: the reply then starts inside the thinking.
            kept = ""
        start, thinking = tag.end(), False
    if thinking:
        raise Unsound("its thinking never ends")
    return kept + text[start:]


def decoded(text: str, repairs: set[str]) -> Any:
    """Return the JSON value that a reply is, or the one JSON object that it holds. Raises Unsound."""
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError):
        return only_object(without_thinking(text, repairs), repairs)


def only_object(text: str, repairs: set[str]) -> dict[str, Any]:
    """Return the one JSON object in `text`; the same object twice counts as one. Raises Unsound."""
    found, around, at = [], "", 0
    while (start := text.find("{", at)) >= 0:
        try:
            reply, end = DECODER.raw_decode(text, start)
        except RecursionError:
            raise Unsound("not JSON: nested too deep") from None
        except ValueError as error:
            raise Unsound(f"not JSON: {str(error).partition(':')[0]}") from None
        found.append(reply)
        around, at = around + text[at:start], end
    if not found:
        raise Unsound("not JSON: holds no object")
    if any(reply != found[0] for reply in found):
        raise Unsound("holds several JSON objects")
    around, fences = FENCE.subn("", around + text[at:])
    repairs |= {"fences removed"} if fences else set()
    repairs |= {"prose removed"} if around.strip() or len(found) > 1 else set()
    return found[0]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


# Not strict: many models write raw line ends and tabs inside a text, and they do no harm.
DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_unique, parse_constant=_no_constant)
FENCE = re.compile(r"```[a-z]*", re.IGNORECASE)


def text_field(name: str, values: list[Any], repairs: set[str], may_be_empty: bool = False) -> list[str]:
    """Return the field `name` of all passages as stripped, valid Unicode. Raises Unsound if a value is no text."""
    if not all(isinstance(value, str) for value in values):
        raise Unsound(f"{name} is missing or no text")
    if not may_be_empty and not all(value.strip() for value in values):
        raise Unsound(f"{name} is empty")
    cleaned = [clean(value) for value in values]
    repairs |= {"broken character replaced"} if any(broken for _, broken in cleaned) else set()
    return [value.strip() for value, _ in cleaned]
