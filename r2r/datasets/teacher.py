"""Recorded annotations in the JSONL that the authors of Reason-to-Rank published.

Owns that format, whose fields do not all stand in the same order. A line holds `unsorted_docs`, the passages as the
teacher saw them; `re_rank_id`, the order, as positions from 1 into those, best first; `reason.ranked_passages`, in that
order, each with the position as its `identifier`; and `sorted_docids`, in that order too, not in the one of the
passages. Does not own prompts or the parsing of a live teacher's replies.

    rows, rejects = annotations("msmarco_500.jsonl")
"""

from __future__ import annotations

import hashlib
import json

from r2r.datasets.documents import as_id, clean
from r2r.datasets.files import Lines, json_object, text_of
from r2r.errors import BadInput

_REASONS = {"direct": "direct_reason", "comparison": "listwise_reason", "evidence": "direct_answer_sentence"}


class _Unsound(Exception):
    """A line that reads well, but whose order or reasons contradict themselves."""


def annotations(file: str) -> tuple[list[dict], list[dict]]:
    """Return the annotations, and as rejects the lines whose order or reasons contradict themselves.

    `ranking` holds positions from 1 into `docids`, best first; reasons are aligned with `docids`. An answer sentence
    may be empty: the passage then holds no answer.
    """
    rows, rejects, seen = [], [], {}
    lines = Lines(file, lambda line: (text_of(line)[0].strip(), json_object(line)))
    for at, (raw, record) in lines.read():
        try:
            row = _head(record)
        except ValueError as error:
            raise BadInput(f"{lines.place(at)}: {error}") from None
        if row["qid"] in seen:
            first = lines.place(seen[row["qid"]])
            raise BadInput(f"{lines.place(at)}: qid {row['qid']} again, first in {first}; one line a query")
        seen[row["qid"]] = at
        try:
            rows.append(row | _judged(record))
        except _Unsound as error:
            rejects.append({"qid": row["qid"], "key": row["key"], "reason": str(error), "reply": raw, "attempts": 1})
    if not seen:
        raise BadInput(f"{file}: holds no annotation; expected one JSON object a line")
    return rows, rejects


def _head(record: dict) -> dict:
    """Return what a line says before it judges: the query and its passages. Raises ValueError."""
    for field, kind in {"query": str, "unsorted_docs": list, "sorted_docids": list, "re_rank_id": list}.items():
        if not isinstance(record.get(field), kind):
            raise ValueError(f'has no "{field}" that is a {kind.__name__}, as a recorded annotation has')
    qid = as_id(record.get("qid"), "query")
    if not all(isinstance(text, str) for text in record["unsorted_docs"]):
        raise ValueError('"unsorted_docs" holds something else than passages; a list of texts is needed')
    query, texts = clean(record["query"])[0], [clean(text)[0] for text in record["unsorted_docs"]]
    content = json.dumps([query, record["sorted_docids"], texts], ensure_ascii=False)
    return {
        "qid": qid,
        "query": query,
        "texts": texts,
        "teacher": "recorded",
        "key": hashlib.sha256(content.encode()).hexdigest(),
        "attempts": 1,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "agreement": None,
    }


def _judged(record: dict) -> dict:
    """Return the order and the reasons. Raises _Unsound where they contradict themselves."""
    ranking, ranked_docids = record["re_rank_id"], record["sorted_docids"]
    shown = len(record["unsorted_docs"])
    if sorted(map(str, ranking)) != sorted(map(str, range(1, shown + 1))):
        raise _Unsound(f"re_rank_id {ranking} is no permutation of 1 to {shown}")
    if len(ranked_docids) != shown or len(set(ranked_docids)) != shown:
        raise _Unsound(f"sorted_docids {ranked_docids} are not {shown} different documents")
    reason = record.get("reason")
    passages = reason.get("ranked_passages") if isinstance(reason, dict) else None
    if not isinstance(passages, list) or not all(isinstance(passage, dict) for passage in passages):
        raise _Unsound("reason holds no ranked_passages")
    identifiers = [passage.get("identifier") for passage in passages]
    if list(map(str, identifiers)) != list(map(str, ranking)):
        raise _Unsound(f"the reasons are in the order {identifiers}, the ranking is {ranking}")
    judged: dict = {"ranking": [int(position) for position in ranking], "docids": [""] * shown}
    judged |= {column: [""] * shown for column in _REASONS}
    for position, docid, passage in zip(judged["ranking"], ranked_docids, passages, strict=True):
        judged["docids"][position - 1] = str(docid)
        for column, field in _REASONS.items():
            if not isinstance(passage.get(field), str):
                raise _Unsound(f"passage {position} has no {field}")
            judged[column][position - 1] = clean(passage[field])[0]
        if not judged["direct"][position - 1].strip() or not judged["comparison"][position - 1].strip():
            raise _Unsound(f"passage {position} has an empty reason")
    return judged
