"""A window that slides up a long list, for a model that orders only a few passages at a time.

Owns the places of the windows and the walk over them, for teacher and student. Does not own how a window is ordered.

    order = await slide(100, 20, 10, rank)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

# Takes the indices in a window, in the order so far; returns them in their new order.
Rank = Callable[[list[int]], Awaitable[list[int]]]


def windows(n: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Return the (start, end) of each window over `n` passages, from the bottom of the list to the top.

    Every passage is in a window, and the last window starts at 0. Where a single passage would be left, as a stride of
    a whole window can leave it, the last window is a whole one: one passage cannot be ranked.
    """
    spans = []
    end = n
    while True:
        end = end if end > 1 else min(window, n)
        start = max(0, end - window)
        spans.append((start, end))
        if start == 0:
            return spans
        end -= stride


async def slide(n: int, window: int, stride: int, rank: Rank) -> list[int]:
    """Return the indices 0 to n - 1, ordered by a window that slides from the bottom to the top, as in RankGPT (arXiv
    2304.09542).

    Each window starts `stride` passages above the one before, and its best passages move up with it. So two passages of
    a window keep the order that it gave them, unless a later window has both.
    """
    order = list(range(n))
    for start, end in windows(n, window, stride):
        order[start:end] = await rank(order[start:end])
    return order
