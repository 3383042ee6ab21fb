"""A student ranks the passages of one query, with one decoded token per window, and explains the first on request.

Owns how a window is scored and explained. Does not own the order of the windows (strategies), tables or workers: the
rerank stage and the server call it.

    ranked = await Ranker("demo", None, RerankSettings()).rank("how long do fleas live", texts, explain=3)
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import NamedTuple

from r2r.config import RankSettings, RerankSettings, ServeSettings
from r2r.errors import BadInput
from r2r.llm import Refused, Reply, open_label_model
from r2r.llm.engine import lora_layers
from r2r.llm.prompt import chat_ids, fit, load_tokenizer
from r2r.reasons import check_reasons
from r2r.replies import Unsound
from r2r.student import adapter as adapters
from r2r.student import prompt as form
from r2r.student.likelihood import asked
from r2r.student.prompt import LABELS
from r2r.student.record import completed
from r2r.student.scores import FirstStage, aligned, by_rank, fused, shares
from r2r.student.strategies import STRATEGIES

# Most tokens for a character of a reason, and for the JSON around a reason.
_TOKENS_PER_CHAR, _AROUND = 0.5, 10
# Tokens reserved for the end of a line and for a label.
_AFTER = 2


class Ranked(NamedTuple):
    """A ranking. order: indices of the passages, best first. reasons: evidence, direct and comparison texts by the
    index of the explained passage; `[index]` names other passages, false texts are empty. counts: tokens and more.
    scores: in the ranking's order, never rising (see `scores`)."""

    order: list[int]
    reasons: dict[int, dict[str, str]]
    counts: Counter[str]
    scores: list[float]


class Window(NamedTuple):
    """A scored window. shown: indices of its passages, label A first. scores: aligned with `shown`. written: the JSON
    of reasons that the student wrote before the order; "" if it writes the order first."""

    shown: list[int]
    scores: list[float]
    written: str


def orders(shown: list[int], passes: int) -> list[list[int]]:
    """Return the orders in which the passes show a window's passages: first as they are, then others.

    Every second order is the one before it reversed, so that over the two of them all passages stand equally far up.
    The rest are seeded shuffles.
    """
    found = [shown]
    for number in range(1, passes):
        if number % 2:
            found.append(found[-1][::-1])
        else:
            found.append(random.Random(f"{number} {shown}").sample(shown, len(shown)))
    return found


def merged(windows: Sequence[Window]) -> list[float]:
    """Return the mean score of each passage over several passes, aligned with what the first one shows.

    In mode score, it is the mean log-probability of the passage's labels; in mode generate, minus its mean place, which
    is Borda's count.
    """
    if len(windows) == 1:
        return windows[0].scores
    of_each = [dict(zip(window.shown, window.scores, strict=True)) for window in windows]
    return [sum(scores[index] for scores in of_each) / len(of_each) for index in windows[0].shown]


def check_student(student: str, adapter: str | None, settings: RankSettings | None = None) -> None:
    """Raise BadInput for a student that cannot rank, or an adapter of another model, without loading their weights.

    settings: how it is to rank, which is checked against how it was taught; None if that is not known yet.
    """
    taught = completed(settings, adapter, student) if settings else None
    model, folder = adapters.places(student, adapter, weights=False)
    form.label_ids(load_tokenizer(model), student)
    if folder is None:
        return
    adapters.check_fits(folder, model)
    if settings and taught and taught.scores == "likelihood" and not settings.merge:
        layers = lora_layers(folder)
        if layers is None or "lm_head" in layers:
            named = "the output layer (lm_head)" if layers else "experts of a mixture"
            raise BadInput(
                f"merge: {adapter} changes {named}, and vLLM then has no log-probabilities of a prompt, by which this "
                f"student is scored; set merge"
            )


