"""Rows through models: each row of a table is answered once, by a worker that holds a model, on as many as asked.

Owns the rows in flight, those that end their engine, the going on after a kill, progress, and the tables that come out.
Does not know what a worker asks its model, nor what the rows mean; finished rows are kept by `journal`, the actors are
those of `r2r.workers`.

    done = run_rows(open_candidates(spec), Job("annotate", ...), settings, out, lambda counts: True)
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from r2r import tables
from r2r.config import Workers
from r2r.datasets.candidates import Candidates
from r2r.datasets.documents import Part
from r2r.llm import Died
from r2r.rows.journal import Journal
from r2r.workers import bar, on_workers, progress

# Parts that travel to an actor together, rows in a file of what comes out, and engines that a row may end.
_BLOCK, _FILE, _DEATHS = 16, 1000, 3


class Job(NamedTuple):
    """What is done with a row.

    `worker(*arguments)` is made in each actor when it has something to ask. `await worker(row)` returns the name of the
    table that the answer belongs to, its row, and a dict of counts (tokens and the like), which are added up; or None
    where it will not ask. `key(row)` is the row's resume key; `version` names all of it that is not the row, so that
    other answers to the same rows lie beside these.
    """

    name: str
    worker: type
    arguments: tuple
    key: Callable[[dict], str]
    version: str
    tables: tuple[str, ...]


class Done(NamedTuple):
    """`counts` are sums over all rows that are finished, by table and as the worker counts; `unasked` rows were left.
    `speed` is that of this run: reply tokens per second from the first engine's start to the last answer, 0 where
    nothing was asked."""

    counts: Counter
    unasked: int
    speed: float


def run_rows(rows: Candidates, job: Job, settings: Workers, out: Path, go_on: Callable[[Counter], bool]) -> Done:
    """Answer every row that is not answered yet, then write the tables of `job` under `out`.

    `go_on` hears about every second how many rows each table has, and the other counts of this run; once it returns
    False, no more is asked, and what is being asked is finished.
    """
    folder = out / "rows" / job.version
    _tell_what_is_there(job.name, folder)
    total = len(rows.qids)
    # Large enough to keep an engine busy, small enough for each engine to get some.
    parts = rows.parts(max(1, min(settings.in_flight, total // (4 * settings.actors))))
    numbers = list(range(len(parts)))
    size = max(1, min(_BLOCK, len(parts) // settings.actors))
    blocks = [pa.table({"part": numbers[at : at + size]}) for at in range(0, len(numbers), size)]
    counts, first, last = Counter(), float("inf"), 0.0

    def beside(counts: Counter, seconds: float) -> str:
        return f"{(counts['prompt_tokens'] + counts['completion_tokens']) / max(seconds, 1):,.0f} tokens/s"

    with progress(job.name, total, "row", beside, go_on) as tell:
        answers = on_workers(
            blocks,
            _Rows,
            (parts, job, folder, settings.in_flight, tell),
            settings.actors,
            ahead=2,
            least=settings.min_actors,
            batch=1,
            cpus=settings.cpus,
            gpus=settings.gpus,
        )
        for answer in answers:
            counts.update(answer["counts"])
            first, last = min(first, answer["ready"] or first), max(last, answer["ended"])
    speed = counts["completion_tokens"] / (last - first) if last > first else 0.0
    every = bar(f"{job.name}: tables", total, "row", iterable=rows_of(parts))
    found = write_tables(every, job, folder, out)
    return Done(found, total - sum(found[table] for table in job.tables), speed)


def share(part: float, whole: int) -> float | None:
    """Return part of whole, rounded for a statistic; None where there is nothing to count."""
    return round(part / whole, 4) if whole else None


def _tell_what_is_there(name: str, folder: Path) -> None:
    others = [other for other in folder.parent.glob("*") if other != folder]
    if folder.exists():
        print(f"{name}: going on after what is in {folder}", flush=True)
    elif others:
        print(f"{name}: model, prompt or a setting has changed: all rows are asked anew, into {folder}", flush=True)
        print(f"{name}: the answers of before stay in {', '.join(map(str, others))}", flush=True)


def write_tables(rows: Iterable[dict], job: Job, folder: Path, out: Path) -> Counter:
    """Write the tables from the journal, in the order of `rows`; return the sums of the counts of those finished."""
    journal, counts = Journal(folder), Counter()
    tables.clear(out, *job.tables)
    waiting: dict[str, list[dict]] = {table: [] for table in job.tables}
    for row in rows:
        if (entry := journal.get(job.key(row))) is None:
            continue
        # Two queries may be the same in all that a key knows.
        waiting[entry["table"]].append(entry["row"] | {"qid": row["qid"]})
        counts.update(entry["counts"])
        counts[entry["table"]] += 1
        if len(waiting[entry["table"]]) == _FILE:
            _write(waiting, entry["table"], counts, out)
    for table in job.tables:
        if waiting[table] or not counts[table]:
            _write(waiting, table, counts, out)
    return counts


def _write(waiting: dict[str, list[dict]], table: str, counts: Counter, out: Path) -> None:
    tables.write_part(waiting[table], out, table, f"part-{max(0, counts[table] - 1) // _FILE:05}")
    waiting[table] = []


class _Rows:
    """One actor: it has up to `in_flight` rows with its model, whichever parts they come from."""

    def __init__(self, parts: list[Part], job: Job, folder: Path, in_flight: int, tell):
        self.parts, self.job, self.in_flight = parts, job, in_flight
        self.journal = Journal(folder)
        self.worker, self.making, self.ready = None, asyncio.Lock(), 0.0
        self.room, self.alone = asyncio.Semaphore(in_flight), asyncio.Lock()
        self.tell, self.who, self.told, self.told_at, self.going = tell, uuid.uuid4().hex, Counter(), 0.0, True

    async def __call__(self, batch: pa.Table) -> dict:
        rows = rows_of([self.parts[number] for number in batch["part"].to_pylist()])
        counts: Counter = Counter()
        for answered in await asyncio.gather(*map(self._finish, rows)):
            counts.update(answered)
        await self._tell(Counter(), now=True)
        return {"counts": counts, "ready": self.ready, "ended": time.time() if counts["asked"] else 0.0}

    async def _finish(self, row: dict) -> Counter:
        """Answer a row, if it is not finished, and return its counts, as far as they are of this run."""
        key = self.job.key(row)
        if table := self.journal.table(key):
            counts = Counter({table: 1, "done": 1})
        elif (answer := await self._answer(row, key)) is None:
            counts = Counter()
        else:
            table, found, more = answer
            await asyncio.to_thread(self.journal.add, key, table, found, more)
            counts = Counter(more) + Counter({table: 1, "done": 1, "asked": 1})
        await self._tell(counts)
        return counts

    async def _answer(self, row: dict, key: str) -> tuple[str, dict, dict] | None:
        while (deaths := self.journal.deaths(key)) < _DEATHS:
            async with self._place(alone=deaths > 0):
                if not self.going:
                    return None
                worker = await self._worker()
                try:
                    return await worker(row)
                except Died:
                    await asyncio.to_thread(self.journal.died, key)
                    if self.worker is worker:
                        self.worker = None
                        worker.close()
        reason = f"ended its engine {_DEATHS} times"
        return "rejects", {"qid": row["qid"], "key": key, "reason": reason, "reply": "", "attempts": _DEATHS}, {}

    @asynccontextmanager
    async def _place(self, alone: bool) -> AsyncIterator[None]:
        """Wait for room for one row; a row that may be what ended an engine gets all of it, so that none suffers."""
        wanted = self.in_flight if alone else 1
        if alone:
            await self.alone.acquire()
        try:
            for _ in range(wanted):
                await self.room.acquire()
            try:
                yield
            finally:
                for _ in range(wanted):
                    self.room.release()
        finally:
            if alone:
                self.alone.release()

    async def _worker(self):
        async with self.making:
            if self.worker is None:
                self.worker = self.job.worker(*self.job.arguments)
                self.ready = self.ready or time.time()
        return self.worker

    async def _tell(self, counts: Counter, now: bool = False) -> None:
        self.told.update(counts)
        if now or time.monotonic() - self.told_at > 1:
            self.told_at = time.monotonic()
            self.going = await self.tell.remote(self.who, dict(self.told))


def rows_of(parts: list[Part]) -> Iterator[dict]:
    """Yield the rows of all parts, in their order."""
    return (row for part in parts for _, row in part.read())
