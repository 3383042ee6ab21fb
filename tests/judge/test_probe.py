"""What is cut out of a passage, what the student is asked, and what its answers say of the evidence."""

import asyncio
import random
from collections import Counter
from types import SimpleNamespace

import pytest

from r2r import tables
from r2r.config import JudgeSettings
from r2r.judge import agreement, comprehensiveness, counterfactual, explained, probe, simulatability, sufficiency
from r2r.judge.cuts import cuts, swapped
from r2r.judge.stage import judge_reasons
from r2r.llm import Refused
from r2r.student.rank import Ranked
from tests.judge.rows import row
from tests.tiny import tiny_model

TEXT = "Fleas\nThey jump far. A flea lives  100 days. Dogs dislike fleas very much, indeed."


def test_evidence_is_cut_out_or_left_alone():
    found = [cuts(TEXT, "A flea lives 100 days.", random.Random(seed)) for seed in range(20)]
    assert {one.without for one in found} == {"Fleas\nThey jump far. Dogs dislike fleas very much, indeed."}
    assert {one.only for one in found} == {"A flea lives  100 days."}
    # Five words are left on one side only, and they begin with the sentence.
    assert {one.only_random for one in found} == {"Dogs dislike fleas very much,"}


def test_random_words_are_as_many_and_have_none_of_the_evidence():
    text = "One two. Three four five. Six seven. Eight nine ten."
    found = [cuts(text, "Three four five.", random.Random(seed)) for seed in range(30)]
    assert {one.only_random for one in found} == {"Six seven. Eight", "Eight nine ten."}
    assert {one.without_random for one in found} == {
        "One two. Three four five. nine ten.",
        "One two. Three four five. Six seven.",
    }


@pytest.mark.parametrize("evidence", ["", "  ", "Not in it.", TEXT, TEXT[6:]])
def test_what_cannot_be_compared_is_not_cut(evidence):
    assert cuts(TEXT, evidence, random.Random(0)) is None


class Ranker:
    """Ranks by how often a passage says "flea"; of equal ones, the first shown is the best."""

    def __init__(self, *arguments):
        self.taught, self.asked = SimpleNamespace(window=3), []

    async def rank(self, query, texts):
        if query == "refused":
            raise Refused("too long")
        self.asked.append(texts)
        return Ranked(sorted(range(len(texts)), key=lambda at: -texts[at].count("flea")), {}, Counter(windows=1), [])


@pytest.fixture
def answer(monkeypatch):
    monkeypatch.setattr(probe, "Ranker", Ranker)
    prober = probe.Prober("demo", None, JudgeSettings(), lambda row: "k" * 64)

    def answer(explained):
        return (*asyncio.run(prober(explained._asdict())), prober.ranker.asked)

    return answer


FLEAS = [
    "A flea bit a flea. Dogs run very far off.",
    "My flea ran. The end came.",
    "Dogs ran. Cats sat.",
    "flea flea flea",
]


def test_the_evidence_that_decides_is_found(answer):
    evidence = ["A flea bit a flea.", "The end came.", "", "flea"]
    table, found, counts, asked = answer(row(texts=FLEAS, evidence=evidence, qid="q7"))
    assert table == "probes" and counts == {"windows": 10} and all(len(texts) == 3 for texts in asked)
    # The fourth passage is outside the window.
    assert found["qid"] == "q7" and found["passages"] == 3 and found["ranks"] == found["whole"] == [1, 2]
    assert found["without"][0] > 1 and found["without_random"] == [1, found["without_random"][1]]
    assert found["only"][0] == 1 and found["only_random"][0] > 1
    assert comprehensiveness.values(found)[0] > 0 and sufficiency.values(found)[0] > 0
    # What the second quotes does not decide: without it nothing changes, and without "My flea ran." it does.
    assert found["without"][1] == 2 and sufficiency.values(found)[1] <= 0
    assert set(found) == set(tables.SCHEMAS["probes"].names)
    # All variants of a passage are shown in the same order, and only it changes.
    assert sum(texts.count(FLEAS[2]) for texts in asked) == 10


def test_two_passages_swap_their_evidence_or_random_words():
    first, second = "A flea bit a flea. Dogs run very far off.", "My dog ran. The end came."
    found = swapped(first, "A flea bit a flea.", second, "My dog ran.", random.Random(0))
    assert found.evidence == ("My dog ran. Dogs run very far off.", "A flea bit a flea. The end came.")
    assert found.random == ("A flea bit a flea. The end came.", "My dog ran. Dogs run very far off.")
    # The second one has no evidence: it gives as many words as it gets.
    alone = swapped("Fleas bite. Dogs run.", "Fleas bite.", "Cats sleep. Cows eat.", "", random.Random(0))
    assert sum(map(len, alone.evidence)) == len("Fleas bite. Dogs run.Cats sleep. Cows eat.")
    assert "Fleas bite." in alone.evidence[1] and "Fleas bite." in alone.random[0]
    # Nothing to swap, and too few other words.
    assert swapped(first, "", second, "My dog ran.", random.Random(0)) is None
    assert swapped("A flea.", "A flea.", second, "", random.Random(0)) is None


