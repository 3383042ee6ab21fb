"""A model behind a batch API: requests go out in files, and their replies come back within a day, at a lower price.

Owns which requests go together, and which result belongs to which request. For the stages it is a model like others: a
call waits for its reply, all rows in flight wait together, and whoever asks again is part of a later batch. A file is
sent once no request has come for a moment, or it is full.

A request is known by a hash of what it asks. A job that was killed finds its requests in the batches that it had sent,
so nothing is paid for twice. Who carries the files is a `Carrier`: `Api`, OpenAI's batch API, or `Folder`, where the
user runs the files, with `vllm run-batch` for example.

    model = BatchModel(Api(RemoteModel("https://api.openai.com/v1#gpt-4o-mini"), "my-job"))
    reply = await model.complete("Hello", max_tokens=8)
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Protocol

from r2r import tables
from r2r.config import Dialect
from r2r.errors import BadInput
from r2r.identity import digest
from r2r.llm import Refused, Reply
from r2r.llm.server import (
    MAX_TRIES,
    NO_MONEY,
    OF_THE_ACCOUNT,
    OF_THE_SERVER,
    UNREAD_TRIES,
    Again,
    RemoteModel,
    Silent,
    body,
    read_reply,
    refuse_local,
    said,
    status_of,
    until_answered,
)
from r2r.places import Place

# OpenAI's limits of a file, the size with some room.
_MOST_REQUESTS, _MOST_BYTES = 50_000, 190_000_000
# Seconds without a new request after which a file is sent.
_QUIET = 2.0
# Seconds between two looks at a batch: the first, and the longest.
_SOON, _LATER = 1.0, 60.0
# Batches that may lose a request, by their end or by a fault of the server, before the job gives up.
_MOST_BATCHES = 5
# Seconds that a folder waits for other files before it says what is missing.
_LAST_FILES = 5.0
_URL = "/v1/chat/completions"
# States of a batch that is over. A failed one was refused as a whole: none of its requests was answered.
_OVER = ("completed", "expired", "cancelled", "failed")
# What OpenAI and Azure say of a batch that their queue has no room for.
_FULL = re.compile(r"token_limit_exceeded|\benqueued\b", re.I)
_GOES_ON = "the same command goes on"


class State(NamedTuple):
    """How a batch stands. name: its state as OpenAI calls it. said: the server's words, if it failed. done: how many
    requests were answered. full: it failed because the server's queue has no room for it."""

    name: str
    said: str = ""
    done: int = 0
    full: bool = False


