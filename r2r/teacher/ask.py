"""A teacher is asked about one row: its prompts, and the annotation or reject.

Owns the row's key and the passage orders. Does not own the attempts and their cost (`calls.py`), the stage's tables
(`annotate.py`), which passages a row has (`passages.py`), how windows become one answer (`answers.py`), the wording
(`prompt.py`), how a reply is read (`parse.py`) or checked (`r2r.reasons`).

    table, row, counts = await Annotator(settings, row_key, None)(candidates_row)
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations
from typing import Any

from r2r.config import AnnotateSettings
from r2r.datasets.documents import clean
from r2r.identity import digest
from r2r.llm import Reply
from r2r.reasons import check_reasons
from r2r.rows.journal import KEYS
from r2r.stage import Identity
from r2r.teacher import calls, parse
from r2r.teacher import prompt as asking
from r2r.teacher.answers import Sample, joined
from r2r.teacher.borda import borda, kendall_tau
from r2r.teacher.passages import step
from r2r.windows import slide


def key(row: dict[str, Any], version: str, passages: int) -> str:
    """Return a row's resume key: a sha256 over all that its answer depends on.

    version: of the teacher, the prompt and the settings, see `version`. passages: how many are shown. Draws of a query
    may have the same passages, so each but the first counts its number (`draw`).
    """
    number = [row["draw"]] if row.get("draw") else []
    return digest([row["query"], row["docids"][:passages], row["texts"][:passages], version, *number])


def version(identity: Identity) -> str:
    """Return what all keys have in common: a hash of the teacher, the prompt and the `what` settings."""
    return f"{KEYS}-{identity.key('teacher')}"


def passage_orders(row: dict[str, Any], key: str, settings: AnnotateSettings) -> list[list[int]]:
    """Return the passage order of each sample, as indices into the row's first passages.

    The first order of the first draw is the retrieved one, unless `passage_order` is shuffled. All others are shuffled,
    by the seed.
    """
    first = list(range(min(settings.passages, len(row["docids"]))))
    shuffled = [random.Random(f"{settings.seed} {key} {number}") for number in range(settings.samples)]
    orders = [one.sample(first, len(first)) for one in shuffled]
    return orders if settings.passage_order == "shuffled" or row.get("draw") else [first, *orders[1:]]


class Prompter(calls.Prompter):
    """Writes prompts that fit the teacher; see `calls.Prompter`."""

    def __init__(self, settings: AnnotateSettings, model: Any = None):
        super().__init__(settings, model)
        self.render = partial(asking.prompt, reasoning=settings.reasoning, language=settings.language)

    def message(self, query: str, passages: list[str]) -> tuple[str, int]:
        """Return the message and how many texts were cut, the query included. `passages` are in the order shown."""
        return self.fitted(self.render, query, passages)


class _Rejected(Exception):
    """The teacher has given no sound answer to a window."""


class Annotator(calls.Worker):
    """Asks a teacher about one row at a time (see `pool.RowWorker`): `samples` answers, each in up to `attempts` calls.

    row_key: returns a row's resume key. budget: a Ray actor of `calls.Budget`; None sets no limit. version: what all
    keys have in common.
    """

    def __init__(
        self, settings: AnnotateSettings, row_key: Callable[[dict[str, Any]], str], budget: Any, version: str = ""
    ):
        self.settings, self.key = settings, row_key
        self.model = calls.open_teacher(settings, version)
        self.prompter = Prompter(settings, self.model)
        self.teacher = calls.Teacher(settings, self.model, self.prompter, budget)

    async def __call__(self, row: dict[str, Any]) -> tuple[str, dict[str, Any], Mapping[str, Any]] | None:
        # A row that is asked again gets other seeds and a higher temperature than before.
        key, before = self.key(row), row.get("attempts", 0)
        shown = passage_orders(row, key, self.settings)
        try:
            samples = await asyncio.gather(*(self._sample(row, order, at, before) for at, order in enumerate(shown)))
        except calls.OverBudget:
            return None
        counts = sum((sample.counts for sample in samples), Counter[str]())
        head = {"qid": row["qid"], "key": key, "attempts": sum(sample.attempts for sample in samples)}
        failed = next((sample for sample in samples if sample.reason), None)
        if failed:
            return "rejects", head | {"reason": failed.reason, "reply": clean(failed.text)[0]}, counts
        merged = borda([sample.order for sample in samples])
        kept = max(samples, key=lambda sample: kendall_tau(sample.order, merged))
        pairs = [kendall_tau(one.order, other.order) for one, other in combinations(samples, 2)]
        agreement = sum(pairs) / len(pairs) if pairs else None
        annotation = head | {
            "query": row["query"],
            "docids": [row["docids"][index] for index in kept.shown],
            "texts": [row["texts"][index] for index in kept.shown],
            "ranking": [kept.shown.index(index) + 1 for index in merged],
            "direct": kept.parsed.direct,
            "evidence": kept.parsed.evidence,
            "comparison": kept.parsed.comparison,
            "teacher": self.settings.teacher,
            "prompt_tokens": counts["prompt_tokens"],
            "completion_tokens": counts["completion_tokens"],
            "agreement": agreement,
        }
        agreed = {"tau": kendall_tau(merged, sorted(merged)), "agree": agreement or 0}
        return "annotations", annotation, {**counts, **agreed}

    async def _sample(self, row: dict[str, Any], shown: list[int], number: int, before: int) -> Sample:
        """Ask about one passage order, in windows if it is long. number: of the sample, from 0. before: attempts of
        earlier rounds."""
        windows: list[Sample] = []

        async def rank(places: list[int]) -> list[int]:
            one = await self._window(row, [shown[place] for place in places], number, before)
            windows.append(one)
            if one.reason:
                raise _Rejected
            return [places[position - 1] for position in one.parsed.order]

        try:
            order = await slide(len(shown), self.settings.window, step(self.settings), rank)
        except _Rejected:
            order = []
        return joined(shown, [shown[place] for place in order], windows)

    async def _window(self, row: dict[str, Any], shown: list[int], number: int, before: int) -> Sample:
        """Ask about at most a window of passages."""
        settings = self.settings
        texts = [row["texts"][index] for index in shown]
        message, cut = self.prompter.message(row["query"], texts)
        schema = asking.schema(len(texts), settings.reasoning, settings.reason_chars)
        answer = await self.teacher.answer(message, schema, partial(self._read, texts), before, number)
        counts = answer.counts
        counts["cut_texts"] = cut
        if answer.reason:
            return Sample(shown, [], parse.Parsed("failed"), answer.attempts, answer.reason, answer.text, counts)
        order = [shown[position - 1] for position in answer.found.order]
        counts.update(same_as_shown=int(order == shown), repaired=int(answer.found.status == "repaired"))
        return Sample(shown, order, answer.found, answer.attempts, "", answer.text, counts)

    def _read(self, texts: list[str], reply: Reply, counts: Counter[str]) -> tuple[parse.Parsed, str]:
        """Read and check a reply. Return it, and what is wrong with it, "" if nothing."""
        parsed = parse.parse_reply(reply.text, len(texts), self.settings.reasoning)
        if parsed.status == "failed":
            return parsed, calls.unread(reply, parsed.reason, self.settings)
        checked = check_reasons(parsed.evidence, parsed.comparison, texts, len(texts))
        counts.update(evidence=checked.given, verbatim=checked.verbatim)
        if checked.verbatim < checked.given and self.settings.false_evidence == "reject":
            return parsed, "evidence is not in its passage"
        return parsed._replace(evidence=checked.evidence), checked.fault
