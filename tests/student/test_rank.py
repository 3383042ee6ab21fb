"""Windows over a list: how many, what they cover, and what a perfect scorer makes of them."""

import asyncio
import random

import pytest

from r2r.student.rank import scores, slide, windows


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

    order = asyncio.run(slide(n, 20, 10, score))
    assert sorted(order) == list(range(n))
    assert order[:10] == sorted(range(n), key=lambda index: -relevance[index])[:10]


def test_equal_scores_keep_the_order():
    async def score(inside):
        return [0.0] * len(inside)

    assert asyncio.run(slide(45, 20, 10, score)) == list(range(45))


def test_scores_fall_strictly():
    assert scores(3) == [1, 1 / 2, 1 / 3]