class Carrier(Protocol):
    """Who takes files of requests to a model and brings results. A batch is known by a name of the carrier's."""

    def spell(
        self, prompt: str, max_tokens: int, temperature: float, seed: int | None, schema: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Return the body of a chat completion's request."""
        ...

    async def earlier(self) -> list[str]:
        """Return the batches that earlier runs of this job have sent and that have not failed, the oldest first."""
        ...

    async def requests(self, batch: str) -> bytes:
        """Return the file of a batch."""
        ...

    async def send(self, file: bytes) -> str:
        """Send a file as a batch, once."""
        ...

    async def state(self, batch: str) -> State:
        """Return how a batch stands. Raises BadInput if somebody has to do something first."""
        ...

    async def results(self, batch: str) -> list[bytes]:
        """Return the files of results of a batch that is over."""
        ...


class BatchModel:
    """A model that answers in batches: the Model of `r2r.llm`.

    `so_far` counts the requests that were sent (`begun`) and answered (`steps`), for the progress line.
    """

    def __init__(self, carrier: Carrier, max_length: int | None = None) -> None:
        self.carrier, self.max_length = carrier, max_length
        self.so_far: Counter[str] = Counter()
        # Requests that wait for a reply, by their names; the lines of those that are not sent; where others were sent.
        self._replies: dict[str, asyncio.Future[Reply]] = {}
        self._lines: dict[str, bytes] = {}
        self._bytes = 0
        self._sent: dict[str, str] = {}
        self._lost: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()
        # Batches that are waited for, and the turn of those that the server's queue had no room for.
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._looked = False
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def complete(
        self,
        prompt: str,
        *,
        max_tokens: int,
        schema: dict[str, Any] | None = None,
        grammar: str | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
        start: str = "",
    ) -> Reply:
        """Answer one user message; see `r2r.llm.Model`. Waits until the message's batch is over.

        A request that its batch did not answer, or that failed by a fault of the server, goes into another batch.
        Raises Refused if the request itself is at fault. Raises BadInput with the server's words if the account is at
        fault, if a batch fails or is cancelled, and if five batches have lost the request. A batch that the server's
        queue has no room for is sent in parts, when the others are over.
        """
        refuse_local(grammar, start)
        asked = self.carrier.spell(prompt, max_tokens, temperature, seed, schema)
        # The seed distinguishes attempts, also for a server that takes none.
        name = digest([asked, seed])
        if name not in self._replies:
            self._replies[name] = asyncio.get_running_loop().create_future()
            line = {"custom_id": name, "method": "POST", "url": _URL, "body": asked}
            self._add(name, json.dumps(line).encode() + b"\n")
        # Two rows may ask the same. One that is given up must not take the reply from the other.
        return await asyncio.shield(self._replies[name])

    def in_writing(self) -> int:
        """Return 0: a batch reports a reply's tokens when it is over."""
        return 0

    def close(self) -> None:
        """Stop waiting. Batches go on without this job."""
        for task in self._tasks:
            task.cancel()

    def _add(self, name: str, line: bytes) -> None:
        """Put a request into the next file."""
        if self._bytes + len(line) > _MOST_BYTES or len(self._lines) >= _MOST_REQUESTS:
            self._flush()
        self._lines[name] = line
        self._bytes += len(line)
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_QUIET, self._flush)

    def _flush(self) -> None:
        lines, self._lines, self._bytes = self._lines, {}, 0
        if lines:
            self._start(self._carry(lines), lines)

    def _start(self, work: Any, lines: dict[str, bytes]) -> None:
        """Start a task. If it fails, so do the requests that it was about."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()):
                for name in lines:
                    self._fail(name, error)

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)

    async def _carry(self, lines: dict[str, bytes]) -> None:
        """Find out which requests were sent before, send the others, and collect the replies of all."""
        async with self._lock:
            if not self._looked:
                for batch in await self.carrier.earlier():
                    self._sent |= {line["custom_id"]: batch for line in _lines(await self.carrier.requests(batch))}
                self._looked = True
            batches: dict[str, dict[str, bytes]] = {}
            for name, line in lines.items():
                batches.setdefault(self._sent.get(name, ""), {})[name] = line
            new = batches.pop("", {})
            for batch, found in batches.items():
                self._start(self._finish(batch, found, earlier=True), found)
            if new:
                batch = await self.carrier.send(b"".join(new.values()))
                self._sent |= dict.fromkeys(new, batch)
                self._start(self._finish(batch, new, earlier=False), new)

    async def _finish(self, batch: str, lines: dict[str, bytes], earlier: bool) -> None:
        """Collect the replies to `lines` from a batch, or from smaller ones if the queue has no room for it."""
        self._waiting += 1
        try:
            taken = await self._collect(batch, lines, earlier)
        finally:
            self._waiting -= 1
        if taken:
            return
        async with self._turn:
            # Nothing else of this job fills the queue then.
            while self._waiting:
                await asyncio.sleep(_SOON)
            parts = [list(lines)]
            while parts:
                part = {name: lines[name] for name in parts.pop()}
                batch = await self.carrier.send(b"".join(part.values()))
                self._sent |= dict.fromkeys(part, batch)
                if not await self._collect(batch, part, earlier=False, last=len(part) == 1):
                    names, half = list(part), len(part) // 2
                    parts += [names[half:], names[:half]]

    async def _collect(self, batch: str, lines: dict[str, bytes], earlier: bool, last: bool = False) -> bool:
        """Wait until a batch is over, and give each of its requests in `lines` its reply, or send it again.

        Returns False if the server's queue had no room for the batch; if it is the `last` that can be tried, raises
        BadInput.
        """
        self.so_far["begun"] += len(lines)
        pause, told = _SOON, 0
        while (state := await self.carrier.state(batch)).name not in _OVER:
            # An earlier batch may have other requests, too, whose rows are finished.
            done = min(state.done, len(lines))
            self.so_far["steps"] += done - told
            told = done
            await asyncio.sleep(pause)
            pause = min(_LATER, 1.5 * pause)
        if state.full and not last:
            self.so_far.update(begun=-len(lines), steps=-told)
            return False
        if state.name == "failed":
            raise BadInput(f"{batch}: the server did not take this batch: {state.said}; see to it, and {_GOES_ON}")
        open_names = set(lines)
        for file in await self.carrier.results(batch):
            for result in _lines(file):
                name = result.get("custom_id")
                if name in open_names and self._take(name, result):
                    open_names.discard(name)
        self.so_far["steps"] += len(lines) - told
        if open_names and state.name == "cancelled" and not earlier:
            said = f"{len(open_names):,} of {len(lines):,} requests have no reply"
            raise BadInput(f"{batch}: this batch was cancelled, and {said}; {_GOES_ON} with a new one")
        for name in open_names:
            self.so_far.update(begun=-1, steps=-1)
            self._lose(name, lines[name], f"{batch} ({state.name}) has no reply to it")
        return True

    def _take(self, name: str, result: dict[str, Any]) -> bool:
        """Give a request what came of it. Return False if it has to be sent again."""
        response, error = result.get("response"), result.get("error")
        response = response if isinstance(response, dict) else {}
        status, content = response.get("status_code"), response.get("body")
        # vLLM leaves the body of a failure empty, and has its words beside it.
        said = " ".join(json.dumps(error if content is None else content, ensure_ascii=False)[:500].split())
        if status == 200:
            if reply := read_reply(content):
                if future := self._replies.pop(name, None):
                    future.set_result(reply)
                return True
            status = status_of(content)
            self._unread[name] += status is None
            if self._unread[name] >= UNREAD_TRIES:
                self._fail(name, Refused(f"an answer that is no chat completion: {said}"))
                return True
        if status in OF_THE_ACCOUNT or (status == 429 and NO_MONEY in said):
            self._fail(name, BadInput(f"{status}: {said}; see to the key, the account or the model's name"))
            return True
        if isinstance(status, int) and 300 <= status < 500 and status not in OF_THE_SERVER:
            self._fail(name, Refused(f"{status}: {said}"))
            return True
        return False

    def _lose(self, name: str, line: bytes, why: str) -> None:
        """Send a request again that a batch did not answer; give up at the last of _MOST_BATCHES."""
        self._lost[name] += 1
        self._sent.pop(name, None)
        if self._lost[name] >= _MOST_BATCHES:
            self._fail(name, Silent(f"a request came back from {_MOST_BATCHES} batches without a reply: {why}"))
        elif name in self._replies:
            self._add(name, line)

    def _fail(self, name: str, error: BaseException) -> None:
        if (future := self._replies.pop(name, None)) and not future.done():
            future.set_exception(error)


def _lines(file: bytes) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines. What is cut off or no object is left out: it answers nothing."""
    for line in file.split(b"\n"):
        with suppress(ValueError):
            if isinstance(found := json.loads(line), dict):
                yield found


