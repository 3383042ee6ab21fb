"""A language model judges the reasons of one query, twice, among planted errors.

Owns the table `verdicts`, its worker, and the limits that end the job. Does not own the question (`question.py`), the
calls (`r2r.teacher.calls`) nor the finished rows (`r2r.rows`).

    verdicts, cost = ask(made, settings, Path("runs/demo/judge/judge"), identity)
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from r2r import tables
from r2r.config import JudgeSettings, TeacherSettings
from r2r.datasets.candidates import Candidates, Listed
from r2r.datasets.documents import clean
from r2r.errors import Stopped
from r2r.identity import digest
from r2r.judge import question
from r2r.judge.explained import aligned
from r2r.judge.figures import Planted
from r2r.judge.question import Verdict, Written
from r2r.llm import Reply, is_remote
from r2r.llm.probe import Probed
from r2r.llm.prompt import break_controls
from r2r.places import Place
from r2r.replies import Unsound
from r2r.rows import pool
from r2r.rows.journal import KEYS
from r2r.stage import Identity
from r2r.teacher import calls

# Settings that the answers depend on. Planted errors are in the rows themselves.
_SETTINGS = ("engine", "temperature", "tokenizer", "seed")
_PARTS = ("direct", "comparison")
# Passages in a prompt.
_MOST = 20
_GOES_ON = "all finished rows are kept, and the same command with a higher limit goes on"


def teacher_settings(settings: JudgeSettings) -> TeacherSettings:
    """Return the settings with which the judge is asked, as a teacher is."""
    same = {name: getattr(settings, name) for name in TeacherSettings.model_fields if hasattr(settings, name)}
    return TeacherSettings(teacher=str(settings.judge), **same)


def ask(
    made: Planted, settings: JudgeSettings, out: Place, identity: Identity
) -> tuple[list[dict[str, Any] | None], float]:
    """Write the tables `verdicts` and `rejects` into `out`. Return the verdicts on each row, None if it has none, and
    what all of it has cost.

    The judge sees the rows with planted errors. Finished rows are not asked again. Raises Stopped if more rows than
    `max_reject_rate` are rejected, or if the next call might exceed `max_cost`.
    """
    asking = teacher_settings(settings)
    what = {name: identity.what[name] for name in _SETTINGS}
    version = f"{KEYS}-{digest([identity.inputs['judge'], question.VERSION, what])[:16]}"
    row_key = partial(key, version=version)
    rows = [
        row._asdict() | {"planted_direct": direct, "planted_comparison": comparison}
        for row, direct, comparison in zip(made.swapped, *map(made.changed, _PARTS), strict=True)
        if any(row.direct) or any(row.comparison)
    ]
    listed = Candidates(
        [row["qid"] for row in rows],
        lambda size: [Listed(tuple(rows[at : at + size])) for at in range(0, len(rows), size)],
    )
    if is_remote(asking.teacher) and (probed := _probe(out, version, asking)):
        asking = asking.model_copy(update={"server": probed.dialect})
    asking = calls.spread(asking)
    worker = (asking, row_key, calls.open_budget(out, version, asking), version)
    job = pool.Job("judge", Judge, worker, row_key, version, ("verdicts", "rejects"), calls.steps(asking))
    most = settings.max_reject_rate * len(rows)
    done = pool.run_rows(listed, job, asking, out, lambda counts: counts["rejects"] <= most)
    done.counts.update(calls.probe_counts(out, version))
    read, wrote = (done.counts[name] + done.counts[f"probe_{name}"] for name in ("prompt_tokens", "completion_tokens"))
    spent = calls.cost(read, wrote, asking)
    if done.counts["rejects"] > most:
        rejected = Counter(tables.read(out, "rejects")["reason"].to_pylist()).most_common(1)[0]
        said = f"{rejected[1]:,} {rejected[0]}"
        raise Stopped(f"judge: {done.counts['rejects']:,} rows rejected, more than max_reject_rate: {said}; {_GOES_ON}")
    if done.unasked:
        raise Stopped(
            f"judge: {spent:.4f} of max_cost {settings.max_cost} spent; {done.unasked:,} rows left; {_GOES_ON}"
        )
    found = tables.read(out, "verdicts").to_pylist() if done.counts["verdicts"] else []
    return aligned(found, made.swapped, row_key), spent


def _probe(out: Place, version: str, asking: TeacherSettings) -> Probed | None:
    """Find out what the server takes; see `calls.probe_server`."""
    written = [Written(1, "It says that the sky is blue.", "")]
    message = question.prompt("what colour is the sky", ["The sky is blue."], written)
    return calls.probe_server("judge", out, version, asking, message, question.schema(written))


def key(row: Mapping[str, Any], version: str) -> str:
    """Return a row's resume key: a sha256 over all that its answer depends on."""
    return digest([row["query"], row["texts"], row["direct"], row["comparison"], version])


