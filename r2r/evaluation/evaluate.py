"""The evaluate stage: TREC runs and qrels in, `metrics.json` and `report.html` out.

Owns what is compared with what: all judged queries, the rows random and oracle, the warnings. Does not own the
formulas (measures.py), the run files' order (runs.py) or the page (report.py).

    evaluate("beir:scifact", {"bm25": "runs/scifact/retrieve/run.txt"}, "runs/scifact/evaluate", EvaluateSettings())
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from r2r import datasets, tables
from r2r import stage as stages
from r2r.config import EvaluateSettings
from r2r.errors import BadInput
from r2r.identity import digest, manifest_of
from r2r.stage import Identity, Input, Result, Stage, There, run
from r2r.evaluation import explanations, report
from r2r.evaluation.measures import Values, average, parse_measures, scorer
from r2r.evaluation.runs import Qrels, Run, completed, oracle, read_run, shuffled

SHUFFLES = 10
_TAKEN = {"random": "the shuffled candidates", "oracle": "the candidates by relevance"}


def parse_runs(pairs: list[str]) -> dict[str, str]:
    """Return name -> file for `NAME=FILE` strings, in their order.

    Raises BadInput for one that is written otherwise, and for a name given twice.
    """
    runs: dict[str, str] = {}
    for pair in pairs:
        name, _, file = pair.partition("=")
        if not name or not file:
            raise BadInput(f"run {pair!r}: expected NAME=FILE, such as bm25=runs/demo/retrieve/run.txt")
        if name in runs:
            raise BadInput(f"run {pair!r}: the name {name} is given twice; give each run a name of its own")
        runs[name] = file
    return runs


def stage(
    qrels: str,
    runs: dict[str, str],
    out: str | Path,
    settings: EvaluateSettings,
    candidates: str | None = None,
    rankings: str | None = None,
    distill: str | None = None,
) -> Stage:
    """Return the stage that measures runs against qrels.

    qrels: dataset, or TREC qrels file. runs: system name -> TREC run file (read as `read_run` says), candidates as
    `rankgpt:FILE`, or a folder with the table annotations; the others are compared with the first. candidates: a folder
    with that table, or `rankgpt:FILE`, for the report's passages; rankings: a folder with that table, for its reasons;
    distill: the folder in which the student was trained, for its curves.
    """

    def check(there: There) -> None:
        _check_names(runs, there)
        datasets.check(qrels, "qrels")
        for folder, table in ((candidates, "candidates"), (rankings, "rankings"), (distill, "steps")):
            if folder and there(folder) and not _is_candidates(folder):
                tables.files(folder, table)

    def work(identity: Identity) -> Result:
        return _work(qrels, runs, Path(out), settings, candidates, rankings, distill)

    inputs = {"qrels": Input(qrels, partial(datasets.fingerprint, what="qrels"))}
    # The place is part of the name: another first run makes another report.
    inputs |= {f"run {place} {name}": Input(file) for place, (name, file) in enumerate(runs.items(), start=1)}
    folders = {"candidates": candidates, "rankings": rankings, "distill": distill}
    inputs |= {name: Input(folder) for name, folder in folders.items() if folder}
    writes = ["metrics.json", "report.html"]
    return Stage("evaluate", Path(out), settings, inputs, check, work, writes, after=lambda: _tell(Path(out), settings))


def evaluate(
    qrels: str,
    runs: dict[str, str],
    out: str | Path,
    settings: EvaluateSettings,
    candidates: str | None = None,
    rankings: str | None = None,
    distill: str | None = None,
) -> None:
    """Measure runs against qrels; write `metrics.json` and `report.html` into `out` and print the table.

    Arguments as for `stage`. Every figure is the mean over all judged queries; a query that a run lacks counts 0. Two
    rows are added, both over the documents that the first run lists for each query: `random`, the mean of 10 seeded
    shuffles, and `oracle`, the order by relevance. Annotations are the teacher's order of the few documents that it
    saw: the first run's other documents follow in its order, and a query without an annotation keeps that order.
    Warnings count such queries, judged queries that a run lacks, and queries in which a run lists documents that the
    first run does not, since oracle is no upper bound for those.

    metrics.json: {"measures": [...], "queries": N, "systems": {"NAME": {"nDCG@10": 0.51, ...}, ...}}, measures under
    the spelling they were asked for. The counts of `explanations.count` are in the manifest under `explanations`.

    Raises BadInput for a run name that is taken, a missing or broken run file, annotations as the first run, an unknown
    measure, qrels that are empty or belong to other queries, and a folder without its table.
    """
    run(stage(qrels, runs, out, settings, candidates, rankings, distill))


def _work(
    qrels: str,
    runs: dict[str, str],
    out: Path,
    settings: EvaluateSettings,
    candidates: str | None,
    rankings: str | None,
    distill: str | None,
) -> Result:
    measures = parse_measures(settings.measures)
    training = tables.read(distill, "steps").to_pylist() if distill else []
    judged = _read_qrels(qrels)
    found = {name: _read_judged(file, qrels, judged) for name, file in runs.items()}
    teachers = [name for name, file in runs.items() if Path(file).is_dir()]
    warnings = _complete(found, teachers, judged) + _compare(found, judged)
    for warning in warnings:
        print(f"evaluate: warning: {warning}", file=sys.stderr, flush=True)

    score = scorer(measures, judged)
    first = next(iter(found.values()))
    values = {name: score(one) for name, one in found.items()}
    values["random"] = _mean([score(shuffled(first, seed)) for seed in range(SHUFFLES)])
    values["oracle"] = score(oracle(first, judged))
    systems = {name: average(by_measure) for name, by_measure in values.items()}

    rows = _as_in_runs(datasets.read_candidates(candidates).to_pylist()) if candidates else []
    texts = {row["qid"]: dict(zip(row["docids"], row["texts"], strict=True)) for row in rows}
    ranked = _as_in_runs(tables.read(rankings, "rankings").to_pylist()) if rankings else []
    counted = explanations.count(ranked, texts, *_dropped(rankings)) if rankings else None

    metrics = {"measures": list(measures), "queries": len(judged), "systems": systems}
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
        training=training,
    )
    tables.write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", out / "metrics.json")
    tables.write_text(page, out / "report.html")
    if counted:
        print(report.say(counted))
    return Result(
        {"queries": len(judged), "systems": len(systems)},
        digest(metrics),
        ["metrics.json", "report.html"],
        {"explanations": counted} if counted else {},
    )


def _dropped(rankings: str) -> tuple[int, int]:
    """Return how many pieces of evidence, and how many comparisons, rerank found to be false and dropped."""
    dropped = (manifest_of(Path(rankings)) or {}).get("dropped", {})
    return dropped.get("evidence", 0), dropped.get("comparisons", 0)


def _tell(out: Path, settings: EvaluateSettings) -> None:
    print(_plain(json.loads((out / "metrics.json").read_text(encoding="utf-8"))))
    if settings.caption:
        print(settings.caption)
    print(f"report: {out / 'report.html'}", flush=True)


def _check_names(runs: dict[str, str], there: There) -> None:
    if not runs:
        raise BadInput("runs: none given; give at least one TREC run file as NAME=FILE")
    for place, (name, file) in enumerate(runs.items()):
        if name in _TAKEN:
            raise BadInput(f"run {name}={file}: the name {name} stands for {_TAKEN[name]}; give the run another name")
        if not there(file) or _is_candidates(file):
            continue
        folder = Path(file).is_dir()
        if not folder and "://" not in file and not Path(file).is_file():
            raise BadInput(f"{file}: no such file; run {name} needs a TREC run file, or a folder that annotate wrote")
        if folder and not tables.path(file, "annotations").is_dir():
            raise BadInput(f"{file}: is a folder; run {name} needs a TREC run file, or a folder that annotate wrote")
        if folder and place == 0:
            raise BadInput(
                f"run {name}={file}: annotations order only what the teacher saw; give them after a run that lists all "
                f"documents, such as bm25"
            )


def _is_candidates(source: str) -> bool:
    return source.startswith("rankgpt:")


def _as_in_runs(rows: list[dict]) -> list[dict]:
    """Return rows of candidates or rankings with their ids as run files hold them."""
    return [
        row | {"qid": tables.run_id(row["qid"]), "docids": [tables.run_id(docid) for docid in row["docids"]]}
        for row in rows
    ]


def _read_qrels(source: str) -> Qrels:
    judged: Qrels = {}
    for row in datasets.read_qrels(source).to_pylist():
        judged.setdefault(tables.run_id(row["qid"]), {})[tables.run_id(row["docid"])] = row["relevance"]
    if not judged:
        raise BadInput(f"{source}: holds no judgements; qrels need at least one row of qid, docid and relevance")
    return judged


def _read_judged(file: str, source: str, judged: Qrels) -> Run:
    if Path(file).is_dir():
        run = _read_annotations(file)
    elif _is_candidates(file):
        run = {row["qid"]: row["docids"] for row in _as_in_runs(datasets.read_candidates(file).to_pylist())}
    else:
        run = read_run(file)
    kept = {qid: docids for qid, docids in run.items() if qid in judged}
    if not kept:
        raise BadInput(
            f"{file}: none of its queries is judged in {source}: the run has query {next(iter(run))!r}, the qrels have "
            f"{next(iter(judged))!r}; give the qrels for the run's own queries"
        )
    return kept


def _read_annotations(folder: str) -> Run:
    """Return the teacher's order of what it saw. Raises BadInput where there is none, all of it being rejects."""
    rows = _as_in_runs(tables.read(folder, "annotations").to_pylist())
    if not rows:
        raise BadInput(f"{folder}: holds no annotations; a run has at least one query")
    return {row["qid"]: [row["docids"][position - 1] for position in row["ranking"]] for row in rows}


