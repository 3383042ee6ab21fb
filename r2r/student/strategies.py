"""Ranking strategies: how a long list is ranked with a model that orders a few passages at a time.

Owns which passages are shown together, and how the results are combined. Does not know models: it calls `score`.
To add a strategy, write its two functions and add them to `STRATEGIES`.

    order = await STRATEGIES["parallel"].rank(100, 20, 10, score)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from r2r.windows import slide, windows

# Takes the indices of up to `window` different passages, in the order to show them in; returns a score for each, higher
# is better. Scores of two calls cannot be compared. Calls may run concurrently.
Score = Callable[[list[int]], Awaitable[list[float]]]

# Places in the next round for each group, if they are more than a window holds.
_THROUGH = 2


class Strategy(NamedTuple):
    """How to rank a list, and how many calls that takes.

    rank: takes the number of passages `n`, indexed in first-stage order; `window`, the most passages of a call;
    `stride`, at most `window`; and `score`. Returns the indices 0 to n - 1, best first. The call of `score` that ends
    last must hold the passages that lead this order, in the order of its scores: they are the ones that get reasons.
    Every other call must share a passage with one that ends later, or its scores cannot be compared with others.
    calls: takes n, window and stride; returns the calls of `score`, for n of 2 or more.
    """

    rank: Callable[[int, int, int, Score], Awaitable[list[int]]]
    calls: Callable[[int, int, int], int]


async def sliding(n: int, window: int, stride: int, score: Score) -> list[int]:
    """Rank by a window that slides from the bottom of the list to the top (see `windows.slide`).

    Passages with equal scores keep their order. A single passage is not scored. With a stride of a whole window, calls
    share no passages.
    """

    async def rank(shown: list[int]) -> list[int]:
        return await _ranked(shown, score)

    return await slide(n, window, stride, rank)


async def parallel(n: int, window: int, stride: int, score: Score) -> list[int]:
    """Rank groups of at most a window at the same time, then the best of each group in a final.

    The passages are dealt out to as few groups as possible, so that all groups get their share of the first stage's
    best. Into the final come the best by place in their group; equal places go by first-stage order. If each group has
    less than _THROUGH places in the final, as many per group are ranked in the same way in between, but at most half of
    the passages where that leaves one for each. The others follow in the order in which they would have come next.
    `stride` is not used. (Parts ranked at the same time, and their best in a last call, as in TDPart: Parry et al.
    2024, arXiv 2405.14589. That compares each part with a pivot, which takes more calls and rounds.)
    """

    async def best_first(passages: list[int]) -> list[int]:
        if len(passages) <= window:
            return await _ranked(passages, score)
        count = _groups(len(passages), window)
        groups = [passages[first::count] for first in range(count)]
        ranked = await asyncio.gather(*(_ranked(group, score) for group in groups))
        first_stage = {index: place for place, index in enumerate(passages)}
        places = {index: (place, first_stage[index]) for group in ranked for place, index in enumerate(group)}
        order = sorted(places, key=places.__getitem__)
        finalists = _finalists(len(passages), window)
        return await best_first(order[:finalists]) + order[finalists:]

    return await best_first(list(range(n)))


async def _ranked(shown: list[int], score: Score) -> list[int]:
    """Return passages in the order of their scores from one call. A single passage is not scored."""
    if len(shown) == 1:
        return shown
    scores = await score(shown)
    return [shown[place] for place in sorted(range(len(shown)), key=lambda place: -scores[place])]


def _groups(n: int, window: int) -> int:
    return -(-n // window)


def _finalists(n: int, window: int) -> int:
    groups = _groups(n, window)
    return max(window, groups, min(_THROUGH * groups, n // 2))


def _parallel_calls(n: int, window: int, stride: int) -> int:
    if n <= window:
        return 1
    # Groups of one passage are not scored: there are some if windows hold two, and the number is odd.
    scored = min(_groups(n, window), n // 2)
    return scored + _parallel_calls(_finalists(n, window), window, stride)


STRATEGIES = {
    "sliding": Strategy(sliding, lambda n, window, stride: len(windows(n, window, stride))),
    "parallel": Strategy(parallel, _parallel_calls),
}
