"""Ranking strategies: how a long list is ranked with a model that orders a few passages at a time.

Owns which passages are shown together, and how the results are combined. Does not know models: it calls `score`.
To add a strategy, write its function and add it to `STRATEGIES`.

    order = await STRATEGIES["sliding"](100, 20, 10, score)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from r2r.windows import slide

# Takes the indices of up to `window` different passages, in the order to show them in; returns a score for each, higher
# is better. Scores of two calls cannot be compared. Calls may run concurrently.
Score = Callable[[list[int]], Awaitable[list[float]]]

# Takes the number of passages `n`, indexed in first-stage order; `window`, the most passages of a call; `stride`, at
# most `window`; and `score`. Returns the indices 0 to n - 1, best first. The call of `score` that ends last must hold
# the passages that lead this order, in the order of its scores: they are the ones that get reasons.
Strategy = Callable[[int, int, int, Score], Awaitable[list[int]]]


async def sliding(n: int, window: int, stride: int, score: Score) -> list[int]:
    """Rank by a window that slides from the bottom of the list to the top (see `windows.slide`).

    Passages with equal scores keep their order. A single passage is not scored.
    """

    async def rank(shown: list[int]) -> list[int]:
        if len(shown) == 1:
            return shown
        scores = await score(shown)
        return [shown[place] for place in sorted(range(len(shown)), key=lambda place: -scores[place])]

    return await slide(n, window, stride, rank)


STRATEGIES: dict[str, Strategy] = {"sliding": sliding}
