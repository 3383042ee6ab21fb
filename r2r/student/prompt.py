"""What the student reads and writes: its prompt, its labels and its reply.

Owns the format that training and ranking share, so that both see the same tokens. The reply gives the order first,
`C > A > B`, and then a JSON list with a passage's evidence and reasons, in that order. Ranking needs the first label
only; the list is written where somebody asks for it. (Written the other way round, for comparison, the list comes first
and goes by label.)

    message = prompt("how long do fleas live", ["Dogs bark.", "A flea lives 100 days."])
"""

from __future__ import annotations

import json
import re
import string

from r2r.config import BadInput
from r2r.replies import DECODER, Parsed, Unsound, parse_order, texts

LABELS = string.ascii_uppercase[:20]

# Names in the reply, and the columns of the tables that they come from and go to.
_DIRECT, _COMPARISON = ("evidence", "direct"), ("comparison",)


def prompt(query: str, passages: list[str]) -> str:
    """Return the message for up to 20 passages. What all messages say comes first and then the query, so that an engine
    reads both once for many. The label stands behind its passage and the query comes again after them all: a model that
    reads from left to right then knows both when it must tell the passages apart."""
    listed = "\n\n".join(f"{text} [{label}]" for text, label in zip(passages, LABELS, strict=False))
    return (
        f"The passages below may answer a query. The label of a passage stands behind it.\n\n"
        f"Query: {query}\n\n{listed}\n\n"
        f"Query: {query}\n\nName the labels in the order in which their passages answer the query, the best first. "
        f"Then give the reasons."
    )


def fields(reasoning: str) -> tuple[str, ...]:
    """Return the texts that each passage has in the reply, in the order in which they are written."""
    return _DIRECT * (reasoning in ("direct", "both")) + _COMPARISON * (reasoning in ("comparison", "both"))


def order_line(labels: list[str]) -> str:
    return " > ".join(labels)


def reply(labels: list[str], reasons: list[dict[str, str]], reasoning: str) -> str:
    """Return the reply that names `labels`, best first, with the reasons of each, in the same order."""
    names = fields(reasoning)
    if not names:
        return order_line(labels)
    listed = [
        {"passage": label} | {name: one[name] for name in names} for label, one in zip(labels, reasons, strict=True)
    ]
    return order_line(labels) + "\n" + json.dumps(listed, ensure_ascii=False, separators=(",", ":"))


def schema(labels: list[str], reasoning: str, longest: int) -> dict:
    """Return the JSON schema of the reasons for `labels`, in that order; each text has up to `longest` characters."""
    text = {"type": "string", "maxLength": longest}
    columns = {name: text if name == "evidence" else text | {"minLength": 1} for name in fields(reasoning)}
    passages = [
        {
            "type": "object",
            "properties": {"passage": {"const": label}} | columns,
            "required": ["passage", *columns],
            "additionalProperties": False,
        }
        for label in labels
    ]
    return {"type": "array", "prefixItems": passages, "items": False, "minItems": len(labels), "maxItems": len(labels)}


def read_reasons(text: str, labels: list[str], reasoning: str) -> list[dict[str, str]]:
    """Read the JSON list of reasons for `labels`. Raises Unsound, saying what is wrong, unless it is sound."""
    try:
        listed = DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise Unsound(f"not JSON: {str(error).partition(':')[0]}") from None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise Unsound("no list of objects")
    if [one.get("passage") for one in listed] != labels:
        raise Unsound("reasons are not for the passages asked for")
    names = fields(reasoning)
    # A passage may hold no answer, and then has no sentence to show; a reason there always is.
    columns = [texts(name, [one.get(name) for one in listed], set(), name == "evidence") for name in names]
    return [dict(zip(names, column, strict=True)) for column in zip(*columns, strict=True)]


def order_pattern(labels: list[str]) -> str:
    """Return the regular expression of an order line of so many labels. It cannot say that none comes twice."""
    one = f"[{labels[0]}-{labels[-1]}]"
    return f"{one}( > {one}){{{len(labels) - 1}}}"


def read_order(text: str, labels: list[str]) -> Parsed:
    """Read an order line as a free listwise reply about the passages, whose numbers the labels stand for."""
    return parse_order(re.sub(r"\b[A-T]\b", lambda label: f"[{LABELS.index(label[0]) + 1}]", text), len(labels))


def numbered(comparison: str) -> str:
    """Return a student's comparison with passages' numbers, from 1, for their labels; 0 for what is no label."""
    names = dict(zip(LABELS, range(1, len(LABELS) + 1), strict=True))
    return re.sub(r"\[([A-Z]|[0-9]+)\]", lambda match: f"[{names.get(match[1], 0)}]", comparison)


def label_ids(tokenizer, model: str) -> list[int]:
    """Return the token of each label as the first token of a reply. Raises BadInput where one is not a single token."""
    found = []
    for label in LABELS:
        alone = tokenizer.encode(label, add_special_tokens=False)
        leading = tokenizer.encode(f"{label} > {LABELS[0]}", add_special_tokens=False)
        if len(alone) != 1 or leading[:1] != alone:
            raise BadInput(f"{model}: its tokenizer splits the label {label}; a student needs A to T as single tokens")
        found += alone
    return found


_NUMBERS = r"\d+(?:(?:\s*,\s*(?:and\s+|or\s+)?|\s+and\s+|\s+or\s+|\s*&\s*)\d+)*"
_NAMED = re.compile(rf"\[(\d+)\]|\b(passages?|Passages?)\s+({_NUMBERS})")


def rename(comparison: str, names: dict[int, str]) -> str:
    """Return a teacher's comparison with its passage numbers, `[2]` or `passages 2 and 3`, given other names.

    A number that names none of the passages shown is left as it stands.
    """

    def one(number: str) -> str:
        return f"[{names[int(number)]}]" if int(number) in names else number

    def each(match: re.Match) -> str:
        if match[1]:
            return f"[{names[int(match[1])]}]" if int(match[1]) in names else match[0]
        return f"{match[2]} " + re.sub(r"\d+", lambda number: one(number[0]), match[3])

    return _NAMED.sub(each, comparison)


def rename_brackets(comparison: str, names: dict[str, str]) -> str:
    """Return a comparison with `[old]` replaced by `[new]` wherever `names` knows the old name."""
    return re.sub(r"\[(\w+)\]", lambda match: f"[{names.get(match[1], match[1])}]", comparison)
