"""What asking a teacher has in common, whatever it is asked: the prompt's length, attempts, the budget and the cost.

Owns calls and asking again. Does not own what is asked, or how a reply is read: `ask.py` (order and reasons) and
`write.py` (a query) do.

    answer = await Teacher(settings, model, prompter, None).answer("Rank ...", schema, read)
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from r2r import builtin
from r2r.config import TeacherSettings
from r2r.errors import BadInput
from r2r.identity import digest, fingerprint
from r2r.llm import Model, Refused, Reply, is_folder, is_remote, is_server, open_model
from r2r.llm.engine import check_arguments
from r2r.llm.probe import Probed, probe
from r2r.llm.prompt import ByteTokenizer, break_controls, chat_ids, check_model, fit, load_tokenizer, longest
from r2r.places import Place
from r2r.rows.journal import Journal
from r2r.workers import beside_driver, start_ray

Asked = TypeVar("Asked", bound=TeacherSettings)

# What each further attempt adds to the temperature.
_HOTTER = 0.3
# Rows in flight together whose requests go into files.
_ROWS_OF_FILES = 20_000


def identify_teacher(teacher: str) -> str:
    """Return a teacher's fingerprint. A server is known by its model's name, or by its address if no name is given."""
    address, _, model = teacher.partition("#")
    if is_remote(teacher):
        return f"model {model}" if model else f"server {address}"
    return fingerprint(builtin.named(teacher, "teacher"))


def check_teacher(settings: TeacherSettings) -> None:
    """Raise BadInput for a teacher that cannot be asked. Starts no engine."""
    check_arguments(settings.engine)
    if settings.batch and not is_server(settings.teacher):
        raise BadInput(f"batch: {settings.teacher} is no server's address; leave --batch out")
    if is_remote(settings.teacher):
        if is_folder(settings.teacher) and not settings.teacher.partition("#")[2]:
            raise BadInput(f"{settings.teacher}: names no model, which its requests need; add # and its name")
        Prompter(settings)
    else:
        check_model(builtin.model(settings.teacher, "teacher", weights=False))


def open_teacher(settings: TeacherSettings, version: str) -> Model:
    """Open the teacher. version: what the keys of its rows have in common, by which its batches are found again."""
    name, batch = builtin.model(settings.teacher, "teacher"), version if settings.batch else ""
    return open_model(name, settings.engine, None, settings.server, batch)


def in_files(settings: TeacherSettings) -> bool:
    """Return whether requests go into files, where they wait for each other."""
    return settings.batch or is_folder(settings.teacher)


def spread(settings: Asked) -> Asked:
    """Return the settings with which rows are spread over workers: those whose requests go into files wait together,
    in one worker that starts no engine."""
    if not in_files(settings):
        return settings
    rows = max(settings.in_flight, _ROWS_OF_FILES)
    return settings.model_copy(update={"actors": 1, "min_actors": 1, "cpus": 1, "gpus": 0, "in_flight": rows})


def steps(settings: TeacherSettings) -> str:
    """Return what the progress line counts besides rows; see `pool.Job`."""
    return "requests of batches" if in_files(settings) else ""


class Prompter:
    """Makes prompts fit the teacher.

    model: the open teacher; None reads its configuration only, or asks a server. `tokenizer` is the teacher's own; for
    a server it is the one in the settings, else one token per byte. `longest` is the most tokens of prompt and reply
    together, None if nothing says it. Raises BadInput if there is no such teacher.
    """

    tokenizer: Any
    longest: int | None

    def __init__(self, settings: TeacherSettings, model: Any = None):
        self.max_tokens, self.server = settings.max_tokens, is_remote(settings.teacher)
        if model is not None and not self.server:
            self.tokenizer, self.longest = model.tokenizer, model.max_length
        elif self.server:
            self.tokenizer = load_tokenizer(settings.tokenizer) if settings.tokenizer else ByteTokenizer()
            self.longest = (model or open_model(settings.teacher)).max_length
        else:
            name = builtin.model(settings.teacher, "teacher", weights=False)
            self.tokenizer = load_tokenizer(name)
            self.longest = int(settings.engine.get("max_model_len") or 0) or longest(name)

    def fitted(self, render: Callable[[str, list[str]], str], query: str, passages: list[str]) -> tuple[str, int]:
        """Return `render(query, passages)` of texts that are cut to fit, and how many were cut, the query included."""
        if self.server:
            query, *passages = map(break_controls, [query, *passages])
        if self.longest is None:
            return render(query, passages), 0
        return fit(self.tokenizer, render, query, passages, self.longest - self.max_tokens)

    def ids(self, message: str) -> list[int]:
        """Return the prompt's token ids, chat format included."""
        return chat_ids(self.tokenizer, message)

    def shown(self, message: str) -> str:
        """Return the message as the model sees it, with its chat format; as it is if the tokenizer is not known."""
        return message if isinstance(self.tokenizer, ByteTokenizer) else self.tokenizer.decode(self.ids(message))


