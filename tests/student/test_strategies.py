"""Ranking strategies: which passages they show together, and the order that a perfect scorer gets from them."""

import asyncio
import random

import pytest

from r2r.student.strategies import STRATEGIES, parallel, sliding
from r2r.windows import windows


@pytest.mark.parametrize(("n", "calls"), [(8, 1), (20, 1), (25, 2), (40, 3), (100, 9)])
def test_windows_of_20_by_10(n, calls):
    spans = windows(n, 20, 10)
    assert len(spans) == calls
    assert spans[-1][0] == 0 and spans[0][1] == n
    assert {index for start, end in spans for index in range(start, end)} == set(range(n))


@pytest.mark.parametrize("n", [1, 2, 8, 20, 25, 40, 100])
def test_a_perfect_scorer_finds_the_perfect_top_10(n):
    relevance = random.Random(n).sample(range(n), n)

    async def score(inside):
        return [relevance[index] for index in inside]

    order = asyncio.run(sliding(n, 20, 10, score))
    assert sorted(order) == list(range(n))
    assert order[:10] == sorted(range(n), key=lambda index: -relevance[index])[:10]


def test_equal_scores_keep_the_order():
    async def score(inside):
        return [0.0] * len(inside)

    assert asyncio.run(sliding(45, 20, 10, score)) == list(range(45))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(
    ("window", "stride"), [(2, 1), (3, 1), (8, 4), (20, 10), (2, 2), (3, 3), (8, 8), (20, 20), (8, 7)]
)
def test_the_last_call_holds_the_top_of_a_permutation_and_calls_are_as_told(name, window, stride):
    strategy = STRATEGIES[name]
    for n in range(1, 61):
        calls, ended = [], []

        async def score(shown, calls=calls, ended=ended):
            assert len(set(shown)) == len(shown) <= window
            calls.append(shown)
            await asyncio.sleep(0)
            ended.append(shown)
            return [float(index % 7) for index in shown]

        order = asyncio.run(strategy.rank(n, window, stride, score))
        assert sorted(order) == list(range(n))
        assert len(calls) == (strategy.calls(n, window, stride) if n > 1 else 0)
        if n > 1:
            last = ended[-1]
            assert order[: len(last)] == sorted(last, key=lambda index: (-(index % 7), last.index(index)))
        # Each call shares a passage with a later one, or its scores could not be compared.
        assert (name == "sliding" and stride == window) or all(
            set(one) & set().union(*ended[place + 1 :]) for place, one in enumerate(ended[:-1])
        )


@pytest.mark.parametrize(
    ("n", "window", "rounds"),
    [(20, 20, [1]), (21, 20, [2, 1]), (20, 8, [3, 1]), (100, 20, [5, 1]), (100, 8, [13, 4, 1]), (1000, 20, [50, 5, 1])],
)
def test_groups_are_scored_at_the_same_time_then_a_final(n, window, rounds):
    relevance = random.Random(n).sample(range(n), n)
    found = []

    async def score(shown):
        if not waiting:
            asyncio.get_running_loop().call_soon(waiting.clear)
            found.append(0)
        waiting.append(shown)
        found[-1] += 1
        await asyncio.sleep(0)
        return [relevance[index] for index in shown]

    waiting = []
    order = asyncio.run(parallel(n, window, 1, score))
    assert found == rounds and order[0] == relevance.index(n - 1)
    # Groups differ by one passage at most in size: the first stage's order is dealt out.
    assert len(rounds) == 1 or STRATEGIES["parallel"].calls(n, window, 1) == sum(rounds)
