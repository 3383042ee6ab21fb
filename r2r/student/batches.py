"""Which annotations are learned from, which are held out, and which of them each step works on.

Owns the drawing: every batch of a run has a number, and what is in it follows from that number and the seed, not from
how many workers there are or when the run was stopped. Does not know tokens or models: a row is a number.

    learn, held = split([row["query"] for row in rows], settings)
    step_batches(lengths, settings, step=0)
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import NamedTuple

from r2r.config import DistillSettings

# However many queries there are, this many tell checkpoints apart.
_HELD_OUT_MOST = 500
# Batches that are put together at a time, each from examples of about one length.
_POOL = 64


class Batch(NamedTuple):
    """`drawn` holds the row and the shuffling seed of each example."""

    number: int
    drawn: list[tuple[int, int]]


def split(queries: list[str], settings: DistillSettings) -> tuple[list[int], list[int]]:
    """Return the rows to learn from and those held out. `queries[i]` is the query of row i.

    All rows of a query go the same way. At least one query is held out where `held_out` is not 0, and at least one is
    learned from.
    """
    distinct = sorted(set(queries))
    wanted = min(max(1, round(settings.held_out * len(distinct))), _HELD_OUT_MOST) if settings.held_out else 0
    held = set(random.Random(f"{settings.seed} held out").sample(distinct, min(wanted, len(distinct) - 1)))
    rows = range(len(queries))
    return [row for row in rows if queries[row] not in held], [row for row in rows if queries[row] in held]


def step_batches(lengths: list[int], settings: DistillSettings, step: int) -> list[Batch]:
    """Return the batches of a step, counted from 0, the longest first: those that workers calculate at the same time
    are then about as long as each other. `lengths[i]` is that of row i of those to learn from."""
    each = settings.workers * settings.accumulate
    found = [_batch(lengths, settings, number) for number in range(step * each, (step + 1) * each)]
    return sorted(found, key=lambda batch: -max(lengths[row] for row, _ in batch.drawn))


def _batch(lengths: list[int], settings: DistillSettings, number: int) -> Batch:
    size = settings.batch
    # No more than a quarter of the rows, or each pass would put the same ones together.
    batches = max(1, min(_POOL, len(lengths) // (4 * size)))
    pool, within = divmod(number, batches)
    places = range(pool * batches * size, (pool + 1) * batches * size)
    drawn = sorted((_draw(lengths, settings, place) for place in places), key=lambda one: lengths[one[0]])
    starts = list(range(0, len(drawn), size))
    random.Random(f"{settings.seed} {pool}").shuffle(starts)
    return Batch(number, drawn[starts[within] : starts[within] + size])


def _draw(lengths: list[int], settings: DistillSettings, place: int) -> tuple[int, int]:
    """Return the row and the shuffling seed of the run's example number `place`. Each pass has an order of its own."""
    epoch, within = divmod(place, len(lengths))
    return _order(len(lengths), settings.seed, epoch)[within], settings.seed + place


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> list[int]:
    order = list(range(rows))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order


def shares(batches: list[Batch], rank: int, world: int) -> list[tuple[Batch, bool]]:
    """Return the batches that a worker calculates, as many as every other one, and whether each of them counts.

    Where there are fewer workers than the settings ask for, each does more; a batch that is there only so that all have
    as many does not count.
    """
    turns = -(-len(batches) // world)
    places = [turn * world + rank for turn in range(turns)]
    return [(batches[min(place, len(batches) - 1)], place < len(batches)) for place in places]
