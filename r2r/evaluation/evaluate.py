"""The evaluate stage: TREC runs and qrels in; `metrics.json`, `per_query.csv` and `report.html` out.

Owns the rows of the table, the names of runs, and the stage's folder. Does not own the formulas (measures.py), the
tests of differences (significance.py), reading and comparing runs (runs.py) or the page (report.py).

    evaluate("beir:scifact", {"bm25": "runs/scifact/retrieve/run.txt"}, "runs/scifact/evaluate", EvaluateSettings())
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from r2r import datasets, tables
from r2r.config import EvaluateSettings
from r2r.errors import BadInput
from r2r.evaluation import explanations, protocol, report
from r2r.evaluation.measures import Values, average, mean, parse_measures, scorer
from r2r.evaluation.runs import Qrels, Run, check_run, oracle, read_qrels, read_runs, shuffled, with_run_ids
from r2r.evaluation.significance import paired_tests
from r2r.identity import digest, manifest_of
from r2r.places import Place, place
from r2r.stage import Identity, Input, Result, Stage, There, run

SHUFFLES = 10
_FILES = ["metrics.json", "per_query.csv", "report.html"]
_TAKEN = {"random": "the shuffled candidates", "oracle": "the candidates by relevance"}


def parse_runs(
    pairs: Iterable[str], flag: str = "run", example: str = "bm25=runs/demo/retrieve/run.txt"
) -> dict[str, str]:
    """Return name -> file for `NAME=FILE` strings, in their order.

    flag, example: for the message. Raises BadInput for a string of another form, and for a name given twice.
    """
    runs: dict[str, str] = {}
    for pair in pairs:
        name, _, file = pair.partition("=")
        if not name or not file:
            raise BadInput(f"{flag} {pair!r}: expected NAME=FILE, such as {example}")
        if name in runs:
            raise BadInput(f"{flag} {pair!r}: the name {name} is given twice; give each a name of its own")
        runs[name] = file
    return runs


def stage(
    qrels: str,
    runs: Mapping[str, str],
    out: str | Place,
    settings: EvaluateSettings,
    candidates: str | None = None,
    rankings: str | None = None,
    distill: str | None = None,
) -> Stage:
    """Return the stage that measures runs against qrels.

    qrels: dataset, or TREC qrels file. runs: name -> TREC run file (see `runs.read_run`), `rankgpt:FILE`, or a folder
    with the table annotations; the others are compared with the first, and tested against settings.baseline. For the
    report: candidates, a folder with that table or `rankgpt:FILE`, has the passages; rankings, a folder with that
    table, has the reasons; distill, the folder in which the student was trained, has the curves.
    """

    def check(there: There) -> None:
        _check_names(runs)
        _baseline(runs, settings)
        for at, (name, file) in enumerate(runs.items()):
            if there(file):
                check_run(name, file, first=at == 0)
        datasets.check(qrels, "qrels")
        if candidates and there(candidates):
            datasets.check(candidates, "candidates")
        for folder, table in ((rankings, "rankings"), (distill, "steps")):
            if folder and there(folder):
                tables.files(folder, table)

    def work(identity: Identity) -> Result:
        return _work(qrels, runs, place(out), settings, candidates, rankings, distill)

    inputs = {"qrels": Input(qrels, partial(datasets.fingerprint, what="qrels"))}
    # The place is part of the name: another first run makes another report.
    inputs |= {f"run {at} {name}": Input(file) for at, (name, file) in enumerate(runs.items(), start=1)}
    folders = {"candidates": candidates, "rankings": rankings, "distill": distill}
    inputs |= {name: Input(folder) for name, folder in folders.items() if folder}
    told = partial(_tell, place(out), settings)
    return Stage("evaluate", place(out), settings, inputs, check, work, _FILES, after=told)


def evaluate(
    qrels: str,
    runs: Mapping[str, str],
    out: str | Place,
    settings: EvaluateSettings,
    candidates: str | None = None,
    rankings: str | None = None,
    distill: str | None = None,
) -> None:
    """Measure runs against qrels; write `metrics.json`, `per_query.csv` and `report.html`; print the table.

    Arguments as for `stage`. Every figure is the mean over all judged queries; a query that a run lacks counts 0. Two
    rows are added, both over the documents that the first run lists for each query: `random`, the mean of 10 seeded
    shuffles, and `oracle`, the order by relevance. Annotations hold the teacher's order of the few documents that it
    saw: the first run's other documents follow in its order, and a query without an annotation keeps that order.
    Warnings count such queries, judged queries that a run lacks, queries in which a run lists documents that the first
    run does not, since oracle is no upper bound for those, and ids that fit the qrels in part (`runs.read_runs`).

    metrics.json: {"measures": [...], "queries": N, "systems": {"NAME": {"nDCG@10": 0.51, ...}, ...}, "tests": {...}},
    each measure as the settings spell it, and the tests as `significance.paired_tests` returns them, of all runs
    against the run settings.baseline, by default the first; random and oracle are bounds and are not tested.
    With settings.paper_protocol, "paper_protocol" has the rows of `protocol.released`.
    per_query.csv: a line of system, qid and a value per measure for each row of the table and each judged query; qids
    are as in run files. The counts of `explanations.count` are in the manifest under `explanations`.

    Raises BadInput for a run name that is taken, a baseline that is none of the runs, a missing or broken run file,
    annotations as the first run, qrels that are empty or belong to other queries, and a folder without its table.
    """
    run(stage(qrels, runs, out, settings, candidates, rankings, distill))


def _check_names(runs: Mapping[str, str]) -> None:
    if not runs:
        raise BadInput("runs: none given; give at least one TREC run file as NAME=FILE")
    for name, file in runs.items():
        if name in _TAKEN:
            raise BadInput(f"run {name}={file}: the name {name} stands for {_TAKEN[name]}; give the run another name")


def _baseline(runs: Mapping[str, str], settings: EvaluateSettings) -> str:
    """Return the name of the run that the others are tested against. Raises BadInput if there is no such run."""
    name = settings.baseline or next(iter(runs))
    if name not in runs:
        raise BadInput(f"baseline: {name}: no run has this name; give one of {', '.join(runs)}")
    return name


def _work(
    qrels: str,
    runs: Mapping[str, str],
    out: Place,
    settings: EvaluateSettings,
    candidates: str | None,
    rankings: str | None,
    distill: str | None,
) -> Result:
    measures, judged = parse_measures(settings.measures), read_qrels(qrels)
    found, warnings = read_runs(runs, qrels, judged)
    for warning in warnings:
        print(f"evaluate: warning: {warning}", file=sys.stderr, flush=True)
    values = _values(found, scorer(measures, judged), judged)
    systems = {name: average(by_measure) for name, by_measure in values.items()}
    found_tests = paired_tests({name: values[name] for name in found}, _baseline(runs, settings))
    metrics = {"measures": list(measures), "queries": len(judged), "systems": systems, "tests": found_tests}
    if settings.paper_protocol:
        metrics["paper_protocol"] = protocol.released(found, judged, SHUFFLES)

    rows = with_run_ids(datasets.read_candidates(candidates).to_pylist()) if candidates else []
    texts = {row["qid"]: dict(zip(row["docids"], row["texts"], strict=True)) for row in rows}
    ranked = with_run_ids(tables.read(rankings, "rankings").to_pylist()) if rankings else []
    counted = explanations.count(ranked, texts, *_dropped(rankings)) if rankings else None
    page = report.render(
        metrics=metrics,
        values=values,
        runs=found,
        qrels=judged,
        queries={row["qid"]: row["query"] for row in [*ranked, *rows]},
        texts=texts,
        reasons={row["qid"]: explanations.reasons(row) for row in ranked},
        counted=counted,
        warnings=warnings,
        sources=[("qrels", qrels), *runs.items()],
        caption=settings.caption,
        training=tables.read(distill, "steps").to_pylist() if distill else [],
    )
    tables.write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", out / "metrics.json")
    tables.write_text(per_query(values), out / "per_query.csv")
    tables.write_text(page, out / "report.html")
    if counted:
        print(report.say(counted))
    return Result(
        {"queries": len(judged), "systems": len(systems)},
        digest(metrics),
        _FILES,
        {"explanations": counted} if counted else {},
    )


def _values(runs: Mapping[str, Run], score: Callable[[Run], Values], judged: Qrels) -> dict[str, Values]:
    """Return the values of each row of the table: the runs, random and oracle."""
    first = next(iter(runs.values()))
    values = {name: score(one) for name, one in runs.items()}
    values["random"] = mean([score(shuffled(first, seed)) for seed in range(SHUFFLES)])
    values["oracle"] = score(oracle(first, judged))
    return values


def per_query(values: Mapping[str, Values]) -> str:
    """Return the values as CSV, system by system: columns system, qid and one per measure, in full precision."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    first, *_ = values.values()
    lines.writerow(["system", "qid", *first])
    for system, by_measure in values.items():
        for qid in next(iter(by_measure.values())):
            lines.writerow([system, qid, *(by_query[qid] for by_query in by_measure.values())])
    return text.getvalue()


def _dropped(rankings: str) -> tuple[int, int]:
    """Return how many pieces of evidence, and how many comparisons, rerank found to be false and dropped."""
    dropped = (manifest_of(place(rankings)) or {}).get("dropped", {})
    return dropped.get("evidence", 0), dropped.get("comparisons", 0)


def _tell(out: Place, settings: EvaluateSettings) -> None:
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    print(report.as_text(metrics))
    if settings.paper_protocol:
        print("\n".join(protocol.say(metrics["paper_protocol"], metrics["queries"])))
    if settings.caption:
        print(settings.caption)
    print(f"report: {out / 'report.html'}", flush=True)
