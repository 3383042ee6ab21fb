"""The report: one self-contained HTML page about an evaluation, and the same table as text.

Owns which queries are shown, how passages are cut and marked, and the curves; `report.html.j2` owns the looks. Does not
calculate measures: evaluate.py passes them, for every query.

    page = render(metrics=..., values=..., runs=..., ...)    # as evaluate.py calls it
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r2r.evaluation import protocol
from r2r.evaluation.measures import Values
from r2r.evaluation.runs import Qrels, Run
from r2r.evaluation.significance import LEVEL, MARK, is_marked, legend
from r2r.reasons import fold
from r2r.templates import load

SHOWN_QUERIES = 5
SHOWN_DOCUMENTS = 5
# Characters of a passage.
SNIPPET = 300
CURVE_POINTS = 200
# Figures of a training besides its losses: title and format of each curve.
_CURVES = {
    "ndcg": ("nDCG@10 by the teacher's order, held-out queries", ".3f"),
    "learning_rate": ("learning rate", ".1e"),
    "grad_norm": ("gradient norm", ".2f"),
    "tokens_per_second": ("tokens per second", ",.0f"),
    "mfu": ("model FLOPs utilisation", ".1%"),
}


def render(
    *,
    metrics: Mapping[str, Any],
    values: Mapping[str, Values],
    runs: Mapping[str, Run],
    qrels: Qrels,
    queries: Mapping[str, str],
    texts: Mapping[str, Mapping[str, str]],
    reasons: Mapping[str, Mapping[str, Mapping[str, str]]],
    counted: Mapping[str, Any] | None,
    warnings: Sequence[str],
    sources: Sequence[tuple[str, str]],
    caption: str,
    training: Sequence[Mapping[str, Any]],
) -> str:
    """Return the page.

    metrics: as in metrics.json. values: system -> measure -> qid -> value. runs: name -> run; the first is "before",
    and "after" is the run called student, else the second. queries: qid -> text. texts: qid -> docid -> text.
    reasons: qid -> docid -> {direct, evidence, comparison}. counted: from `explanations.count`. sources: name and place
    of the qrels and of each run. training: rows of distill's table steps; none leaves the curves out.
    """
    first, *others = runs
    tests = metrics["tests"]
    baseline = tests["baseline"]
    after = "student" if "student" in others else next(iter(others), None)
    measure = metrics["measures"][0]
    template = load(Path(__file__).with_name("report.html.j2"))
    best = {name: max(round(metrics["systems"][system][name], 4) for system in runs) for name in metrics["measures"]}
    top_grade = max(1, *(grade for grades in qrels.values() for grade in grades.values()))

    def column(qid: str, name: str, other: str) -> dict[str, Any]:
        written = reasons.get(qid, {}) if name == after else {}
        order, compared = (runs[system].get(qid, []) for system in (name, other))
        documents = _documents(order, compared, qrels[qid], top_grade, texts.get(qid, {}), written)
        return {"name": name, "value": values[name][measure][qid], "documents": documents}

    def query(qid: str, second: str) -> dict[str, Any]:
        before, later = column(qid, first, second), column(qid, second, first)
        gain = round(later["value"] - before["value"], 9)
        return {"qid": qid, "query": queries.get(qid, ""), "gain": gain, "before": before, "after": later}

    shown = [query(qid, after) for qid in pick(values[first][measure], values[after][measure])] if after else []
    return template.render(
        metrics=metrics,
        real=list(runs),
        best=best,
        chart=_chart({system: row[measure] for system, row in metrics["systems"].items()}),
        measure=measure,
        first=first,
        after=after,
        baseline=baseline,
        compared=[
            {"system": name, "measure": one, **changes(values[baseline][one], values[name][one]), **row}
            for name, by_measure in tests["systems"].items()
            for one, row in by_measure.items()
        ],
        level=LEVEL,
        mark=MARK,
        is_marked=is_marked,
        legend=legend(tests),
        paper=protocol.say(metrics["paper_protocol"], metrics["queries"]) if "paper_protocol" in metrics else [],
        shown=shown,
        checks=say(counted) if counted else "",
        warnings=warnings,
        sources=sources,
        caption=caption,
        curves=curves(training),
    )


def as_text(metrics: Mapping[str, Any]) -> str:
    """Return the table of metrics.json as text with aligned columns, and a line that says what its mark means."""
    names, tests = metrics["measures"], metrics["tests"]

    def cell(system: str, name: str) -> str:
        mark = MARK if is_marked(tests, system, name) else " "
        return f"{metrics['systems'][system][name]:.4f}{mark}"

    rows = [["system ", *(f"{name} " for name in names)]]
    rows += [[f"{system} ", *(cell(system, name) for name in names)] for system in metrics["systems"]]
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [
        " ".join([system.ljust(first), *(text.rjust(width) for text, width in zip(texts, others, strict=True))])
        for system, *texts in rows
    ]
    return "\n".join([*(line.rstrip() for line in lines), *[legend(tests)] * bool(tests["systems"])])


def curves(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the curves of a training, from rows of the table steps.

    Each has its title, points in 100 by 40 units, the lowest, highest, first and last value as text, and the step that
    was best on the held-out queries.
    """
    if not steps:
        return []
    measured = [step for step in steps if step["ndcg"] is not None]
    best = max(measured, key=lambda step: step["ndcg"])["step"] if measured else None
    last = steps[-1]["step"]
    losses = {name: (f"{name} loss", ".3f") for name in dict(steps[0]["loss"])}
    figures = [_figures(step) for step in steps]
    drawn: list[dict[str, Any]] = []
    for name, (title, form) in (losses | _CURVES).items():
        values = [
            (step["step"], value)
            for step, figure in zip(steps, figures, strict=True)
            if (value := figure.get(name)) is not None
        ]
        if values:
            drawn.append({"title": title, "steps": last, **_line(values, last, form)})
            drawn[-1]["best"] = None if best is None else {"step": best, "x": f"{100 * best / last:.2f}"}
    return drawn


