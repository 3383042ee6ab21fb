"""Work on Ray Data's actors: blocks of rows in, one small answer per batch out, progress on the driver.

Owns the start of Ray, the actor pool, the way of a worker's BadInput to the driver, and progress bars. Does not own the
work.

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
import time
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from r2r.errors import BadInput, Terminated

if TYPE_CHECKING:
    import pyarrow as pa

# Ray's own; 1 lets a Ray that starts here listen on all interfaces.
OPEN_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# Ray Data's default for asynchronous actors.
BATCHES_IN_FLIGHT = 4
# How often an actor is replaced, and a block retried. Spot nodes get reclaimed.
_MAX_RESTARTS = 10
# Seconds within which the CPUs of an earlier stage become free.
_PATIENCE = 5.0
# Attempts to start a Ray on this machine, each of which Ray gives 30 seconds.
_STARTS = 4


def end_on_sigterm() -> None:
    """Let SIGTERM raise Terminated in the main thread, so that the job unwinds as on Ctrl-C."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def was_terminated() -> bool:
    """Return whether SIGTERM has reached this process since `end_on_sigterm`."""
    return signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def _terminate(number: int, frame: object) -> None:
    # A second one must not interrupt the clean-up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A library's log handler may be half made now, and Python would print an error about it at the end.
    logging.raiseExceptions = False
    raise Terminated


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS names, or this machine's, or start a Ray here, on loopback; once is enough.

    Raises BadInput if Ray does not start, after _STARTS attempts, or the cluster does not answer.
    """
    # The terminal is for the job's own progress. What workers and engines print lies in Ray's log folder.
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # A Ray that starts here then has 127.0.0.1 as its address, as on the systems of the name, and all its processes
    # bind to that. Ray's own argument for the address takes the outer one for 127.0.0.1. Read at Ray's import.
    if os.environ.get("RAY_ADDRESS", "local") == "local":
        os.environ.setdefault(OPEN_VARIABLE, "0")
    import ray

    if ray.is_initialized():
        return
    handler = signal.getsignal(signal.SIGTERM)
    patience = threading.Timer(10, lambda: print("ray: waiting for Ray to start", file=sys.stderr, flush=True))
    patience.daemon = True
    patience.start()
    try:
        _connect()
    except SystemExit:
        # Ray's own handler of SIGTERM, which it puts in place of ours.
        if handler is _terminate:
            _terminate(signal.SIGTERM, None)
        raise
    finally:
        patience.cancel()
        # Under Ray's own handler the process would end with signal 6 and a C++ stack.
        if handler is _terminate and not was_terminated():
            signal.signal(signal.SIGTERM, handler)


def _connect() -> None:
    import ray

    for attempt in range(1, _STARTS + 1):
        try:
            # The dashboard of a Ray that ends with its job would cost more to start than the job's other processes.
            ray.init(logging_level=logging.WARNING, log_to_driver=False, include_dashboard=False)
            return
        except Exception as error:
            # Of many types; a node that does not start in time raises a plain Exception.
            ray.shutdown()
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if attempt == _STARTS or "timed out during startup" not in said:
                load = os.getloadavg()[0]
                raise BadInput(
                    f"ray: did not start: {said[:200]} (load {load:.0f} on {os.cpu_count()} CPUs); run the same "
                    f"command again when the machine has room, or name a running cluster in RAY_ADDRESS"
                ) from None
            print(f"ray: did not start in time, attempt {attempt} of {_STARTS}; once more", file=sys.stderr, flush=True)


def use_driver_folder(folder: str) -> None:
    """Make the driver's current folder this worker's too, so that relative paths mean the same to both.

    Ray starts workers in another folder if it was started there. If this machine does not have `folder`, as in a
    submitted job, the worker stays where Ray put it.
    """
    if os.path.isdir(folder):
        os.chdir(folder)


def cpus_each(actors: int, gpus: float) -> float:
    """Return how many CPUs to reserve for each of `actors` engines where the user does not say: all, shared out.

    An engine on a CPU has as many threads as Ray reserves CPUs for it. The result is the largest whole number of which
    the nodes, as they are now, hold `actors`, each on a single node. So no engine waits for a node that is not there,
    and the engines of several nodes are spread over them. It is 1

    - for engines on GPUs, whose CPUs do little,
    - where more engines are asked for than there are CPUs; those without one wait, as they always did,
    - where something else holds a part of the cluster: a job that asks for all of it could wait without end. What an
      earlier stage of the same job held is free again within seconds, and is waited for.

    Nothing else of a job needs a CPU of Ray's while its engines run: its blocks lie in memory, and the actors that
    count progress and costs reserve none.
    """
    if gpus:
        return 1
    import ray

    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    until = time.monotonic() + _PATIENCE
    while ray.available_resources().get("CPU", 0) < sum(nodes):
        if time.monotonic() > until:
            return 1
        time.sleep(0.1)
    return share_of(nodes, actors)


def share_of(nodes: list[float], actors: int) -> int:
    """Return the largest whole number of CPUs of which `nodes`, with so many CPUs each, hold `actors`; at least 1."""
    sizes = range(int(max(nodes, default=1)), 0, -1)
    return next((size for size in sizes if sum(cpus // size for cpus in nodes) >= actors), 1)


def on_workers(
    blocks: list[pa.Table],
    worker: type,
    arguments: tuple,
    count: int,
    ahead: int,
    *,
    min_count: int | None = None,
    batch_size: int | None = None,
    cpus: float | None = 1,
    gpus: float = 0,
) -> Iterator[dict[str, Any]]:
    """Run batches of rows through actors and yield each batch's answer as it finishes.

    Arguments:
        blocks: the rows.
        worker: a class; `worker(*arguments)` is made once in each actor. It is called with a batch, and returns a dict
            that JSON can hold. If its call is asynchronous, an actor works on all its blocks at once, and on
            BATCHES_IN_FLIGHT batches of each.
        count: actors, at most one per block.
        ahead: blocks that an actor holds at once.
        min_count: actors that are enough while the cluster has no room for more; None: `count`.
        batch_size: rows in a batch; None: a block.
        cpus, gpus: what Ray reserves for each actor; for cpus None see `cpus_each`.

    Raises BadInput if a worker does. Replaces an actor that dies, up to _MAX_RESTARTS times.
    """
    start_ray()
    import ray

    # Set before the dataset is made, which keeps a copy.
    ray.data.DataContext.get_current().enable_progress_bars = False
    most = min(count, len(blocks))
    asynchronous = inspect.iscoroutinefunction(worker.__call__)
    with warnings.catch_warnings():
        # Ray Data replaces actors without end by default, even for a block that kills each one. The arguments that
        # limit this are deprecated, and have no successor yet.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        answers = ray.data.from_arrow(blocks).map_batches(
            _AsyncActor if asynchronous else _Actor,
            fn_constructor_args=[worker, arguments, os.getcwd()],
            batch_size=batch_size,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=min(min_count or most, most),
                max_size=most,
                initial_size=most,
                max_tasks_in_flight_per_actor=ahead,
                max_concurrent_calls_per_actor=ahead if asynchronous else None,
            ),
            num_cpus=cpus_each(most, gpus) if cpus is None else cpus,
            num_gpus=gpus,
            max_restarts=_MAX_RESTARTS,
            max_task_retries=_MAX_RESTARTS,
        )
    for row in answers.iter_rows():
        if row["bad_input"]:
            raise BadInput(row["bad_input"])
        yield json.loads(row["answer"])


class _Actor:
    def __init__(self, worker: type, arguments: tuple, folder: str) -> None:
        use_driver_folder(folder)
        self.worker_type, self.arguments = worker, arguments
        self.made: Any = None

    def worker(self) -> Any:
        # Made at the first batch, not in the constructor: Ray Data restarts an actor whose constructor fails.
        if self.made is None:
            self.made = self.worker_type(*self.arguments)
        return self.made

    def __call__(self, batch: pa.Table) -> Any:
        try:
            return _answer(self.worker()(batch))
        except BadInput as error:
            return _bad_input(error)


class _AsyncActor(_Actor):
    async def __call__(self, batch: pa.Table) -> dict[str, list[str]]:
        try:
            return _answer(await self.worker()(batch))
        except BadInput as error:
            return _bad_input(error)


def _answer(answer: dict[str, Any]) -> dict[str, list[str]]:
    return {"answer": [json.dumps(answer)], "bad_input": [""]}


def _bad_input(error: BadInput) -> dict[str, list[str]]:
    # As a row: Ray Data drops the type and the cause of a worker's exception.
    return {"answer": [""], "bad_input": [str(error)]}


def bar(title: str, total: int | None, unit: str, **options: Any) -> Any:
    """Return a tqdm bar with rate and ETA: a moving line on a terminal, a line every 30 seconds in a log."""
    from tqdm import tqdm

    return tqdm(total=total, desc=title, unit=unit, mininterval=1 if sys.stderr.isatty() else 30, **options)


@contextmanager
def watching(look: Callable[[], None]) -> Iterator[None]:
    """Call `look` about every second while the block runs, and once more after it, unless it raised."""
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


def beside_driver(kind: type, *arguments: Any) -> Any:
    """Start an actor on the driver's node and return it. There it ends with the job alone, not with a worker's node.

    While a link to the driver is down, calls wait for it. A call whose answer is lost is made again, so one that was
    made twice must change no more than one.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, max_task_retries=-1, scheduling_strategy=here)(kind).remote(*arguments)