def shown(row: Mapping[str, Any]) -> list[int]:
    """Return the indices of the passages that the judge sees: those with reasons, and those that comparisons name."""
    about = [at for at in range(len(row["texts"])) if row["direct"][at] or row["comparison"][at]][:_MOST]
    named = {int(rank) - 1 for at in about for rank in re.findall(r"\[([0-9]+)\]", row["comparison"][at])}
    return [*about, *sorted(at for at in named - set(about) if 0 <= at < len(row["texts"]))][:_MOST]


class Judge(calls.Worker):
    """Judges one row at a time (see `pool.RowWorker`). budget: a Ray actor of `calls.Budget`; None sets no limit."""

    def __init__(
        self, settings: TeacherSettings, row_key: Callable[[dict[str, Any]], str], budget: Any, version: str = ""
    ) -> None:
        self.settings, self.key = settings, row_key
        self.model = calls.open_teacher(settings, version)
        self.prompter = calls.Prompter(settings, self.model)
        self.teacher = calls.Teacher(settings, self.model, self.prompter, budget)

    async def __call__(self, row: dict[str, Any]) -> tuple[str, dict[str, Any], Mapping[str, Any]] | None:
        key = self.key(row)
        first = shown(row)
        random.Random(f"{self.settings.seed} {key}").shuffle(first)
        # The second time, each pair of passages stands the other way round.
        orders = [first, first[::-1]]
        try:
            answers = await asyncio.gather(*(self._pass(row, order, at) for at, order in enumerate(orders)))
        except calls.OverBudget:
            return None
        counts = sum((one.counts for one in answers), Counter[str]())
        head = {"qid": row["qid"], "key": key, "attempts": sum(one.attempts for one in answers)}
        failed = next((one for one in answers if one.reason), None)
        if failed:
            return "rejects", head | {"reason": failed.reason, "reply": clean(failed.text)[0]}, counts
        about = sorted(answers[0].found)
        verdicts = head | {"ranks": [at + 1 for at in about], "claims": [answers[0].found[at].claims for at in about]}
        verdicts |= {name: [row[name][at] for at in about] for name in ("planted_direct", "planted_comparison")}
        for number, one in enumerate(answers, start=1):
            verdicts |= {f"direct_{number}": [one.found[at].direct for at in about]}
            verdicts |= {f"comparison_{number}": [one.found[at].comparison for at in about]}
        return "verdicts", verdicts, counts

    async def _pass(self, row: dict[str, Any], order: list[int], number: int) -> calls.Answer:
        """Ask about the passages in this order. The answer's `found` is the verdict of each, by index."""
        about = [at for at in order if row["direct"][at] or row["comparison"][at]]
        names = {str(at + 1): str(place) for place, at in enumerate(order, start=1)}
        texts = [(row["direct"][at], _renamed(row["comparison"][at], names)) for at in about]
        if self.prompter.server:
            texts = [(break_controls(direct), break_controls(comparison)) for direct, comparison in texts]
        written = [Written(order.index(at) + 1, *pair) for at, pair in zip(about, texts, strict=True)]

        def read(reply: Reply, counts: Counter[str]) -> tuple[dict[int, Verdict], str]:
            try:
                return dict(zip(about, question.read(reply.text, written), strict=True)), ""
            except Unsound as error:
                return {}, calls.unread(reply, str(error), self.settings)

        def render(query: str, passages: list[str]) -> str:
            return question.prompt(query, passages, written)

        passages = [row["texts"][at] for at in order]
        message, cut = self.prompter.fitted(render, row["query"], passages)
        answer = await self.teacher.answer(message, question.schema(written), read, sample=number)
        answer.counts["cut_texts"] = cut
        return answer


def _renamed(comparison: str, names: Mapping[str, str]) -> str:
    """Return a comparison with the number of each passage as it is shown, for its rank."""
    return re.sub(r"\[([0-9]+)\]", lambda match: f"[{names.get(match[1], '?')}]", comparison)