def test_evidence_that_decides_turns_the_order_of_compared_passages(answer):
    compared = ["It stands above [2].", "It stands above [3], not [9].", "", ""]
    evidence = ["A flea bit a flea.", "The end came.", "", ""]
    texts = [*FLEAS[:2], "Dogs ran off. Cats sat on.", FLEAS[3]]
    _, found, counts, asked = answer(row(texts=texts, evidence=evidence, comparison=compared))
    assert (found["above"], found["below"]) == ([1, 2], [2, 3]) and counts["windows"] == len(asked) == 16
    # The first two turn with the fleas. What the second gives the third does not decide.
    assert found["turned"] == [True, False] and counterfactual.values(found)[0] == 1 - found["turned_random"][0]
    assert counterfactual.most(found)[0] == 1 - found["turned_random"][0]


def test_an_order_is_told_from_reasons_that_explain_it_and_from_no_others(answer):
    says = ["flea flea flea", "flea flea", "flea", ""]
    _, found, _, asked = answer(row(texts=FLEAS, direct=says, comparison=["Above [2], like [4].", "", "", ""]))
    assert found["simulated"] == 1 and simulatability.values(found) == [1]
    # The last two prompts: nothing in the place of the passages, then their reasons; they name labels as shown.
    *_, nothing, reasons = asked
    assert nothing == ["-"] * 3 and f"flea flea flea Above [{'ABC'[reasons.index('flea flea')]}], like [?]." in reasons
    assert simulatability.least(found) == [found["unseen"]] and simulatability.most(found) == [1]
    _, found, _, asked = answer(row(texts=FLEAS, direct=says[::-1]))
    assert found["simulated"] == -1
    _, found, _, _ = answer(row(texts=FLEAS, direct=["flea", "", "", "flea"]))
    assert found["simulated"] is None and simulatability.values(found) == simulatability.least(found) == []


def test_values_are_places():
    found = {"passages": 8, "whole": [1], "without": [5], "without_random": [2], "only": [1], "only_random": [7]}
    assert comprehensiveness.values(found) == [3] and comprehensiveness.most(found) == [6]
    assert sufficiency.values(found) == [6] and sufficiency.most(found) == [6]
    assert agreement.values({"agreement": 0.5}) == [0.5]


def test_a_query_that_the_engine_refuses_is_rejected(answer):
    table, reject, counts, _ = answer(row(query="refused", texts=FLEAS, evidence=["flea", "", "", ""]))
    assert table == "rejects" and reject["reason"] == "refused: too long" and not counts


def test_a_key_follows_what_the_answer_depends_on():
    one = row(evidence=["x"] * 4)._asdict()
    assert probe.key(one, "v1") == probe.key(one | {"qid": "q2", "docids": ["x"] * 4}, "v1")
    others = [{"query": "dogs"}, {"texts": ["t"] * 4}, *({name: ["y"] * 4} for name in explained.PARTS)]
    assert len({probe.key(one, "v1"), probe.key(one, "v2"), *(probe.key(one | other, "v1") for other in others)}) == 7


def test_a_student_probes_all_rows_and_goes_on_where_it_stopped(ray_local, tmp_path, capsys):
    made = {"query": "fleas", "docids": ["a", "b", "c"], "texts": FLEAS[:3], "ranking": [1, 2, 3], "teacher": "t"}
    made |= {"direct": ["It is."] * 3, "evidence": ["A flea bit a flea.", "My flea ran.", ""], "comparison": [""] * 3}
    made |= {"key": "k", "attempts": 1, "prompt_tokens": 0, "completion_tokens": 0}
    rows = [made | {"qid": f"q{at}", "query": f"fleas {at}"} for at in range(3)]
    tables.write(rows, tmp_path / "annotate", "annotations")
    settings = JudgeSettings(engine={"max_model_len": 1024, "enforce_eager": True}, window=3)
    judge_reasons(str(tmp_path / "annotate"), None, tmp_path / "judge", settings, tiny_model())
    probes = tables.read(tmp_path / "judge" / "student", "probes").to_pylist()
    assert [one["qid"] for one in probes] == ["q0", "q1", "q2"] and all(one["ranks"] == [1, 2] for one in probes)
    assert all(1 <= rank <= 3 for one in probes for name in ("without", "only") for rank in one[name])
    first = dict(tables.read(tmp_path / "judge", "judged").to_pylist()[0]["values"])
    assert first["sufficiency"] == probes[0]["only_random"][0] - probes[0]["only"][0]
    assert "agreement" in capsys.readouterr().out

    # The errors that are planted change no probe, so nothing is asked again.
    lines = [file.read_text() for file in (tmp_path / "judge" / "rows").rglob("*.jsonl")]
    judge_reasons(
        str(tmp_path / "annotate"), None, tmp_path / "judge", settings.model_copy(update={"planted": 0.4}), tiny_model()
    )
    assert [file.read_text() for file in (tmp_path / "judge" / "rows").rglob("*.jsonl")] == lines
