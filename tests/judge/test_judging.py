"""A judge among planted errors: one that reads is told from one that does not, and its limits end the job."""

import asyncio
import json
import re

import pytest

from r2r import tables
from r2r.config import JudgeSettings
from r2r.errors import Stopped
from r2r.judge import judging, report, right, supported
from r2r.judge.figures import plant
from r2r.llm import Refused, Reply
from r2r.rows import pool
from r2r.stage import Identity
from tests.judge.rows import read_prompt, row, run_rows

WORDS = ["fleas", "dogs", "cats", "bees"]
SETTINGS = JudgeSettings(judge="http://none/v1#judge", planted=0.3, price_in=1.0, price_out=2.0)


def rows(n=40):
    texts = [f"This is about {word}." for word in WORDS]
    direct = [f"It is about {word}" for word in WORDS]
    comparison = [f"It is about {word}, unlike [{1 + (at + 1) % 4}]" for at, word in enumerate(WORDS)]
    return [
        row(qid=f"q{at}", query=f"query {at}", texts=texts, direct=direct, comparison=comparison) for at in range(n)
    ]


class Model:
    """A judge that looks whether a passage has the words of its reason; a blind one approves of all."""

    max_length = None
    blind, refuses = False, False

    def __init__(self, *arguments):
        self.asked = []

    def close(self):
        pass

    async def complete(self, prompt, *, schema, max_tokens, temperature, seed):
        if self.refuses:
            raise Refused("too long")
        self.asked.append(prompt)
        _, passages, written = read_prompt(prompt)
        judged = []
        for number, said in written.items():
            reason = said["reason"].removeprefix("It is ")
            comparison, other = re.fullmatch(r"It is (.*), unlike \[(\d)\]", said["comparison"]).groups()
            fits = self.blind or reason in passages[number]
            true = self.blind or (comparison in passages[number] and comparison not in passages[int(other)])
            claims = [{"claim": reason, "verdict": "supported" if fits else "contradicted"}]
            judged.append({"passage": number, "claims": claims, "comparison": "right" if true else "wrong"})
        return Reply(json.dumps({"judged": judged}), True, 100, 10)


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Return a function that has the rows judged without Ray, and returns the verdicts and the cost."""
    monkeypatch.setattr(judging.calls, "open_model", Model)

    monkeypatch.setattr(pool, "run_rows", run_rows)

    def ask(settings=SETTINGS, **traits):
        for name, value in traits.items():
            monkeypatch.setattr(Model, name, value)
        made = plant(rows(), settings.planted, settings.seed)
        identity = Identity({"judge": "model judge"}, settings.what())
        return judging.ask(made, settings, tmp_path, identity)

    return ask


def test_a_judge_that_reads_notices_planted_errors(ask):
    verdicts, cost = ask()
    assert [one["qid"] for one in verdicts] == [f"q{at}" for at in range(40)] and verdicts[0]["ranks"] == [1, 2, 3, 4]
    # Two calls of 100 and 10 tokens for each query.
    assert cost == pytest.approx(40 * 2 * (100 * 1 + 10 * 2) / 1e6)
    for measure in (supported, right):
        found = measure.figures(verdicts, seed=0)
        assert found["noticed"] and (found["value"], found["detected"], found["false_alarms"]) == (1, 1, 0)
        assert (found["floor"], found["kappa"]) == (0, 1) and found["planted"] > 20
        assert found["n"] == found["of"] == 160 - found["planted"]
    assert supported.figures(verdicts, seed=0)["verdicts"] == {
        "supported": 1,
        "not in the passage": 0,
        "contradicted": 0,
    }
    assert verdicts[0]["claims"][0] == "supported: about fleas" or verdicts[0]["planted_direct"][0]


def test_a_blind_judge_is_not_shown(ask):
    verdicts, _ = ask(blind=True)
    found = supported.figures(verdicts, seed=0)
    assert found["value"] == 1 and not found["noticed"] and found["detected"] == 0 and found["kappa"] is None
    hidden = {"do not notice planted errors here": ["supported"]}
    assert report.shown({"measures": {"supported": found | {"follows": None}}}) == ({}, hidden)
    # One that notices is shown, though nobody knows the truth of what it judges.
    noticed = found | {"follows": None, "noticed": True}
    assert report.shown({"measures": {"right": noticed}}) == ({"right": noticed}, {})


def test_the_second_pass_shows_the_passages_the_other_way_round(monkeypatch):
    monkeypatch.setattr(judging.calls, "open_model", Model)
    judge = judging.Judge(judging.teacher_settings(SETTINGS), lambda row: "k" * 64, None)
    one = rows()[0]._asdict() | {"planted_direct": [False] * 4, "planted_comparison": [False] * 4}
    asyncio.run(judge(one))
    first, second = (list(read_prompt(prompt)[1].values()) for prompt in judge.model.asked)
    assert first == second[::-1] and sorted(first) == sorted(one["texts"])
    # Comparisons name the passages as they are shown.
    number = first.index("This is about dogs.") + 1
    assert f"It is about fleas, unlike [{number}]" in judge.model.asked[0]


def test_only_passages_with_reasons_and_those_they_name_are_shown():
    one = row(n=6, direct=["", "It is.", "", "", "", ""], comparison=["", "Above [5], not [9].", "", "", "", ""])
    assert judging.shown(one._asdict()) == [1, 4]


def test_refused_rows_end_the_job(ask, tmp_path):
    with pytest.raises(Stopped, match=r"40 rows rejected.*40 refused: too long"):
        ask(refuses=True)
    assert tables.read(tmp_path, "rejects").num_rows == 40


def test_a_key_follows_what_the_judge_sees():
    one = rows(1)[0]._asdict()
    assert judging.key(one, "v1") == judging.key(one | {"qid": "q2", "evidence": ["new"] * 4}, "v1")
    others = [{"query": "x"}, {"texts": ["x"] * 4}, {"direct": ["x"] * 4}, {"comparison": ["x"] * 4}]
    assert len({judging.key(one, "v1"), judging.key(one, "v2"), *(judging.key(one | it, "v1") for it in others)}) == 6
