"""The protocol by which the paper's released code averages, for those who want to see figures of that kind.

Owns that protocol and the words that say why its figures are not comparable. Does not own the table of measures, in
which every judged query counts.

    released({"bm25": run}, qrels)    # {"bm25": {"nDCG@5": 0.73, "queries": 25}, "random": ..., "oracle": ...}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from r2r.evaluation.measures import parse_measures, scorer
from r2r.evaluation.runs import Qrels, Run, oracle, shuffled

MEASURE = "nDCG@5"
_DOCUMENTS = 5
_ABOVE = 0.5


def released(runs: Mapping[str, Run], qrels: Qrels, shuffles: int) -> dict[str, dict[str, Any]]:
    """Return system -> the mean nDCG@5 of the queries whose own is over .5, and how many queries these are.

    Each system orders the first five documents of the first run. The mean is None where no query is over .5. `random`
    is over all queries of `shuffles` random orders, and its number of queries is that of a mean order.

    Source: evaluation/inference.py in github.com/JoyDajunSpaceCraft/Reason-to-Rank.
    """
    score = scorer(parse_measures([MEASURE]), qrels)
    first = {qid: docids[:_DOCUMENTS] for qid, docids in next(iter(runs.values())).items()}

    def row(orders: Sequence[Run]) -> dict[str, Any]:
        kept = [value for order in orders for value in score(order)[MEASURE].values() if value > _ABOVE]
        return {MEASURE: sum(kept) / len(kept) if kept else None, "queries": round(len(kept) / len(orders), 1)}

    rows = {name: row([_ordered(first, run)]) for name, run in runs.items()}
    rows["random"] = row([shuffled(first, seed) for seed in range(shuffles)])
    rows["oracle"] = row([oracle(first, qrels)])
    return rows


def _ordered(first: Run, run: Run) -> Run:
    """Return the documents of `first` in the order of `run`; what it does not list comes last."""
    both = {qid: (docids, run[qid]) for qid, docids in first.items() if qid in run}
    return {
        qid: [*(docid for docid in order if docid in docids), *(docid for docid in docids if docid not in order)]
        for qid, (docids, order) in both.items()
    }


def say(rows: Mapping[str, Mapping[str, Any]], queries: int) -> list[str]:
    """Return the figures as lines; the first says why they are not comparable. queries: how many are judged."""
    first = next(iter(rows))
    lines = [
        f"by the paper's released code: {MEASURE} of the first {_DOCUMENTS} documents of {first}, without the queries "
        f"of {_ABOVE} and less; not comparable with other figures, nor with each other: each system leaves out the "
        f"queries that it ranks badly"
    ]
    for name, row in rows.items():
        mean = "none" if row[MEASURE] is None else f"{row[MEASURE]:.4f}"
        lines.append(f"  {name}: {mean}, over {row['queries']:g} of {queries} queries")
    return lines
