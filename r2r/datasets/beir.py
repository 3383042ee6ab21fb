"""BEIR's layout: DIR/corpus.jsonl, DIR/queries.jsonl and DIR/qrels/SPLIT.tsv. Each file may be gzipped (.gz).

Owns that layout. Does not own duplicate documents: the index finds them.

    queries("scifact", "test")
"""

from __future__ import annotations

from r2r.datasets.documents import Document, Part, as_id, as_text, clean, document
from r2r.datasets.files import Lines, find, json_object, names, parse_json, split, text_of, within
from r2r.datasets.trec import judged_only, judgement, unique_judgements, unique_queries
from r2r.errors import BadInput


def corpus(folder: str, _: str, parts: int) -> list[Part]:
    """Return the corpus in parts, the same for every split. Lines are `{"_id", "title" (may be missing), "text"}`."""
    return split(_find(folder, "corpus.jsonl"), parts, _document)


def _document(line: bytes) -> Document:
    text, repaired = text_of(line)
    row = parse_json(text, 'expected {"_id": ..., "title": ..., "text": ...}')
    if "text" not in row:
        raise ValueError('the document has no "text"; expected {"_id": ..., "title": ..., "text": ...}')
    return document(row.get("_id"), row.get("title"), row["text"], repaired)


def queries(folder: str, wanted: str) -> list[dict]:
    """Return the queries judged in the split `wanted` (default: test), or all queries if the folder has no qrels."""
    lines = Lines(_find(folder, "queries.jsonl"), _query)
    found = unique_queries(lines, lines.file)
    if names(within(folder, "qrels")) is None:
        return found
    return judged_only(found, qrels(folder, wanted, tell=False), f"{lines.file}: split {wanted or 'test'}")


def _query(line: bytes) -> dict:
    row = json_object(line)
    if not isinstance(row.get("text"), str):
        raise ValueError('the query has no "text"; expected {"_id": ..., "text": ...}')
    return {"qid": clean(as_id(row.get("_id"), "query"))[0], "query": clean(as_text(row["text"], "text"))[0]}


def qrels(folder: str, wanted: str, tell: bool = True) -> list[dict]:
    """Return the judgements of a split. Lines are query-id, corpus-id, score, separated by tabs, after a header."""
    lines = Lines(_qrels_file(folder, wanted), _judgement)
    return unique_judgements(lines, lines.file, tell)


def _judgement(line: bytes) -> dict | None:
    columns = text_of(line)[0].rstrip("\r\n").split("\t")
    if columns[0] in ("query-id", "query_id", "qid"):
        return None
    if len(columns) != 3:
        raise ValueError(f"has {len(columns)} columns; expected query-id, corpus-id and score, separated by tabs")
    return judgement(*columns)


def files(folder: str, wanted: str, kind: str) -> list[str]:
    """Return the files that `kind` reads: corpus, queries (with the qrels that select them) or qrels."""
    if kind == "corpus":
        return [_find(folder, "corpus.jsonl")]
    asked = [_find(folder, "queries.jsonl")] if kind == "queries" else []
    return asked if asked and names(within(folder, "qrels")) is None else [*asked, _qrels_file(folder, wanted)]


def _qrels_file(folder: str, wanted: str) -> str:
    wanted = wanted or "test"
    if names(folder) is None:
        raise BadInput(f"{folder}: no such folder; expected corpus.jsonl, queries.jsonl and qrels/{wanted}.tsv in it")
    file = find(within(folder, "qrels"), f"{wanted}.tsv")
    if file is None:
        splits = {name.split(".tsv")[0] for name in names(within(folder, "qrels")) or [] if ".tsv" in name}
        known = f"; it has {', '.join(f'#{name}' for name in sorted(splits))}" if splits else ""
        raise BadInput(f"{folder}: has no qrels/{wanted}.tsv for the split #{wanted}{known}")
    return file


def _find(folder: str, name: str) -> str:
    if found := find(folder, name):
        return found
    if names(folder) is None:
        raise BadInput(f"{folder}: no such folder; expected corpus.jsonl, queries.jsonl and qrels/ in it")
    raise BadInput(f"{within(folder, name)}: no such file, nor {name}.gz; a BEIR folder has one")
