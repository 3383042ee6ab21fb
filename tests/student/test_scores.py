"""Scores: planted values come back from windows with offsets, temperatures and fusion are their formulas."""

import math
import random

import pytest

from r2r.student.scores import FirstStage, aligned, by_rank, fused, shares
from r2r.windows import windows


@pytest.mark.parametrize("n", [2, 8, 20, 21, 100])
def test_values_come_back_from_windows_with_offsets(n):
    draw = random.Random(n)
    values = [-draw.random() * 10 for _ in range(n)]
    seen = []
    for start, end in windows(n, 8, 4):
        offset = draw.random() * 5
        seen.append((list(range(start, end)), [values[index] - offset for index in range(start, end)]))
    last = seen[-1][1][0] - values[0]
    order = sorted(range(n), key=lambda index: -values[index])
    assert aligned(seen, order) == pytest.approx([values[index] + last for index in order])


def test_a_passage_keeps_the_value_of_its_last_window_and_others_are_moved_by_the_mean():
    seen = [([2, 3, 1], [4.0, 1.0, 2.0]), ([0, 1, 2], [-1.0, -2.0, -3.0])]
    # Passages 2 and 1 say -7 and -4: the first window is moved by -5.5.
    assert aligned(seen, [0, 1, 2, 3]) == [-1.0, -2.0, -3.0, -4.5]


def test_values_never_rise_along_the_order():
    seen = [([2, 3], [0.0, 5.0]), ([0, 1, 2], [-1.0, -2.0, -3.0])]
    assert aligned(seen, [0, 1, 2, 3]) == [-1.0, -2.0, -3.0, -3.0]


def test_a_window_that_shares_no_passage_begins_where_the_others_end():
    assert aligned([([2, 3], [7.0, 5.0]), ([0, 1], [-1.0, -2.0])], [0, 1, 2, 3]) == [-1.0, -2.0, -2.0, -4.0]


def test_a_passage_in_no_window_has_the_value_of_the_one_before_it():
    assert aligned([([2, 0], [1.0, 2.0])], [1, 0, 3, 2]) == [2.0, 2.0, 2.0, 1.0]


def test_a_share_is_the_mean_probability_to_stand_above_another():
    def above(apart):
        return 1 / (1 + math.exp(-apart / 2))

    found = shares([3.0, 1.0, 0.0], 2.0)
    wanted = [(above(2) + above(3)) / 2, (above(-2) + above(1)) / 2, (above(-3) + above(-1)) / 2]
    assert found == pytest.approx(wanted) and sum(found) / 3 == pytest.approx(0.5)
    assert shares([-4.0], 2.0) == [1.0] and shares([1e9, 0.0], 1e-3) == [1.0, 0.0]


def test_a_fusion_is_the_weighted_sum_of_normalised_scores():
    order, scores = fused([2, 0, 1], [0.9, 0.5, 0.1], FirstStage([10.0, 30.0, 20.0], 0.75))
    # Passage 2: 1 and .5; passage 0: .5 and 0; passage 1: 0 and 1.
    assert order == [1, 2, 0] and scores == pytest.approx([0.75, 0.625, 0.125])
    assert fused([2, 0, 1], [0.9, 0.5, 0.1], FirstStage([10.0, 30.0, 20.0], 0))[0] == [2, 0, 1]
    # Equal scores of the first stage say nothing.
    assert fused([1, 0], [0.9, 0.5], FirstStage([3.0, 3.0], 0.5)) == ([1, 0], [0.5, 0.0])


def test_scores_by_rank():
    assert by_rank(3) == [1, 1 / 2, 1 / 3]