def _complete(runs: dict[str, Run], teachers: list[str], judged: Qrels) -> list[str]:
    """Give the teachers' runs what they lack of the first; return a line for each that lacks queries."""
    first_name, first = next(iter(runs.items()))
    lines = []
    for name in teachers:
        if missing := len(first.keys() - runs[name].keys()):
            lines.append(
                f"run {name} has no annotation for {missing} of {len(judged)} judged queries; they keep the order of "
                f"{first_name}"
            )
        runs[name] = completed(runs[name], first)
    return lines


def _compare(runs: dict[str, Run], judged: Qrels) -> list[str]:
    """Return a line for each run that lacks judged queries, or lists documents that the first run does not."""
    first_name, first = next(iter(runs.items()))
    lines = []
    for name, run in runs.items():
        if missing := len(judged) - len(run):
            lines.append(f"run {name} lacks {missing} of {len(judged)} judged queries; they count 0")
        others = sum(not set(docids) <= set(first.get(qid, ())) for qid, docids in run.items())
        if others:
            lines.append(
                f"run {name} lists documents that run {first_name} does not, in {others} of {len(judged)} judged "
                f"queries; random and oracle reorder the documents of {first_name}"
            )
    return lines


def _mean(many: list[Values]) -> Values:
    return {
        name: {qid: sum(values[name][qid] for values in many) / len(many) for qid in by_query}
        for name, by_query in many[0].items()
    }


def _plain(metrics: dict) -> str:
    """Return the table as text, its columns aligned."""
    names = metrics["measures"]
    rows = [["system", *names]]
    rows += [[system, *(f"{row[name]:.4f}" for name in names)] for system, row in metrics["systems"].items()]
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        "  ".join([system.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))])
        for system, *cells in rows
    )
