"""A student at work on one query: windows over a list of passages, one decoded token a window, and reasons on request.

Owns the walk of the windows and what a score means. Does not own tables or workers: `rerank` uses it on many rows,
the server on one request.

    result = await Ranker("demo", None, RerankSettings()).rank("how long do fleas live", texts, explain=3)
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from r2r import builtin
from r2r.config import RerankSettings
from r2r.errors import BadInput
from r2r.llm import open_label_model
from r2r.llm.prompt import chat_ids, fit, load_tokenizer
from r2r.reasons import check_reasons
from r2r.replies import Unsound
from r2r.student import adapter as adapters
from r2r.student import prompt as form
from r2r.student.prompt import LABELS

# Tokens that a character of a reason takes at the most, and those of the JSON around it.
_TOKENS_PER_CHAR, _AROUND = 0.5, 10
# Tokens kept for the end of a line and for a label.
_AFTER = 2
# A difference of log-probabilities that float32 in two libraries does not exceed.
_SAME = 0.01


class Ranked(NamedTuple):
    """`order` holds indices into the passages, best first. `reasons` maps the index of an explained passage to its
    evidence, direct and comparison texts, in which other passages are named by `[index]`; what is false of them is left
    out. `counts` holds tokens and other counts."""

    order: list[int]
    reasons: dict[int, dict[str, str]]
    counts: Counter


def windows(n: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Return the (start, end) of each window over `n` passages, from the bottom of the list up.

    Each of the passages is in a window, and the last window starts at the top.
    """
    spans = []
    end = n
    while True:
        start = max(0, end - window)
        spans.append((start, end))
        if start == 0:
            return spans
        end -= stride


async def slide(n: int, window: int, stride: int, score: Callable[[list[int]], Awaitable[list[float]]]) -> list[int]:
    """Return indices 0 to n - 1, best first, after all windows. `score` rates the passages of a window, in its order;
    passages of equal score keep the order that they came in."""
    order = list(range(n))
    for start, end in windows(n, window, stride):
        inside = order[start:end]
        if len(inside) > 1:
            scores = await score(inside)
            ranked = sorted(range(len(inside)), key=lambda place: -scores[place])
            order[start:end] = [inside[place] for place in ranked]
    return order


def scores(n: int) -> list[float]:
    """Return the scores of a ranking of `n` passages, best first: 1 / rank.

    A window's log-probabilities compare its own passages only, and passages meet in several windows, so no number but
    the rank holds for the whole list. Scores of different queries cannot be compared.
    """
    return [1 / rank for rank in range(1, n + 1)]


def check(student: str, adapter: str | None) -> None:
    """Raise BadInput for a student that cannot rank, or an adapter made for another model, without loading either."""
    model = builtin.model(student, "student")
    form.label_ids(load_tokenizer(model), student)
    if adapter:
        adapters.check_fits(adapters.find(adapter), model)