def _tag(batch: dict[str, Any]) -> str | None:
    """Return the tag in a batch's metadata, by which a job finds its own."""
    return (batch.get("metadata") or {}).get("r2r")


class Api:
    """OpenAI's batch API behind the address of a server. tag: marks the batches of this job, to find them again."""

    def __init__(self, server: RemoteModel, tag: str) -> None:
        import httpx

        self.server, self.tag, self.spell = server, tag, server.body
        self._client = httpx.AsyncClient(headers=server.headers, timeout=600, follow_redirects=True)

    async def earlier(self) -> list[str]:
        found = [one for one in await self._list() if one["status"] != "failed"]
        return [one["id"] for one in sorted(found, key=lambda one: one.get("created_at", 0))]

    async def requests(self, batch: str) -> bytes:
        return await self._content((await self._batch(batch))["input_file_id"])

    async def send(self, file: bytes) -> str:
        upload = {"file": ("requests.jsonl", file, "application/jsonl")}
        sent = await self._call("POST", "/files", data={"purpose": "batch"}, files=upload)
        asked = {"input_file_id": sent["id"], "endpoint": _URL, "completion_window": "24h"}
        asked |= {"metadata": {"r2r": self.tag}}
        for attempt in range(MAX_TRIES):
            try:
                made = await self._call("POST", "/batches", tries=1, json=asked)
            except Silent:
                if attempt + 1 == MAX_TRIES:
                    raise
            else:
                await self._check_tag(made)
                return str(made["id"])
            # The server may have taken it although its answer did not arrive.
            for one in await self._list():
                if one["input_file_id"] == sent["id"]:
                    return str(one["id"])
            await asyncio.sleep(min(_LATER, 2.0**attempt))
        raise AssertionError

    async def state(self, batch: str) -> State:
        found = await self._batch(batch)
        faults = (found.get("errors") or {}).get("data") or []
        said = "; ".join(str(fault.get("message")) for fault in faults[:3])
        counts = found.get("request_counts") or {}
        done = counts.get("completed", 0) + counts.get("failed", 0)
        full = found["status"] == "failed" and any(
            _FULL.search(f"{fault.get('code')} {fault.get('message')}") for fault in faults
        )
        return State(found["status"], said, done, full)

    async def results(self, batch: str) -> list[bytes]:
        found = await self._batch(batch)
        names = [found.get(kind) for kind in ("output_file_id", "error_file_id")]
        return [await self._content(name) for name in names if name]

    async def _check_tag(self, made: dict[str, Any]) -> None:
        """Cancel a batch and raise BadInput if the server has not kept its tag: nobody could find it after a kill."""
        batch = str(made["id"])
        if _tag(made) != self.tag and _tag(await self._batch(batch)) != self.tag:
            await self._call("POST", f"/batches/{batch}/cancel")
            raise BadInput(
                f"{self.server.base}/batches: keeps no metadata, by which a killed job finds its batches; "
                f"batch {batch} is cancelled; leave --batch out"
            )

    async def _batch(self, batch: str) -> dict[str, Any]:
        return await self._call("GET", f"/batches/{batch}")

    async def _list(self) -> list[dict[str, Any]]:
        """Return the batches with this job's tag."""
        found: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        while True:
            page = await self._call("GET", "/batches", params={"limit": "100", **after})
            found += [one for one in page["data"] if _tag(one) == self.tag]
            if not page.get("has_more") or not page["data"]:
                return found
            after = {"after": page["data"][-1]["id"]}

    async def _content(self, file: str) -> bytes:
        return bytes(await self._call("GET", f"/files/{file}/content", read=lambda answer: answer.content))

    async def _call(
        self,
        method: str,
        path: str,
        tries: int = MAX_TRIES,
        read: Callable[[Any], Any] = lambda answer: answer.json(),
        **request: Any,
    ) -> Any:
        """Call the API, again after growing pauses if the server is busy or fails. Returns `read` of the answer.

        Raises BadInput with the server's words for any other failure, and Silent after the last try.
        """
        url = f"{self.server.base}{path}"

        async def ask(attempt: int) -> Any:
            answer = await self._client.request(method, url, **request)
            if answer.is_success:
                try:
                    return read(answer)
                except ValueError:
                    raise Again(f"an answer that is no JSON: {said(answer)}", answer) from None
            if answer.status_code >= 500 or (answer.status_code in OF_THE_SERVER and NO_MONEY not in answer.text):
                raise Again(said(answer), answer)
            raise BadInput(f"{url}: {said(answer)}{_missing(path, answer.status_code)}; {self.server.remedy}")

        return await until_answered(ask, url, tries, f"see to the server, and {_GOES_ON}")


