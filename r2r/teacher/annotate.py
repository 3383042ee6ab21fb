"""The annotate stage: a teacher ranks each query's passages and gives its reasons.

Owns the tables `annotations` and `rejects`, the limits that end the job, and the dry run. `ask.py` asks about one row;
`r2r.rows` owns the engines and the finished rows.

    annotate("runs/demo/retrieve-train", "runs/demo/annotate", AnnotateSettings(teacher="demo"))
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from r2r import datasets, tables
from r2r.config import AnnotateSettings
from r2r.datasets.documents import Part
from r2r.errors import BadInput, Stopped
from r2r.llm.prompt import ByteTokenizer
from r2r.reasons import check_reasons
from r2r.rows import pool
from r2r.rows.journal import Journal
from r2r.stage import Identity, Input, Result, Stage, There, identify, run
from r2r.teacher import ask, calls, prompt, stats
from r2r.teacher.borda import kendall_tau
from r2r.workers import on_workers, progress, start_ray

_GOES_ON = "all finished rows are kept, and the same command with a higher limit goes on"
_REASONS = ("ranking", "direct", "evidence", "comparison")


def stage(candidates: str | None, out: str | Path, settings: AnnotateSettings, retry_rejects: bool = False) -> Stage:
    """Return the stage in which a teacher annotates candidates.

    candidates: a stage's folder or a dataset string; None for `teacher:FILE`, which holds its own passages.
    retry_rejects: run even if the stage is done, and ask the rejected rows again, and no other finished rows.
    """

    def check(there: There) -> None:
        pool.refuse_old_answers(Path(out))
        _check(candidates, settings, retry_rejects, there)

    def work(identity: Identity) -> Result:
        return _work(candidates, Path(out), settings, identity, retry_rejects)

    inputs = {"teacher": Input(settings.teacher, calls.identify_teacher)}
    if candidates is not None:
        inputs["candidates"] = Input(candidates, partial(datasets.fingerprint, what="candidates"))
    writes = ["annotations", "rejects", "stats.json"]
    return Stage(
        "annotate", Path(out), settings, inputs, check, work, writes, prompt=prompt.VERSION, again=retry_rejects
    )


def annotate(candidates: str | None, out: str | Path, settings: AnnotateSettings, retry_rejects: bool = False) -> None:
    """Write the tables `annotations` and `rejects`, and `stats.json`, into `out`.

    Arguments as for `stage`. Finished rows are not asked again. Raises BadInput for a wrong setting or input, and
    Stopped if more rows than `max_reject_rate` are rejected, or if the next call might exceed `max_cost`.
    """
    run(stage(candidates, out, settings, retry_rejects))


def _recorded(teacher: str) -> bool:
    """Return whether a teacher is a file of recorded replies, which cannot be asked."""
    return teacher.startswith(("teacher:", "replies:"))


def _check(candidates: str | None, settings: AnnotateSettings, retry_rejects: bool, there: There) -> None:
    """Raise BadInput for candidates and a teacher that cannot be read, or that do not go together."""
    teacher = settings.teacher
    if teacher.startswith("teacher:"):
        if candidates is not None:
            raise BadInput(f"candidates: {candidates}: {teacher} brings its own passages; leave candidates out")
        datasets.read_annotations(teacher)
    elif candidates is None:
        raise BadInput("candidates: missing; only a teacher of recorded annotations, teacher:FILE, needs none")
    elif there(candidates):
        datasets.open_candidates(candidates)
    if teacher.startswith("replies:"):
        datasets.open_file(teacher.removeprefix("replies:")).close()
    if _recorded(teacher):
        if retry_rejects:
            raise BadInput(f"retry_rejects: {teacher} cannot be asked again; leave --retry-rejects out")
    else:
        calls.check_teacher(settings)


def _work(
    candidates: str | None, out: Path, settings: AnnotateSettings, identity: Identity, retry_rejects: bool
) -> Result:
    if _recorded(settings.teacher):
        done = _take_over(candidates, out, settings)
    else:
        assert candidates is not None
        done = _ask(candidates, out, settings, identity, retry_rejects)
    found = stats.of(done.counts, tables.read(out, "rejects")["reason"].to_pylist(), done.speed, settings)
    stats.tell(found, settings)
    tables.write_text(json.dumps(found, indent=2) + "\n", out / "stats.json")
    rejects = found["rows"]["rejects"]
    if rejects > settings.max_reject_rate * (sum(found["rows"].values()) + done.unasked):
        allowed = f"more than max_reject_rate {settings.max_reject_rate:g} allows"
        raise Stopped(f"annotate: {rejects:,} rows rejected, {allowed}: {stats.reasons(found)}; {_GOES_ON}")
    if done.unasked:
        spent = f"{found['cost']['spent']:.4f} of max_cost {settings.max_cost:g} spent"
        raise Stopped(f"annotate: {spent}, and another row might pass it; {done.unasked:,} rows are left; {_GOES_ON}")
    counts = {f"{name}_tokens": found["tokens"][name] for name in ("prompt", "completion")}
    return Result(found["rows"], done.contents["annotations"], ["stats.json"], counts)


def _ask(candidates: str, out: Path, settings: AnnotateSettings, identity: Identity, retry_rejects: bool) -> pool.Done:
    rows = datasets.open_candidates(candidates)
    version = ask.version(identity)
    budget = calls.open_budget(out / "rows" / version, settings)
    row_key = partial(ask.key, version=version, passages=settings.passages)
    job = pool.Job("annotate", ask.Annotator, (settings, row_key, budget), row_key, version, ("annotations", "rejects"))
    # Above this number, even rows without a reject cannot bring the share down again.
    most = settings.max_reject_rate * len(rows.qids)
    return pool.run_rows(rows, job, settings, out, lambda counts: counts["rejects"] <= most, retry_rejects)


def _take_over(candidates: str | None, out: Path, settings: AnnotateSettings) -> pool.Done:
    """Write the tables from recorded annotations. False evidence is dropped, since they cannot be asked again."""
    if candidates is None:
        annotations, rejects = datasets.read_annotations(settings.teacher)
    else:
        annotations, rejects = datasets.read_replies(settings.teacher, candidates, settings.passages)
    counts = Counter[str]()
    sound = []
    for row in annotations:
        checked = check_reasons(row["evidence"], row["comparison"], row["texts"], len(row["texts"]))
        order = [position - 1 for position in row["ranking"]]
        counts.update(evidence=checked.given, verbatim=checked.verbatim)
        if checked.fault:
            same = {name: row[name] for name in ("qid", "key", "attempts")}
            reply = json.dumps({name: row[name] for name in _REASONS})
            rejects.append(same | {"reason": checked.fault, "reply": reply})
            continue
        sound.append(row | {"evidence": checked.evidence})
        counts.update(replies=1, attempts_1=1, same_as_shown=order == sorted(order))
        counts.update(tau=kendall_tau(order, sorted(order)))  # type: ignore[call-overload] # a float is added like an int
    counts.update(annotations=len(sound), rejects=len(rejects))
    contents = {
        "annotations": tables.write(sound, out, "annotations"),
        "rejects": tables.write(rejects, out, "rejects"),
    }
    return pool.Done(counts, 0, 0.0, contents)


def show_prompt(candidates: str | None, settings: AnnotateSettings) -> None:
    """Print the prompt of the first row, with the tokens of the chat format. Raises BadInput."""
    version = _plannable(candidates, None, settings)
    row = next(pool.rows_of(datasets.open_candidates(str(candidates)).parts(1)))
    prompter = ask.Prompter(settings)
    shown = ask.passage_orders(row, ask.key(row, version, settings.passages), settings)[0]
    message, _ = prompter.message(row["query"], [row["texts"][index] for index in shown])
    as_text = isinstance(prompter.tokenizer, ByteTokenizer)
    print(message if as_text else prompter.tokenizer.decode(prompter.ids(message)))


def dry_run(
    candidates: str | None, out: str | Path | None, settings: AnnotateSettings, retry_rejects: bool = False
) -> None:
    """Print how many rows would be asked, the tokens of their prompts, the cost and the time; ask nothing.

    out: the stage's folder; its finished rows are not counted. Raises BadInput.
    """
    import pyarrow as pa

    version = _plannable(candidates, out, settings)
    folder = Path(out or ".", "rows", version)
    rows = datasets.open_candidates(str(candidates))
    parts = rows.parts(256)
    start_ray()
    import ray

    blocks = [pa.table({"part": [number]}) for number in range(len(parts))]
    counts = Counter[str]()
    row_key = partial(ask.key, version=version, passages=settings.passages)
    cores = int(ray.available_resources().get("CPU", 1))
    finished = {"annotations"} if retry_rejects else {"annotations", "rejects"}
    with progress("annotate: counting", len(rows.qids), "row") as tell:
        for answer in on_workers(blocks, _Counting, (parts, settings, row_key, folder, finished, tell), cores, ahead=2):
            counts.update(answer)
    stats.tell_plan(counts, Journal(folder), settings)


def _plannable(candidates: str | None, out: str | Path | None, settings: AnnotateSettings) -> str:
    """Check the settings and inputs of a dry run. Return the version of the row keys. Raises BadInput."""
    if _recorded(settings.teacher):
        raise BadInput(f"teacher: {settings.teacher}: recorded; there is nothing to ask, and no prompt")
    planned = stage(candidates, out or ".", settings)
    planned.check(lambda _: True)
    return ask.version(identify(planned))


class _Counting:
    """Counts the prompts of one part of the rows."""

    def __init__(
        self,
        parts: list[Part],
        settings: AnnotateSettings,
        row_key: Callable[[dict[str, Any]], str],
        folder: Path,
        finished: set[str],
        tell: Any,
    ) -> None:
        self.parts, self.settings, self.key, self.finished, self.tell = parts, settings, row_key, finished, tell
        self.prompter, self.journal = ask.Prompter(settings), Journal(folder)

    def __call__(self, block: Any) -> Counter[str]:
        """Return the sums that `stats.tell_plan` prints, of the part that the block names."""
        number = block["part"][0].as_py()
        counts = Counter[str]()
        for row in pool.rows_of([self.parts[number]]):
            counts["done"] += 1
            key = self.key(row)
            if self.journal.table(key) in self.finished:
                continue
            counts["rows"] += 1
            for shown in ask.passage_orders(row, key, self.settings):
                message, cut = self.prompter.message(row["query"], [row["texts"][index] for index in shown])
                tokens = len(self.prompter.ids(message))
                counts.update(calls=1, prompt_tokens=tokens, cut_texts=cut, passages=len(shown))
        self.tell.remote(number, counts)
        return counts
