"""Candidate lists in RankGPT's JSON: `[{"query", "hits": [{"content", "qid", "docid", "rank", "score"}]}]`.

Owns that format, as one list (.json) or as one record per line (.jsonl). Does not own how many candidates a stage
uses.

    candidates("bm25-top100.json")[0]["docids"]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from r2r.datasets.documents import as_id, as_text, clean
from r2r.datasets.files import JSON, Lines, json_object, read_text
from r2r.errors import BadInput

_RECORD = '{"query": ..., "hits": [{"content", "qid", "docid", "rank", "score"}]}'


def candidates(file: str) -> list[dict]:
    """Return one row per query. Hits are in the order of their rank; hits without a rank are in file order.

    Raises BadInput, with the record, for an unsound one and for a qid that repeats.
    """
    found: dict[str, tuple[Callable[[], str], dict]] = {}
    for place, record in _records(file):
        try:
            row = _row(record)
        except ValueError as error:
            raise BadInput(f"{place()}: {error}") from None
        if row["qid"] in found:
            first = found[row["qid"]][0]()
            raise BadInput(f"{place()}: qid {row['qid']} again, first in {first}; one record a query")
        found[row["qid"]] = (place, row)
    if not found:
        raise BadInput(f"{file}: holds no query; expected records of {_RECORD}")
    return [row for _, row in found.values()]


def _records(file: str) -> Iterator[tuple[Callable[[], str], Any]]:
    """Yield each record with a function that returns its place."""
    if file.removesuffix(".gz").endswith(".jsonl"):
        lines = Lines(file, json_object)
        yield from ((partial(lines.place, at), record) for at, record in lines.read())
        return
    try:
        records = JSON.decode(read_text(file))
    except json.JSONDecodeError as error:
        raise BadInput(f"{file}:{error.lineno}: is not JSON ({error.msg}); expected a list of {_RECORD}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file}: is not JSON ({error}); expected a list of {_RECORD}") from None
    if not isinstance(records, list):
        raise BadInput(f"{file}: holds no list; expected a list of {_RECORD}")
    yield from ((f"{file}: record {number}".__str__, record) for number, record in enumerate(records, start=1))


def _row(record: dict) -> dict:
    if not isinstance(record, dict) or not isinstance(record.get("query"), str):
        raise ValueError(f"has no query; expected {_RECORD}")
    hits = record.get("hits")
    if not isinstance(hits, list) or not hits:
        raise ValueError(f"query {record['query']!r} has no hits; each query needs at least one candidate")
    for number, hit in enumerate(hits, start=1):
        missing = [key for key in ("content", "docid", "score") if not isinstance(hit, dict) or key not in hit]
        if missing:
            raise ValueError(f'hit {number} has no "{missing[0]}"; expected {_RECORD}')
        if isinstance(hit["score"], bool) or not isinstance(hit["score"], int | float):
            raise ValueError(f"hit {number} has the score {hit['score']!r}; a number is needed")
    hits = sorted(hits, key=lambda hit: hit.get("rank", 0))
    docids = [clean(as_id(hit["docid"], "candidate"))[0] for hit in hits]
    again = next((docid for place, docid in enumerate(docids) if docid in docids[:place]), None)
    if again is not None:
        raise ValueError(f"document {again} stands twice among the hits; each stands once a query")
    return {
        "qid": as_id(record.get("qid", hits[0].get("qid")), "query"),
        "query": clean(record["query"])[0],
        "docids": docids,
        "texts": [clean(as_text(hit["content"], "content"))[0] for hit in hits],
        "scores": [float(hit["score"]) for hit in hits],
    }
