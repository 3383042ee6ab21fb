"""The rerank stage: the student orders each query's candidates, and explains those that somebody asks about.

Owns the tables `rankings` and the TREC run. How one query is ranked lies in `rank`.

    rerank("runs/demo/retrieve", "demo", "runs/demo/distill", "runs/demo/rerank", RerankSettings(explain=3))
"""

from __future__ import annotations

import json
from functools import partial

from r2r import datasets, identity, tables
from r2r import stage as stages
from r2r.config import RerankSettings, Workers
from r2r.errors import BadInput
from r2r.llm import Refused
from r2r.rows import pool
from r2r.student import adapter as adapters
from r2r.student.prompt import rename_brackets
from r2r.student.rank import Ranker, check_student, scores


def rerank(candidates: str, student: str, adapter: str | None, out: str, settings: RerankSettings) -> None:
    """Write the table `rankings`, `run.txt` and `stats.json` into `out`, and `rejects`: queries that end their
    engine, or that it refuses.

    `candidates` is a stage folder or `rankgpt:FILE`; without an adapter the student, any instruction-tuned model, ranks
    as it is (zero-shot). Queries that an earlier run has finished are not ranked again. Raises BadInput where the
    adapter was made for another model or distilled otherwise, and for windows that leave passages out.
    """
    inputs = {"candidates": candidates, "student": student} | ({"adapter": adapter} if adapter else {})
    stage = stages.Stage("rerank", out, inputs, settings)
    if stage.done:
        return
    if settings.stride > settings.window:
        raise BadInput(f"stride: {settings.stride}: more than the window of {settings.window}, so passages are skipped")
    if settings.explain > settings.window:
        raise BadInput(f"explain: {settings.explain}: more than the window of {settings.window} that is explained from")
    _check_format(adapter, settings)
    check_student(student, adapter)
    rows = datasets.open_candidates(candidates)
    known = [one["fingerprint"] for name, one in stage.manifest["inputs"].items() if name != "candidates"]
    asked = settings.model_dump(mode="json", exclude=set(Workers.model_fields) - {"engine"})
    version = identity.digest([known, asked])[:16]
    row_key = partial(key, version=version)
    job = pool.Job("rerank", Reranker, (student, adapter, settings, row_key), row_key, version, ("rankings", "rejects"))
    done = pool.run_rows(rows, job, settings, stage.out, lambda counts: True)
    tables.write_run(tables.ranked(out, "rankings"), stage.out / "run.txt", "student")
    found = _stats(done)
    tables.write_text(json.dumps(found, indent=2) + "\n", stage.out / "stats.json")
    _tell(found)
    tokens = {f"{name}_tokens": found["tokens"][name] for name in ("prompt", "completion")}
    stage.finish(found["rows"], files=["run.txt", "stats.json"], **tokens)


def _check_format(adapter: str | None, settings: RerankSettings) -> None:
    """Raise BadInput where the student would be asked for what it was not taught."""
    if settings.order == "last" and settings.mode == "generate":
        raise BadInput("mode: generate: writes the order first; with order last, rank by scores")
    taught = adapters.distilled(adapter) if adapter else {}
    if taught.get("order", settings.order) != settings.order:
        raise BadInput(f"order: {settings.order}: {adapter} was distilled with order {taught['order']}; rerank so too")
    reasoning = taught.get("reasoning", settings.reasoning)
    if (settings.explain or settings.order == "last") and reasoning != settings.reasoning:
        raise BadInput(
            f"reasoning: {settings.reasoning}: {adapter} was distilled with reasoning {reasoning}; rerank so too"
            + (", with explain 0" if reasoning == "none" else "")
        )


def _stats(done: pool.Done) -> dict:
    """Return what stands in stats.json. Shares are None where there is nothing to count."""
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
        # The largest difference to training's log-probabilities, the mean over engines.
        "adapter_off": counts["adapter_off"] / counts["engines"] if counts["engines"] else None,
    }


def _tell(stats: dict) -> None:
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


def key(row: dict, version: str) -> str:
    """Return a row's resume key: a sha256 over all that its ranking depends on."""
    return identity.digest([row["query"], row["docids"], row["texts"], version])


class Reranker:
    """Ranks one candidates row at a time."""

    def __init__(self, student: str, adapter: str | None, settings: RerankSettings, row_key):
        self.ranker = Ranker(student, adapter, settings)
        self.key, self.explain = row_key, settings.explain

    def close(self) -> None:
        self.ranker.model.close()

    async def __call__(self, row: dict) -> tuple[str, dict, dict]:
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
            "scores": scores(len(docids)),
        }
        by_index = {str(index): docid for index, docid in enumerate(docids)}
        for column in ("direct", "evidence", "comparison"):
            texts = [ranked.reasons.get(index, {}).get(column, "") for index in ranked.order]
            ranking[column] = [rename_brackets(text, by_index) for text in texts] if column == "comparison" else texts
        return "rankings", ranking, ranked.counts
