"""The protocol of the paper's released code: what it averages, by hand and on real data."""

import json
import math

import pytest

from r2r import cli
from r2r.config import EvaluateSettings
from r2r.evaluation.evaluate import evaluate
from r2r.evaluation.protocol import released, say

SECOND = 1 / math.log2(3)


def test_each_system_drops_the_queries_that_it_ranks_badly():
    # The sixth document of a query is not looked at, wherever a run has it.
    first = {"q1": ["a", "b", "c", "d", "e", "f"], "q2": ["a", "b"], "q3": ["a", "b", "c", "d", "e"]}
    qrels = {"q1": {"b": 1}, "q2": {"b": 1}, "q3": {"e": 1}, "q4": {"a": 1}}
    rows = released({"bm25": first, "student": {"q1": ["f", "x", "b", "a"], "q3": list("edcba")}}, qrels, 4)
    assert list(rows) == ["bm25", "student", "random", "oracle"]
    assert rows["bm25"] == {"nDCG@5": pytest.approx(SECOND), "queries": 2}
    # The student lacks q2: a query of 0, and left out.
    assert rows["student"] == {"nDCG@5": 1, "queries": 2}
    assert rows["oracle"] == {"nDCG@5": 1, "queries": 3}
    assert 0.5 < rows["random"]["nDCG@5"] < 1 and 0 < rows["random"]["queries"] < 3


def test_no_query_is_good_enough():
    rows = released({"bm25": {"q1": ["a", "b"]}}, {"q1": {"z": 1}}, 2)
    assert rows == {name: {"nDCG@5": None, "queries": 0} for name in ("bm25", "random", "oracle")}
    assert say(rows, 1)[1] == "  bm25: none, over 0 of 1 queries"


def test_random_order_beats_bm25_on_dl19(data, tmp_path, capsys):
    lists, qrels = data / "msmarco-dl19" / "bm25-top100.json", data / "msmarco-dl19" / "qrels.txt"
    given = ["--qrels", str(qrels), "--run", f"bm25=rankgpt:{lists}", "--out", str(tmp_path), "--paper-protocol"]
    assert cli.main(["evaluate", *given]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    rows = metrics["paper_protocol"]
    assert metrics["systems"]["random"]["nDCG@10"] < metrics["systems"]["bm25"]["nDCG@10"] / 2
    assert rows["bm25"]["nDCG@5"] < rows["random"]["nDCG@5"] < rows["oracle"]["nDCG@5"]
    assert rows["bm25"]["queries"] == 26
    page = (tmp_path / "report.html").read_text()
    for text in (capsys.readouterr().out, page):
        assert "nDCG@5 of the first 5 documents of bm25, without the queries of 0.5 and less; not comparable" in text
        assert "bm25: 0.7023, over 26 of 43 queries" in text


def test_it_is_not_said_unless_asked_for(tmp_path, capsys):
    (tmp_path / "qrels.txt").write_text("q1 0 a 1\n")
    (tmp_path / "run.txt").write_text("q1 Q0 a 1 9 t\n")
    evaluate(str(tmp_path / "qrels.txt"), {"bm25": str(tmp_path / "run.txt")}, str(tmp_path), EvaluateSettings())
    assert "paper_protocol" not in json.loads((tmp_path / "metrics.json").read_text())
    assert "released" not in capsys.readouterr().out + (tmp_path / "report.html").read_text()
