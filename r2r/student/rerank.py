"""The rerank stage: the student orders each query's candidates, and explains those that somebody asks about.

Owns the tables `rankings` and the TREC run. How one query is ranked lies in `rank`.

    rerank("runs/demo/retrieve", "demo", "runs/demo/distill", "runs/demo/rerank", RerankSettings(explain=3))
"""

from __future__ import annotations

from functools import partial

from r2r import datasets, tables
from r2r.config import BadInput, RerankSettings, Workers
from r2r.llm import pool
from r2r.student.prompt import rename_brackets
from r2r.student.rank import Ranker, check, scores


def rerank(candidates: str, student: str, adapter: str | None, out: str, settings: RerankSettings) -> None:
    """Write the table `rankings` and `run.txt` into `out`, and `rejects`, queries that end their engine.

    `candidates` is a stage folder or `rankgpt:FILE`; without an adapter the student ranks as it is (zero-shot).
    Raises BadInput where the adapter was made for another model, and for windows that leave passages out.
    """
    inputs = {"candidates": candidates, "student": student} | ({"adapter": adapter} if adapter else {})
    stage = tables.Stage("rerank", out, inputs, settings)
    if stage.done:
        return
    if settings.stride > settings.window:
        raise BadInput(f"stride: {settings.stride}: more than the window of {settings.window}, so passages are skipped")
    if settings.explain > settings.window:
        raise BadInput(f"explain: {settings.explain}: more than the window of {settings.window} that is explained from")
    check(student, adapter)
    rows = datasets.open_candidates(candidates)
    known = [one["fingerprint"] for name, one in stage.manifest["inputs"].items() if name != "candidates"]
    asked = settings.model_dump(mode="json", exclude=set(Workers.model_fields) - {"engine"})
    version = tables.digest([known, asked])[:16]
    row_key = partial(key, version=version)
    job = pool.Job("rerank", Reranker, (student, adapter, settings), row_key, version, ("rankings", "rejects"))
    counts = pool.run_rows(rows, job, settings, stage.out, lambda counts: True).counts
    tables.write_run(tables.ranked(out, "rankings"), stage.out / "run.txt", "student")
    if counts["explanations_failed"]:
        print(f"rerank: {counts['explanations_failed']} explanations could not be read and are left out", flush=True)
    names = ("windows", "prompt_tokens", "completion_tokens", "cut_texts", "explanations", "explanations_failed")
    ranked = {table: counts[table] for table in job.tables}
    stage.finish(ranked, files=["run.txt"], **{name: counts[name] for name in names})


def key(row: dict, version: str) -> str:
    """Return a row's resume key: a sha256 over all that its ranking depends on."""
    return tables.digest([row["query"], row["docids"], row["texts"], version])


class Reranker:
    """Ranks one candidates row at a time."""

    def __init__(self, student: str, adapter: str | None, settings: RerankSettings):
        self.ranker = Ranker(student, adapter, settings)
        self.explain = settings.explain

    def close(self) -> None:
        self.ranker.model.close()

    async def __call__(self, row: dict) -> tuple[str, dict, dict]:
        docids = row["docids"]
        ranked = await self.ranker.rank(row["query"], row["texts"], self.explain)
        ranking = {
            "qid": row["qid"],
            "query": row["query"],
            "docids": [docids[index] for index in ranked.order],
            "scores": scores(len(docids)),
        }
        by_index = {str(index): docid for index, docid in enumerate(docids)}
        for column in ("direct", "evidence", "comparison"):
            texts = [ranked.reasons.get(index, {}).get(column, "") for index in ranked.order]
            ranking[column] = [rename_brackets(text, by_index) for text in texts] if column == "comparison" else texts
        return "rankings", ranking, ranked.counts
