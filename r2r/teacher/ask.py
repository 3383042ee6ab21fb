"""A teacher is asked about one row: its prompts, its attempts and its cost, and the annotation or reject.

Owns the row's key, the passage orders, the budget and asking again. Does not own the stage's tables (`annotate.py`),
which passages a row has (`passages.py`), how windows become one answer (`answers.py`), the wording (`prompt.py`), how a
reply is read (`parse.py`) or checked (`r2r.reasons`).

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

from r2r import builtin
from r2r.config import AnnotateSettings
from r2r.datasets.documents import clean
from r2r.identity import digest
from r2r.llm import Model, Refused, Reply, is_remote, open_model
from r2r.llm.prompt import ByteTokenizer, break_controls, chat_ids, fit, load_tokenizer
from r2r.reasons import check_reasons
from r2r.rows.journal import KEYS
from r2r.stage import Identity
from r2r.teacher import parse
from r2r.teacher import prompt as asking
from r2r.teacher.answers import Sample, joined
from r2r.teacher.borda import borda, kendall_tau
from r2r.teacher.passages import step
from r2r.windows import slide

# What each further attempt adds to the temperature.
_HOTTER = 0.3


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


class Prompter:
    """Writes prompts that fit the teacher.

    model: the open teacher; None reads its configuration only, or asks a server. `tokenizer` is the teacher's own; for
    a server it is the one in the settings, else one token per byte. `longest` is the most tokens of prompt and reply
    together, None if a server does not say. Raises BadInput if there is no such teacher.
    """

    tokenizer: Any
    longest: int | None

    def __init__(self, settings: AnnotateSettings, model: Any = None):
        self.settings, self.server = settings, is_remote(settings.teacher)
        if model is not None and not self.server:
            self.tokenizer, self.longest = model.tokenizer, model.max_length
        elif self.server:
            self.tokenizer = load_tokenizer(settings.tokenizer) if settings.tokenizer else ByteTokenizer()
            self.longest = (model or open_model(settings.teacher)).max_length
        else:
            name = builtin.model(settings.teacher, "teacher")
            self.tokenizer, self.longest = load_tokenizer(name), _longest(name, settings)

    def message(self, query: str, passages: list[str]) -> tuple[str, int]:
        """Return the message and how many texts were cut, the query included. `passages` are in the order shown."""
        render = partial(asking.prompt, reasoning=self.settings.reasoning)
        if self.server:
            query, *passages = map(break_controls, [query, *passages])
        if self.longest is None:
            return render(query, passages), 0
        return fit(self.tokenizer, render, query, passages, self.longest - self.settings.max_tokens)

    def ids(self, message: str) -> list[int]:
        """Return the prompt's token ids, chat format included."""
        return chat_ids(self.tokenizer, message)


def _longest(model: str, settings: AnnotateSettings) -> int:
    from transformers import AutoConfig

    own = AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings
    return int(settings.engine.get("max_model_len") or own)


class _Rejected(Exception):
    """The teacher has given no sound answer to a window."""


class _OverBudget(Exception):
    """Another call might cost more than is left."""


class Budget:
    """The money that is left; one Ray actor for all workers.

    A call reserves the most that it may cost, and gives the rest back. If its worker dies, the reservation stays.
    """

    def __init__(self, left: float):
        self.left = left

    def reserve(self, most: float) -> bool:
        """Take `most` from the money left. Return whether there was enough."""
        if most > self.left:
            return False
        self.left -= most
        return True

    def give_back(self, rest: float) -> None:
        self.left += rest


def cost(prompt_tokens: int, completion_tokens: int, settings: AnnotateSettings) -> float:
    """Return the price of these tokens, in the currency of `price_in` and `price_out` (per million tokens)."""
    return (prompt_tokens * settings.price_in + completion_tokens * settings.price_out) / 1e6


class Annotator:
    """Asks a teacher about one row at a time (see `pool.RowWorker`): `samples` answers, each in up to `attempts` calls.

    row_key: returns a row's resume key. budget: a Ray actor of Budget; None sets no limit.
    """

    def __init__(self, settings: AnnotateSettings, row_key: Callable[[dict[str, Any]], str], budget: Any):
        self.settings, self.key, self.budget = settings, row_key, budget
        self.model: Model = open_model(builtin.model(settings.teacher, "teacher"), settings.engine)
        self.prompter = Prompter(settings, self.model)

    def close(self) -> None:
        self.model.close()

    async def __call__(self, row: dict[str, Any]) -> tuple[str, dict[str, Any], Mapping[str, Any]] | None:
        # A row that is asked again gets other seeds and a higher temperature than before.
        key, before = self.key(row), row.get("attempts", 0)
        shown = passage_orders(row, key, self.settings)
        try:
            samples = await asyncio.gather(*(self._sample(row, order, at, before) for at, order in enumerate(shown)))
        except _OverBudget:
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
        settings, counts = self.settings, Counter[str]()
        texts = [row["texts"][index] for index in shown]
        message, counts["cut_texts"] = self.prompter.message(row["query"], texts)
        text, reason, attempt = "", "", 0
        for attempt in range(1, settings.attempts + 1):
            try:
                reply = await self._ask(message, len(texts), before + attempt, number)
            except Refused as refused:
                reason = f"refused: {refused}"
                break
            counts.update(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
            counts["cached_tokens"] += reply.cached_tokens
            text = reply.text
            parsed, reason = self._read(reply, texts, counts)
            if not reason:
                order = [shown[position - 1] for position in parsed.order]
                counts.update(replies=1, same_as_shown=int(order == shown), repaired=int(parsed.status == "repaired"))
                counts[f"attempts_{attempt}"] += 1
                return Sample(shown, order, parsed, attempt, "", text, counts)
        return Sample(shown, [], parse.Parsed("failed"), attempt, reason, text, counts)

    async def _ask(self, message: str, passages: int, attempt: int, sample: int) -> Reply:
        """Make one call. Raises Refused as the model does, and _OverBudget."""
        settings, most = self.settings, 0.0
        if self.budget:
            most = cost(len(self.prompter.ids(message)), settings.max_tokens, settings)
            if not await self.budget.reserve.remote(most):
                raise _OverBudget
        reply = None
        try:
            reply = await self.model.complete(
                message,
                schema=asking.schema(passages, settings.reasoning, settings.reason_chars),
                max_tokens=settings.max_tokens,
                temperature=min(1.0, settings.temperature + _HOTTER * (attempt - 1)),
                # Two samples never share a seed.
                seed=settings.seed + attempt + 1000 * sample,
            )
            return reply
        finally:
            if self.budget:
                spent = cost(reply.prompt_tokens, reply.completion_tokens, settings) if reply else 0
                self.budget.give_back.remote(most - spent)

    def _read(self, reply: Reply, texts: list[str], counts: Counter[str]) -> tuple[parse.Parsed, str]:
        """Read and check a reply. Return it, and what is wrong with it, "" if nothing."""
        parsed = parse.parse_reply(reply.text, len(texts), self.settings.reasoning)
        if parsed.status == "failed":
            said = parsed.reason if reply.complete else f"reply longer than {self.settings.max_tokens} tokens"
            return parsed, reply.fault or said
        checked = check_reasons(parsed.evidence, parsed.comparison, texts, len(texts))
        counts.update(evidence=checked.given, verbatim=checked.verbatim)
        if checked.verbatim < checked.given and self.settings.false_evidence == "reject":
            return parsed, "evidence is not in its passage"
        return parsed._replace(evidence=checked.evidence), checked.fault
