"""Which annotations are learned from, which are held out, and which rows each step works on.

Owns the drawing. Every batch of a run has a number; its rows follow from that number and the seed, and from neither the
number of workers nor restarts. Does not know tokens or models: a row is a number.

    learn, held = split([row["query"] for row in rows], settings)
    step_batches(lengths, settings, step=0)
"""

from __future__ import annotations

import math
import random
from functools import lru_cache
from typing import NamedTuple, TypeVar

from r2r.config import DistillSettings

# More queries would not separate checkpoints any better.
_HELD_OUT_MOST = 500
# Number of batches that are formed together, from examples sorted by length.
_POOL = 64

T = TypeVar("T")


class Batch(NamedTuple):
    """`number`: its number in the run, from 0. `drawn`: the row and the shuffling seed of each example."""

    number: int
    drawn: list[tuple[int, int]]


def split(queries: list[str], settings: DistillSettings) -> tuple[list[int], list[int]]:
    """Return the rows to learn from, and the rows held out. `queries[i]` is the query of row i.

    All rows of a query are on the same side. At least one query is learned from; unless `held_out` is 0 or there is
    only one query, at least one is held out, and at most 500.
    """
    distinct = sorted(set(queries))
    wanted = min(max(1, round(settings.held_out * len(distinct))), _HELD_OUT_MOST) if settings.held_out else 0
    held = set(random.Random(f"{settings.seed} held out").sample(distinct, min(wanted, len(distinct) - 1)))
    rows = range(len(queries))
    return [row for row in rows if queries[row] not in held], [row for row in rows if queries[row] in held]


def steps_of(epochs: float, rows: int, settings: DistillSettings) -> int:
    """Return the steps in which so many passes over `rows` examples are made; the last one may begin another pass."""
    return max(1, math.ceil(epochs * rows / (settings.batch * settings.batches)))


def step_batches(lengths: list[int], settings: DistillSettings, step: int) -> list[Batch]:
    """Return the batches of a step, counted from 0, the longest first.

    Workers then calculate batches of similar length at the same time. lengths: about how many tokens each row has.
    """
    size = settings.batches
    drawn = [_batch(lengths, settings, number) for number in range(step * size, (step + 1) * size)]
    return sorted(drawn, key=lambda batch: -max(lengths[row] for row, _ in batch.drawn))


def _batch(lengths: list[int], settings: DistillSettings, number: int) -> Batch:
    size = settings.batch
    # At most a quarter of the rows, or each pass would form the same batches.
    batches = max(1, min(_POOL, len(lengths) // (4 * size)))
    pool, within = divmod(number, batches)
    places = range(pool * batches * size, (pool + 1) * batches * size)
    drawn = sorted((_draw(lengths, settings, place) for place in places), key=lambda one: lengths[one[0]])
    starts = list(range(0, len(drawn), size))
    random.Random(f"{settings.seed} {pool}").shuffle(starts)
    return Batch(number, drawn[starts[within] : starts[within] + size])


def _draw(lengths: list[int], settings: DistillSettings, place: int) -> tuple[int, int]:
    """Return the row and the shuffling seed of the run's example number `place`. Each pass has its own order."""
    epoch, within = divmod(place, len(lengths))
    return _order(len(lengths), settings.seed, epoch)[within], settings.seed + place


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> list[int]:
    order = list(range(rows))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order


def shares(batches: list[T], rank: int, world: int) -> list[tuple[T, bool]]:
    """Return the batches of worker `rank` of `world`, and whether each counts.

    All workers get the same number of batches. If they do not divide evenly, some workers get the last batch again, as
    filler that does not count.
    """
    turns = -(-len(batches) // world)
    places = [turn * world + rank for turn in range(turns)]
    return [(batches[min(place, len(batches) - 1)], place < len(batches)) for place in places]
