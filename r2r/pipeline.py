"""Every stage of a run file, in order, each into a sub-folder of the run.

Owns which stage reads what. A stage whose manifest matches its inputs and settings is done and is passed over, so a
run that was stopped, or whose settings changed, goes on where it must.

    run("jobs/configs/demo.yaml")
"""

from __future__ import annotations

from pathlib import Path

from r2r.config import load_run_file


def run(file: str, out: str | None = None) -> None:
    """Run the stages of a run file into its `out` folder, or into the one given here."""
    from r2r.bm25.index import build_index
    from r2r.bm25.retrieve import retrieve
    from r2r.evaluation.evaluate import evaluate
    from r2r.student.distill import distill
    from r2r.student.rerank import rerank
    from r2r.teacher.annotate import annotate

    settings = load_run_file(file)
    folder = Path(out or settings.out)

    def place(name: str) -> str:
        return str(folder / name)

    if settings.corpus:
        build_index(settings.corpus, place("index"), settings.index)
        retrieve(place("index"), settings.queries, place("retrieve"), settings.retrieve)
    candidates = place("retrieve") if settings.corpus else settings.candidates
    train = None
    if settings.train_queries:
        train = place("retrieve-train")
        retrieve(place("index"), settings.train_queries, train, settings.retrieve)
    annotate(train, place("annotate"), settings.annotate)
    distill(place("annotate"), place("distill"), settings.distill)
    runs = {"bm25": place("retrieve/run.txt") if settings.corpus else settings.candidates}
    if settings.zero_shot:
        plain = settings.rerank.model_copy(update={"explain": 0, "merge": False})
        rerank(candidates, settings.distill.student, None, place("rerank-zero-shot"), plain)
        runs["zero-shot"] = place("rerank-zero-shot/run.txt")
    rerank(candidates, settings.distill.student, place("distill"), place("rerank"), settings.rerank)
    runs["student"] = place("rerank/run.txt")
    if settings.teacher_row:
        annotate(candidates, place("annotate-test"), settings.annotate)
        runs["teacher"] = place("annotate-test")
    runs |= settings.runs
    tables = (candidates, place("rerank"), place("distill"))
    evaluate(settings.qrels, runs, place("evaluate"), settings.evaluate, *tables)
    print(f"run: all stages are done -> {folder}")
    for what, at in {"report": "evaluate/report.html", "runs": "*/run.txt", "adapter": "distill/adapter"}.items():
        print(f"  {what:8} {folder / at}")
