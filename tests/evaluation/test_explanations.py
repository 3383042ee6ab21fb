"""Explanations: which documents have one, whether evidence stands in its passage, and whom a comparison names."""

import pytest

from r2r.evaluation.explanations import count, names_neighbours, reasons
from r2r.reasons import is_verbatim


def row(docids, direct=(), evidence=(), comparison=(), qid="q"):
    return {"qid": qid, "docids": docids, "direct": direct, "evidence": evidence, "comparison": comparison}


def test_only_white_space_may_differ():
    assert is_verbatim("a  flea\nlives", "How long: a flea lives\tfor a year")
    assert not is_verbatim("A flea lives", "a flea lives")
    assert not is_verbatim(" ", "a flea lives")


def test_lists_that_end_early_and_blank_ones_are_not_explanations():
    found = reasons(row(["a", "b", "c"], direct=["yes", " "], evidence=[""], comparison=["first", "", ""]))
    assert found == {"a": {"direct": "yes", "evidence": "", "comparison": "first"}}


def test_shares():
    rows = [
        row(["a", "b", "c", "d"], direct=["x"] * 4, evidence=["one two", "three", "", "unseen"]),
        row(["a"], qid="not among the candidates", direct=["x"], evidence=["one"]),
        row(["e"], direct=[], evidence=[], comparison=[]),
    ]
    texts = {"q": {"a": "zero one  two", "b": "one two", "c": "", "d": "elsewhere"}}
    assert count(rows, texts) == {
        "explained": 5,
        "evidence_empty": 1 / 5,
        "evidence_verbatim": 1 / 3,
        "compared": 0,
        "neighbours": None,
    }
    assert count(rows, texts, false_evidence=1)["evidence_verbatim"] == 1 / 4


def test_comparisons_that_were_left_out_count_as_wrong():
    rows = [
        row(["a", "b", "c"], comparison=["Above [b].", "Below [a], above [c].", ""]),
        row(["a", "b", "c"], comparison=["Above [c].", " "]),
        row(["a", "b"], direct=["yes"]),
    ]
    found = count(rows, {})
    assert (found["compared"], found["neighbours"]) == (3, 2 / 3)
    found = count(rows, {}, false_comparisons=1)
    assert (found["compared"], found["neighbours"]) == (4, 1 / 2)
    found = count([], {}, false_comparisons=1)
    assert (found["compared"], found["neighbours"]) == (1, 0)


@pytest.mark.parametrize(
    ("comparison", "right"),
    [
        ("Longer than [c].", True),
        ("Between [a] and [c].", True),
        ("[b] is longer than [c].", True),
        ("Longer than [c], not as long as [d].", False),
        ("Longer than [d].", False),
        ("Longer than [b].", False),
        ("Longer than c, or passage 3.", False),
        ("The longest [sic] of all.", False),
    ],
)
def test_neighbours_stand_directly_above_or_below(comparison, right):
    assert names_neighbours(comparison, "b", ["a", "b", "c", "d"]) is right


def test_the_first_and_the_last_have_one_neighbour():
    assert names_neighbours("Above [b].", "a", ["a", "b", "c"])
    assert names_neighbours("Below [b].", "c", ["a", "b", "c"])
    assert not names_neighbours("Above [c].", "a", ["a", "b", "c"])
    assert not names_neighbours("Above [a].", "a", ["a"])


def test_ids_with_white_space_or_brackets_are_names():
    assert names_neighbours("Above [doc b].", "doc%20a", ["doc%20a", "doc%20b"])
    assert names_neighbours("Above [b[1]].", "a", ["a", "b[1]"])


def test_nothing_to_count_is_none_and_not_0():
    shares = dict.fromkeys(("evidence_empty", "evidence_verbatim", "neighbours"))
    assert count([row(["a"])], {}) == {"explained": 0, "compared": 0} | shares
