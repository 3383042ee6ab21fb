"""What the student reads and writes: its prompt, its labels and its reply.

Owns the format, the same for training and ranking. The reply gives the order first, `C > A > B`, and then a JSON list
with the evidence and reasons of each passage, in that order. Ranking reads the first label only; the list is written if
explanations are asked for. (With `--order-position last`, the list comes first, sorted by label.)

    message = prompt("how long do fleas live", ["Dogs bark.", "A flea lives 100 days."])
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from typing import Any

from r2r.errors import BadInput
from r2r.identity import digest
from r2r.reasons import sentences
from r2r.replies import DECODER, Parsed, Unsound, parse_order, text_field
from r2r.student import likelihood

LABELS = string.ascii_uppercase[:20]

# Names in the reply; the tables have columns of the same names.
_DIRECT, _COMPARISON = ("evidence", "direct"), ("comparison",)


def prompt(query: str, passages: list[str], labels: Sequence[str] = LABELS, language: str | None = None) -> str:
    """Return the message for up to 20 passages, with the first of `labels` for the first one.

    language: of the reasons, by its English name; None says nothing of it, as in training.

    It begins with fixed text and the query: the engine caches this prefix. A causal model only sees what came before,
    so labels follow their passages, and the query is repeated at the end.
    """
    listed = "\n\n".join(f"{text} [{label}]" for text, label in zip(passages, labels, strict=False))
    return (
        f"The passages below may answer a query. The label of a passage stands behind it.\n\n"
        f"Query: {query}\n\n{listed}\n\n"
        f"Query: {query}\n\nName the labels in the order in which their passages answer the query, the best first. "
        f"Then give the reasons{f' in {language}' if language else ''}."
    )


def fields(reasoning: str) -> tuple[str, ...]:
    """Return the names of the texts that each passage has in the reply, in the order of the reply."""
    return _DIRECT * (reasoning in ("direct", "both")) + _COMPARISON * (reasoning in ("comparison", "both"))


def order_line(labels: list[str]) -> str:
    """Return the line that gives an order, best first."""
    return " > ".join(labels)


def reply(labels: list[str], reasons: list[dict[str, str]], reasoning: str) -> str:
    """Return the reply with the order `labels`, best first. `reasons` are aligned with `labels`."""
    names = fields(reasoning)
    if not names:
        return order_line(labels)
    listed = [
        {"passage": label} | {name: one[name] for name in names} for label, one in zip(labels, reasons, strict=True)
    ]
    return order_line(labels) + "\n" + json.dumps(listed, ensure_ascii=False, separators=(",", ":"))


def grammar(labels: list[str], passages: list[str], names: list[list[str]], reasoning: str, longest: int) -> str:
    """Return the grammar (EBNF) of the JSON list of reasons for `labels`, in that order.

    passages: the texts, aligned with `labels`; evidence is one of its sentences, or empty. names: aligned, too; up to
    two of these labels may stand in a comparison. So a student cannot make either up, however little it has learned.
    longest: most characters of a text, not counting labels. No text has a quotation mark.
    """
    terms: list[str] = []
    for label, passage, others in zip(labels, passages, names, strict=True):
        name = _one_of([f"[{other}]" for other in others])
        named = f" | half {name} half | third {name} third {name} third" if others else ""
        texts = {
            "evidence": _one_of([_quoted(sentence) for sentence in ("", *sentences(passage, longest))]),
            "direct": r'"\"" whole "\""',
            "comparison": rf'"\"" (whole{named}) "\""',
        }
        terms.append(_quoted(f'{"," if terms else "["}{{"passage":"{label}"'))
        for field in fields(reasoning):
            terms += [_quoted(f',"{field}":'), texts[field]]
        terms.append(_quoted("}"))
    # One set of characters, without escapes: xgrammar compiles a repeated choice hundreds of times slower.
    plain = r'[^"\\\[\]\x00-\x1f]'
    parts = {"whole": (1, longest), "half": (0, longest // 2), "third": (0, longest // 3)}
    rules = [f"{part} ::= {plain}{{{least},{most}}}" for part, (least, most) in parts.items()]
    return "\n".join([f"root ::= {' '.join(terms)} {_quoted(']')}", *rules])


def _one_of(texts: list[str]) -> str:
    """Return the grammar of a choice between fixed texts."""
    return f"({' | '.join(map(_quoted, texts))})"


def _quoted(text: str) -> str:
    """Return the text as a JSON string. Grammars spell fixed texts in the same way."""
    return json.dumps(text, ensure_ascii=False)


def neighbours(labels: list[str], order: list[str]) -> list[list[str]]:
    """Return, for each of `labels`, the labels directly before and after it in `order`."""
    return [order[max(at - 1, 0) : at] + order[at + 1 : at + 2] for at in map(order.index, labels)]


def read_reasons(text: str, labels: list[str], reasoning: str) -> list[dict[str, str]]:
    """Return the reasons in a JSON list written for `labels`, aligned with them. Raises Unsound for any other text."""
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
    columns = [text_field(name, [one.get(name) for one in listed], set(), name == "evidence") for name in names]
    return [dict(zip(names, column, strict=True)) for column in zip(*columns, strict=True)]


def finished(text: str) -> tuple[int, str]:
    """Return how many objects at the start of a JSON list are whole, and the list of these alone."""
    count, end = 0, 0
    while text[end : end + 1] in ("[", ","):
        try:
            _, end = DECODER.raw_decode(text, end + 1)
        except ValueError:
            break
        count += 1
        listed = text[:end] + "]"
    return count, listed if count else "[]"


def order_grammar(labels: list[str]) -> str:
    """Return the grammar (EBNF) of an order line with as many labels. It admits repeated labels."""
    return f'root ::= one (" > " one){{{len(labels) - 1}}}\none ::= [{labels[0]}-{labels[-1]}]\n'


def read_order(text: str, labels: list[str]) -> Parsed:
    """Read an order line like a listwise reply in free form, with label A as passage 1."""
    return parse_order(re.sub(r"\b[A-T]\b", lambda label: f"[{LABELS.index(label[0]) + 1}]", text), len(labels))


def numbered(comparison: str) -> str:
    """Return a student's comparison with each `[label]` as the passage's number, from 1; 0 if it is no label."""
    names = dict(zip(LABELS, range(1, len(LABELS) + 1), strict=True))
    return re.sub(r"\[([A-Z]|[0-9]+)\]", lambda match: f"[{names.get(match[1], 0)}]", comparison)


def label_ids(tokenizer: Any, model: str) -> list[int]:
    """Return the token of each label as the first token of a reply. Raises BadInput, which names the model, if one
    is not a single token."""
    tokens = []
    for label in LABELS:
        alone = tokenizer.encode(label, add_special_tokens=False)
        leading = tokenizer.encode(f"{label} > {LABELS[0]}", add_special_tokens=False)
        if len(alone) != 1 or leading[:1] != alone:
            raise BadInput(f"{model}: its tokenizer splits the label {label}; a student needs A to T as single tokens")
        tokens += alone
    return tokens


def rename_brackets(comparison: str, names: dict[str, str]) -> str:
    """Return a comparison with each `[old]` replaced by `[new]`, for the old names in `names`."""
    return re.sub(r"\[(\w+)\]", lambda match: f"[{names.get(match[1], match[1])}]", comparison)


def version(scores: str | None) -> str:
    """Return the version of all prompts that a student reads with these scores, for the identity of a stage."""
    return digest([VERSION, likelihood.VERSION]) if scores == "likelihood" else VERSION


# Of prompt and reply, for the identity of what was made with them.
VERSION = digest([prompt("QUERY", ["FIRST", "SECOND"]), reply(["A"], [dict.fromkeys(fields("both"), "")], "both")])[:12]
