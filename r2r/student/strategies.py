"""Ranking strategies: how a long list is ranked with a model that orders a few passages at a time.

Owns which passages are shown together, and how the results are combined. Does not know models: it calls `score`.
To add a strategy, write its function and add it to `STRATEGIES`.

    order = await STRATEGIES["sliding"](100, 20, 10, score)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

# Takes the indices of up to `window` different passages, in the order to show them in; returns a score for each, higher
# is better. Scores of two calls cannot be compared. Calls may run concurrently.
Score = Callable[[list[int]], Awaitable[list[float]]]

# Takes the number of passages `n`, indexed in first-stage order; `window`, the most passages of a call; `stride`, at
# most `window`; and `score`. Returns the indices 0 to n - 1, best first. The call of `score` that ends last must hold
# the passages that lead this order, in the order of its scores: they are the ones that get reasons.
Strategy = Callable[[int, int, int, Score], Awaitable[list[int]]]


async def sliding(n: int, window: int, stride: int, score: Score) -> list[int]:
    """Rank by a window that slides from the bottom of the list to the top, as in RankGPT (arXiv 2304.09542).

    Each window starts `stride` passages above the one before, and its best passages move up with it. Passages with
    equal scores keep their order. A single passage is not scored.
    """
    order = list(range(n))
    for start, end in windows(n, window, stride):
        shown = order[start:end]
        if len(shown) > 1:
            scores = await score(shown)
            ranked = sorted(range(len(shown)), key=lambda place: -scores[place])
            order[start:end] = [shown[place] for place in ranked]
    return order


def windows(n: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Return the (start, end) of each window over `n` passages, from the bottom of the list to the top.

    Every passage is in a window, and the last window starts at 0.
    """
    spans = []
    end = n
    while True:
        start = max(0, end - window)
        spans.append((start, end))
        if start == 0:
            return spans
        end -= stride


STRATEGIES: dict[str, Strategy] = {"sliding": sliding}
