"""Field names that a user gives: `#docid=id,text=contents` maps our fields to those of the collection.

Owns these names, and turns a record into a document, a query or a judgement. Does not read the records.

    document_of({"id": "d1", "contents": "x"}, columns("docid=id,text=contents", "corpus"))
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from r2r.datasets.documents import Document, as_id, as_text, clean, document
from r2r.datasets.trec import judgement
from r2r.errors import BadInput
from r2r.tables import SCHEMAS


def columns(fragment: str, table: str) -> dict[str, str]:
    """Return our column -> theirs, for each column of a table. Raises BadInput for a fragment with an unknown column.

    Records may lack a title, unless the fragment names it. They must have every other column.
    """
    ours = SCHEMAS[table].names
    found = {name: name for name in ours}
    for pair in fragment.split(",") if fragment else []:
        name, _, theirs = pair.partition("=")
        if name not in ours or not theirs:
            example = ",".join(f"{name}=FIELD" for name in ours)
            raise BadInput(f"#{fragment}: {pair!r} names no column of {table}; expected one or more of #{example}")
        found[name] = theirs
    return found


def missing(names: dict[str, str], there: Iterable[str]) -> str:
    """Return what is wrong with records that have the fields `there`; "" if they have all that `names` needs."""
    there = list(there)
    for name, theirs in names.items():
        if theirs not in there and (name, theirs) != ("title", "title"):
            known = ", ".join(there[:20]) or "none"
            return f'has no "{theirs}"; it has {known}: say which of them is the {name}, as in #{name}=FIELD'
    return ""


def document_of(record: dict, names: dict[str, str], repaired: bool = False) -> Document:
    """Return the document in a record. Like the two below, raises ValueError for a record that is not sound."""
    _check(record, names)
    return document(record[names["docid"]], record.get(names["title"]), record[names["text"]], repaired)


def query_of(record: dict, names: dict[str, str]) -> dict:
    _check(record, names)
    query = as_text(record[names["query"]], names["query"])
    return {"qid": clean(as_id(record[names["qid"]], "query"))[0], "query": clean(query)[0]}


def judgement_of(record: dict, names: dict[str, str]) -> dict:
    _check(record, names)
    qid, docid = as_id(record[names["qid"]], "query"), as_id(record[names["docid"]], "document")
    return judgement(clean(qid)[0], clean(docid)[0], record[names["relevance"]])


def _check(record: dict[str, Any], names: dict[str, str]) -> None:
    if wrong := missing(names, record):
        raise ValueError(wrong)
