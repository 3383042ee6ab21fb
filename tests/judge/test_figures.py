"""Intervals, planted errors, and whether a measure notices them."""

import pytest

from r2r.judge import planted
from r2r.judge.bootstrap import interval, ratio
from r2r.judge.figures import figures, plant
from r2r.judge.measure import Measure
from tests.judge.rows import row


def rows(n=60):
    reasons = {name: [f"{name} of {at}" for at in range(4)] for name in ("direct", "evidence", "comparison")}
    return [row(qid=f"q{number}", **reasons) for number in range(n)]


def test_an_interval_is_that_of_the_mean_over_queries():
    same = [(0.5, 1.0)] * 10
    assert interval(same, ratio, 0) == (0.5, 0.5)
    low, high = interval([(float(at % 2), 1.0) for at in range(400)], ratio, 0)
    # The standard error of 400 fair coins is 0.025.
    assert low == pytest.approx(0.45, abs=0.01) and high == pytest.approx(0.55, abs=0.01)
    assert interval([(float(at % 2), 1.0) for at in range(400)], ratio, 0) == (low, high)
    assert interval([(0.0, 0.0)], ratio, 0) == (None, None)


def test_errors_are_planted_at_the_rate_and_known():
    before = rows(200)
    after, wrong = planted.swap(before, 0.25, seed=1)
    assert sum(map(len, wrong)) == pytest.approx(200, abs=40)
    for one, other, places in zip(before, after, wrong, strict=True):
        assert {at for at in range(4) if one.reasons(at) != other.reasons(at)} == places
        assert sorted(map(one.reasons, range(4))) == sorted(map(other.reasons, range(4)))
    assert planted.swap(before, 0.25, seed=1) == (after, wrong)
    assert planted.swap(before, 0.25, seed=2) != (after, wrong)


def test_equal_reasons_are_no_error():
    same = [row(direct=["it is"] * 4)]
    assert planted.swap(same, 1.0, seed=0) == (same, [set()])


def test_reasons_handed_round_all_move_and_passages_without_stay_so():
    before = [row(direct=["one", "two", "", ""]), row(direct=["one", "", "", ""])]
    after = planted.handed_round(before, seed=0)
    assert after[0].direct == ["two", "one", "", ""] and after[1].direct == ["one", "", "", ""]


def test_sound_reasons_replace_those_that_were_given():
    texts = ["One. Two.", "Three.", "Four."]
    found = planted.sound([row(texts=texts, direct=["x", "x", ""], comparison=["x", "", "x"])])[0]
    assert found.direct == ["One.", "Three.", ""] and found.evidence == ["", "", ""]
    assert found.comparison == ["It stands above [2].", "", "It stands below [2]."]


def knows(right):
    """Return a measure that flags what is not `right` about a place and its reason."""

    def values(one):
        return [float(right(at, text)) for at, text in enumerate(one.direct)]

    return Measure("knows", "direct", values, "higher", lambda value: value == 0, "")


def test_a_measure_that_notices_is_told_from_one_that_does_not():
    made = plant(rows(), rate=0.3, seed=0)
    count = sum(map(len, made.wrong))
    found = figures(knows(lambda at, text: str(at) in text), made, seed=0)
    assert found["noticed"] and (found["planted"], found["detected"], found["false_alarms"]) == (count, 1, 0)
    assert (found["value"], found["floor"], found["n"], found["of"]) == (1, 0, 240, 240)
    assert found["low"] == found["high"] == 1
    blind = figures(knows(lambda at, text: at % 2), made, seed=0)
    assert not blind["noticed"] and blind["value"] == blind["floor"] == 0.5
    # It flags everything: all errors are detected, and nothing is known.
    assert not figures(knows(lambda at, text: False), made, seed=0)["noticed"]


def test_figures_of_nothing_are_none():
    empty = plant([row(), row(qid="q2")], rate=0.5, seed=0)
    found = figures(knows(lambda at, text: True)._replace(values=lambda one: [None] * 4), empty, seed=0)
    assert found["n"] == 0 and not found["noticed"]
    assert {found[name] for name in ("value", "low", "high", "floor", "ceiling", "detected", "false_alarms")} == {None}


def test_several_draws_of_a_query_make_no_interval_narrower():
    drawn_once = [row(qid=f"q{number}", direct=["x" * (number % 7), "y", "z", ""]) for number in range(60)]
    measure = knows(lambda at, text: len(text) % 3)
    once, twice = (plant(made, 0.3, seed=0) for made in (drawn_once, [one for one in drawn_once for _ in range(2)]))
    one, two = figures(measure, once, seed=0), figures(measure, twice, seed=0)
    assert one["low"] < one["value"] < one["high"] and two["n"] == 2 * one["n"]
    for name in ("value", "low", "high", "detected", "false_alarms", "noticed"):
        assert two[name] == pytest.approx(one[name])
