"""Reasons of known quality: which are true, and whether a measure that follows the truth is told from others."""

import json
import random
import re
from pathlib import Path

import pytest

from demo_models import judged, truth
from demo_models.world import world
from r2r import tables
from r2r.config import JudgeSettings
from r2r.judge import explained, judging
from r2r.judge.stage import MEASURES, PROBES, VERDICTS, judge_reasons
from r2r.judge.standing import STANDING
from r2r.llm import Reply
from r2r.rows import pool
from r2r.teacher import calls
from tests.judge.rows import read_prompt, run_rows


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The planted annotations of 40 queries, judged; and the kinds of the reasons."""
    folder = tmp_path_factory.mktemp("truth")
    rows, kinds = judged.planted(world().queries["dev"][:40], seed=1)
    tables.write(rows, folder / "planted", "annotations")
    judge_reasons(str(folder / "planted"), None, folder / "judge", JudgeSettings())
    return folder, rows, kinds


def test_planted_reasons_are_true_or_wrong_as_they_are_called(made):
    folder, rows, kinds = made
    known = judged.truths(explained.read(str(folder / "planted"), None))
    seen = {part: set() for part in explained.PARTS}
    for (qid, docid), true in known.items():
        for part, value in true.items():
            kind = kinds[qid][docid][part]
            seen[part].add(kind)
            # What is true of another passage may be true of this one, too.
            assert value == (kind == "true") or kind == "of another passage"
    assert seen == {part: {"true", *errors} for part, errors in judged.KINDS.items()}
    again, _ = judged.planted(world().queries["dev"][:40], seed=1)
    assert again == rows


def test_comparisons_are_true_by_the_grades():
    query = world().queries["dev"][0]
    passages = [passage for passage, _ in world().world.judged(query)]
    ideal = truth.ideal(query, passages)
    ordered = [passages[at] for at in ideal.order]
    said = truth.NEIGHBOUR[ideal.grades[ideal.order[1]]]
    assert judged.is_true("comparison", f"It stands above [2], which {said}.", query, ordered, 0)
    assert not judged.is_true("comparison", f"It stands above [2], which {said}.", query, ordered, 1)
    assert not judged.is_true("comparison", f"It stands above [99], which {said}.", query, ordered, 0)
    assert not judged.is_true("comparison", "It stands above [2], which flies.", query, ordered, 0)
    last = len(ordered) - 1
    assert not judged.is_true("comparison", f"It stands above [1], which {truth.NEIGHBOUR[3]}.", query, ordered, last)


def test_a_correlation_is_pearsons_and_its_interval_decides():
    pairs = {f"q{at}": [(1.0, 1.0), (0.0, 0.0), (float(at % 4 == 0), 0.0)] for at in range(80)}
    found = judged.correlation(pairs, seed=0)
    # 80 true ones of value 1, 140 wrong ones of value 0 and 20 of value 1: phi of that table.
    assert found["correlation"] == pytest.approx((80 * 140) / (80 * 160 * 100 * 140) ** 0.5, abs=0.001)
    assert found["n"] == 240 and found["follows"] and found["low"] < found["correlation"] < found["high"]
    blind = judged.correlation({f"q{at}": [(at % 2, 1.0), (at % 2, 0.0)] for at in range(80)}, seed=0)
    assert blind["correlation"] == 0 and not blind["follows"]
    none = judged.correlation({"q1": [(1.0, 1.0)]}, seed=0)
    assert none["correlation"] is None and not none["follows"]


def test_the_measures_of_the_words_follow_the_truth_where_they_can(made):
    folder, _, kinds = made
    rows = explained.read(str(folder / "planted"), None)
    found = judged.validated(folder / "judge", rows)
    assert set(found) == {one.name for one in MEASURES}
    means = judged.by_kind(folder / "judge", kinds)
    # What each one is there for, and what it cannot see.
    assert means["verbatim"]["made up"] < 0.1 and means["verbatim"]["another sentence"] == 1
    assert means["consistency"]["the other way round"] == 0 and means["consistency"]["wrong about the other"] == 1
    assert means["boilerplate"]["empty talk"] == 1 and means["specificity"]["empty talk"] == 0


class Judge:
    """A judge that knows what is true, and is wrong about one in ten; a blind one tosses a coin."""

    max_length, true, blind = None, frozenset(), False

    def __init__(self, *arguments):
        self.rng = random.Random(0)

    def close(self):
        pass

    def approves(self, *reason):
        return self.rng.random() < 0.5 if self.blind else (reason in self.true) != (self.rng.random() < 0.1)

    async def complete(self, prompt, *, schema, max_tokens, temperature, seed):
        query, texts, written = read_prompt(prompt)
        found = []
        for number, said in written.items():
            one = {"passage": number, "claims": [], "comparison": "none"}
            if reason := said.get("reason"):
                fine = self.approves(query, texts[number], reason)
                one["claims"] = [{"claim": reason, "verdict": "supported" if fine else "contradicted"}]
            if comparison := said.get("comparison"):
                fine = self.approves(query, texts[number], *named(comparison, texts))
                one["comparison"] = "right" if fine else "wrong"
            found.append(one)
        return Reply(json.dumps({"judged": found}), True, 100, 10)


def named(comparison, texts):
    """Return a comparison in parts, with the text of the passage that it names."""
    above, number, told = re.fullmatch(r"(.*?)(?:\[(\d+)\](.*))?", comparison).groups()
    return above, texts.get(int(number or 0)), told


@pytest.mark.parametrize("blind", [False, True])
def test_a_judge_that_knows_the_truth_follows_it_and_a_blind_one_does_not(blind, made, tmp_path, monkeypatch):
    source = str(made[0] / "planted")
    rows = explained.read(source, None)
    known, true = judged.truths(rows), set()
    for row in rows:
        texts = dict(enumerate(row.texts, start=1))
        for at, docid in enumerate(row.docids):
            if known[row.qid, docid].get("direct"):
                true.add((row.query, row.texts[at], row.direct[at]))
            if known[row.qid, docid].get("comparison"):
                true.add((row.query, row.texts[at], *named(row.comparison[at], texts)))
    monkeypatch.setattr(Judge, "true", true)
    monkeypatch.setattr(Judge, "blind", blind)
    monkeypatch.setattr(calls, "open_model", Judge)
    monkeypatch.setattr(judging, "_probe", lambda *asked: None)
    monkeypatch.setattr(pool, "run_rows", run_rows)
    judge_reasons(source, None, tmp_path, JudgeSettings(judge="http://none/v1#judge", max_reject_rate=1.0))
    found = judged.validated(tmp_path, rows)
    for name in VERDICTS:
        assert found[name]["n"] > 50 and found[name]["follows"] != blind
        # Two passes, each wrong about one in ten.
        assert blind or found[name]["correlation"] > 0.7


def test_the_standing_that_ships_is_of_these_measures():
    assert set(STANDING) <= {one.name for one in MEASURES} | set(PROBES)
    for name, one in STANDING.items():
        assert one["follows"] == (one["low"] > judged.LEAST) and one["low"] <= one["correlation"] <= one["high"], name
    page = (Path(__file__).parents[2] / "docs" / "explanations.md").read_text()
    for name, one in STANDING.items():
        assert f"| {name} | {one['correlation']:.2f} | {one['low']:.2f} to {one['high']:.2f} | {one['n']:,} |" in page
    assert json.loads((Path(judged.__file__).parents[1] / "r2r/judge/standing.json").read_text()) == STANDING


def test_the_standing_of_the_measures_of_the_words_is_what_they_have_now(tmp_path):
    rows, _ = judged.planted(world().queries["test"], judged.SEED)
    tables.write(rows, tmp_path / "planted", "annotations")
    judge_reasons(str(tmp_path / "planted"), None, tmp_path / "judge", JudgeSettings())
    found = judged.validated(tmp_path / "judge", explained.read(str(tmp_path / "planted"), None))
    assert found == {one.name: STANDING[one.name] for one in MEASURES}
