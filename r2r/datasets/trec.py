"""TREC's qrels file, and what query lists and judgements of every format share.

Owns those. Does not own run files: `r2r.tables` writes them, `r2r.evaluation` reads them.

    qrels("qrels.txt")[0]["relevance"]
"""

from __future__ import annotations

from r2r.config import BadInput
from r2r.datasets.files import Lines, text_of


def qrels(file: str) -> list[dict]:
    """Return the judgements of a TREC file: lines of `qid 0 docid relevance`, separated by white space."""
    found = [row for _, row in Lines(file, _judgement).read()]
    if not found:
        raise BadInput(f"{file}: is empty; expected lines of 'qid 0 docid relevance'")
    return found


def _judgement(line: bytes) -> dict:
    columns = text_of(line)[0].split()
    if len(columns) != 4:
        raise ValueError(f"has {len(columns)} columns; expected 'qid 0 docid relevance'")
    return judgement(columns[0], columns[2], columns[3])


def judgement(qid: str, docid: str, relevance: str) -> dict:
    """Return a row of qrels. Raises ValueError for a relevance that is no whole number."""
    try:
        return {"qid": qid, "docid": docid, "relevance": int(relevance)}
    except ValueError:
        raise ValueError(f"relevance {relevance!r} is not a whole number") from None


def unique_queries(lines: Lines) -> list[dict]:
    """Return the queries of a file. Raises BadInput for none at all, and for a qid that comes twice."""
    found: dict[str, tuple[int, dict]] = {}
    for at, row in lines.read():
        if row["qid"] in found:
            first = lines.place(found[row["qid"]][0])
            raise BadInput(f"{lines.place(at)}: qid {row['qid']} again, first in {first}; each query has its own qid")
        found[row["qid"]] = (at, row)
    if not found:
        raise BadInput(f"{lines.file}: holds no query; expected one a line")
    return [row for _, row in found.values()]
