"""Measures: from a measure's spelling to its value for every judged query, through ir-measures.

Owns which spellings are accepted and that every judged query counts. Does not own the formulas, which are
ir-measures' (https://ir-measur.es) and, behind it, trec_eval's; nor where runs come from.

    scorer(parse_measures(["nDCG@10"]), {"q1": {"d1": 1}})({"q1": ["d2", "d1"]})    # {"nDCG@10": {"q1": 0.63...}}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from r2r.errors import BadInput
from r2r.evaluation.runs import Qrels, Run

Values = dict[str, dict[str, float]]


def parse_measures(names: list[str]) -> dict[str, Any]:
    """Return the ir-measures object for every spelling, such as `nDCG@10`, `AP(rel=2)` or `SetF(beta=0.5,rel=2)`.

    Raises BadInput for a measure that ir-measures does not know or cannot calculate with what is installed.
    """
    import ir_measures

    right = "write measures as ir-measures does, with no space inside one: nDCG@10 RR(rel=2)@10 AP(rel=2) R@100"
    if not names:
        raise BadInput(f"measures: none given; {right}")
    parsed = {}
    for name in names:
        try:
            measure = ir_measures.parse_measure(name)
        except (NameError, ValueError, TypeError):
            raise BadInput(f"measures: {name!r}: unknown measure; {right}") from None
        # Parameters are checked, and external tools looked for, only when something is calculated.
        try:
            list(ir_measures.iter_calc([measure], {"1": {"a": 1, "b": 0}}, {"1": {"a": 2.0, "b": 1.0}}))
        except Exception:
            raise BadInput(
                f"measures: {name!r}: cannot be calculated here: a parameter is missing or wrong, or the measure needs "
                f"a tool that is not installed; {right}"
            ) from None
        parsed[name] = measure
    return parsed


def scorer(measures: dict[str, Any], qrels: Qrels) -> Callable[[Run], Values]:
    """Return a function from a run to its values: spelling -> qid -> value.

    Every judged query (a qid of the qrels, also one with no relevant document) has a value. A judged query that the
    run lacks has 0; queries that are not judged have none.
    """
    import ir_measures

    # ir-measures' gdeval (ERR, exponential nDCG) reads numeric qids only.
    numbers = {qid: str(number) for number, qid in enumerate(qrels, start=1)}
    evaluator = ir_measures.evaluator(set(measures.values()), {numbers[qid]: grades for qid, grades in qrels.items()})

    def score(run: Run) -> Values:
        # The tools behind ir-measures break ties in opposite ways (RR by docid upwards in one, downwards in the other),
        # so they get scores that fall by one from place to place.
        scored = {
            numbers[qid]: {docid: float(len(docids) - place) for place, docid in enumerate(docids)}
            for qid, docids in run.items()
            if qid in numbers
        }
        values = {(metric.measure, metric.query_id): float(metric.value) for metric in evaluator.iter_calc(scored)}
        # ir-measures itself fills in what a run lacks, but not for each of its tools.
        return {
            name: {qid: values.get((measure, number), 0.0) for qid, number in numbers.items()}
            for name, measure in measures.items()
        }

    return score


def average(values: Values) -> dict[str, float]:
    """Return the mean over all judged queries of each measure."""
    return {name: sum(by_query.values()) / len(by_query) for name, by_query in values.items()}
