"""Rows of a table through workers: each row is answered once, by one of many actors that hold a model each.

Owns the rows in flight, rows that kill their engine, resuming, progress, and the output tables. Does not own what a
worker asks its model (`RowWorker`), the finished rows on disk (`journal`) or the actors (`r2r.workers`).

    done = run_rows(open_candidates(spec), Job("annotate", ...), settings, out, lambda counts: True)
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from math import isqrt
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from r2r import places, tables
from r2r.config import ModelWorkers
from r2r.datasets.candidates import Candidates
from r2r.datasets.documents import Part
from r2r.errors import BadInput
from r2r.identity import add_digests
from r2r.llm import Died
from r2r.places import Place
from r2r.rows.journal import Entry, Journal
from r2r.workers import bar, on_workers, progress

# Blocks that an actor holds at once, its share of the rows that these are at first, and most rows of a block.
_AHEAD, _FIRST_SHARE, _ROWS_PER_BLOCK = 8, 4, 20_000
# Rows in one file of an output table.
_ROWS_PER_FILE = 1000
# Seconds between two reports of an actor.
_BEAT = 1.0
# Seconds between two reports of parts whose rows were all finished before.
_OFTEN = 0.1
# A row that has killed this many engines is rejected. So many that die with as many rows, before any row is answered,
# end the job.
_MAX_DEATHS = 3


class RowWorker(Protocol):
    """What an actor makes to answer rows: a model, and how to ask it. Many calls run at once.

    It may have the attribute `so_far`, a Counter for the progress line: `steps` that are done, `begun` that are in all
    rows it has begun (see `Job.steps`).
    """

    async def __call__(self, row: dict[str, Any]) -> tuple[str, dict[str, Any], Mapping[str, Any]] | None:
        """Answer one row. A row that was rejected and is asked again has `attempts`, the number of those made before.

        Returns the table that the answer belongs to, its row there (with `attempts`, if it may be asked again), and
        counts such as tokens, which the job sums up; None to leave the row unasked. Raises Died if the engine died: the
        pool then closes this worker and makes another. BadInput ends the job.
        """
        ...

    def in_writing(self) -> int:
        """Return the tokens so far of all replies that are not finished, for the progress line."""
        ...

    def close(self) -> None:
        """Free what the worker holds, also after Died."""
        ...


class Job(NamedTuple):
    """What to do with each row.

    `worker(*arguments)` makes an actor's worker, when the actor has its first row to ask. `key(row)` is the row's
    resume key: a sha256, in hexadecimal, of everything that its answer depends on. `version` names everything in it but
    the row; answers of other versions are kept beside these. `tables` are the tables of the answers. `steps`: what a
    row's steps are called in the progress line; "" if a row is answered in one.
    """

    name: str
    worker: Callable[..., RowWorker]
    arguments: tuple
    key: Callable[[dict[str, Any]], str]
    version: str
    tables: tuple[str, ...]
    steps: str = ""


class Done(NamedTuple):
    """A job's outcome.

    `counts` sums up all finished rows, those of earlier runs too: rows by table, and the workers' own counts. `unasked`
    counts the rows that are not finished, and the rejects that were not asked again as they should. `speed` is this
    run's reply tokens per second, from the first worker's start to the last answer; 0 if nothing was asked. `contents`
    is the content hash of each table.
    """

    counts: Counter[str]
    unasked: int
    speed: float
    contents: dict[str, str]


def run_rows(
    rows: Candidates,
    job: Job,
    settings: ModelWorkers,
    out: Place,
    go_on: Callable[[Counter[str]], bool],
    retry_rejects: bool = False,
) -> Done:
    """Answer each row that is not finished yet, then write the tables of `job` under `out`.

    With `retry_rejects`, rows that were rejected before this run are asked again, and no others that are finished.

    About every second, `go_on` gets the counts so far: rows by table, and this run's counts of the workers. Once it
    returns False, rows in flight are finished and no other is asked. Raises BadInput if a worker does, or if its
    engines die before any has answered a row.
    """
    folder = out / "rows" / job.version
    round = 1 + Journal(folder).last_round("rejects") if retry_rejects else 0
    _tell_where_answers_are(job.name, folder)
    total = len(rows.qids)
    rows_of_part = part_size(total, settings.actors, settings.in_flight)
    parts = rows.parts(rows_of_part)
    blocks = [pa.table({"part": numbers}) for numbers in shares(len(parts), settings.actors, rows_of_part)]
    counts: Counter[str] = Counter()
    # The journal's files, as the actors know them.
    kept: set[str] = set()
    started, ended = float("inf"), 0.0

    with progress(job.name, total, "row", partial(_state, steps=job.steps), go_on) as tell:
        answers = on_workers(
            blocks,
            _RowActor,
            (parts, job, folder, settings.in_flight, round, tell),
            settings.actors,
            ahead=ahead(len(blocks), settings.actors),
            min_count=settings.min_actors,
            batch_size=1,
            cpus=settings.cpus,
            gpus=settings.gpus,
        )
        for answer in answers:
            counts.update(answer["counts"])
            kept.update(answer["kept"])
            started, ended = min(started, answer["started"] or started), max(ended, answer["ended"])
    speed = counts["completion_tokens"] / (ended - started) if ended > started else 0.0
    all_rows = bar(f"{job.name}: tables", total, "row", iterable=rows_of(parts))
    sums, contents = write_tables(all_rows, job, folder, out, kept)
    unasked = total - sum(sums[table] for table in job.tables) + counts["kept rejects"]
    return Done(sums, unasked, speed, contents)


def part_size(rows: int, actors: int, in_flight: int) -> int:
    """Return about how many rows a part has. All that an actor holds at once keep its engine busy, and are hardly more
    than its share of the rows. Of many rows, a part has more, so that finished ones pass faster."""
    many = rows // (32 * _AHEAD * actors)
    return max(1, min(max(in_flight // 2, many), -(-rows // (_AHEAD * actors))))


def ahead(blocks: int, actors: int) -> int:
    """Return how many blocks an actor holds at once."""
    return min(_AHEAD, -(-blocks // actors))


def shares(parts: int, actors: int, rows_of_part: int) -> list[list[int]]:
    """Share the numbers of `parts` out in blocks, the large ones first.

    Actors start at different times, on machines of different speed, and some are lost. Those that are early must leave
    the others their share, and no actor should have much to do when the others are done. Finished rows are mostly the
    first ones, and pass faster in large blocks. (As guided self-scheduling: Polychronopoulos and Kuck, 1987.)
    """
    blocks, at, most = [], 0, max(1, _ROWS_PER_BLOCK // rows_of_part)
    while at < parts:
        size = min(most, max(1, (parts - at) // (_AHEAD * _FIRST_SHARE * actors)))
        blocks.append(list(range(at, min(parts, at + size))))
        at += size
    return blocks


def _state(counts: Counter[str], seconds: float, steps: str = "") -> str:
    """Return the text after the progress bar: steps, speed and rows in flight, or what is waited for.

    steps: their name, see `Job`.
    """
    tokens = counts["prompt_tokens"] + counts["completion_tokens"] + counts["in writing"]
    done = f"{counts['steps']:,}/{counts['begun']:,} {steps}, " if steps else ""
    if counts["engines died"]:
        done += f"{counts['engines died']:,} engines died, "
    if counts["waits for the store"]:
        done += f"{counts['waits for the store']:,} waits for the store, "
    if tokens:
        return f"{done}{tokens / max(seconds, 1):,.0f} tokens/s, {counts['in flight']:,} rows in flight"
    if counts["in flight"]:
        return f"{done}{counts['in flight']:,} rows in flight, waiting for the first reply"
    return "waiting for an engine to start" if counts["starting"] else "waiting for a worker of Ray"


def share(part: float, whole: int) -> float | None:
    """Return part / whole, rounded to 4 digits; None if `whole` is 0."""
    return round(part / whole, 4) if whole else None


def refuse_old_answers(out: Place) -> None:
    """Raise BadInput if a stage's folder holds rows of a release before 0.2: they would all be asked again."""
    for found in (out / "rows").glob("*"):
        if re.fullmatch("[0-9a-f]{16}", found.name):
            raise BadInput(
                f"{found}: answers of a release before 0.2, whose keys counted limits such as attempts and max_tokens; "
                f"move the folder away to ask all rows again, or finish with the earlier release"
            )


