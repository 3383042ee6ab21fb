"""The rerank stage: the student ranks each query's candidates, and explains the top documents on request.

Owns the tables `rankings` and `rejects`, the TREC run and the statistics. `rank.py` ranks one query.

    rerank("runs/demo/retrieve", "demo", "runs/demo/distill", "runs/demo/rerank", RerankSettings(explain=3))
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from r2r import builtin, datasets, tables
from r2r.config import RerankSettings
from r2r.identity import digest, fingerprint
from r2r.llm import Refused
from r2r.llm.engine import check_arguments
from r2r.places import Place, place
from r2r.rows import pool
from r2r.rows.journal import KEYS
from r2r.stage import Identity, Input, Result, Stage, There, run
from r2r.student import prompt, record
from r2r.student.prompt import rename_brackets
from r2r.student.rank import Ranker, check_student
from r2r.student.scores import by_rank


def stage(candidates: str, student: str, adapter: str | None, out: str | Place, settings: RerankSettings) -> Stage:
    """Return the stage in which a student ranks candidates.

    candidates: a stage's folder or a dataset string. student: any instruction-tuned model. adapter: a PEFT folder or a
    distill stage's folder; None ranks with the student as it is (zero-shot). settings: those that are None are taken
    from the adapter's record.
    """

    def check(there: There) -> None:
        pool.refuse_old_answers(place(out))
        check_arguments(settings.engine)
        if adapter is None or there(adapter):
            check_student(student, adapter, settings)
        else:
            check_student(student, None)
        if there(candidates):
            datasets.check(candidates, "candidates")

    def work(identity: Identity) -> Result:
        return _work(candidates, student, adapter, place(out), settings, identity)

    inputs = {
        "candidates": Input(candidates, partial(datasets.fingerprint, what="candidates")),
        "student": Input(student, lambda name: fingerprint(builtin.named(name, "student"))),
    }
    if adapter is not None:
        inputs["adapter"] = Input(adapter)
    writes = ["rankings", "rejects", "run.txt", "stats.json"]
    versions = {"prompt": prompt.version(settings.scores)}
    return Stage("rerank", place(out), settings, inputs, check, work, writes, versions)


def rerank(candidates: str, student: str, adapter: str | None, out: str | Place, settings: RerankSettings) -> None:
    """Write the tables `rankings` and `rejects`, `run.txt` and `stats.json` into `out`.

    Rejects are queries that the engine refused, or that ended it. Arguments as for `stage`. Finished queries are not
    ranked again. Raises BadInput if the adapter is for another model, if it was not distilled for these settings, or if
    windows skip passages.
    """
    run(stage(candidates, student, adapter, out, settings))


def _work(
    candidates: str, student: str, adapter: str | None, out: Place, settings: RerankSettings, identity: Identity
) -> Result:
    record.warn_of_long_windows(settings, adapter, student)
    record.warn_of_no_temperature(settings, adapter, student)
    record.warn_of_slow_adapter(settings, adapter)
    rows = datasets.open_candidates(candidates, out / "first-stage")
    version = f"{KEYS}-{identity.key(*(name for name in identity.inputs if name != 'candidates'))}"
    row_key = partial(key, version=version)
    worker, written = (student, adapter, settings, row_key), ("rankings", "rejects")
    job = pool.Job("rerank", Reranker, worker, row_key, version, written, "windows")
    done = pool.run_rows(rows, job, settings, out, lambda counts: True)
    # Evaluators order by score, and two scores may be equal.
    exact = (row | {"scores": by_rank(len(row["docids"]))} for row in tables.ranked(out, "rankings"))
    tables.write_run(exact, out / "run.txt", "student")
    found = _stats(done)
    tables.write_text(json.dumps(found, indent=2) + "\n", out / "stats.json")
    _tell(found)
    counts = {f"{name}_tokens": found["tokens"][name] for name in ("prompt", "completion")}
    # For the report, since false texts are not in the table any more.
    false = {
        "evidence": found["evidence"]["given"] - found["evidence"]["verbatim"],
        "comparisons": found["comparisons"]["name_others"],
    }
    return Result(found["rows"], done.contents["rankings"], ["run.txt", "stats.json"], {**counts, "dropped": false})


def _stats(done: pool.Done) -> dict[str, Any]:
    """Return the content of stats.json. A share of nothing is None."""
    counts = done.counts
    failed = {name.removeprefix("failed: "): count for name, count in counts.items() if name.startswith("failed: ")}
    written = {name.removeprefix("order "): count for name, count in counts.items() if name.startswith("order ")}
    return {
        "rows": {table: counts[table] for table in ("rankings", "rejects")},
        "windows": counts["windows"],
        "tokens": {
            "prompt": counts["prompt_tokens"],
            "cached_share": pool.share(counts["cached_tokens"], counts["prompt_tokens"]),
            "completion": counts["completion_tokens"],
            "completion_per_second": round(done.speed, 3),
        },
        "cut_texts": counts["cut_texts"],
        "written_orders": written,
        # Rows whose scores have no fitted temperature.
        "uncalibrated": counts["uncalibrated"],
        "explanations": {
            "asked": counts["explanations_asked"],
            "read": counts["explanations"],
            "failed": dict(sorted(failed.items(), key=lambda one: -one[1])),
        },
        "evidence": {
            "given": counts["evidence"],
            "verbatim": counts["verbatim"],
            "share": pool.share(counts["verbatim"], counts["evidence"]),
        },
        "comparisons": {"given": counts["comparisons"], "name_others": counts["comparisons_false"]},
        # Each engine's largest difference from the log-probabilities recorded in training, as a mean over engines.
        "adapter_off": counts["adapter_off"] / counts["engines"] if counts["engines"] else None,
    }


def _tell(stats: dict[str, Any]) -> None:
    """Print what was written and explained."""
    written, explained, evidence = stats["written_orders"], stats["explanations"], stats["evidence"]
    if written:
        print(f"rerank: orders written: {', '.join(f'{count:,} {status}' for status, count in written.items())}")
    if explained["asked"]:
        failed = "".join(f", {count:,} not: {reason}" for reason, count in explained["failed"].items())
        print(f"rerank: {explained['read']:,} of {explained['asked']:,} explanations read{failed}")
        false = stats["comparisons"]["name_others"]
        print(
            f"rerank: {evidence['verbatim']:,} of {evidence['given']:,} pieces of evidence stand in their passage, "
            f"{false:,} of {stats['comparisons']['given']:,} comparisons name a passage not shown; those are left out"
        )


def key(row: dict[str, Any], version: str) -> str:
    """Return a row's resume key: a sha256 over all that its ranking depends on.

    version: of the student, the adapter, the prompt and the settings.
    """
    return digest([row["query"], row["docids"], row["texts"], version])


class Reranker:
    """Ranks one candidates row at a time (see `pool.RowWorker`)."""

    def __init__(
        self, student: str, adapter: str | None, settings: RerankSettings, row_key: Callable[[dict[str, Any]], str]
    ) -> None:
        self.ranker = Ranker(student, adapter, settings)
        self.key, self.explain = row_key, settings.explain
        self.so_far = self.ranker.so_far

    def in_writing(self) -> int:
        return self.ranker.model.in_writing()

    def close(self) -> None:
        self.ranker.model.close()

    async def __call__(self, row: dict[str, Any]) -> tuple[str, dict[str, Any], Mapping[str, Any]]:
        docids = row["docids"]
        try:
            ranked = await self.ranker.rank(row["query"], row["texts"], self.explain)
        except Refused as refused:
            reject = {"qid": row["qid"], "key": self.key(row), "reason": f"refused: {refused}", "reply": ""}
            return "rejects", reject | {"attempts": 1}, {}
        ranking = {
            "qid": row["qid"],
            "query": row["query"],
            "docids": [docids[index] for index in ranked.order],
            "scores": ranked.scores,
        }
        by_index = {str(index): docid for index, docid in enumerate(docids)}
        for column in ("direct", "evidence", "comparison"):
            texts = [ranked.reasons.get(index, {}).get(column, "") for index in ranked.order]
            ranking[column] = [rename_brackets(text, by_index) for text in texts] if column == "comparison" else texts
        return "rankings", ranking, ranked.counts