class OverBudget(Exception):
    """Another call might cost more than is left."""


class Budget:
    """The money that is left; one Ray actor for all workers.

    A call reserves the most that it may cost, and gives the rest back. If its worker dies, the reservation stays. Each
    method may be called again for the same call, as Ray does when a link fails; that changes nothing.
    """

    def __init__(self, left: float):
        self.left = left
        self.reserved: dict[str, float] = {}

    def reserve(self, call: str, most: float) -> bool:
        """Take `most` from the money left, for a call with a name of its own. Return whether there was enough."""
        if call not in self.reserved:
            if most > self.left:
                return False
            self.left -= most
            self.reserved[call] = most
        return True

    def give_back(self, call: str, spent: float) -> None:
        """Give back what the call reserved and did not spend."""
        if (most := self.reserved.pop(call, None)) is not None:
            self.left += most - spent


def open_budget(out: Place, version: str, settings: TeacherSettings) -> Any:
    """Return a Ray actor of Budget with what is left of `max_cost`, None if there is no `max_cost`.

    out: the stage's folder. version: what the keys of its rows have in common.
    """
    if not settings.max_cost:
        return None
    start_ray()
    return beside_driver(Budget, _left(out, version, settings))


def _left(out: Place, version: str, settings: TeacherSettings) -> float:
    """Return `max_cost` less the cost of the finished rows and of all probes; infinity without a `max_cost`."""
    if settings.max_cost is None:
        return float("inf")
    counts = (entry["counts"] for entry in chain(Journal(out / "rows" / version), _probes(out, version)))
    spent = sum(cost(one.get("prompt_tokens", 0), one.get("completion_tokens", 0), settings) for one in counts)
    return settings.max_cost - spent


def probe_server(
    name: str, out: Place, version: str, settings: TeacherSettings, message: str, schema: dict[str, Any]
) -> Probed | None:
    """Find out what a server takes, with a small request, and say it. None if there is no server, or if that might pass
    `max_cost`: then no row is asked.

    name: the stage's. out, version: as for `open_budget`. What is found is not part of the rows' keys: the prompt stays
    the same, and each reply is read as strictly.
    """
    if not is_server(settings.teacher):
        return None
    most = cost(len(chat_ids(ByteTokenizer(), message)), settings.max_tokens, settings)
    if most > _left(out, version, settings):
        return None
    print(f"{name}: asks the server with one small request what it takes", flush=True)
    found = probe(settings.teacher, settings.server, message, schema, settings.max_tokens, settings.temperature)
    tokens = {"prompt_tokens": found.prompt_tokens, "completion_tokens": found.completion_tokens}
    _probes(out, version).add(digest(uuid.uuid4().hex), "probes", {}, {"calls": found.calls, **tokens})
    _tell_probe(name, found)
    return found


def _tell_probe(name: str, found: Probed) -> None:
    """Print what a server takes, and why not more. name: the stage's."""
    dialect = found.dialect
    takes = [
        f"response_format {dialect.response_format}",
        "a seed" if dialect.seed else "no seed",
        f"temperature {dialect.temperature}",
        str(dialect.max_tokens),
        f"content as {dialect.content}",
    ]
    cost = f"{found.calls} call{'s' * (found.calls > 1)}, {found.prompt_tokens + found.completion_tokens:,} tokens"
    print(f"{name}: the server takes {', '.join(takes)} ({cost})", flush=True)
    if found.refusal:
        print(f"{name}: its first refusal: {found.refusal}", flush=True)


