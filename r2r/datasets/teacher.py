"""Recorded annotations in the JSONL that the authors of Reason-to-Rank published.

Owns that format. Its fields do not all have the same order: `unsorted_docs` holds the passages as shown, `re_rank_id`
the ranking, as positions from 1, best first. `sorted_docids` and `reason.ranked_passages` follow the ranking, and the
`identifier` of a reason is its passage's position. Does not own prompts or the replies of a live teacher.

    rows, rejects = annotations("msmarco_500.jsonl")
"""

from typing import Any

from r2r.datasets.documents import as_id, clean
from r2r.datasets.files import Lines, json_object, text_of
from r2r.errors import BadInput
from r2r.identity import digest

# The columns about asking: a recorded reply was asked for once, and its tokens are not known.
RECORDED = {"attempts": 1, "prompt_tokens": 0, "completion_tokens": 0, "agreement": None}
_REASONS = {"direct": "direct_reason", "comparison": "listwise_reason", "evidence": "direct_answer_sentence"}


class _Unsound(Exception):
    """A line with all fields whose order or reasons contradict each other."""


def annotations(file: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of annotations, and of rejects: the lines whose order or reasons contradict each other.

    `ranking` holds positions from 1 into `docids`, best first; reasons are aligned with `docids`. Evidence is empty if
    the passage holds no answer. Raises BadInput for a line without the fields of the format, and for a qid twice.
    """
    rows: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
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


def _head(record: dict[str, Any]) -> dict[str, Any]:
    """Return the columns for the query and its passages. Raises ValueError."""
    for field, kind in {"query": str, "unsorted_docs": list, "sorted_docids": list, "re_rank_id": list}.items():
        if not isinstance(record.get(field), kind):
            raise ValueError(f'has no "{field}" that is a {kind.__name__}, as a recorded annotation has')
    qid = as_id(record.get("qid"), "query")
    if not all(isinstance(text, str) for text in record["unsorted_docs"]):
        raise ValueError('"unsorted_docs" holds something else than passages; a list of texts is needed')
    query, texts = clean(record["query"])[0], [clean(text)[0] for text in record["unsorted_docs"]]
    key = digest([query, record["sorted_docids"], texts])
    return {"qid": qid, "query": query, "texts": texts, "teacher": "recorded", "key": key} | RECORDED


def _judged(record: dict[str, Any]) -> dict[str, Any]:
    """Return the columns for the order and the reasons. Raises _Unsound if they contradict each other."""
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
    judged: dict[str, Any] = {"ranking": [int(position) for position in ranking], "docids": [""] * shown}
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