class Ranker:
    """A student in a vLLM engine, with or without an adapter.

    student: folder, hub name or demo. adapter: a PEFT folder or a distill stage's folder; if that holds a whole model,
    it is loaded in the student's place. settings: those that are None are taken from the record of the training.
    `model` is the engine, which the caller closes. Raises BadInput for an adapter that does not exist, or a student
    without single-token labels.
    """

    def __init__(self, student: str, adapter: str | None, settings: RerankSettings | ServeSettings):
        self.settings, self.student, self.adapter = settings, student, adapter
        self.taught = completed(settings, adapter, student)
        model, folder = adapters.places(student, adapter)
        if folder and settings.merge:
            with tempfile.TemporaryDirectory() as merged:
                adapters.write_merged(folder, model, merged)
                self.model = open_label_model(merged, settings.engine)
        else:
            self.model = open_label_model(model, settings.engine, folder)
        self.tokenizer = self.model.tokenizer
        self.labels = form.label_ids(self.tokenizer, student)
        # Windows, as steps of the queries in work (see `rows.pool.RowWorker`).
        self.so_far: Counter[str] = Counter()
        self._checking: asyncio.Task[float | None] | None = None
        self._check_counted = False

    async def check_adapter(self) -> float | None:
        """Return the largest difference between the engine's log-probabilities and those recorded in training, or None
        if there are none. Checks once; later calls return the same.

        Raises BadInput if the engine answers like the model without its adapter. `rank` calls it, too.
        """
        if self._checking is None or self._checking.cancelled():
            self._checking = asyncio.create_task(self._compare_with_training())
        # Shielded, so that a cancelled request does not cancel the check for the others.
        return await asyncio.shield(self._checking)

    async def rank(
        self,
        query: str,
        passages: list[str],
        explain: int | Sequence[int] = 0,
        first_stage: FirstStage | None = None,
    ) -> Ranked:
        """Rank the passages and explain the first `explain` of them, at most a window; or those with these indices, as
        far as they are in the window that ranks first.

        first_stage: scores to fuse the student's with (see `scores.fused`). They may lift passages to the top that are
        not in the window that the student ranks first; those are not explained. Raises BadInput as `check_adapter`
        does, and Refused if the engine does not take a prompt or the student writes no reasons to explain with.
        """
        return [ranked async for ranked in self.steps(query, passages, explain, False, first_stage)][-1]

    async def steps(
        self,
        query: str,
        passages: list[str],
        explain: int | Sequence[int] = 0,
        parts: bool = True,
        first_stage: FirstStage | None = None,
    ) -> AsyncGenerator[Ranked, None]:
        """Rank and explain as `rank` does. Yield the order as soon as it is known, then the order with the reasons so
        far, each time that there is one more, and last what `rank` returns.

        Without `parts`, only the order and the last. Closing the generator ends its requests in the engine.
        """
        if explain and not form.fields(self.taught.reasoning):
            raise Refused("explain: the student gives no reasons (reasoning none); leave it out")
        counts: Counter[str] = Counter()
        off = await self.check_adapter()
        order, top, values = await self.valued(query, passages, bool(explain), counts)
        scores = self._scores(values, counts) if values else by_rank(len(order))
        final = order
        if first_stage:
            final, scores = fused(order, scores, first_stage)
            explain = final[:explain] if isinstance(explain, int) else explain
        if off is not None and not self._check_counted:
            self._check_counted = True
            counts.update(engines=1, adapter_off=off)  # type: ignore[call-overload] # a float is added like an int
        yield Ranked(final, {}, counts, scores)
        if explain:
            async with aclosing(self._explain(query, passages, order, top, explain, counts, parts)) as explained:
                async for reasons in explained:
                    yield Ranked(final, reasons, counts, scores)

    def _scores(self, values: list[float], counts: Counter[str]) -> list[float]:
        """Return the scores of a ranking as set. values: see `scores.aligned`."""
        if self.settings.score == "rank":
            return by_rank(len(values))
        counts["uncalibrated"] += self.taught.temperature is None
        return shares(values, self.taught.temperature or 1.0)

    async def valued(
        self, query: str, passages: list[str], explain: bool, counts: Counter[str]
    ) -> tuple[list[int], Window, list[float]]:
        """Return the order; a window whose passages lead it; and the values of the passages in this order, from which
        scores are made: of labels or of query likelihood, as the student was taught."""
        find = self._by_likelihood if self.taught.scores == "likelihood" else self._by_windows
        return await find(query, passages, explain, counts)

    async def _by_windows(
        self, query: str, passages: list[str], explain: bool, counts: Counter[str]
    ) -> tuple[list[int], Window, list[float]]:
        """Return the order found by windows; the last of them, whose passages lead it; and the values of the passages
        in this order (see `scores.aligned`), none in mode generate and of a single passage."""
        windows: list[Window] = []
        known: list[tuple[list[int], list[float]]] = []
        strategy = STRATEGIES[self.settings.long_lists]
        left = strategy.calls(len(passages), self.taught.window, self.taught.stride) * self.settings.passes
        self.so_far["begun"] += left

        async def score_once(shown: list[int]) -> Window:
            nonlocal left
            window = await self._score(query, passages, shown, counts)
            left -= 1
            self.so_far["steps"] += 1
            return window

        async def score(shown: list[int]) -> list[float]:
            scored = await asyncio.gather(*map(score_once, orders(shown, self.settings.passes)))
            # Reasons are asked for with the first pass's prompt, in which the passages stand in their order so far.
            windows.append(scored[0])
            known.append((shown, merged(scored)))
            return known[-1][1]

        try:
            order = await strategy.rank(len(passages), self.taught.window, self.taught.stride, score)
        finally:
            # Of a query that the engine refuses, and of a single passage, no window is scored any more.
            self.so_far["begun"] -= left
        # A single passage is ranked without a window.
        top = windows[-1] if windows else Window(order, [0.0] * len(order), "")
        return order, top, aligned(known, order) if known and self.settings.mode == "score" else []

    async def _by_likelihood(
        self, query: str, passages: list[str], explain: bool, counts: Counter[str]
    ) -> tuple[list[int], Window, list[float]]:
        """Return the order by query likelihood (see `likelihood`); a window of the passages that lead it; and the
        values of the passages in this order: log-probabilities per token of the query, as in training."""
        left = len(passages)
        self.so_far["begun"] += left

        async def score(passage: str) -> float:
            nonlocal left
            longest, most = self.model.max_length - 1, self.settings.passage_tokens
            prompt, written, cut = asked(self.tokenizer, query, passage, longest, most)
            found = await self.model.likelihood(prompt, written) if written else 0.0
            left -= 1
            self.so_far["steps"] += 1
            counts.update(windows=1, cut_texts=int(cut), prompt_tokens=len(prompt) + len(written), completion_tokens=1)
            return found / max(1, len(written))

        try:
            likely = await asyncio.gather(*map(score, passages))
        finally:
            self.so_far["begun"] -= left
        order = sorted(range(len(passages)), key=lambda index: -likely[index])
        shown, values = order[: self.taught.window], [likely[index] for index in order]
        if explain and len(shown) > 1 and self.taught.order_position == "last":
            # Its reasons are written before the order, so they must be there.
            return order, await self._score(query, passages, shown, counts), values
        return order, Window(shown, [0.0] * len(shown), ""), values

    async def _score(self, query: str, passages: list[str], shown: list[int], counts: Counter[str]) -> Window:
        """Score the passages `shown`: by the log-probability of each label, or by an order that the student writes."""
        counts["windows"] += 1
        texts = [passages[index] for index in shown]
        if self.settings.mode == "generate":
            return Window(shown, await self._written_order(query, texts, counts), "")
        written = ""
        if self.taught.order_position == "last":
            async for reasons in self._write_reasons(query, texts, list(LABELS[: len(shown)]), [], counts, parts=False):
                written = reasons + "\n"
        message = self._message(query, texts, self._longest(len(shown) if written else 0), counts)
        ids = chat_ids(self.tokenizer, message, written)
        logprobs, cached = await self.model.label_logprobs(ids, self.labels[: len(shown)])
        counts.update(prompt_tokens=len(ids), cached_tokens=cached, completion_tokens=1)
        return Window(shown, logprobs, written)

    async def _written_order(self, query: str, texts: list[str], counts: Counter[str]) -> list[float]:
        """Let the student write the order of a window, and return a score for each passage: minus its place."""
        labels = list(LABELS[: len(texts)])
        # A line of plain letters has at most as many tokens as characters.
        longest = len(form.order_line(labels)) + 1
        message = self._message(query, texts, longest, counts)
        reply = await self.model.complete(message, grammar=form.order_grammar(labels), max_tokens=longest)
        _count_tokens(reply, counts)
        parsed = form.read_order(reply.text, labels)
        counts[f"order {parsed.status}"] += 1
        # An order that cannot be read leaves the window as it was.
        order = parsed.order or range(1, len(texts) + 1)
        places = {number - 1: place for place, number in enumerate(order)}
        return [-float(places[index]) for index in range(len(texts))]

    async def _explain(
        self,
        query: str,
        passages: list[str],
        order: list[int],
        window: Window,
        explain: int | Sequence[int],
        counts: Counter[str],
        parts: bool,
    ) -> AsyncGenerator[dict[int, dict[str, str]], None]:
        """Yield the reasons of the first `explain` passages, or of these, by index: all of them, or none if they cannot
        be read. With `parts`, first those so far, each time that there is one more.

        window: the last one scored, whose passages lead the order. The engine has its prompt in the cache, so the
        reasons are asked for with the same prompt.
        """
        label_of = {index: LABELS[place] for place, index in enumerate(window.shown)}
        ranked = order[: len(window.shown)]
        explained = ranked[:explain] if isinstance(explain, int) else [index for index in ranked if index in explain]
        counts["explanations_asked"] += len(explained)

        def read(text: str, labels: list[str], counts: Counter[str]) -> dict[int, dict[str, str]]:
            reasons = form.read_reasons(text, labels, self.taught.reasoning)
            reason_of = dict(zip(labels, reasons, strict=True))
            return {
                index: _drop_false_texts(reason_of[label_of[index]], passages[index], window.shown, counts)
                for index in explained
                if label_of[index] in reason_of
            }

        written, labels = window.written, list(LABELS[: len(window.shown)])
        if not written and explained:
            labels = [label_of[index] for index in explained]
            texts, ranking = [passages[index] for index in window.shown], [label_of[index] for index in ranked]
            known = 0
            async with aclosing(self._write_reasons(query, texts, labels, ranking, counts, parts)) as replies:
                async for written in replies:
                    count, whole = form.finished(written)
                    if parts and count > known:
                        known = count
                        with suppress(Unsound):
                            # They are counted once, when the reply is at its end.
                            yield read(whole, labels[:count], Counter())
        try:
            yield read(written.rstrip("\n"), labels, counts) if explained else {}
        except Unsound as error:
            counts[f"failed: {error}"] += len(explained)
            yield {}

    async def _write_reasons(
        self, query: str, texts: list[str], labels: list[str], ranking: list[str], counts: Counter[str], parts: bool
    ) -> AsyncGenerator[str, None]:
        """Let the student write the reasons for `labels`, and yield them as JSON: with `parts`, each time that the JSON
        has grown; last, all of it.

        ranking: all labels, best first; comparisons may name neighbours in it. If it is empty, there is no order yet,
        and comparisons may name any other label.
        """
        if ranking:
            start, names = form.order_line(ranking) + "\n", form.neighbours(labels, ranking)
        else:
            start, names = "", [[other for other in labels if other != label] for label in labels]
        longest = self._longest(len(labels))
        message = self._message(query, texts, longest, counts)
        explained = [texts[LABELS.index(label)] for label in labels]
        grammar = form.grammar(labels, explained, names, self.taught.reasoning, self.settings.reason_chars)
        most = longest - _AFTER
        if parts:
            async with aclosing(self.model.growing(message, start=start, grammar=grammar, max_tokens=most)) as replies:
                async for reply in replies:
                    yield reply.text
        else:
            reply = await self.model.complete(message, start=start, grammar=grammar, max_tokens=most)
            yield reply.text
        _count_tokens(reply, counts)

    async def _compare_with_training(self) -> float | None:
        probes, rounding = adapters.recorded(adapters.find(self.adapter)) if self.adapter else ([], 0.0)
        if not probes:
            return None
        off = off_base = 0.0
        for probe in probes:
            logprobs, _ = await self.model.label_logprobs(probe["prompt"], probe["labels"])
            off = max(off, _distance(logprobs, probe["logprobs"]))
            off_base = max(off_base, _distance(logprobs, probe["base"]))
        if off > max(rounding, off_base):
            raise BadInput(
                f"{self.adapter}: vLLM answers as {self.student} without it (log-probabilities {off:.3f} from those of "
                f"training, {off_base:.3f} from the model's own); distill again, or give the student it was made for"
            )
        return off

    def _longest(self, passages: int) -> int:
        """Return the most tokens of a reply with the reasons for so many passages, its order line included."""
        texts = passages * len(form.fields(self.taught.reasoning))
        line = len(form.order_line(list(LABELS))) if texts else 0
        return int(texts * (self.settings.reason_chars * _TOKENS_PER_CHAR + _AROUND)) + line + _AFTER

    def _message(self, query: str, texts: list[str], reply: int, counts: Counter[str]) -> str:
        """Return the prompt for a window, cut to leave `reply` tokens."""
        budget, most = self.model.max_length - reply, self.settings.passage_tokens
        render = partial(form.prompt, language=self.settings.language)
        message, cut = fit(self.tokenizer, render, query, texts, budget, most)
        counts["cut_texts"] += cut
        return message


