"""Rows through models: each row of a table is answered by a worker that holds a model, on as many workers as asked.

Owns the rows in flight, the writing of finished rows, progress and counts. Does not know what a worker asks its model,
nor what the rows mean; the actors are those of `r2r.workers`.

    counts = run_rows(candidates, Annotator, (settings,), settings, out, "annotate")
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from pathlib import Path

import pyarrow as pa

from r2r import tables
from r2r.config import Workers
from r2r.workers import BATCHES_IN_FLIGHT, bar, on_workers

# Rows that travel to an actor together, as batches.
_BLOCK = 64


def run_rows(rows: pa.Table, worker: type, arguments: tuple, settings: Workers, out: str | Path, title: str) -> Counter:
    """Answer every row and write the answers, as they finish, into tables under `out`; return the counts.

    `worker(*arguments)` is made once in each actor; `await worker(row)` returns the name of the table that the answer
    belongs to, its row, and a dict of counts (tokens and the like), which are added up.
    """
    batch = max(1, settings.in_flight // BATCHES_IN_FLIGHT)
    size = min(batch * _BLOCK, -(-rows.num_rows // settings.actors))
    blocks = [rows.slice(at, size) for at in range(0, rows.num_rows, size)]
    answers = on_workers(
        blocks,
        _Batches,
        (worker, arguments, str(out)),
        settings.actors,
        ahead=2,
        batch=batch,
        cpus=settings.cpus,
        gpus=settings.gpus,
    )
    counts: Counter = Counter()
    with bar(title, rows.num_rows, "row") as shown:
        for answer in answers:
            shown.update(answer.pop("rows"))
            counts.update(answer)
            tokens = counts["prompt_tokens"] + counts["completion_tokens"]
            shown.set_postfix_str(f"{tokens / shown.format_dict['elapsed']:,.0f} tokens/s", refresh=False)
    return counts


class _Batches:
    def __init__(self, worker: type, arguments: tuple, out: str):
        self.worker = worker(*arguments)
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
        return counts
