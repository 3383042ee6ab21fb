"""Measures: from a measure's spelling to its value for every judged query, through ir-measures.

Owns which spellings are accepted, and that every judged query counts. Does not own the formulas: they are those of
ir-measures (https://ir-measur.es), which takes most from trec_eval. Reads no runs.

    scorer(parse_measures(["nDCG@10"]), {"q1": {"d1": 1}})({"q1": ["d2", "d1"]})    # {"nDCG@10": {"q1": 0.63...}}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from r2r.errors import BadInput
from r2r.evaluation.runs import Qrels, Run

# Measure -> qid -> value.
Values = dict[str, dict[str, float]]


def parse_measures(names: Iterable[str]) -> dict[str, Any]:
    """Return the ir-measures object for every spelling, such as `nDCG@10`, `AP(rel=2)` or `SetF(beta=0.5,rel=2)`.

    Raises BadInput for a measure that ir-measures does not know, or cannot calculate with what is installed; and if
    there is none.
    """
    import ir_measures

    right = "write measures as ir-measures does, with no space inside one: nDCG@10 RR(rel=2)@10 AP(rel=2) R@100"
    parsed: dict[str, Any] = {}
    for name in names:
        try:
            measure = ir_measures.parse_measure(name)
        except (NameError, ValueError, TypeError):
            raise BadInput(f"measures: {name!r}: unknown measure; {right}") from None
        # ir-measures checks parameters, and looks for external tools, only when it calculates.
        try:
            list(ir_measures.iter_calc([measure], {"1": {"a": 1, "b": 0}}, {"1": {"a": 2.0, "b": 1.0}}))
        except Exception:
            raise BadInput(
                f"measures: {name!r}: cannot be calculated here: a parameter is missing or wrong, or the measure needs "
                f"a tool that is not installed; {right}"
            ) from None
        parsed[name] = measure
    if not parsed:
        raise BadInput(f"measures: none given; {right}")
    return parsed


def scorer(measures: dict[str, Any], qrels: Qrels) -> Callable[[Run], Values]:
    """Return a function from a run to its values.

    Every judged query has a value: every qid of the qrels, even without a relevant document. It is 0 if the run lacks
    the query. Queries that are not judged have no value.
    """
    import ir_measures

    # ir-measures' gdeval (ERR, exponential nDCG) reads numeric qids only.
    numbers = {qid: str(number) for number, qid in enumerate(qrels, start=1)}
    evaluator = ir_measures.evaluator(set(measures.values()), {numbers[qid]: grades for qid, grades in qrels.items()})

    def score(run: Run) -> Values:
        # The tools behind ir-measures break ties in different ways, so they get scores without ties.
        scored = {
            numbers[qid]: {docid: float(len(docids) - place) for place, docid in enumerate(docids)}
            for qid, docids in run.items()
            if qid in numbers
        }
        values = {(metric.measure, metric.query_id): float(metric.value) for metric in evaluator.iter_calc(scored)}
        # ir-measures fills in the queries that a run lacks, but not for each of its tools.
        return {
            name: {qid: values.get((measure, number), 0.0) for qid, number in numbers.items()}
            for name, measure in measures.items()
        }

    return score


def average(values: Values) -> dict[str, float]:
    """Return each measure's mean over all judged queries."""
    return {name: sum(by_query.values()) / len(by_query) for name, by_query in values.items()}


def mean(many: Sequence[Values]) -> Values:
    """Return the mean of several runs' values, query by query."""
    return {
        name: {qid: sum(values[name][qid] for values in many) / len(many) for qid in by_query}
        for name, by_query in many[0].items()
    }
