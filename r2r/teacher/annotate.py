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
from typing import Any

from r2r import datasets, tables
from r2r.config import AnnotateSettings
from r2r.datasets.candidates import Candidates
from r2r.datasets.documents import Part
from r2r.errors import BadInput
from r2r.llm import is_remote
from r2r.llm.probe import Probed
from r2r.places import Place, place
from r2r.reasons import check_reasons
from r2r.rows import pool
from r2r.rows.journal import Journal
from r2r.stage import Identity, Input, Result, Stage, There, identify, run
from r2r.teacher import ask, calls, passages, prompt, stats
from r2r.teacher.borda import kendall_tau
from r2r.workers import on_workers, progress, start_ray

_REASONS = ("ranking", "direct", "evidence", "comparison")
# What a server is asked first: a row's request, as small as it can be.
_SMALL_QUERY, _SMALL_PASSAGES = "what colour is the sky", ["Dogs bark.", "The sky is blue."]


def stage(
    candidates: str | None,
    out: str | Place,
    settings: AnnotateSettings,
    retry_rejects: bool = False,
    corpus: str | None = None,
) -> Stage:
    """Return the stage in which a teacher annotates candidates.

    candidates: a stage's folder or a dataset string; None for `teacher:FILE`, which holds its own passages.
    retry_rejects: run even if the stage is done, and ask the rejected rows again, and no other finished rows. corpus:
    dataset with the texts of the positives that are no candidates.
    """

    def check(there: There) -> None:
        pool.refuse_old_answers(place(out))
        _check(candidates, settings, retry_rejects, there)
        _check_positives(candidates, corpus, settings, there)

    def work(identity: Identity) -> Result:
        return _work(candidates, corpus, place(out), settings, identity, retry_rejects)

    inputs = {"teacher": Input(settings.teacher, calls.identify_teacher)}
    if candidates is not None:
        inputs["candidates"] = Input(candidates, partial(datasets.fingerprint, what="candidates"))
    if settings.positives:
        inputs["positives"] = Input(settings.positives, partial(datasets.fingerprint, what="qrels"))
    if corpus is not None:
        inputs["corpus"] = Input(corpus, partial(datasets.fingerprint, what="corpus"))
    writes = ["annotations", "rejects", "stats.json"]
    return Stage(
        "annotate",
        place(out),
        settings,
        inputs,
        check,
        work,
        writes,
        versions={"prompt": prompt.VERSION},
        again=retry_rejects,
    )


def annotate(
    candidates: str | None,
    out: str | Place,
    settings: AnnotateSettings,
    retry_rejects: bool = False,
    corpus: str | None = None,
) -> None:
    """Write the tables `annotations` and `rejects`, and `stats.json`, into `out`.

    Arguments as for `stage`. Finished rows are not asked again. Raises BadInput for a wrong setting or input, and
    Stopped if more rows than `max_reject_rate` are rejected, or if the next call might exceed `max_cost`.
    """
    run(stage(candidates, out, settings, retry_rejects, corpus))


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
        datasets.check(candidates, "candidates")
    if teacher.startswith("replies:"):
        datasets.open_file(teacher.removeprefix("replies:")).close()
    if _recorded(teacher):
        if retry_rejects:
            raise BadInput(f"retry_rejects: {teacher} cannot be asked again; leave --retry-rejects out")
    else:
        calls.check_teacher(settings)


def _check_positives(candidates: str | None, corpus: str | None, settings: AnnotateSettings, there: There) -> None:
    """Raise BadInput for positives of other queries, and for positives or a corpus that cannot be read."""
    if settings.positives:
        datasets.check(settings.positives, "qrels")
        # The candidates of a run have to be written first; their positives are checked then.
        if candidates and there(candidates) and not datasets.runs_of(candidates):
            passages.relevant(settings.positives, set(datasets.open_candidates(candidates).qids))
    elif corpus is not None:
        raise BadInput(f"corpus: {corpus}: only positives take texts from it; give positives, or leave corpus out")
    if corpus is not None:
        datasets.check(corpus, "corpus")


