"""Measures: values worked out by hand, spellings, and queries that a run lacks."""

import math

import pytest

from r2r.errors import BadInput
from r2r.evaluation.measures import average, parse_measures, scorer

QRELS = {"q1": {"a": 3, "b": 0, "c": 1}, "q2": {"a": 1, "b": 2}, "q3": {"z": 0}}


def values(run, *names, qrels=QRELS):
    return scorer(parse_measures(list(names)), qrels)(run)


def test_ndcg_by_hand():
    # q1: gains 0, 1, 3 at ranks 1 to 3; the ideal order is 3, 1.
    dcg = 1 / math.log2(3) + 3 / math.log2(4)
    ideal = 3 / math.log2(2) + 1 / math.log2(3)
    found = values({"q1": ["b", "c", "a"], "q2": ["b", "a"]}, "nDCG@10", "nDCG@1")
    assert found["nDCG@10"]["q1"] == pytest.approx(dcg / ideal)
    assert found["nDCG@10"]["q2"] == 1
    assert found["nDCG@1"] == {"q1": 0, "q2": 1, "q3": 0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AP", (1 / 2 + 2 / 3) / 2),
        ("AP(rel=2)", 1 / 3),
        ("RR@10", 1 / 2),
        ("RR", 1 / 2),
        ("RR(rel=2)@10", 1 / 3),
        ("RR(rel=2)@2", 0),
        ("R@2", 1 / 2),
        ("R(rel=2)@100", 1),
        ("SetF(beta=1.0,rel=2)", 1 / 2),
    ],
)
def test_binary_measures_by_hand_under_the_spelling_asked_for(name, value):
    assert values({"q1": ["b", "c", "a"]}, name)[name]["q1"] == pytest.approx(value)


def test_all_at_once_give_what_each_gives_alone():
    names = ["nDCG@10", "RR@10", "RR(rel=2)@10", "AP", "AP(rel=2)", "AP@2", "R@2", "P@1"]
    run = {"q1": ["b", "c", "a"], "q2": ["a", "b"]}
    assert values(run, *names) == {name: values(run, name)[name] for name in names}


@pytest.mark.parametrize("name", ["nDCG@10", "AP", "RR@10", "RR", "R@100", "Judged@10", "Bpref", "Accuracy"])
def test_judged_query_that_the_run_lacks_counts_0(name):
    run = {"q1": ["a", "b"]}
    found = values(run, name)
    assert set(found[name]) == {"q1", "q2", "q3"}
    assert found[name]["q1"] > 0
    assert found[name]["q2"] == found[name]["q3"] == 0
    assert average(found)[name] == pytest.approx(found[name]["q1"] / 3)


def test_query_without_a_relevant_document_counts():
    assert average(values({"q3": ["z"], "q2": ["b", "a"]}, "nDCG@10"))["nDCG@10"] == pytest.approx(1 / 3)


def test_query_that_is_not_judged_plays_no_part():
    run = {"q2": ["b", "a"]}
    assert values(run | {"other": ["a"]}, "nDCG@10", "RR@10") == values(run, "nDCG@10", "RR@10")


def test_scorer_may_be_used_again():
    score = scorer(parse_measures(["nDCG@10", "RR@10"]), QRELS)
    run = {"q1": ["a", "c", "b"], "q2": ["b", "a"]}
    assert score(run) == score(run)
    assert score(run)["nDCG@10"]["q1"] == 1


def test_qids_need_not_be_numbers_for_err():
    # ERR with grades up to 4 (gdeval): (2**3 - 1) / 2**4 for a first document of grade 3, then nothing relevant.
    try:
        found = values({"topic/one": ["a", "b"]}, "ERR@20", qrels={"topic/one": {"a": 3, "b": 0}})
    except BadInput:
        pytest.skip("ERR@20 needs perl, which is not here")
    assert found["ERR@20"]["topic/one"] == pytest.approx(7 / 16, abs=1e-4)


@pytest.mark.parametrize("name", ["nDCQ@10", "nDCG@ten", "nDCG 10", "", "SetF(beta=0.5,", "AP(rel)"])
def test_unknown_measure_is_refused(name):
    with pytest.raises(BadInput, match=r"^measures: .*: unknown measure; write measures as ir-measures does") as error:
        parse_measures(["nDCG@10", name])
    assert repr(name) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["P", "nDCG(relevance=2)@10", "INST"])
def test_measure_with_a_wrong_parameter_is_refused(name):
    with pytest.raises(BadInput, match="cannot be calculated here") as error:
        parse_measures([name])
    assert repr(name) in str(error.value)


def test_no_measure_is_refused():
    with pytest.raises(BadInput, match="measures: none given"):
        parse_measures([])