def _figures(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's figures by the names of their curves."""
    return {**step, **dict(step["loss"]), "tokens_per_second": step["tokens"] / max(step["seconds"], 1e-9)}


def _line(values: list[tuple[int, float]], last: int, form: str) -> dict[str, str]:
    """Return the points of a curve of (step, value), and its figures in the format `form`. `last`: the last step."""
    # Means of several steps keep the page small and the noise low.
    each = -(-len(values) // CURVE_POINTS)
    groups = [values[start : start + each] for start in range(0, len(values), each)]
    means = [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
    low, high = min(value for _, value in means), max(value for _, value in means)
    points = [(100 * step / last, 40 - 40 * (value - low) / ((high - low) or 1)) for step, value in means]
    if len(points) == 1:
        points *= 2
    return {
        "points": " ".join(f"{x:.2f},{y:.2f}" for x, y in points),
        "low": format(low, form),
        "high": format(high, form),
        "first": format(means[0][1], form),
        "last": format(means[-1][1], form),
    }


def say(counted: Mapping[str, Any]) -> str:
    """Return the counts of `explanations.count` as one sentence."""
    if not counted["explained"]:
        return "explanations: none written"
    parts = [f"explanations: {counted['explained']:,} written", f"evidence empty in {counted['evidence_empty']:.1%}"]
    if counted["evidence_verbatim"] is not None:
        parts.append(f"of all evidence {counted['evidence_verbatim']:.1%} word for word in its passage")
    if counted["neighbours"] is not None:
        parts.append(f"of all comparisons {counted['neighbours']:.1%} name the neighbours")
    return ", ".join(parts)


def changes(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, int]:
    """Return how many queries improved, got worse and stayed equal. before, after: qid -> value."""
    differences = [round(after[qid] - before[qid], 9) for qid in before]
    improved, worse = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    return {"improved": improved, "worse": worse, "equal": len(differences) - improved - worse}


def pick(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """Return the qids to show: the biggest gains, and at least the biggest loss if there is one.

    If gains are few, further losses follow, then queries that stayed equal. before, after: qid -> value.
    """
    by_gain = sorted(before, key=lambda qid: before[qid] - after[qid])
    gains = [qid for qid in by_gain if after[qid] > before[qid]]
    losses = [qid for qid in reversed(by_gain) if after[qid] < before[qid]]
    equal = [qid for qid in by_gain if after[qid] == before[qid]]
    chosen = gains[: SHOWN_QUERIES - bool(losses)]
    return [*chosen, *losses, *equal][:SHOWN_QUERIES]


def _documents(
    order: Sequence[str],
    other: Sequence[str],
    grades: Mapping[str, int],
    top_grade: int,
    texts: Mapping[str, str],
    reasons: Mapping[str, Mapping[str, str]],
) -> list[dict[str, Any]]:
    """Return the first documents of one query's order, each with its rank in the other order."""
    documents = []
    for rank, docid in enumerate(order[:SHOWN_DOCUMENTS], start=1):
        grade, written = grades.get(docid), reasons.get(docid, {})
        documents.append(
            {
                "rank": rank,
                "elsewhere": other.index(docid) + 1 if docid in other else None,
                "docid": docid,
                "grade": grade,
                # Strength of the badge's colour: from 0, not relevant, to 3, the highest grade of the qrels.
                "level": math.ceil(3 * max(grade or 0, 0) / top_grade),
                "snippet": snippet(texts.get(docid, ""), written.get("evidence", "")),
                "reasons": written,
            }
        )
    return documents


def snippet(text: str, evidence: str) -> list[tuple[str, bool]]:
    """Return about SNIPPET characters of a passage as (piece, is evidence), white space folded.

    This is the passage's start, or the part around the evidence if that stands in it word for word. The evidence itself
    is never cut.
    """
    text, evidence = fold(text), fold(evidence)
    if not evidence or evidence not in text:
        return [(_cut(text, SNIPPET), False)]
    before, _, rest = text.partition(evidence)
    if len(before) + len(evidence) > SNIPPET:
        before = "… " + before[-60:].partition(" ")[2]
    return [(before, False), (evidence, True), (_cut(rest, max(SNIPPET - len(before) - len(evidence), 0)), False)]


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " …"


def _chart(values: Mapping[str, float]) -> dict[str, Any]:
    """Return bars and ticks as shares of the axis, which runs from 0 to the next round number."""
    largest = max(values.values())
    power = 10.0 ** math.floor(math.log10(largest)) if largest > 0 else 1.0
    factor, steps = next(pair for pair in ((1, 5), (2, 4), (5, 5), (10, 5)) if pair[0] * power >= largest)
    top = factor * power
    return {
        "bars": [{"name": name, "value": value, "share": max(value, 0) / top} for name, value in values.items()],
        "ticks": [{"label": f"{top * step / steps:.3g}", "share": step / steps} for step in range(steps + 1)],
    }
