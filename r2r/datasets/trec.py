"""TREC's qrels file; a line and the order of a run; the checks of queries and judgements that all formats share.

Does not own run files: `r2r.tables` writes them; `r2r.evaluation` reads them whole, `runs.py` a hit at a time.

    qrels("qrels.txt")[0]["relevance"]
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping

from r2r.datasets.documents import Part
from r2r.datasets.files import Lines, text_of
from r2r.errors import BadInput

# A whole number, also as pandas writes it in a column with gaps: 1.0.
_WHOLE = re.compile(r"\s*([+-]?\d+)(?:\.0*)?\s*")
# Collections grade from -2 to 10, a few to 100. What lies beyond is no grade, such as a docid in the wrong column.
_LARGEST = 1000

RUN_LINE = "'qid Q0 docid rank score tag'"


def qrels(file: str, tell: bool = True) -> list[dict]:
    """Return the judgements of a TREC file. Lines are `qid 0 docid relevance`, separated by white space."""
    found = unique_judgements(Lines(file, _judgement), file, tell)
    if not found:
        raise BadInput(f"{file}: is empty; expected lines of 'qid 0 docid relevance'")
    return found


def _judgement(line: bytes) -> dict:
    # Split as bytes: a docid may hold a no-break space, and str.split cuts there.
    columns = [text_of(column)[0] for column in line.split()]
    if len(columns) != 4:
        raise ValueError(f"has {len(columns)} columns; expected 'qid 0 docid relevance'")
    return judgement(columns[0], columns[2], columns[3])


def run_line(line: bytes) -> tuple[str, str, float]:
    """Return qid, docid and score of a run's line. Raises ValueError with what is wrong."""
    try:
        # Split as bytes: str.split would also cut at a no-break or ideographic space, which a docid may hold.
        columns = [column.decode() for column in line.split()]
    except UnicodeDecodeError:
        raise ValueError(f"is not UTF-8; a TREC run is a text file with lines of {RUN_LINE}") from None
    if len(columns) != 6:
        raise ValueError(f"has {len(columns)} columns; a TREC run has lines of {RUN_LINE}")
    qid, _, docid, _, text, _ = columns
    try:
        # Python alone takes 1_000 and the digits of other scripts for numbers.
        score = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        score = math.nan
    if math.isnan(score):
        raise ValueError(f"score {text!r} is not a number; a TREC run has lines of {RUN_LINE}")
    return qid, docid, score


def in_order(scores: Mapping[str, float]) -> list[tuple[float, str]]:
    """Return (score as a 32-bit float, docid) of a query in trec_eval's order.

    The highest score is the first. Equal scores go by docid, the alphabetically last first.
    """
    import numpy as np

    with np.errstate(over="ignore"):
        single = np.array(list(scores.values())).astype(np.float32).tolist()
    return sorted(zip(single, scores, strict=True), reverse=True)


def judgement(qid: str, docid: str, relevance: str | int | float) -> dict:
    """Return a row of qrels: the one rule of all formats. Raises ValueError for a relevance that is no whole number,
    or so large that it is no grade."""
    whole = _WHOLE.fullmatch(str(relevance))
    if not whole:
        raise ValueError(f"relevance {relevance!r} is not a whole number; write 0, 1, 2 and so on (1.0 is read as 1)")
    # Python refuses to convert thousands of digits.
    grade = int(whole[1][:20])
    if abs(grade) > _LARGEST:
        shown = str(relevance)[:20]
        raise ValueError(f"relevance {shown} is beyond {_LARGEST:,}: an id, or a score? Grades are 0, 1, 2 and so on")
    return {"qid": qid, "docid": docid, "relevance": grade}


def unique_judgements(part: Part, source: str, tell: bool = True) -> list[dict]:
    """Return the judgements that `part` reads from `source`, without the rows that are None.

    A judgement that is repeated with the same relevance counts once; with `tell`, a line on stderr says how many are.
    Raises BadInput, with both places, for one that is repeated with another relevance.
    """
    found: dict[tuple[str, str], tuple[int, dict]] = {}
    repeated = 0
    for at, row in part.read():
        if row is None:
            continue
        first, known = found.setdefault((row["qid"], row["docid"]), (at, row))
        if known["relevance"] != row["relevance"]:
            raise BadInput(
                f"{part.place(at)}: document {row['docid']} of query {row['qid']} has relevance {row['relevance']}, "
                f"but {known['relevance']} in {part.place(first)}; keep one of the two"
            )
        repeated += known is not row
    if repeated and tell:
        print(f"{source}: {repeated:,} judgements repeat an earlier one; each counts once", file=sys.stderr, flush=True)
    return [row for _, row in found.values()]


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
