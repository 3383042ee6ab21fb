"""Ranking strategies: which passages they show together, and the order that a perfect scorer gets from them."""

import asyncio
import random

import pytest

from r2r.student.strategies import STRATEGIES, sliding
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
@pytest.mark.parametrize("n", [2, 20, 21, 45])
def test_the_last_call_holds_the_top_of_the_order(name, n):
    calls = []

    async def score(shown):
        assert len(set(shown)) == len(shown) <= 20
        calls.append(shown)
        return [float(index % 7) for index in shown]

    order = asyncio.run(STRATEGIES[name](n, 20, 10, score))
    assert sorted(order) == list(range(n))
    assert order[: len(calls[-1])] == sorted(calls[-1], key=lambda index: (-(index % 7), calls[-1].index(index)))