def _missing(path: str, status: int) -> str:
    """Return what a 404 means to the user, "" for any other status."""
    if status != 404:
        return ""
    if path.count("/") == 1:
        return "; a server without a batch API: leave --batch out"
    return "; the server no longer has this file of a batch; another seed asks all rows anew"


class Folder:
    """Files that the user runs: `requests-00001.jsonl`, and `replies-00001.jsonl` as `vllm run-batch` writes it."""

    def __init__(self, folder: Place, model: str, dialect: Dialect) -> None:
        self.folder, self.model = folder, model
        self.spell = partial(body, model, dialect)

    async def earlier(self) -> list[str]:
        return sorted(file.name.removesuffix(".jsonl") for file in self.folder.glob("requests-*.jsonl"))

    async def requests(self, batch: str) -> bytes:
        return (self.folder / f"{batch}.jsonl").read_bytes()

    async def send(self, file: bytes) -> str:
        taken = [int(name.removeprefix("requests-")) for name in await self.earlier()]
        batch = f"requests-{max(taken, default=0) + 1:05}"
        with tables.replacing(self.folder / f"{batch}.jsonl") as aside:
            aside.write_bytes(file)
        return batch

    async def state(self, batch: str) -> State:
        if self._replies(batch).exists():
            return State("completed")
        # Other files may be about to be written, and other replies to be read.
        await asyncio.sleep(_LAST_FILES)
        files = [name for name in await self.earlier() if not self._replies(name).exists()]
        if not files:
            return State("completed")
        first = self.folder / f"{files[0]}.jsonl"
        waiting = sum((self.folder / f"{name}.jsonl").read_bytes().count(b"\n") for name in files)
        run = f"vllm run-batch -i {first} -o {self._replies(files[0])} --model {self.model}"
        more = f", and so for the {len(files) - 1} other files" if len(files) > 1 else ""
        raise BadInput(f"{first}: {waiting:,} requests wait for their replies; run `{run}`{more}; then {_GOES_ON}")

    async def results(self, batch: str) -> list[bytes]:
        return [self._replies(batch).read_bytes()]

    def _replies(self, batch: str) -> Place:
        return self.folder / f"{batch.replace('requests', 'replies')}.jsonl"
