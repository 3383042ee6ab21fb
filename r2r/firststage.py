"""The retrieve stage from runs that another first stage made: dense, learned sparse, hybrid, or a published run.

Owns the stage's folder: candidates, rejects (queries without a candidate), run.txt and the manifest, as `retrieve` from
an index writes them. Does not own runs or the join with texts (`r2r.datasets.firststage`).

    retrieve_runs(RunSpec(["dense.run"], queries="demo", corpus="demo"), "runs/dense", RetrieveSettings(k=20))
"""

from __future__ import annotations

from functools import partial

from r2r import datasets, tables
from r2r.config import RetrieveSettings
from r2r.datasets import firststage
from r2r.datasets.runs import RunSpec
from r2r.errors import BadInput
from r2r.places import Place, place
from r2r.stage import Identity, Input, Result, Stage, There, run
from r2r.workers import bar


def stage(given: RunSpec, out: str | Place, settings: RetrieveSettings) -> Stage:
    """Return the stage that makes candidates of runs. `given.k`, where it is set, stands for `settings.k`."""
    if given.k:
        settings = settings.model_copy(update={"k": given.k})

    def check(there: There) -> None:
        for name in sorted(settings.model_fields_set & {"k1", "b"}):
            raise BadInput(f"{name}: belongs to BM25, and a run brings its own scores; leave {name} out")
        firststage.check(given)

    def work(identity: Identity) -> Result:
        return _work(given, place(out), settings)

    inputs = {f"run {place}": Input(file) for place, file in enumerate(given.files, start=1)}
    inputs["queries"] = Input(given.queries, partial(datasets.fingerprint, what="queries"))
    if given.corpus is not None:
        inputs["corpus"] = Input(given.corpus, partial(datasets.fingerprint, what="corpus"))
    if given.index is not None:
        inputs["index"] = Input(given.index)
    return Stage("retrieve", place(out), settings, inputs, check, work, ["candidates", "rejects", "run.txt"])


def retrieve_runs(given: RunSpec, out: str | Place, settings: RetrieveSettings) -> None:
    """Write the tables candidates and rejects (queries without a candidate), and run.txt, under `out`.

    Several runs are fused by reciprocal rank fusion. Raises BadInput for inputs that cannot be read, a run with none of
    the queries, more missing documents than `settings.max_missing` allows, and settings of BM25.
    """
    run(stage(given, out, settings))


def _work(given: RunSpec, out: Place, settings: RetrieveSettings) -> Result:
    tables.clear(out, "rejects")
    found = firststage.write(given, out, settings)
    tables.write(found.rejects, out, "rejects")
    rows = bar("retrieve: run.txt", found.candidates, "query", iterable=tables.ranked(out, "candidates"))
    tables.write_run(rows, out / "run.txt", "first-stage")
    counts = {name: getattr(found, name) for name in ("documents", "excluded", "missing_documents", "unknown_queries")}
    return Result(
        {"candidates": found.candidates, "rejects": len(found.rejects)},
        tables.content(found.contents),
        ["run.txt"],
        {**counts, "unmatched": [row["qid"] for row in found.rejects[:20]]},
    )