def _work(
    candidates: str | None,
    corpus: str | None,
    out: Place,
    settings: AnnotateSettings,
    identity: Identity,
    retry_rejects: bool,
) -> Result:
    probed: Probed | None = None
    if _recorded(settings.teacher):
        done = _take_over(candidates, out, settings)
    else:
        assert candidates is not None
        version = ask.version(identity)
        if is_remote(settings.teacher) and (probed := _probe(out, version, settings)):
            settings = settings.model_copy(update={"server": probed.dialect})
        given = datasets.open_candidates(candidates, out / "first-stage")
        done = _ask(passages.drawn(given, corpus, settings), out, settings, identity, retry_rejects)
        done.counts.update(calls.probe_counts(out, version))
    found = stats.of(done.counts, tables.read(out, "rejects")["reason"].to_pylist(), done.speed, settings)
    if probed:
        found["probes"] |= {"takes": probed.dialect.model_dump(), "refusal": probed.refusal}
    stats.tell(found, settings)
    tables.write_text(json.dumps(found, indent=2) + "\n", out / "stats.json")
    rows = found["rows"]
    stats.stop_at_limits("annotate", found, rows["rejects"], done.unasked, sum(rows.values()) + done.unasked, settings)
    counts = {f"{name}_tokens": found["tokens"][name] for name in ("prompt", "completion")}
    return Result(rows, done.contents["annotations"], ["stats.json"], counts)


def _ask(
    rows: Candidates, out: Place, settings: AnnotateSettings, identity: Identity, retry_rejects: bool
) -> pool.Done:
    version, settings = ask.version(identity), calls.spread(settings)
    budget = calls.open_budget(out, version, settings)
    row_key = partial(ask.key, version=version, passages=settings.passages)
    worker, written = (settings, row_key, budget, version), ("annotations", "rejects")
    job = pool.Job("annotate", ask.Annotator, worker, row_key, version, written, calls.steps(settings))
    # Above this number, even rows without a reject cannot bring the share down again.
    most = settings.max_reject_rate * len(rows.qids)
    return pool.run_rows(rows, job, settings, out, lambda counts: counts["rejects"] <= most, retry_rejects)


def _probe(out: Place, version: str, settings: AnnotateSettings) -> Probed | None:
    """Find out what the server takes; see `calls.probe_server`."""
    message = prompt.prompt(_SMALL_QUERY, _SMALL_PASSAGES, settings.reasoning, settings.language)
    schema = prompt.schema(len(_SMALL_PASSAGES), settings.reasoning, settings.reason_chars)
    return calls.probe_server("annotate", out, version, settings, message, schema)


def _take_over(candidates: str | None, out: Place, settings: AnnotateSettings) -> pool.Done:
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


def show_prompt(candidates: str | None, settings: AnnotateSettings, corpus: str | None = None) -> None:
    """Print the prompt of the first call, with the tokens of the chat format. Raises BadInput."""
    version = _plannable(candidates, None, settings, corpus)
    row = next(pool.rows_of(passages.drawn(datasets.open_candidates(str(candidates)), corpus, settings).parts(1)))
    prompter = ask.Prompter(settings)
    shown = passages.calls(ask.passage_orders(row, ask.key(row, version, settings.passages), settings)[0], settings)[0]
    message, _ = prompter.message(row["query"], [row["texts"][index] for index in shown])
    print(prompter.shown(message))


def dry_run(
    candidates: str | None,
    out: str | Place | None,
    settings: AnnotateSettings,
    retry_rejects: bool = False,
    corpus: str | None = None,
) -> None:
    """Print how many rows would be asked, the tokens of their prompts, the cost and the time; ask nothing.

    out: the stage's folder; its finished rows are not counted. Raises BadInput.
    """
    import pyarrow as pa

    version = _plannable(candidates, out, settings, corpus)
    folder = place(out or ".") / "rows" / version
    rows = passages.drawn(datasets.open_candidates(str(candidates)), corpus, settings)
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


def _plannable(candidates: str | None, out: str | Place | None, settings: AnnotateSettings, corpus: str | None) -> str:
    """Check the settings and inputs of a dry run. Return the version of the row keys. Raises BadInput."""
    if _recorded(settings.teacher):
        raise BadInput(f"teacher: {settings.teacher}: recorded; there is nothing to ask, and no prompt")
    planned = stage(candidates, out or ".", settings, corpus=corpus)
    planned.check(lambda _: True)
    return ask.version(identify(planned))


class _Counting:
    """Counts the prompts of one part of the rows."""

    def __init__(
        self,
        parts: list[Part],
        settings: AnnotateSettings,
        row_key: Callable[[dict[str, Any]], str],
        folder: Place,
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
            for order in ask.passage_orders(row, key, self.settings):
                windows = passages.calls(order, self.settings)
                for shown in windows:
                    message, cut = self.prompter.message(row["query"], [row["texts"][index] for index in shown])
                    tokens = len(self.prompter.ids(message))
                    counts.update(calls=1, prompt_tokens=tokens, cut_texts=cut, passages=len(shown))
                counts["guessed_calls"] += len(windows) - 1
        self.tell.remote(number, counts)
        return counts