class _Board:
    """The latest counts of each worker, and whether they should go on."""

    def __init__(self) -> None:
        self.counts: dict[Hashable, dict[str, int]] = {}
        self.go_on = True

    def tell(self, source: Hashable, counts: dict[str, int]) -> bool:
        self.counts[source] = counts
        return self.go_on

    def stop(self) -> None:
        self.go_on = False

    def sums(self) -> Counter[str]:
        return sum(map(Counter, self.counts.values()), Counter())


@contextmanager
def progress(
    title: str,
    total: int | None,
    unit: str,
    postfix: Callable[[Counter[str], float], str] = lambda counts, seconds: "",
    go_on: Callable[[Counter[str]], bool] = lambda counts: True,
    initial: int = 0,
) -> Iterator[Any]:
    """Show a bar for work on the workers, and yield `tell`, the remote method with which they report.

    `tell.remote(source, counts)` replaces the counts that `source` reported before; "done" counts its finished units.
    It returns whether the worker should go on: not after `go_on(sums of all counts)` has returned False.

    Arguments:
        total: units of work; None: unknown, so the bar has no ETA.
        unit: a unit's name; "B" is shown as kB, MB, ...
        postfix: the text after the bar, from the sums of all counts and the seconds so far.
        go_on: called about every second.
        initial: units that were done before, which tell nothing about the rate.
    """
    start_ray()
    import ray

    board = beside_driver(_Board)
    # The first line says what is waited for.
    with bar(title, total, unit, unit_scale=unit == "B", initial=initial, postfix=postfix(Counter(), 0)) as shown:

        def look() -> None:
            counts = ray.get(board.sums.remote())
            shown.set_postfix_str(postfix(counts, shown.format_dict["elapsed"]), refresh=False)
            shown.update(max(initial, counts["done"]) - shown.n)
            if not go_on(counts):
                board.stop.remote()

        try:
            with watching(look):
                yield board.tell
        finally:
            ray.kill(board)
