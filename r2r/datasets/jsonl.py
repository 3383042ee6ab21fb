"""A collection as one JSON object per line, plain or gzipped. The user may name the fields.

Owns that format. Does not own the field names (`columns.py`) or the cut into parts (`files.py`).

    corpus("corpus.jsonl", "docid=id,text=contents", parts=4)
"""

from __future__ import annotations

from functools import partial

from r2r.datasets.columns import columns, document_of, judgement_of, query_of
from r2r.datasets.documents import Document, Part
from r2r.datasets.files import Lines, json_object, parse_json, split, text_of
from r2r.datasets.trec import unique_judgements, unique_queries


def corpus(file: str, fragment: str, parts: int) -> list[Part]:
    """Return the documents in parts."""
    return split(file, parts, partial(_document, names=columns(fragment, "corpus")))


def _document(line: bytes, names: dict[str, str]) -> Document:
    text, repaired = text_of(line)
    return document_of(parse_json(text, "each line should be one JSON object"), names, repaired)


def queries(file: str, fragment: str) -> list[dict]:
    """Return the queries. Raises BadInput, with the line, for one that is not sound."""
    names = columns(fragment, "queries")
    return unique_queries(Lines(file, lambda line: query_of(json_object(line), names)), file)


def qrels(file: str, fragment: str) -> list[dict]:
    """Return the judgements. Raises BadInput, with the line, for one that is not sound."""
    names = columns(fragment, "qrels")
    return unique_judgements(Lines(file, lambda line: judgement_of(json_object(line), names)), file)
