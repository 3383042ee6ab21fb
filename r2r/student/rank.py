"""A student at work on one query: windows over a list of passages, one decoded token a window, and reasons on request.

Owns the walk of the windows and what a score means. Does not own tables or workers: `rerank` uses it on many rows,
the server on one request.

    result = await Ranker("demo", None, RerankSettings()).rank("how long do fleas live", texts, explain=3)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from r2r.config import RerankSettings
from r2r.llm import open_model, resolve
from r2r.llm.prompt import chat_ids, fit, load_tokenizer
from r2r.student import adapter as adapters
from r2r.student.prompt import LABELS, fields, label_ids, order_line, prompt, read_reasons, rename_brackets, schema

# Tokens that a character of a reason takes at the most, and those of the JSON around it.
_TOKENS_PER_CHAR, _AROUND = 0.5, 10


class Ranked(NamedTuple):
    """`order` holds indices into the passages, best first. `reasons` maps the index of an explained passage to its
    evidence, direct and comparison texts, in which other passages are named by `[index]`. `counts` holds tokens and
    other counts."""

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
    model = resolve(student, "student")
    label_ids(load_tokenizer(model), student)
    if adapter:
        adapters.check_fits(adapters.find(adapter), model)


class Ranker:
    """A student, with its adapter or without one, in a vLLM engine."""

    def __init__(self, student: str, adapter: str | None, settings: RerankSettings):
        self.settings = settings
        folder = adapters.find(adapter) if adapter else None
        self.model = open_model(resolve(student, "student"), settings.engine, folder)
        self.tokenizer = self.model.tokenizer
        self.labels = label_ids(self.tokenizer, student)

    async def rank(self, query: str, passages: list[str], explain: int = 0) -> Ranked:
        """Rank the passages and explain the first `explain` of them."""
        counts: Counter = Counter()

        async def score(inside: list[int]) -> list[float]:
            message = self._message(query, [passages[index] for index in inside], 1, counts)
            ids = chat_ids(self.tokenizer, message)
            counts.update(windows=1, prompt_tokens=len(ids), completion_tokens=1)
            return await self.model.label_logprobs(ids, self.labels[: len(inside)])

        order = await slide(len(passages), self.settings.window, self.settings.stride, score)
        reasons = await self._explain(query, passages, order, explain, counts) if explain and order else {}
        return Ranked(order, reasons, counts)

    async def _explain(self, query: str, passages: list[str], order: list[int], explain: int, counts: Counter) -> dict:
        """Ask for the reasons of the first passages, among those of the top window, in the order that was found."""
        top = order[: self.settings.window]
        # As in training, the prompt does not give the order away: passages stand as they were retrieved.
        shown = sorted(top)
        label_of = {index: LABELS[place] for place, index in enumerate(shown)}
        wanted = top[:explain]
        labels = [label_of[index] for index in wanted]
        chars = self.settings.reason_chars
        texts = len(wanted) * len(fields(self.settings.reasoning))
        longest = int(texts * (chars * _TOKENS_PER_CHAR + _AROUND)) + _AROUND
        message = self._message(query, [passages[index] for index in shown], longest, counts)
        reply = await self.model.complete(
            message,
            start=order_line([label_of[index] for index in top]) + "\n",
            schema=schema(labels, self.settings.reasoning, chars),
            max_tokens=longest,
        )
        counts.update(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
        try:
            found = read_reasons(reply.text, labels, self.settings.reasoning)
        except ValueError:
            counts["explanations_failed"] += len(wanted)
            return {}
        counts["explanations"] += len(wanted)
        index_of = {label: str(index) for index, label in label_of.items()}
        for reason in found:
            if "comparison" in reason:
                reason["comparison"] = rename_brackets(reason["comparison"], index_of)
        return dict(zip(wanted, found, strict=True))

    def _message(self, query: str, passages: list[str], reply: int, counts: Counter) -> str:
        budget, most = self.model.max_length - reply, self.settings.passage_tokens
        message, cut = fit(self.tokenizer, prompt, query, passages, budget, most)
        counts["cut_texts"] += cut
        return message
