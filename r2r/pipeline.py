"""Every stage of a run file, in order, each into a sub-folder of the run.

Owns which stage reads what. All stages are planned, and their settings checked, before the first one runs. A stage that
is done is passed over, so a run that was stopped, or whose settings changed, goes on where it must.

The student is distilled once. Each collection that it is measured on has stages of its own: those of the run file
itself lie in the run's folder, those of an evaluation in `evaluations/NAME`. They are the same stages.

    run(load_run_file("jobs/configs/demo.yaml"))
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from r2r import datasets
from r2r import stage as stages
from r2r.config import MAIN, Evaluation, RunFile
from r2r.datasets.runs import RunSpec, several
from r2r.errors import BadInput, Stopped, Terminated, causes
from r2r.identity import manifest_of
from r2r.places import Place, place, relative
from r2r.stage import Plan, Stage
from r2r.workers import was_terminated

# The stages that come before any measuring.
_TRAINING = ""


def run(settings: RunFile) -> None:
    """Run the stages of a run file into its `out` folder. Raises BadInput before the first one if any would fail.

    With evaluations, the stages of one collection may fail and those of the others still run. The table over all says
    why, and an error names those that failed: BadInput, or Stopped, if it is no more than that.
    """
    from r2r.student.adapter import kind

    parts = stages_by_collection(settings)
    stages.plan(_once(parts))
    many = bool(settings.collections())
    failed = _run_each(parts) if many else {}
    if many:
        _report(settings, parts, {name: said for name, (_, said) in failed.items()})
    else:
        for stage in _once(parts):
            stages.run(stage)
    if failed:
        _raise(failed, len(parts) - 1)
    print(f"run: all stages are done -> {settings.out}")
    trained, below = kind(settings.distill), "evaluations/**/" if many else ""
    page = "evaluations/report.html" if many else "evaluate/report.html"
    written = {"report": page, "runs": f"{below or '*/'}run.txt", trained: f"distill/{trained}"}
    if settings.judge_reasons:
        written["reasons"] = f"{below}judge/report.html"
    for what, at in written.items():
        print(f"  {what:8} {place(settings.out) / at}")


def _run_each(parts: Mapping[str, list[Stage]]) -> dict[str, tuple[Exception, str]]:
    """Train, then run the stages of each collection. Return the error of each that failed, and the error as a line."""
    for stage in parts[_TRAINING]:
        stages.run(stage)
    collections = {name: members for name, members in parts.items() if name != _TRAINING}
    failed: dict[str, tuple[Exception, str]] = {}
    broken: dict[Place, tuple[Exception, str]] = {}
    for number, (name, members) in enumerate(collections.items(), start=1):
        print(f"run: collection {number} of {len(collections)}: {name}", flush=True)
        for stage in members:
            # An index that is shared is not built in vain again.
            found = broken.get(stage.out) or _error_of(stage)
            if found:
                failed[name] = broken[stage.out] = found
                print(f"run: {name} failed: {found[1]}", file=sys.stderr, flush=True)
                break
    return failed


def _error_of(stage: Stage) -> tuple[Exception, str] | None:
    """Run a stage. Return its error and a line that says it, None if there is none."""
    try:
        stages.run(stage)
    except Exception as error:
        if was_terminated() or _has(error, Terminated):
            raise
        if told := next((one for one in causes(error) if isinstance(one, BadInput | Stopped)), None):
            return error, str(told)
        traceback.print_exception(error)
        return error, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
    return None


def _has(error: Exception, *kinds: type[BaseException]) -> bool:
    return any(isinstance(one, kinds) for one in causes(error))


def _raise(failed: Mapping[str, tuple[Exception, str]], count: int) -> None:
    said = "; ".join(f"{name}: {reason}" for name, (_, reason) in failed.items())
    line = f"evaluations: {len(failed)} of {count} collections failed, the others are done: {said}"
    errors = [error for error, _ in failed.values()]
    if all(_has(error, BadInput) for error in errors):
        raise BadInput(line)
    if all(_has(error, BadInput, Stopped) for error in errors):
        raise Stopped(line)
    raise RuntimeError(line)


def _report(settings: RunFile, parts: Mapping[str, list[Stage]], failed: Mapping[str, str]) -> None:
    """Write and print the table over all collections."""
    from r2r.evaluation import summary

    out = place(settings.out) / "evaluations"
    places = {name: members[-1].out for name, members in parts.items() if name != _TRAINING}
    absent = {name: f"failed: {reason}" for name, reason in failed.items()}
    absent |= dict.fromkeys(settings.left_out(), "left out in the run file (without)")
    quoted = [one.model_dump() for one in settings.quoted]
    found = summary.collect(places, absent, settings.averages(), settings.evaluate.measures, quoted, out)
    summary.write(found, out)
    print(summary.as_text(found))
    print(f"report: {out / 'report.html'}", flush=True)


def dry_run(settings: RunFile) -> None:
    """Print which stages would run and why, what they would read and write; touch nothing."""
    plans = stages.plan(list(stages_of(settings)))
    names = [relative(one.stage.out, place(settings.out)) for one in plans]
    for name, one in zip(names, plans, strict=True):
        print("\n".join(_lines(name.ljust(max(16, *map(len, names))), one)))
    count = sum(bool(one.why) for one in plans)
    print(f"run: {count} of {len(plans)} stages would run; nothing was done")


def _lines(name: str, one: Plan) -> Iterator[str]:
    stage, indent = one.stage, " " * len(name)
    yield f"{name} {'would run: ' + '; '.join(one.why) if one.why else 'done'}"
    if one.why:
        yield f"{indent}   reads {', '.join(dict.fromkeys(put.source for put in stage.inputs.values()))}"
        yield f"{indent}   writes {', '.join(str(stage.out / name) for name in stage.writes)}"


def stages_of(settings: RunFile) -> Iterator[Stage]:
    """Yield the stages of a run file, in the order in which they run, each of them once."""
    yield from _once(stages_by_collection(settings))


def _once(parts: Mapping[str, list[Stage]]) -> list[Stage]:
    found: dict[Place, Stage] = {}
    for stage in (stage for members in parts.values() for stage in members):
        found.setdefault(stage.out, stage)
    return list(found.values())


def stages_by_collection(settings: RunFile) -> dict[str, list[Stage]]:
    """Return the stages up to the trained student under "", then those of each collection under its name.

    The run file's own collection is `main`. Evaluations over one corpus share its index, which each of them lists.
    """
    from r2r.bm25 import index, retrieve
    from r2r.judge import stage as judge
    from r2r.student import distill
    from r2r.teacher import annotate, queries

    out = place(settings.out)
    own = _own(settings)
    make = settings.make_queries.n > 0
    train_queries = str(out / "queries") if make else settings.train_queries
    train = str(out / "retrieve-train") if train_queries else None
    training: list[Stage] = []
    if settings.corpus and (train_queries or (own and own.queries)):
        training.append(index.stage(settings.corpus, out / "index", settings.index))
    if make and settings.corpus:
        asking = settings.make_queries.stage_settings(settings.annotate)
        training.append(queries.stage(settings.corpus, str(out / "index"), str(out / "queries"), asking))
    if own:
        training += _first_stage(settings, own, out, out / "index")
    if train_queries and train:
        training.append(retrieve.stage(str(out / "index"), train_queries, train, settings.retrieve))
    texts = settings.corpus if settings.annotate.positives else None
    training.append(annotate.stage(train, str(out / "annotate"), settings.annotate, corpus=texts))
    learned = str(out / "annotate")
    if settings.judge.keep is not None:
        training.append(judge.stage(learned, None, str(out / "judge-annotate"), settings.judge))
        learned = str(out / "judge-annotate" / "kept")
    training.append(distill.stage(learned, str(out / "distill"), settings.distill))

    found = {_TRAINING: training}
    if own:
        found[MAIN] = _ranked(settings, own, out)
    homes = _index_folders(settings)
    for one in settings.collections():
        at, home = out / "evaluations" / one.name, homes.get(one.name)
        first = [index.stage(str(one.corpus), home, _index_settings(settings, one))] if home else []
        found[one.name] = [*first, *_first_stage(settings, one, at, home), *_ranked(settings, one, at)]
    return found


def _own(settings: RunFile) -> Evaluation | None:
    """Return the run file's own collection as an evaluation, None if it has only others."""
    if settings.qrels is None:
        return None
    names = ("corpus", "queries", "candidates", "qrels", "runs")
    ranked = {name: getattr(settings, name) for name in names if settings.candidates is None or name != "corpus"}
    return Evaluation(name=MAIN, **ranked)


