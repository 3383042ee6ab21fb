"""BRIGHT's tasks, from xlangai/BRIGHT on the Hugging Face hub, or from a copy in the folder BRIGHT_DIR.

Owns its layout: documents/TASK-*.parquet with id and content; examples/TASK-*.parquet with id, query, gold_ids and
excluded_ids. A query's excluded documents must not be in its ranking: this module lists them, retrieval removes them.
BRIGHT's long documents are another collection: irds:bright/TASK-long.

    excluded("leetcode")
"""

from __future__ import annotations

import os

from r2r.datasets import parquet
from r2r.datasets.documents import Part, as_id
from r2r.datasets.files import names, within
from r2r.datasets.trec import judgement, unique_queries
from r2r.errors import BadInput

_HUB = "xlangai/BRIGHT"
_STACK_EXCHANGE = ("biology", "earth_science", "economics", "psychology", "robotics", "stackoverflow")
_TASKS = (
    *_STACK_EXCHANGE,
    "sustainable_living",
    "leetcode",
    "pony",
    "aops",
    "theoremqa_questions",
    "theoremqa_theorems",
)


def corpus(task: str, fragment: str, parts: int) -> list[Part]:
    """Return the documents of a task in parts. Raises BadInput for an unknown task, and for files that are missing."""
    columns = {"docid": "id", "title": "title", "text": "content"}
    return parquet.split(_files("documents", task, fragment), columns, parts, parquet.document_row)


def queries(task: str, fragment: str) -> list[dict]:
    """Return the queries of a task."""
    files = _files("examples", task, fragment)
    (rows,) = parquet.split(files, {"qid": "id", "query": "query"}, 1, parquet.query_row)
    return unique_queries(rows, files[0])


def qrels(task: str, fragment: str) -> list[dict]:
    """Return the gold documents of each query, with relevance 1."""
    return [judgement(qid, docid, 1) for qid, docids in _lists(task, "gold_ids", fragment) for docid in docids]


def excluded(task: str) -> dict[str, set[str]]:
    """Return qid -> docids that must not be in the query's ranking. Queries that exclude none are left out."""
    return {qid: set(docids) for qid, docids in _lists(task, "excluded_ids") if docids}


def check(task: str, fragment: str, what: str) -> None:
    """Raise BadInput for an unknown task, and for files that BRIGHT_DIR lacks. Downloads nothing."""
    if os.environ.get("BRIGHT_DIR") or task not in _TASKS or fragment:
        _files("documents" if what == "corpus" else "examples", task, fragment)


def _lists(task: str, column: str, fragment: str = "") -> list[tuple[str, list[str]]]:
    """Return each qid with the distinct docids of a column. BRIGHT writes "N/A" for none."""
    (rows,) = parquet.split(_files("examples", task, fragment), {"qid": "id", "docids": column}, 1, _list)
    return [row for _, row in rows.read()]


def _list(record: dict, columns: dict[str, str], repaired: bool) -> tuple[str, list[str]]:
    docids = [str(docid) for docid in record[columns["docids"]] or () if docid not in (None, "N/A")]
    return as_id(record["id"], "query"), list(dict.fromkeys(docids))


def _files(kind: str, task: str, fragment: str) -> list[str]:
    if task not in _TASKS:
        raise BadInput(f"bright:{task}: no task of BRIGHT; its tasks are {', '.join(_TASKS)}")
    if fragment:
        raise BadInput(f"bright:{task}#{fragment}: BRIGHT has no splits; leave out #{fragment}")
    folder, why = os.environ.get("BRIGHT_DIR"), ""
    if not folder:
        folder, why = _download(f"{kind}/{task}-*.parquet")
    inside = within(folder, kind)
    found = [within(inside, name) for name in names(inside) or [] if name.startswith(f"{task}-")]
    if not found:
        raise BadInput(
            f"bright:{task}: no {kind}/{task}-*.parquet in {folder}{why}; get {_HUB} where there is a network, and "
            f"name the folder in BRIGHT_DIR: hf download {_HUB} --repo-type dataset --local-dir DIR"
        )
    return found


def _download(pattern: str) -> tuple[str, str]:
    """Download files from the hub. Return the folder of its cache, and what went wrong ("" if nothing did)."""
    from huggingface_hub import constants, snapshot_download

    try:
        return snapshot_download(_HUB, repo_type="dataset", allow_patterns=pattern), ""
    except Exception as error:
        # Any kind of error, because only the hub's client runs here: no network, no such revision, a full disk.
        lines = str(error).splitlines() or [type(error).__name__]
        return constants.HF_HUB_CACHE, f" (the hub cannot be read: {lines[0][:200]})"