def probe_counts(out: Place, version: str) -> Counter[str]:
    """Return the sums over the probes of all runs: probe_calls, probe_prompt_tokens, probe_completion_tokens."""
    counts = Counter[str]()
    for entry in _probes(out, version):
        counts.update({f"probe_{name}": count for name, count in entry["counts"].items()})
    return counts


def _probes(out: Place, version: str) -> Journal:
    """Return the journal of what the server was asked at the start of each run. It is paid for as rows are."""
    return Journal(out / "probes" / version)


def cost(prompt_tokens: int, completion_tokens: int, settings: TeacherSettings) -> float:
    """Return the price of these tokens, in the currency of `price_in` and `price_out` (per million tokens)."""
    return (prompt_tokens * settings.price_in + completion_tokens * settings.price_out) / 1e6


def unread(reply: Reply, reason: str, settings: TeacherSettings) -> str:
    """Return why a reply cannot be read: its fault or its length, which explain `reason`, or else `reason`."""
    return reply.fault or (reason if reply.complete else f"reply longer than {settings.max_tokens} tokens")


class Answer(NamedTuple):
    """What the attempts came to.

    found: the sound reply as it was read, None if there was none. attempts: calls made. reason: why all replies were
    rejected, "" for a sound one. text: the last reply. counts: tokens and other counts of all attempts.
    """

    found: Any
    attempts: int
    reason: str
    text: str
    counts: Counter[str]


class Worker:
    """What the workers that ask a teacher have in common (see `pool.RowWorker`): the open model."""

    model: Model

    @property
    def so_far(self) -> Counter[str]:
        """Requests in batches; see `batch.BatchModel`."""
        return Counter(getattr(self.model, "so_far", {}))

    def in_writing(self) -> int:
        return self.model.in_writing()

    def close(self) -> None:
        self.model.close()


class Teacher:
    """Asks an open model, each time in up to `attempts` calls. budget: a Ray actor of Budget; None sets no limit."""

    def __init__(self, settings: TeacherSettings, model: Model, prompter: Prompter, budget: Any):
        self.settings, self.model, self.prompter, self.budget = settings, model, prompter, budget

    async def answer(
        self,
        message: str,
        schema: dict[str, Any],
        read: Callable[[Reply, Counter[str]], tuple[Any, str]],
        before: int = 0,
        sample: int = 0,
    ) -> Answer:
        """Ask until a reply is sound.

        Arguments:
            message: the prompt. schema: the JSON schema of the reply.
            read: takes a reply and the counts, to which it may add; returns what it read, and what is wrong with it, ""
                if nothing.
            before: attempts of earlier rounds: this one gets other seeds and a higher temperature.
            sample: number of this answer to the same question. Two samples never share a seed.

        Raises OverBudget before a call that might cost more than is left.
        """
        counts, text, reason, attempt = Counter[str](), "", "", 0
        for attempt in range(1, self.settings.attempts + 1):
            try:
                reply = await self._call(message, schema, before + attempt, sample)
            except Refused as refused:
                reason = f"refused: {refused}"
                break
            counts.update(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
            counts["cached_tokens"] += reply.cached_tokens
            text = reply.text
            found, reason = read(reply, counts)
            if not reason:
                counts["replies"] += 1
                counts[f"attempts_{attempt}"] += 1
                return Answer(found, attempt, "", text, counts)
        return Answer(None, attempt, reason, text, counts)

    async def _call(self, message: str, schema: dict[str, Any], attempt: int, sample: int) -> Reply:
        settings = self.settings
        if self.budget:
            call = uuid.uuid4().hex
            most = cost(len(self.prompter.ids(message)), settings.max_tokens, settings)
            if not await self.budget.reserve.remote(call, most):
                raise OverBudget
        reply = None
        try:
            reply = await self.model.complete(
                message,
                schema=schema,
                max_tokens=settings.max_tokens,
                temperature=min(1.0, settings.temperature + _HOTTER * (attempt - 1)),
                seed=settings.seed + attempt + 1000 * sample,
            )
            return reply
        finally:
            if self.budget:
                spent = cost(reply.prompt_tokens, reply.completion_tokens, settings) if reply else 0
                self.budget.give_back.remote(call, spent)