def _given_runs(one: Evaluation) -> RunSpec | None:
    """Return the runs of another first stage that stand for BM25, None for BM25 or finished candidates."""
    if one.run is not None:
        return RunSpec(several(one.run, "+"), str(one.queries), corpus=one.corpus)
    return datasets.runs_of(one.candidates) if one.candidates else None


def _index_settings(settings: RunFile, one: Evaluation) -> Any:
    return settings.index.model_copy(update={"analyzer": one.analyzer} if one.analyzer else {})


def _index_folders(settings: RunFile) -> dict[str, Place]:
    """Return where the index of each evaluation that needs one lies.

    One corpus, analyzed in one way, is indexed once: in the run's own `index` if it is the training corpus, else in the
    folder of an evaluation. That is one where it lies already, also one that is not in the list any more, else the
    first in the list.
    """
    out = place(settings.out)
    needed = {
        one.name: (one.corpus, _index_settings(settings, one).what())
        for one in settings.collections()
        if not one.candidates and not one.run
    }

    def holds(name: str, wanted: tuple[str | None, dict[str, Any]]) -> bool:
        manifest = manifest_of(out / "evaluations" / name / "index")
        return manifest is not None and (manifest["inputs"]["corpus"]["source"], manifest["what"]) == wanted

    listed = {one.name for one in settings.collections()}
    earlier = sorted(one.parent.name for one in out.glob("evaluations/*/index") if one.parent.name not in listed)
    homes: dict[str, Place] = {}
    for name, wanted in needed.items():
        if wanted == (settings.corpus, settings.index.what()):
            homes[name] = out / "index"
            continue
        sharing = [other for other in needed if needed[other] == wanted]
        home = next((other for other in [name, *sharing, *earlier] if holds(other, wanted)), sharing[0])
        homes[name] = out / "evaluations" / home / "index"
    return homes


