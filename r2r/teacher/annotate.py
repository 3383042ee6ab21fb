"""The annotate stage: a teacher orders each query's passages and says why.

Owns the tables `annotations` and `rejects`, when the job stops, and its plan (`dry_run`). How one row is asked lies in
`ask.py`; engines, their pool and the keeping of finished rows in `r2r.llm`.

    annotate("runs/demo/retrieve-train", "runs/demo/annotate", AnnotateSettings(teacher="demo"))
"""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path

from r2r import builtin, datasets, identity, tables
from r2r import stage as stages
from r2r.config import AnnotateSettings
from r2r.errors import BadInput, Stopped
from r2r.llm.prompt import Bytes
from r2r.reasons import check
from r2r.rows import pool
from r2r.rows.journal import Journal
from r2r.teacher import ask, stats
from r2r.teacher.merge import kendall_tau
from r2r.workers import on_workers, progress, start_ray

_ON = "all that was done is kept, and the same command with a higher limit goes on"


def annotate(candidates: str | None, out: str, settings: AnnotateSettings) -> None:
    """Write the tables `annotations` and `rejects`, and `stats.json`, into `out`.

    `candidates` is a stage folder or a dataset string; with recorded annotations (`teacher:FILE`), which bring their
    own passages, it must be None. Rows that an earlier run has finished are not asked again. Raises Stopped where more
    rows than `max_reject_rate` are rejected, and where the next row might pass `max_cost`.
    """
    recorded = settings.teacher.startswith("teacher:")
    if recorded and candidates is not None:
        raise BadInput(f"candidates: {candidates}: {settings.teacher} brings its own passages; leave candidates out")
    if settings.max_cost and not settings.price_in + settings.price_out:
        raise BadInput("max_cost: needs prices to count with; give price_in and price_out, for a million tokens each")
    inputs = {"teacher": settings.teacher}
    if not recorded:
        inputs = {"candidates": _needed(candidates), **inputs}
    stage = stages.Stage("annotate", out, inputs, settings)
    if stage.done:
        return
    done = _recorded(stage, settings) if recorded else _asked(candidates, stage, settings)
    found = stats.of(done.counts, tables.read(out, "rejects")["reason"].to_pylist(), done.speed, settings)
    stats.tell(found, settings)
    tables.write_text(json.dumps(found, indent=2) + "\n", stage.out / "stats.json")
    rejects = found["rows"]["rejects"]
    if rejects > settings.max_reject_rate * (sum(found["rows"].values()) + done.unasked):
        allowed = f"more than max_reject_rate {settings.max_reject_rate:g} allows"
        raise Stopped(f"annotate: {rejects:,} rows rejected, {allowed}: {stats.reasons(found)}; {_ON}")
    if done.unasked:
        spent = f"{found['cost']['spent']:.4f} of max_cost {settings.max_cost:g} spent"
        raise Stopped(f"annotate: {spent}, and another row might pass it; {done.unasked:,} rows are left; {_ON}")
    counts = {name: found["tokens"][name] for name in ("prompt", "completion")}
    stage.finish(found["rows"], files=["stats.json"], **{f"{name}_tokens": count for name, count in counts.items()})


def _needed(candidates: str | None) -> str:
    if candidates is None:
        raise BadInput("candidates: missing; only a teacher of recorded annotations, teacher:FILE, needs none")
    return candidates


def _asked(candidates: str, stage: stages.Stage, settings: AnnotateSettings) -> pool.Done:
    rows = datasets.open_candidates(candidates)
    teacher = stage.manifest["inputs"]["teacher"]["fingerprint"]
    version = ask.version(teacher, settings)
    purse = _purse(stage.out / "rows" / version, settings) if settings.max_cost else None
    row_key = partial(ask.key, teacher=teacher, settings=settings)
    job = pool.Job("annotate", ask.Annotator, (settings, row_key, purse), row_key, version, ("annotations", "rejects"))
    # Once as many rows are rejected, asking the others cannot bring the share down again.
    most = settings.max_reject_rate * len(rows.qids)
    return pool.run_rows(rows, job, settings, stage.out, lambda counts: counts["rejects"] <= most)


