"""Work on Ray Data's workers: blocks of rows in, one small answer a batch out, and its progress on the driver.

Owns the start of Ray, the pool of actors, a user's mistake on its way from a worker to the driver, and the progress
bars. Does not own the work.

    for answer in on_workers(blocks, Worker, (index, settings), count=2, ahead=2): ...
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from r2r.errors import BadInput, Terminated

if TYPE_CHECKING:
    import pyarrow as pa

# Ray Data's own number for asynchronous actors.
BATCHES_IN_FLIGHT = 4
# How often a worker is replaced, and its block tried again. A night on machines that can be taken away costs some.
_LIVES = 10
# Attempts to start a Ray on this machine, each of which Ray gives 30 seconds.
_STARTS = 4


def end_on_sigterm() -> None:
    """Let SIGTERM raise Terminated in the main thread, so that the job unwinds as on Ctrl-C."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: object) -> None:
    # A second one must not interrupt the clean-up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS names, or this machine's, or start a Ray here; once is enough.

    Raises BadInput if Ray does not start, after _STARTS attempts, or the cluster does not answer.
    """
    # The terminal is for the job's own progress. What workers and engines print lies in Ray's log folder.
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        return
    handler = signal.getsignal(signal.SIGTERM)
    patience = threading.Timer(10, lambda: print("ray: waiting for Ray to start", file=sys.stderr, flush=True))
    patience.daemon = True
    patience.start()
    try:
        _connect()
    finally:
        patience.cancel()
        # Ray's own handler ends the process with signal 6 and a C++ stack.
        if handler is _terminate:
            signal.signal(signal.SIGTERM, handler)


def _connect() -> None:
    import ray

    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(logging_level=logging.WARNING, log_to_driver=False)
            return
        except Exception as error:
            # Of many types; a node that does not start in time raises a plain Exception.
            ray.shutdown()
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if attempt == _STARTS or "timed out during startup" not in said:
                load = os.getloadavg()[0]
                raise BadInput(
                    f"ray: did not start: {said[:200]} (load {load:.0f} on {os.cpu_count()} CPUs); run the same command "
                    f"again when the machine has room, or name a running cluster in RAY_ADDRESS"
                ) from None
            print(f"ray: did not start in time, attempt {attempt} of {_STARTS}; once more", file=sys.stderr, flush=True)


def enter(folder: str) -> None:
    """Make the driver's current folder this worker's, so that relative paths mean the same to both.

    A Ray that was started elsewhere has workers elsewhere. Where this machine does not have the folder, as in a
    submitted job, the worker stays where Ray has put it.
    """
    if os.path.isdir(folder):
        os.chdir(folder)


def on_workers(
    blocks: list[pa.Table],
    worker: type,
    arguments: tuple,
    count: int,
    ahead: int,
    *,
    least: int | None = None,
    batch: int | None = None,
    cpus: float = 1,
    gpus: float = 0,
) -> Iterator[dict]:
    """Yield the answer to every batch, as they come; an answer is a dict that JSON can hold.

    `worker(*arguments)` is made once in each of `count` actors of so many CPUs and GPUs, and called with a batch: a
    block, or `batch` rows of one. With `least`, that many actors are enough to go on, where the cluster has no room for
    more, or loses some. An actor has up to `ahead` blocks handed to it. Where the worker's call is asynchronous, it
    works on all of these, and on BATCHES_IN_FLIGHT batches of each, at the same time. Raises BadInput where a worker
    does; a worker that dies is replaced, up to _LIVES times.
    """
    start_ray()
    import ray

    # Set before the dataset is made, which keeps a copy.
    ray.data.DataContext.get_current().enable_progress_bars = False
    most = min(count, len(blocks))
    asynchronous = inspect.iscoroutinefunction(worker.__call__)
    with warnings.catch_warnings():
        # Ray Data's default is to replace a worker without end, also for a block that ends its process each time. The
        # arguments that bound it are announced to go, without one that takes their place.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        answers = ray.data.from_arrow(blocks).map_batches(
            _AsyncActor if asynchronous else _Actor,
            fn_constructor_args=[worker, arguments, os.getcwd()],
            batch_size=batch,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=min(least or most, most),
                max_size=most,
                initial_size=most,
                max_tasks_in_flight_per_actor=ahead,
                max_concurrent_calls_per_actor=ahead if asynchronous else None,
            ),
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=_LIVES,
            max_task_retries=_LIVES,
        )
    for row in answers.iter_rows():
        if row["mistake"]:
            raise BadInput(row["mistake"])
        yield json.loads(row["answer"])


class _Actor:
    def __init__(self, worker: Callable, arguments: tuple, folder: str):
        enter(folder)
        # The worker is made at the first block: Ray Data makes an actor that fails here anew, time and again.
        self.make, self.made = (worker, arguments), None

    def worker(self) -> Callable:
        if self.made is None:
            worker, arguments = self.make
            self.made = worker(*arguments)
        return self.made

    def __call__(self, batch: pa.Table) -> dict:
        try:
            return _answer(self.worker()(batch))
        except BadInput as error:
            return _mistake(error)


class _AsyncActor(_Actor):
    async def __call__(self, batch: pa.Table) -> dict:
        try:
            return _answer(await self.worker()(batch))
        except BadInput as error:
            return _mistake(error)


def _answer(answer: dict) -> dict:
    return {"answer": [json.dumps(answer)], "mistake": [""]}


def _mistake(error: BadInput) -> dict:
    # As a row, since Ray Data drops the type and the cause of what is raised in a worker.
    return {"answer": [""], "mistake": [str(error)]}


def bar(title: str, total: int | None, unit: str, **more):
    """Return a progress bar with rate and ETA: a line that moves on a terminal, one line a half minute in a log."""
    from tqdm import tqdm

    return tqdm(total=total, desc=title, unit=unit, mininterval=1 if sys.stderr.isatty() else 30, **more)


@contextmanager
def watching(look: Callable[[], None]) -> Iterator[None]:
    """Call `look` about every second while the block runs, and once more at its end, where it ends well."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    look()


class _Board:
    """What each worker told last, and whether they are to go on."""

    def __init__(self):
        self.told: dict[Hashable, dict[str, int]] = {}
        self.going = True

    def tell(self, who: Hashable, counts: dict[str, int]) -> bool:
        self.told[who] = counts
        return self.going

    def stop(self) -> None:
        self.going = False

    def sums(self) -> Counter:
        return sum(map(Counter, self.told.values()), Counter())


@contextmanager
def progress(
    title: str,
    total: int | None,
    unit: str,
    beside: Callable[[Counter, float], str] = lambda counts, seconds: "",
    go_on: Callable[[Counter], bool] = lambda counts: True,
) -> Iterator:
    """Show a bar of `total` units (None: unknown, then without an ETA).

    Yields a remote method; `tell.remote(who, counts)` replaces what `who` told before, with the units that it has done
    under "done". What stands beside the bar is `beside(counts of all, seconds so far)`. `tell` returns whether `who`
    should go on: no longer, once `go_on(counts of all)` has returned False.
    """
    start_ray()
    import ray

    board = ray.remote(num_cpus=0)(_Board).remote()
    with bar(title, total, unit, unit_scale=unit == "B") as shown:

        def look() -> None:
            counts = ray.get(board.sums.remote())
            shown.set_postfix_str(beside(counts, shown.format_dict["elapsed"]), refresh=False)
            shown.update(counts["done"] - shown.n)
            if not go_on(counts):
                board.stop.remote()

        try:
            with watching(look):
                yield board.tell
        finally:
            ray.kill(board)