def _tell_where_answers_are(name: str, folder: Place) -> None:
    others = [other for other in folder.parent.glob("*") if other != folder]
    if folder.exists():
        print(f"{name}: resumes from the finished rows in {folder}", flush=True)
    elif others:
        print(f"{name}: model, prompt or a setting has changed: all rows are asked anew, into {folder}", flush=True)
        print(f"{name}: earlier answers stay in {', '.join(map(str, others))}", flush=True)


def write_tables(
    rows: Iterable[dict[str, Any]], job: Job, folder: Place, out: Place, kept: Iterable[str] = ()
) -> tuple[Counter[str], dict[str, str]]:
    """Write the tables from the journal in `folder`, in the order of `rows`.

    kept: files of the journal that are known to be there. Return the sums of the finished rows, with what a row may
    bring as `counts`, and the content hash of each table.
    """
    journal, counts, digests = Journal(folder, kept), Counter[str](), dict.fromkeys(job.tables, 0)
    tables.clear(out, *job.tables)
    waiting: dict[str, list[dict[str, Any]]] = {table: [] for table in job.tables}
    for row in rows:
        if (entry := journal.get(job.key(row))) is None:
            continue
        # Two queries with the same text and candidates share a key, and differ in their qid.
        waiting[entry["table"]].append(entry["row"] | {"qid": row["qid"]})
        counts.update(entry["counts"])
        counts.update(row.get("counts", {}))
        counts[entry["table"]] += 1
        if len(waiting[entry["table"]]) == _ROWS_PER_FILE:
            digests[entry["table"]] += _write_file(waiting, entry["table"], counts, out)
    for table in job.tables:
        if waiting[table] or not counts[table]:
            digests[table] += _write_file(waiting, table, counts, out)
        tables.seal(out, table, map(_part, range(max(1, -(-counts[table] // _ROWS_PER_FILE)))))
    journal.compact()
    return counts, {table: tables.content(add_digests([digest])) for table, digest in digests.items()}


def _write_file(waiting: dict[str, list[dict[str, Any]]], table: str, counts: Counter[str], out: Place) -> int:
    part = _part(max(0, counts[table] - 1) // _ROWS_PER_FILE)
    digest = tables.write_part(waiting[table], out, table, part)
    waiting[table] = []
    return digest


def _part(number: int) -> str:
    return f"part-{number:05}"


class _RowActor:
    """One actor: up to `in_flight` rows at once, from any of its parts. `round` > 0 asks earlier rejects again."""

    def __init__(self, parts: list[Part], job: Job, folder: Place, in_flight: int, round: int, tell: Any) -> None:
        self.round = round
        self.parts, self.job, self.in_flight, self.journal = parts, job, in_flight, Journal(folder)
        self.worker: RowWorker | None = None
        self.worker_lock, self.started = asyncio.Lock(), 0.0
        self.slots, self.some_slots_lock = asyncio.Semaphore(in_flight), asyncio.Lock()
        self.tell, self.name, self.counts, self.told_at = tell, uuid.uuid4().hex, Counter[str](), 0.0
        self.go_on, self.rows_in_flight, self.starting = True, 0, False
        # The rows in flight when an engine died, and whether any engine has answered a row.
        self.suspects, self.answered = set[str](), False
        # The answers that go to the disk next, and the task that takes them there.
        self.keeping: list[Entry] | None = None
        self.kept: asyncio.Task[None]
        self.disk_lock = asyncio.Lock()

    async def __call__(self, batch: pa.Table) -> dict[str, Any]:
        rows = rows_of([self.parts[number] for number in batch["part"].to_numpy()])
        counts: Counter[str] = Counter()
        over = asyncio.Event()
        beating = asyncio.create_task(self._beat(over))
        try:
            for row_counts in await asyncio.gather(*map(self._finish, rows)):
                counts.update(row_counts)
        finally:
            over.set()
            await beating
        if counts["asked"] or time.monotonic() - self.told_at > _OFTEN:
            # Finished rows pass by the thousands a second, and each report is a wait for the driver.
            await self._tell(Counter(), now=True)
        ended = time.time() if counts["asked"] else 0.0
        return {"counts": counts, "started": self.started, "ended": ended, "kept": self.journal.names()}

    async def _finish(self, row: dict[str, Any]) -> Counter[str]:
        """Answer a row unless it is finished. Return what it adds to this run's counts."""
        key = self.job.key(row)
        earlier = self._earlier_reject(key)
        if (table := self.journal.table(key)) and not earlier:
            counts = Counter({table: 1, "done": 1})
        elif (answer := await self._answer(row, key, earlier)) is None:
            counts = Counter({"kept rejects": 1}) if earlier else Counter()
        else:
            table, answer_row, answer_counts = answer
            counts = Counter(answer_counts) + Counter({table: 1, "done": 1, "asked": 1})
            if earlier:
                # What the row has cost is never forgotten.
                answer_counts = Counter(answer_counts)
                answer_counts.update(earlier["counts"])
                answer_row = answer_row | {"attempts": answer_row["attempts"] + earlier["row"]["attempts"]}
            await self._keep(Entry(key, table, answer_row, answer_counts, self.round))
        await self._tell(counts)
        return counts

    async def _keep(self, entry: Entry) -> None:
        """Record an answer. Answers that arrive while the disk is busy are written together: each wait is for all."""
        if self.keeping is None:
            self.keeping, self.kept = [], asyncio.create_task(self._keep_all())
        self.keeping.append(entry)
        await asyncio.shield(self.kept)

    async def _keep_all(self) -> None:
        async with self.disk_lock:
            await asyncio.sleep(self.journal.pause())
            entries, self.keeping = self.keeping or [], None
            await asyncio.to_thread(self.journal.add_all, entries)

    def _earlier_reject(self, key: str) -> dict[str, Any] | None:
        """Return the entry of a row that an earlier round rejected and this one asks again; None for any other row."""
        if not self.round or self.journal.table(key) != "rejects":
            return None
        entry = self.journal.get(key)
        return entry if entry and entry.get("round", 0) < self.round else None

    async def _answer(
        self, row: dict[str, Any], key: str, earlier: dict[str, Any] | None
    ) -> tuple[str, dict[str, Any], Mapping[str, Any]] | None:
        asked = row | {"attempts": earlier["row"]["attempts"]} if earlier else row
        most = _MAX_DEATHS * (1 + self.round) if earlier else _MAX_DEATHS
        while (deaths := self.journal.deaths(key)) < most:
            async with self._slots(slots_of(deaths, self.in_flight)):
                if not self.go_on:
                    return None
                worker = await self._worker()
                self.rows_in_flight += 1
                try:
                    answer = await worker(asked)
                    self.answered = True
                    return answer
                except Died as died:
                    await self._bury(worker, key, died)
                finally:
                    self.rows_in_flight -= 1
        reason = f"ended its engine {_MAX_DEATHS} times"
        return "rejects", {"qid": row["qid"], "key": key, "reason": reason, "reply": "", "attempts": _MAX_DEATHS}, {}

    async def _bury(self, worker: RowWorker, key: str, died: Died) -> None:
        """Record that a worker's engine died with a row in flight. Raises BadInput if one engine after another dies
        before it has answered any row."""
        await asyncio.to_thread(self.journal.died, key)
        self.suspects.add(key)
        if self.worker is worker:
            self.worker = None
            self.counts.update(_so_far(worker), **{"engines died": 1})
            worker.close()
        deaths = self.counts["engines died"]
        if not self.answered and min(deaths, len(self.suspects)) >= _MAX_DEATHS:
            raise BadInput(
                f"{self.job.name}: {deaths} engines died one after another, and none answered a row ({died}); "
                f"what they printed is in worker-*-{os.getpid()}.err in Ray's log folder on {platform.node()}"
            )

    @asynccontextmanager
    async def _slots(self, needed: int) -> AsyncIterator[None]:
        """Wait for so many slots, and hold them for the block."""
        # Two rows that each hold some slots and wait for more would wait forever.
        async with self.some_slots_lock if needed > 1 else nullcontext():
            for _ in range(needed):
                await self.slots.acquire()
        try:
            yield
        finally:
            for _ in range(needed):
                self.slots.release()

    async def _worker(self) -> RowWorker:
        async with self.worker_lock:
            if self.worker is None:
                self.starting = True
                # A model's constructor blocks this process: nothing can be reported until it returns.
                await self._tell(Counter(), now=True)
                self.worker = self.job.worker(*self.job.arguments)
                self.starting = False
                self.started = self.started or time.time()
            return self.worker

    async def _tell(self, counts: Counter[str], now: bool = False) -> None:
        """Add counts to this actor's, and report to the driver at most once a second, or `now`."""
        self.counts.update(counts)
        if now or time.monotonic() - self.told_at > _BEAT:
            self.told_at = time.monotonic()
            now_counts = {
                "in flight": self.rows_in_flight,
                "in writing": self.worker.in_writing() if self.worker else 0,
                "starting": int(self.starting),
            } | ({"waits for the store": waits} if (waits := places.pauses()) else {})
            self.go_on = await self.tell.remote(self.name, {**self.counts, **_so_far(self.worker), **now_counts})

    async def _beat(self, over: asyncio.Event) -> None:
        """Tell the driver every second until `over`: all rows may be in flight for long before the first is done."""
        while not over.is_set():
            await self._tell(Counter())
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), _BEAT)


def slots_of(deaths: int, in_flight: int) -> int:
    """Return how many of `in_flight` slots a row takes that was in flight when so many engines died.

    One row has killed the engine, and all that were in flight may be it. After one death they are asked in groups,
    after two alone. So a row that kills its engine is found in about twice the root of `in_flight` turns.
    """
    return (1, -(-in_flight // isqrt(in_flight)), in_flight)[min(deaths, 2)]


def _so_far(worker: RowWorker | None) -> Counter[str]:
    return Counter(getattr(worker, "so_far", {}))


def rows_of(parts: list[Part]) -> Iterator[dict[str, Any]]:
    """Yield the rows of all parts, in their order."""
    return (row for part in parts for _, row in part.read())