def _first_stage(settings: RunFile, one: Evaluation, at: Place, home: Place | None) -> list[Stage]:
    """Return the stage that makes the candidates of a collection, from the index in `home` or from runs; none if they
    are there."""
    from r2r import firststage
    from r2r.bm25 import retrieve

    asked = {name: value for name in ("k", "remove_query") if (value := getattr(one, name)) is not None}
    # The settings that were given keep their names: those of BM25 are refused for runs.
    how = settings.retrieve.model_copy(update=asked)
    if given := _given_runs(one):
        return [firststage.stage(given, str(at / "retrieve"), how)]
    if one.candidates:
        return []
    return [retrieve.stage(str(home), str(one.queries), str(at / "retrieve"), how)]


def _ranked(settings: RunFile, one: Evaluation, at: Place) -> list[Stage]:
    """Return the stages that rank the candidates of a collection and measure all rankings, the last one."""
    from r2r.evaluation import evaluate
    from r2r.judge import stage as judge
    from r2r.student import rerank
    from r2r.teacher import annotate

    trained = str(place(settings.out) / "distill")
    given = _given_runs(one)
    listed = None if given else one.candidates
    candidates, first = listed or str(at / "retrieve"), listed or str(at / "retrieve" / "run.txt")
    runs = {"first-stage" if given else "bm25": first}
    student, found = settings.distill.student, []
    spoken = {"language": one.language} if one.language else {}
    ranking = settings.rerank.model_copy(update=spoken)
    if settings.zero_shot:
        # Scored, and in windows of the size, as the student will be trained, so that the two rows compare.
        window = settings.rerank.window or settings.annotate.passages
        scores = settings.distill.scores if settings.distill.scores != "labels" else None
        alike = {"window": window, "scores": scores, "explain": 0, "merge": False}
        plain = ranking.model_copy(update=alike)
        found.append(rerank.stage(candidates, student, None, str(at / "rerank-zero-shot"), plain))
        runs["zero-shot"] = str(at / "rerank-zero-shot" / "run.txt")
    found.append(rerank.stage(candidates, student, trained, str(at / "rerank"), ranking))
    runs["student"] = str(at / "rerank" / "run.txt")
    if settings.teacher_row:
        # The first candidates, in one row a query: draws and positives are for training alone.
        undrawn = {"depth": 0, "draws": 1, "distinct": False, "positives": None}
        asked = settings.annotate.model_copy(update=undrawn | spoken)
        found.append(annotate.stage(candidates, str(at / "annotate-test"), asked))
        runs["teacher"] = str(at / "annotate-test")
    if settings.judge_reasons:
        against = {"teacher": str(at / "annotate-test")} if settings.teacher_row else {}
        same = settings.judge.model_copy(update={"keep": None})
        found.append(judge.stage(str(at / "rerank"), candidates, str(at / "judge"), same, against=against))
    measured = settings.evaluate.model_copy(update={"measures": one.measures} if one.measures else {})
    tables = (candidates, str(at / "rerank"), trained)
    found.append(evaluate.stage(str(one.qrels), runs | one.runs, str(at / "evaluate"), measured, *tables))
    return found
