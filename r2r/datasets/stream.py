"""A corpus as a Ray Data stream, one read task a part.

Owns the blocks. Does not own the parts: the schemes cut them.

    stream(corpus_parts("beir:scifact", 4)).count()
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from r2r.datasets.documents import Part
from r2r.tables import SCHEMAS

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

_ROWS = 1000


def stream(parts: list[Part]) -> ray.data.Dataset:
    """Return docid, title and text of every document; blocks leave a part while the rest of it is read."""
    import ray
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    # A read task, and not map_batches over the parts: of what a function given to that raises, Ray drops the type.
    class Corpus(Datasource):
        def get_read_tasks(self, parallelism, per_task_row_limit=None, data_context=None) -> list[ReadTask]:
            unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None)
            return [ReadTask(partial(_blocks, part), unknown, SCHEMAS["corpus"]) for part in parts]

        def estimate_inmemory_data_size(self) -> int | None:
            return None

    return ray.data.read_datasource(Corpus(), override_num_blocks=len(parts))


def _blocks(part: Part) -> Iterator[pa.Table]:
    rows: list[tuple] = []
    for _, document in part.read():
        rows.append(document[:3])
        if len(rows) == _ROWS:
            yield _block(rows)
            rows = []
    yield _block(rows)


def _block(rows: list[tuple]) -> pa.Table:
    import pyarrow as pa

    return pa.table(list(zip(*rows, strict=True)) or [[], [], []], schema=SCHEMAS["corpus"])