class Ranker:
    """A student, with its adapter or without one, in a vLLM engine."""

    def __init__(self, student: str, adapter: str | None, settings: RerankSettings):
        self.settings, self.student, self.adapter = settings, student, adapter
        model, folder = builtin.model(student, "student"), adapters.find(adapter) if adapter else None
        if folder and settings.merge:
            with tempfile.TemporaryDirectory() as merged:
                adapters.write_merged(folder, model, merged)
                self.model = open_label_model(merged, settings.engine)
        else:
            self.model = open_label_model(model, settings.engine, folder)
        self.tokenizer = self.model.tokenizer
        self.labels = form.label_ids(self.tokenizer, student)
        self.checking: asyncio.Task | None = None

    async def rank(self, query: str, passages: list[str], explain: int = 0) -> Ranked:
        """Rank the passages and explain the first `explain` of them.

        Raises BadInput where the engine does not answer as the adapter was trained to.
        """
        counts: Counter = Counter()
        if self.checking is None:
            self.checking = asyncio.create_task(self._check_adapter())
            if (off := await self.checking) is not None:
                counts.update(engines=1, adapter_off=off)
        await self.checking
        # The passages of the latest window as they were shown, and the reasons that were written before its order.
        shown, written = list(range(len(passages))), ""

        async def score(inside: list[int]) -> list[float]:
            nonlocal shown, written
            counts["windows"] += 1
            shown, written = inside, ""
            texts = [passages[index] for index in inside]
            if self.settings.mode == "generate":
                return await self._written_order(query, texts, counts)
            if self.settings.order == "last":
                written = await self._reasons(query, texts, list(LABELS[: len(inside)]), [], counts) + "\n"
            message = self._message(query, texts, self._longest(len(inside) if written else 0), counts)
            ids = chat_ids(self.tokenizer, message, written)
            found, cached = await self.model.label_logprobs(ids, self.labels[: len(inside)])
            counts.update(prompt_tokens=len(ids), cached_tokens=cached, completion_tokens=1)
            return found

        order = await slide(len(passages), self.settings.window, self.settings.stride, score)
        reasons = await self._explain(query, passages, order, shown, written, explain, counts) if explain else {}
        return Ranked(order, reasons, counts)

    async def _written_order(self, query: str, passages: list[str], counts: Counter) -> list[float]:
        """Have the order of a window written, and return a score for each of its passages."""
        labels = list(LABELS[: len(passages)])
        # No tokenizer has more tokens than characters for a line of plain letters.
        longest = len(form.order_line(labels)) + 1
        message = self._message(query, passages, longest, counts)
        reply = await self.model.complete(message, grammar=form.order_grammar(labels), max_tokens=longest)
        _count(reply, counts)
        parsed = form.read_order(reply.text, labels)
        counts[f"order {parsed.status}"] += 1
        # What cannot be read leaves the window as it was.
        order = parsed.order or range(1, len(passages) + 1)
        places = {number - 1: place for place, number in enumerate(order)}
        return [-float(places[index]) for index in range(len(passages))]

    async def _explain(
        self,
        query: str,
        passages: list[str],
        order: list[int],
        shown: list[int],
        written: str,
        explain: int,
        counts: Counter,
    ) -> dict:
        """Return the reasons of the first passages, among those of the top window. They are asked for after the prompt
        that gave the window's order, which the engine has read already."""
        label_of = {index: LABELS[place] for place, index in enumerate(shown)}
        top = order[: len(shown)]
        wanted = top[:explain]
        labels = [label_of[index] for index in wanted]
        reasoning = self.settings.reasoning
        counts["explanations_asked"] += len(wanted)
        if not written:
            ranked = [label_of[index] for index in top]
            written = await self._reasons(query, [passages[index] for index in shown], labels, ranked, counts)
            read = labels
        else:
            read = list(LABELS[: len(shown)])
        try:
            found = dict(zip(read, form.read_reasons(written.rstrip("\n"), read, reasoning), strict=True))
        except Unsound as error:
            counts[f"failed: {error}"] += len(wanted)
            return {}
        return {index: self._true(found[label_of[index]], passages[index], shown, counts) for index in wanted}

    def _true(self, reason: dict[str, str], passage: str, shown: list[int], counts: Counter) -> dict[str, str]:
        """Return what is true of one passage's reasons, as far as that can be checked, and count it."""
        counts["explanations"] += 1
        comparison = form.numbered(reason.get("comparison", ""))
        checked = check_reasons([reason.get("evidence", "")], [comparison], [passage], len(shown))
        counts.update(evidence=checked.given, verbatim=checked.verbatim)
        if "evidence" in reason:
            reason["evidence"] = checked.evidence[0]
        if "comparison" in reason:
            counts.update(comparisons=1, comparisons_false=int(bool(checked.fault)))
            names = {label: str(index) for label, index in zip(LABELS, shown, strict=False)}
            reason["comparison"] = "" if checked.fault else form.rename_brackets(reason["comparison"], names)
        return reason

    async def _reasons(
        self, query: str, passages: list[str], labels: list[str], ranked: list[str], counts: Counter
    ) -> str:
        """Have the reasons for `labels` written, as JSON, after the order of all, `ranked`. Their comparisons may name
        the neighbours in it; where there is no order yet, every other label."""
        if ranked:
            start, names = form.order_line(ranked) + "\n", form.neighbours(labels, ranked)
        else:
            start, names = "", [[other for other in labels if other != label] for label in labels]
        longest = self._longest(len(labels))
        message = self._message(query, passages, longest, counts)
        own = [passages[LABELS.index(label)] for label in labels]
        grammar = form.grammar(labels, own, names, self.settings.reasoning, self.settings.reason_chars)
        reply = await self.model.complete(message, start=start, grammar=grammar, max_tokens=longest - _AFTER)
        _count(reply, counts)
        return reply.text

    async def _check_adapter(self) -> float | None:
        """Return how far the engine's log-probabilities are from those of training, at the most; None with nothing to
        compare. Raises BadInput where they are nearer to those of the model without its adapter."""
        known = adapters.recorded(adapters.find(self.adapter)) if self.adapter else []
        off = unmoved = 0.0
        for one in known:
            found, _ = await self.model.label_logprobs(one["prompt"], one["labels"])
            off, unmoved = max(off, _distance(found, one["logprobs"])), max(unmoved, _distance(found, one["base"]))
        if off > max(_SAME, unmoved):
            raise BadInput(
                f"{self.adapter}: vLLM answers as {self.student} without it (log-probabilities {off:.3f} from those of "
                f"training, {unmoved:.3f} from the model's own); distill again, or give the student it was made for"
            )
        return off if known else None

    def _longest(self, passages: int) -> int:
        """Return the tokens that the reasons for so many passages may take, with an order line and what follows."""
        texts = passages * len(form.fields(self.settings.reasoning))
        line = len(form.order_line(list(LABELS))) if texts else 0
        return int(texts * (self.settings.reason_chars * _TOKENS_PER_CHAR + _AROUND)) + line + _AFTER

    def _message(self, query: str, passages: list[str], reply: int, counts: Counter) -> str:
        budget, most = self.model.max_length - reply, self.settings.passage_tokens
        message, cut = fit(self.tokenizer, form.prompt, query, passages, budget, most)
        counts["cut_texts"] += cut
        return message


def _distance(some: list[float], others: list[float]) -> float:
    """Return the largest difference between two lists of as many numbers."""
    return max(abs(a - b) for a, b in zip(some, others, strict=True))


def _count(reply, counts: Counter) -> None:
    counts.update(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
    counts["cached_tokens"] += reply.cached_tokens
