"""BEIR's layout: DIR/corpus.jsonl, DIR/queries.jsonl and DIR/qrels/SPLIT.tsv, each of them also as .gz.

Owns that layout. Does not own what is done with a duplicate document: the index finds those.

    queries("scifact", "test")
"""

from __future__ import annotations

from pathlib import Path

from r2r.config import BadInput
from r2r.datasets.documents import Document, Part, as_id, as_text, clean, document
from r2r.datasets.files import Lines, json_object, parse_json, split, text_of
from r2r.datasets.trec import judgement, unique_queries


def corpus(folder: str, parts: int) -> list[Part]:
    """Return the corpus in parts. Lines are `{"_id", "title" (may be missing), "text"}`."""
    return split(_find(folder, "corpus.jsonl"), parts, _document)


def _document(line: bytes) -> Document:
    text, repaired = text_of(line)
    row = parse_json(text, 'expected {"_id": ..., "title": ..., "text": ...}')
    if "text" not in row:
        raise ValueError('the document has no "text"; expected {"_id": ..., "title": ..., "text": ...}')
    return document(row.get("_id"), row.get("title"), row["text"], repaired)


def queries(folder: str, wanted: str) -> list[dict]:
    """Return the queries judged in the split `wanted`; all of them where the folder has no qrels."""
    file = _find(folder, "queries.jsonl")
    found = unique_queries(Lines(file, _query))
    if not (Path(folder) / "qrels").is_dir():
        return found
    judged = {row["qid"] for row in qrels(folder, wanted)}
    found = [row for row in found if row["qid"] in judged]
    if not found:
        raise BadInput(f"{file}: none of its queries is judged in the split {wanted}; the qids of both should agree")
    return found


def _query(line: bytes) -> dict:
    row = json_object(line)
    if not isinstance(row.get("text"), str):
        raise ValueError('the query has no "text"; expected {"_id": ..., "text": ...}')
    return {"qid": clean(as_id(row.get("_id"), "query"))[0], "query": clean(as_text(row["text"], "text"))[0]}


def qrels(folder: str, wanted: str) -> list[dict]:
    """Return the judgements of a split: tab-separated lines of query-id, corpus-id, score, after a header."""
    if not Path(folder).is_dir():
        raise BadInput(f"{folder}: no such folder; expected corpus.jsonl, queries.jsonl and qrels/{wanted}.tsv in it")
    try:
        file = _find(folder, f"qrels/{wanted}.tsv")
    except BadInput:
        splits = sorted({path.name.split(".")[0] for path in (Path(folder) / "qrels").glob("*.tsv*")})
        known = f"; it has {', '.join(f'#{name}' for name in splits)}" if splits else ""
        raise BadInput(f"{folder}: has no qrels/{wanted}.tsv for the split #{wanted}{known}") from None
    return [row for _, row in Lines(file, _judgement).read() if row]


def _judgement(line: bytes) -> dict | None:
    columns = text_of(line)[0].rstrip("\r\n").split("\t")
    if columns[0] in ("query-id", "query_id", "qid"):
        return None
    if len(columns) != 3:
        raise ValueError(f"has {len(columns)} columns; expected query-id, corpus-id and score, separated by tabs")
    return judgement(*columns)


def _find(folder: str, name: str) -> str:
    for path in (Path(folder) / name, Path(folder) / f"{name}.gz"):
        if path.is_file():
            return str(path)
    if not Path(folder).is_dir():
        raise BadInput(f"{folder}: no such folder; expected corpus.jsonl, queries.jsonl and qrels/ in it")
    raise BadInput(f"{Path(folder) / name}: no such file, nor {name}.gz; a BEIR folder has one")
