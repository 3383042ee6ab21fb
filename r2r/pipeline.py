"""Every stage of a run file, in order, each into a sub-folder of the run.

Owns which stage reads what. All stages are planned, and their settings checked, before the first one runs. A stage that
is done is passed over, so a run that was stopped, or whose settings changed, goes on where it must.

    run(load_run_file("jobs/configs/demo.yaml"))
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from r2r import datasets
from r2r import stage as stages
from r2r.config import RunFile
from r2r.stage import Plan, Stage


def run(settings: RunFile) -> None:
    """Run the stages of a run file into its `out` folder. Raises BadInput before the first one if any would fail."""
    from r2r.student.adapter import kind

    planned = list(stages_of(settings))
    stages.plan(planned)
    for stage in planned:
        stages.run(stage)
    print(f"run: all stages are done -> {settings.out}")
    trained = kind(settings.distill)
    places = {"report": "evaluate/report.html", "runs": "*/run.txt", trained: f"distill/{trained}"}
    if settings.judge_reasons:
        places["reasons"] = "judge/report.html"
    for what, at in places.items():
        print(f"  {what:8} {Path(settings.out) / at}")


def dry_run(settings: RunFile) -> None:
    """Print which stages would run and why, what they would read and write; touch nothing."""
    plans = stages.plan(list(stages_of(settings)))
    for one in plans:
        print("\n".join(_lines(one)))
    count = sum(bool(one.why) for one in plans)
    print(f"run: {count} of {len(plans)} stages would run; nothing was done")


def _lines(one: Plan) -> Iterator[str]:
    stage = one.stage
    yield f"{stage.out.name:16} {'would run: ' + '; '.join(one.why) if one.why else 'done'}"
    if one.why:
        yield f"{'':16}   reads {', '.join(dict.fromkeys(put.source for put in stage.inputs.values()))}"
        yield f"{'':16}   writes {', '.join(str(stage.out / name) for name in stage.writes)}"


def stages_of(settings: RunFile) -> Iterator[Stage]:
    """Yield the stages of a run file, in the order in which they run."""
    from r2r import firststage
    from r2r.bm25 import index, retrieve
    from r2r.evaluation import evaluate
    from r2r.judge import stage as judge
    from r2r.student import distill, rerank
    from r2r.teacher import annotate, queries

    def place(name: str) -> str:
        return str(Path(settings.out) / name)

    given = datasets.runs_of(settings.candidates) if settings.candidates else None
    candidates = place("retrieve") if given else settings.candidates or place("retrieve")
    make = settings.make_queries.n > 0
    train_queries = place("queries") if make else settings.train_queries
    train = place("retrieve-train") if train_queries else None
    student = settings.distill.student
    if given:
        yield firststage.stage(given, place("retrieve"), settings.retrieve)
        runs = {"first-stage": place("retrieve/run.txt")}
    else:
        runs = {"bm25": settings.candidates or place("retrieve/run.txt")}
    if settings.corpus and settings.queries:
        yield index.stage(settings.corpus, place("index"), settings.index)
        if make:
            asking = settings.make_queries.stage_settings(settings.annotate)
            yield queries.stage(settings.corpus, place("index"), place("queries"), asking)
        yield retrieve.stage(place("index"), settings.queries, place("retrieve"), settings.retrieve)
    if train_queries and train:
        yield retrieve.stage(place("index"), train_queries, train, settings.retrieve)
    texts = settings.corpus if settings.annotate.positives else None
    yield annotate.stage(train, place("annotate"), settings.annotate, corpus=texts)
    learned = place("annotate")
    if settings.judge.keep is not None:
        yield judge.stage(learned, None, place("judge-annotate"), settings.judge)
        learned = place("judge-annotate/kept")
    yield distill.stage(learned, place("distill"), settings.distill)
    if settings.zero_shot:
        # Scored, and in windows of the size, as the student will be trained, so that the two rows compare.
        window = settings.rerank.window or settings.annotate.passages
        scores = settings.distill.scores if settings.distill.scores != "labels" else None
        alike = {"window": window, "scores": scores, "explain": 0, "merge": False}
        plain = settings.rerank.model_copy(update=alike)
        yield rerank.stage(candidates, student, None, place("rerank-zero-shot"), plain)
        runs["zero-shot"] = place("rerank-zero-shot/run.txt")
    yield rerank.stage(candidates, student, place("distill"), place("rerank"), settings.rerank)
    runs["student"] = place("rerank/run.txt")
    if settings.teacher_row:
        # The first candidates, in one row a query: draws and positives are for training alone.
        undrawn = {"depth": 0, "draws": 1, "distinct": False, "positives": None}
        yield annotate.stage(candidates, place("annotate-test"), settings.annotate.model_copy(update=undrawn))
        runs["teacher"] = place("annotate-test")
    if settings.judge_reasons:
        against = {"teacher": place("annotate-test")} if settings.teacher_row else {}
        same = settings.judge.model_copy(update={"keep": None})
        yield judge.stage(place("rerank"), candidates, place("judge"), same, against=against)
    tables = (candidates, place("rerank"), place("distill"))
    yield evaluate.stage(settings.qrels, runs | settings.runs, place("evaluate"), settings.evaluate, *tables)
