"""Explanations: which documents have one, and whether the evidence stands in the passage."""

from r2r.evaluation.explanations import check, reasons
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
    assert check(rows, texts) == {"explained": 5, "evidence_empty": 1 / 5, "evidence_verbatim": 1 / 3}
    assert check(rows, texts, left_out=1)["evidence_verbatim"] == 1 / 4


def test_nothing_to_count_is_none_and_not_0():
    assert check([row(["a"])], {}) == {"explained": 0, "evidence_empty": None, "evidence_verbatim": None}
