"""A row becomes a ranking, whose reasons name docids, or a reject. Settings that do not fit the adapter are refused."""

import asyncio
import json
import re
from collections import Counter

import pytest

from r2r import cli
from r2r.config import RerankSettings
from r2r.llm import Refused
from r2r.student import rerank as stage
from r2r.student.rank import Ranked

ROW = {"qid": "q1", "query": "q", "docids": ["D 1", "D 2", "D 3"], "texts": ["one", "two", "three"]}


class Ranker:
    answer = None

    def __init__(self, *arguments):
        self.so_far = Counter()

    async def rank(self, query, texts, explain):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def answer(monkeypatch):
    monkeypatch.setattr(stage, "Ranker", Ranker)

    def answer(ranked):
        Ranker.answer = ranked
        return asyncio.run(stage.Reranker("demo", None, RerankSettings(explain=1), lambda row: "k" * 64)(ROW))

    return answer


def test_a_ranking_holds_docids_and_its_reasons_name_them(answer):
    reasons = {2: {"evidence": "three", "direct": "It is.", "comparison": "Above [0] and [1]."}}
    table, row, counts = answer(Ranked([2, 0, 1], reasons, Counter(windows=1), [0.9, 0.4, 0.2]))
    assert table == "rankings" and counts == {"windows": 1}
    assert row["docids"] == ["D 3", "D 1", "D 2"] and row["scores"] == [0.9, 0.4, 0.2]
    assert row["direct"] == ["It is.", "", ""] and row["evidence"] == ["three", "", ""]
    assert row["comparison"] == ["Above [D 1] and [D 2].", "", ""]


def test_a_query_that_the_engine_refuses_is_rejected(answer):
    table, row, _ = answer(Refused("too long"))
    assert table == "rejects" and row["reason"] == "refused: too long" and row["key"] == "k" * 64


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"order_position": "last"}, "order_position: last: .* was distilled with first"),
        ({"explain": 2, "reasoning": "both"}, "reasoning: both: .* was distilled with direct"),
        ({"order_position": "last", "mode": "generate"}, "mode: generate"),
    ],
)
def test_what_the_student_was_not_taught_is_not_asked_of_it(tmp_path, capsys, settings, wrong):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "r2r.json").write_text(json.dumps({"order_position": "first", "reasoning": "direct"}))
    flags = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    given = ["--candidates", "none", "--student", "demo", "--adapter", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main(["rerank", *given, *flags]) == 2
    assert re.search(wrong, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
