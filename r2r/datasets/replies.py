"""Recorded listwise replies of other rerankers as annotations, one JSON object a line:

    {"qid": "q1", "reply": "[2] > [1]", "model": "rankgpt", "passages": 20}

Owns that format (`model` and `passages` are optional) and the join with candidates: the file holds no passages, and the
first candidates of a query are the ones that its reply numbers. Does not own how a reply is read (`r2r.replies`).

    rows, rejects = annotations("replies.jsonl", tables.read(folder, "candidates").to_pylist(), passages=20)
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from r2r.datasets.documents import as_id, clean
from r2r.datasets.files import Lines, json_object
from r2r.datasets.teacher import RECORDED
from r2r.errors import BadInput
from r2r.identity import digest
from r2r.replies import parse_order


class _Recorded(NamedTuple):
    """One line. `passages`: how many were shown, None if the line does not say."""

    qid: str
    model: str
    reply: str
    passages: int | None


def annotations(
    file: str, rows: Iterable[dict[str, Any]], passages: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of annotations, and of rejects.

    file: JSONL, plain or .gz. rows: candidates, one a query, in the order shown. passages: how many of them were shown,
    where the line does not say. The annotations follow the order of `rows`, and have empty reasons. Rejects are replies
    that cannot be read, replies whose qid has no candidates, and candidates without a reply.

    Raises BadInput for a line that is not in this format, and for a qid twice with the same model.
    """
    replies = _by_query(file)
    annotated, rejects = [], []
    for row in rows:
        found = replies.pop(row["qid"], [])
        if not found:
            rejects.append(_reject(row["qid"], _key(row, passages, ""), "has no reply", "", attempts=0))
        for one in found:
            shown = one.passages or passages
            docids, texts, key = row["docids"][:shown], row["texts"][:shown], _key(row, shown, one.reply)
            parsed = parse_order(one.reply, len(docids))
            if parsed.status == "failed":
                rejects.append(_reject(one.qid, key, parsed.reason, one.reply))
                continue
            columns = {"qid": one.qid, "query": row["query"], "docids": docids, "texts": texts, "key": key}
            reasons = {"direct": parsed.direct, "evidence": parsed.evidence, "comparison": parsed.comparison}
            annotated.append(columns | reasons | {"ranking": parsed.order, "teacher": one.model} | RECORDED)
    unknown = {"query": "", "docids": [], "texts": []}
    for one in (one for found in replies.values() for one in found):
        rejects.append(_reject(one.qid, _key(unknown, 0, one.reply), "has no candidates", one.reply))
    return annotated, rejects


def _by_query(file: str) -> dict[str, list[_Recorded]]:
    """Return the replies of each qid, in the order of the file."""
    found: dict[str, list[_Recorded]] = {}
    seen: dict[tuple[str, str], int] = {}
    lines = Lines(file, _recorded)
    for at, one in lines.read():
        first = seen.setdefault((one.qid, one.model), at)
        if first != at:
            again = f"qid {one.qid} of model {one.model} again, first in {lines.place(first)}"
            raise BadInput(f"{lines.place(at)}: {again}; one line a query and model")
        found.setdefault(one.qid, []).append(one)
    if not found:
        raise BadInput(f'{file}: holds no reply; expected lines of {{"qid": ..., "reply": "[2] > [1]"}}')
    return found


def _recorded(line: bytes) -> _Recorded:
    """Parse one line. Raises ValueError."""
    record = json_object(line)
    qid, reply, passages = as_id(record.get("qid"), "query"), record.get("reply"), record.get("passages")
    model = "recorded" if record.get("model") is None else record["model"]
    if not isinstance(reply, str):
        raise ValueError('has no "reply" that is text; expected one such as "[2] > [1]"')
    if not isinstance(model, str) or not model.strip():
        raise ValueError(f"has the model {model!r}; a name is needed, or no model at all")
    if isinstance(passages, bool) or not isinstance(passages, int | float):
        passages = None
    elif not isinstance(passages, int) or passages < 1:
        raise ValueError(f"has {passages} passages; a whole number from 1 is needed")
    return _Recorded(clean(qid)[0], clean(model)[0], clean(reply)[0], passages)


def _key(row: dict[str, Any], shown: int, reply: str) -> str:
    return digest([row["query"], row["docids"][:shown], row["texts"][:shown], reply])


def _reject(qid: str, key: str, reason: str, reply: str, attempts: int = 1) -> dict[str, Any]:
    return {"qid": qid, "key": key, "reason": reason, "reply": reply, "attempts": attempts}
