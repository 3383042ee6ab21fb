"""Runs: read a TREC run file, complete a run, and make the random and the oracle order to compare runs with.

Owns the order of a run (score, ties) and the checks of a run file. Does not own measures. A run in memory is a dict
from qid to its docids, best first, without scores.

    read_run("runs/demo/retrieve/run.txt")["q1"][:10]
"""

from __future__ import annotations

import math
import random

from r2r.datasets.files import Lines
from r2r.errors import BadInput

Run = dict[str, list[str]]
Qrels = dict[str, dict[str, int]]

_LINE = "'qid Q0 docid rank score tag'"


def read_run(file: str) -> Run:
    """Read a TREC run, lines of `qid Q0 docid rank score tag`, and return qid -> docids, best first.

    The file may be gzipped (.gz) and on any file system that dataset strings may name. The order is trec_eval's: by
    score as a 32-bit float, highest first; equal scores by docid, the alphabetically last first. The rank column and
    blank lines do not count.

    Raises BadInput for a file that is missing, empty, cut off or not UTF-8; and, with the line number, for a line that
    has not six columns, a score that is not a number, and a document that a query lists twice.
    """
    scores: dict[str, dict[str, float]] = {}
    lines = Lines(file, _parse, wanted="a TREC run file is needed")
    for at, (qid, docid, score) in lines.read():
        found = scores.setdefault(qid, {})
        if docid in found:
            where = lines.place(at)
            raise BadInput(f"{where}: document {docid} stands twice in query {qid}; a run lists it once a query")
        found[docid] = score
    if not scores:
        raise BadInput(f"{file}: is empty; a TREC run has lines of {_LINE}")
    return {qid: _in_order(found) for qid, found in scores.items()}


def _parse(line: bytes) -> tuple[str, str, float]:
    try:
        # Split as bytes: a docid may hold a no-break or ideographic space, and str.split cuts there.
        columns = [column.decode() for column in line.split()]
    except UnicodeDecodeError:
        raise ValueError(f"is not UTF-8; a TREC run is a text file with lines of {_LINE}") from None
    if len(columns) != 6:
        raise ValueError(f"has {len(columns)} columns; a TREC run has lines of {_LINE}")
    qid, _, docid, _, text, _ = columns
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if math.isnan(score):
        raise ValueError(f"score {text!r} is not a number; a TREC run has lines of {_LINE}")
    return qid, docid, score


def _in_order(scores: dict[str, float]) -> list[str]:
    import numpy as np

    with np.errstate(over="ignore"):
        single = np.array(list(scores.values())).astype(np.float32).tolist()
    return [docid for _, docid in sorted(zip(single, scores, strict=True), reverse=True)]


def completed(run: Run, first: Run) -> Run:
    """Return the run with what it lacks of the first one, in that one's order: documents after its own, and queries."""
    return {
        qid: [*run.get(qid, ()), *(docid for docid in first.get(qid, ()) if docid not in run.get(qid, ()))]
        for qid in first | run
    }


def shuffled(candidates: Run, seed: int) -> Run:
    """Return the same documents per query in a random order, which depends on the seed, the qid and the set of
    documents only, not on the order they come in."""
    return {
        qid: random.Random(f"{seed} {qid}").sample(sorted(docids), len(docids)) for qid, docids in candidates.items()
    }


def oracle(candidates: Run, qrels: Qrels) -> Run:
    """Return the same documents per query by relevance, highest first: the best that any reranker can do with them.
    A document without a judgement counts as relevance 0."""
    return {
        qid: sorted(docids, key=lambda docid: -qrels.get(qid, {}).get(docid, 0)) for qid, docids in candidates.items()
    }
