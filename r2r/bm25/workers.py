"""Work on Ray Data's workers: blocks of rows in, one small answer a block out, and its progress on the driver.

Owns the pool of actors, a user's mistake on its way from a worker to the driver, and the progress bar. Does not own
the work.

    for answer in on_workers(blocks, _Worker, (index, settings), count=2, ahead=2): ...
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from r2r.config import BadInput

if TYPE_CHECKING:
    import pyarrow as pa


def on_workers(blocks: list[pa.Table], worker: type, arguments: tuple, count: int, ahead: int) -> Iterator[dict]:
    """Yield the answer to every block, as they come; an answer is a dict that JSON can hold.

    `worker(*arguments)` is made once in each of `count` actors of one CPU, and called with a block. An actor has up to
    `ahead` blocks handed to it. Raises BadInput where a worker does; a worker that dies is replaced three times.
    """
    import ray

    # Set before the dataset is made, which keeps a copy.
    ray.data.DataContext.get_current().enable_progress_bars = False
    with warnings.catch_warnings():
        # Ray Data's default is to replace a worker without end, also for a block that ends its process each time. The
        # arguments that bound it are announced to go, without one that takes their place.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        answers = ray.data.from_arrow(blocks).map_batches(
            _Actor,
            fn_constructor_args=[worker, arguments],
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(count, len(blocks)), max_tasks_in_flight_per_actor=ahead),
            num_cpus=1,
            max_restarts=3,
            max_task_retries=3,
        )
    for row in answers.iter_rows():
        if row["mistake"]:
            raise BadInput(row["mistake"])
        yield json.loads(row["answer"])


class _Actor:
    def __init__(self, worker: Callable, arguments: tuple):
        # The worker is made at the first block: Ray Data makes an actor that fails here anew, time and again.
        self.make, self.worker = (worker, arguments), None

    def __call__(self, block: pa.Table) -> dict:
        try:
            if self.worker is None:
                worker, arguments = self.make
                self.worker = worker(*arguments)
            return {"answer": [json.dumps(self.worker(block))], "mistake": [""]}
        except BadInput as error:
            # As a row, since Ray Data drops the type and the cause of what is raised here.
            return {"answer": [""], "mistake": [str(error)]}


class _Board:
    """What each worker told last: documents, and bytes or rows of the source."""

    def __init__(self):
        self.told: dict[int, tuple[int, int]] = {}

    def tell(self, who: int, documents: int, done: int) -> None:
        self.told[who] = (documents, done)

    def sums(self) -> tuple[int, int]:
        return sum(documents for documents, _ in self.told.values()), sum(done for _, done in self.told.values())


@contextmanager
def progress(title: str, total: int | None) -> Iterator:
    """Show a bar of `total` bytes (None: unknown, then without an ETA) with the documents done beside it.

    Yields a remote method; `tell.remote(who, documents, done)` replaces what `who` told before.
    """
    import ray
    from tqdm import tqdm

    board = ray.remote(num_cpus=0)(_Board).remote()
    stop = threading.Event()
    with tqdm(total=total, desc=title, unit="B", unit_scale=True, mininterval=1) as bar:

        def show(whole: bool = False) -> None:
            documents, done = ray.get(board.sums.remote())
            bar.set_postfix_str(f"{documents:,} documents", refresh=False)
            bar.update((total if whole and total else done) - bar.n)

        def watch() -> None:
            while not stop.wait(1):
                show()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield board.tell
            show(whole=True)
        finally:
            stop.set()
            watcher.join()
            ray.kill(board)