def _purse(folder: Path, settings: AnnotateSettings):
    """Return the actor that watches over what is left of max_cost after what earlier runs have spent."""
    start_ray()
    import ray

    counts = (entry["counts"] for entry in Journal(folder))
    spent = sum(ask.cost(one.get("prompt_tokens", 0), one.get("completion_tokens", 0), settings) for one in counts)
    return ray.remote(num_cpus=0)(ask.Purse).remote(settings.max_cost - spent)


def _recorded(stage: stages.Stage, settings: AnnotateSettings) -> pool.Done:
    """Take recorded annotations over. They cannot be asked again, so evidence that is false is left out of them."""
    annotations, rejects = datasets.read_annotations(settings.teacher)
    counts, sound = Counter(), []
    for row in annotations:
        checked = check(row["evidence"], row["comparison"], row["texts"], len(row["texts"]))
        order = [position - 1 for position in row["ranking"]]
        counts.update(evidence=checked.given, verbatim=checked.verbatim)
        if checked.fault:
            reply = json.dumps({name: row[name] for name in ("ranking", "direct", "evidence", "comparison")})
            same = {name: row[name] for name in ("qid", "key", "attempts")}
            rejects.append(same | {"reason": checked.fault, "reply": reply})
            continue
        sound.append(row | {"evidence": checked.evidence})
        counts.update(replies=1, attempts_1=1, same_as_shown=order == sorted(order))
        counts.update(tau=kendall_tau(order, sorted(order)))
    counts.update(annotations=len(sound), rejects=len(rejects))
    tables.write(sound, stage.out, "annotations")
    tables.write(rejects, stage.out, "rejects")
    return pool.Done(counts, 0, 0.0)


def show_prompt(candidates: str | None, settings: AnnotateSettings) -> None:
    """Print the prompt of the first row, with the tokens that the chat format puts around it."""
    row = next(pool.rows_of(datasets.open_candidates(_needed(candidates)).parts(1)))
    form = ask.Form(settings)
    teacher = identity.fingerprint(builtin.model(settings.teacher, "teacher"))
    shown = ask.orders(row, ask.key(row, teacher, settings), settings)[0]
    message, _ = form.message(row["query"], [row["texts"][index] for index in shown])
    print(form.tokenizer.decode(form.ids(message)) if not isinstance(form.tokenizer, Bytes) else message)


def dry_run(candidates: str | None, out: str | None, settings: AnnotateSettings) -> None:
    """Print how many rows would be asked, the tokens of their prompts, and what they would take; ask nothing.

    Rows that lie finished in `out`, if it is given, are not counted.
    """
    import pyarrow as pa

    teacher = identity.fingerprint(builtin.model(settings.teacher, "teacher"))
    folder = Path(out or ".", "rows", ask.version(teacher, settings))
    rows = datasets.open_candidates(_needed(candidates))
    parts = rows.parts(256)
    # A mistake shows before any work.
    ask.Form(settings)
    start_ray()
    import ray

    blocks = [pa.table({"part": [number]}) for number in range(len(parts))]
    counts: Counter = Counter()
    row_key = partial(ask.key, teacher=teacher, settings=settings)
    cores = int(ray.available_resources().get("CPU", 1))
    with progress("annotate: counting", len(rows.qids), "row") as tell:
        for answer in on_workers(blocks, _Counting, (parts, settings, row_key, folder, tell), cores, ahead=2):
            counts.update(answer)
    stats.tell_plan(counts, Journal(folder), settings)


class _Counting:
    def __init__(self, parts, settings: AnnotateSettings, row_key, folder: Path, tell):
        self.parts, self.settings, self.key, self.tell = parts, settings, row_key, tell
        self.form, self.journal = ask.Form(settings), Journal(folder)

    def __call__(self, block) -> dict:
        number = block["part"][0].as_py()
        counts: Counter = Counter()
        for row in pool.rows_of([self.parts[number]]):
            counts["done"] += 1
            known = self.key(row)
            if self.journal.table(known):
                continue
            counts["rows"] += 1
            for shown in ask.orders(row, known, self.settings):
                message, cut = self.form.message(row["query"], [row["texts"][index] for index in shown])
                counts.update(calls=1, prompt_tokens=len(self.form.ids(message)), cut_texts=cut, passages=len(shown))
        self.tell.remote(number, counts)
        return counts
