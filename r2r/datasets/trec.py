"""TREC's qrels file, and the checks of queries and judgements that all formats share.

Does not own run files: `r2r.tables` writes them, `r2r.evaluation` reads them.

    qrels("qrels.txt")[0]["relevance"]
"""

from __future__ import annotations

from r2r.datasets.documents import Part
from r2r.datasets.files import Lines, text_of
from r2r.errors import BadInput


def qrels(file: str) -> list[dict]:
    """Return the judgements of a TREC file. Lines are `qid 0 docid relevance`, separated by white space."""
    found = [row for _, row in Lines(file, _judgement).read()]
    if not found:
        raise BadInput(f"{file}: is empty; expected lines of 'qid 0 docid relevance'")
    return found


def _judgement(line: bytes) -> dict:
    # Split as bytes: a docid may hold a no-break space, and str.split cuts there.
    columns = [text_of(column)[0] for column in line.split()]
    if len(columns) != 4:
        raise ValueError(f"has {len(columns)} columns; expected 'qid 0 docid relevance'")
    return judgement(columns[0], columns[2], columns[3])


def judgement(qid: str, docid: str, relevance: str | int | float) -> dict:
    """Return a row of qrels. Raises ValueError for a relevance that is not a whole number."""
    whole = isinstance(relevance, float) and relevance.is_integer()
    try:
        return {"qid": qid, "docid": docid, "relevance": int(relevance) if whole else int(str(relevance))}
    except ValueError:
        raise ValueError(f"relevance {relevance!r} is not a whole number") from None


def unique_queries(part: Part, source: str) -> list[dict]:
    """Return the queries that `part` reads from `source`. Raises BadInput if there is none, or a qid repeats."""
    found: dict[str, tuple[int, dict]] = {}
    for at, row in part.read():
        if row["qid"] in found:
            first = part.place(found[row["qid"]][0])
            raise BadInput(f"{part.place(at)}: qid {row['qid']} again, first in {first}; each query has its own qid")
        found[row["qid"]] = (at, row)
    if not found:
        raise BadInput(f"{source}: holds no query; at least one is needed")
    return [row for _, row in found.values()]


def judged_only(queries: list[dict], qrels: list[dict], where: str) -> list[dict]:
    """Return the queries that have judgements. Raises BadInput, beginning with `where`, if none has."""
    judged = {row["qid"] for row in qrels}
    found = [row for row in queries if row["qid"] in judged]
    if not found:
        raise BadInput(f"{where}: none of its queries is judged; the qids of queries and qrels should agree")
    return found
