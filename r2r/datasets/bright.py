"""BRIGHT's tasks, from the Hugging Face hub's xlangai/BRIGHT or a copy of it on disk.

Owns its layout (documents/TASK-*.parquet with id and content; examples/TASK-*.parquet with id, query, gold_ids and
excluded_ids) and its rule: what a query excludes is no part of that query's ranking. BRIGHT's long documents are
another collection: irds:bright/TASK-long. Does not own taking the excluded documents out: retrieval does.

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
    columns = {"docid": "id", "title": "title", "text": "content"}
    return parquet.split(_files("documents", task, fragment), columns, parts, parquet.document_row)


def queries(task: str, fragment: str) -> list[dict]:
    files = _files("examples", task, fragment)
    (rows,) = parquet.split(files, {"qid": "id", "query": "query"}, 1, parquet.query_row)
    return unique_queries(rows, files[0])


def qrels(task: str, fragment: str) -> list[dict]:
    """Return the gold documents of every query, each with relevance 1."""
    return [judgement(qid, docid, 1) for qid, docids in _lists(task, "gold_ids", fragment) for docid in docids]


def excluded(task: str) -> dict[str, set[str]]:
    """Return qid -> docids that are no part of the query's ranking; only for queries that exclude some."""
    return {qid: set(docids) for qid, docids in _lists(task, "excluded_ids") if docids}


def _lists(task: str, column: str, fragment: str = "") -> list[tuple[str, list[str]]]:
    """Return every qid with the different docids of a column; "N/A" stands in it for none."""
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
    """Return the folder of the hub's cache that has, or now got, these files; and why it may lack them."""
    from huggingface_hub import constants, snapshot_download

    try:
        return snapshot_download(_HUB, repo_type="dataset", allow_patterns=pattern), ""
    except Exception as error:
        # Many kinds: no network, no such revision, a full disk. None of them is this program's.
        lines = str(error).splitlines() or [type(error).__name__]
        return constants.HF_HUB_CACHE, f" (the hub cannot be read: {lines[0][:200]})"