def _drop_false_texts(reason: dict[str, str], passage: str, shown: list[int], counts: Counter[str]) -> dict[str, str]:
    """Return a passage's reasons, with `[index]` for labels, and without false texts: evidence that is not in the
    passage, and a comparison that names a passage not shown. Count both."""
    counts["explanations"] += 1
    comparison = form.numbered(reason.get("comparison", ""))
    checked = check_reasons([reason.get("evidence", "")], [comparison], [passage], len(shown))
    counts.update(evidence=checked.given, verbatim=checked.verbatim)
    kept = dict(reason)
    if "evidence" in reason:
        kept["evidence"] = checked.evidence[0]
    if "comparison" in reason:
        counts.update(comparisons=1, comparisons_false=int(bool(checked.fault)))
        names = {label: str(index) for label, index in zip(LABELS, shown, strict=False)}
        kept["comparison"] = "" if checked.fault else form.rename_brackets(reason["comparison"], names)
    return kept


def _distance(some: list[float], others: list[float]) -> float:
    """Return the largest difference between two lists of the same length."""
    return max(abs(a - b) for a, b in zip(some, others, strict=True))


def _count_tokens(reply: Reply, counts: Counter[str]) -> None:
    counts.update(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
    counts["cached_tokens"] += reply.cached_tokens
