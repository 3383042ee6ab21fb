"""Rows through models: each row of a table is answered by a worker that holds a model, on as many workers as asked.

Owns the Ray Data pipeline, the rows in flight, the writing of finished rows, progress and counts. Does not know what
a worker asks its model, nor what the rows mean.

    counts = run_rows(candidates, Annotator, {"model": "demo"}, settings, out, "annotate")
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from pathlib import Path

import pyarrow as pa

from r2r import tables
from r2r.config import Workers

# Ray Data keeps this many batches of an asynchronous actor running at the same time.
_BATCHES_IN_FLIGHT = 4


def run_rows(rows: pa.Table, worker: type, arguments: dict, settings: Workers, out: str | Path, title: str) -> Counter:
    """Answer every row and write the answers, as they finish, into tables under `out`; return the counts.

    `worker(**arguments)` is made once in each actor; `await worker(row)` returns the name of the table that the answer
    belongs to, its row, and a dict of counts (tokens and the like), which are added up.
    """
    import ray
    from ray.data import ActorPoolStrategy
    from tqdm import tqdm

    ray.data.DataContext.get_current().enable_progress_bars = False
    batch = max(1, settings.in_flight // _BATCHES_IN_FLIGHT)
    blocks = max(settings.actors, min(rows.num_rows // (batch * _BATCHES_IN_FLIGHT), 1000))
    # A table of one row a query is at most a few GB; the rows of a block travel through Ray's object store.
    dataset = ray.data.from_arrow([rows.slice(at, length) for at, length in _spans(rows.num_rows, blocks)])
    done = dataset.map_batches(
        _Actor,
        fn_constructor_args=[worker, arguments, str(out)],
        batch_size=batch,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=min(settings.actors, blocks)),
        num_cpus=settings.cpus,
        num_gpus=settings.gpus,
    )
    counts: Counter = Counter()
    with tqdm(total=rows.num_rows, desc=title, unit="row", mininterval=1) as bar:
        for answer in done.iter_rows():
            finished = Counter(json.loads(answer["counts"]))
            bar.update(finished.pop("rows"))
            counts.update(finished)
            seconds = bar.format_dict["elapsed"]
            bar.set_postfix_str(f"{counts['completion_tokens'] / seconds:.0f} tokens/s" if seconds else "")
    return counts


def _spans(total: int, parts: int) -> list[tuple[int, int]]:
    size = -(-total // parts)
    return [(at, size) for at in range(0, total, size)]


class _Actor:
    def __init__(self, worker: type, arguments: dict, out: str):
        self.worker = worker(**arguments)
        self.out = Path(out)

    async def __call__(self, batch: pa.Table) -> dict:
        rows = batch.to_pylist()
        answers = await asyncio.gather(*(self.worker(row) for row in rows))
        counts: Counter = Counter(rows=len(rows))
        by_table: dict[str, list[dict]] = {}
        for table, row, more in answers:
            by_table.setdefault(table, []).append(row)
            counts.update(more)
            counts[table] += 1
        for table, finished in by_table.items():
            tables.write_part(finished, self.out, table, f"part-{uuid.uuid4().hex}")
        return {"counts": [json.dumps(counts)]}
