"""The stage: what it reads, what it writes, what it shows, and whose mistake it is."""

import json
import re
from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest

from r2r import cli, datasets, tables
from r2r import stage as stages
from r2r.config import JudgeSettings
from r2r.errors import Stopped
from r2r.judge import explained, judging, keep, measure, probe, report, stage, standing
from r2r.judge.stage import judge_reasons
from r2r.llm import Reply
from r2r.rows import pool
from r2r.student.rank import Ranked
from tests.judge.rows import row, run_rows

TEXTS = ["A flea lives 100 days.", "Dogs have fleas at night.", "Cats sleep all day."]


@pytest.fixture
def annotated(tmp_path):
    """The folder of annotations of 40 queries, best passage last: verbatim evidence, empty talk."""
    made = {"query": "fleas", "docids": ["d 1", "d2", "d3"], "texts": TEXTS, "ranking": [3, 2, 1]}
    made |= {"direct": ["It is."] * 3, "evidence": TEXTS, "teacher": "t", "key": "k", "attempts": 1}
    made |= {"comparison": ["Less useful than passages 2 and 3.", "Less useful than [3].", "Better than [2]."]}
    made |= {"prompt_tokens": 0, "completion_tokens": 0}
    tables.write([made | {"qid": f"q{at}"} for at in range(40)], tmp_path / "annotate", "annotations")
    return tmp_path / "annotate"


@pytest.fixture
def ranked(tmp_path):
    """The folders of a ranking with two explanations, and of its candidates."""
    made = {"qid": "q1", "query": "fleas", "docids": ["d2", "d 1", "7"], "scores": [3.0, 2.0, 1.0]}
    made |= {"direct": ["It is.", "It is not."], "evidence": ["", "A flea"]}
    made |= {"comparison": ["Above [d 1], as [1] says.", "Below [d2]."]}
    tables.write([made], tmp_path / "rerank", "rankings")
    candidates = {
        "qid": "q1",
        "query": "fleas",
        "docids": ["d 1", "d2", "7"],
        "texts": TEXTS,
        "scores": [1.0, 0.5, 0.1],
    }
    tables.write([candidates], tmp_path / "retrieve", "candidates")
    return tmp_path / "rerank", tmp_path / "retrieve"


def test_both_tables_are_read_into_one_form(annotated, ranked):
    first = explained.read(str(annotated), None)[0]
    assert first.docids == ["d3", "d2", "d 1"] and first.texts == TEXTS[::-1]
    assert first.comparison == ["Better than [2].", "Less useful than [1].", "Less useful than passages [2] and [1]."]
    (one,) = explained.read(str(ranked[0]), str(ranked[1]))
    assert one.texts == [TEXTS[1], TEXTS[0], TEXTS[2]] and one.direct == ["It is.", "It is not.", ""]
    assert one.comparison == ["Above [2], as [?] says.", "Below [1].", ""] and one.places() == [0, 1]


def test_the_folder_holds_figures_a_row_a_reason_and_a_page(annotated, tmp_path, capsys):
    out = tmp_path / "judge"
    judge_reasons(str(annotated), None, out, JudgeSettings(planted=0.5))
    found = json.loads((out / "measures.json").read_text())
    measures = found["measures"]
    assert (found["queries"], found["reasons"]) == (40, 120) and found["planted"]["swapped"] > 20
    assert (
        measures["verbatim"]["value"] == measures["consistency"]["value"] == 1 and measures["boilerplate"]["value"] == 1
    )
    judged = tables.read(out, "judged").to_pylist()
    assert len(judged) == 120 and judged[0]["docid"] == "d3" and judged[0]["flagged"] == ["boilerplate", "specificity"]
    assert dict(judged[0]["values"])["verbatim"] == 1
    # All reasons are the same empty talk: no measure of wording can notice a swap.
    page, printed = (out / "report.html").read_text(), capsys.readouterr().out
    hidden = "Left out: boilerplate, specificity (do not notice planted errors here). Their figures are in "
    assert hidden in page and hidden in printed
    assert "verbatim" in printed and "<td>verbatim</td>" in page and "<td>boilerplate" not in page
    judge_reasons(str(annotated), None, out, JudgeSettings(planted=0.5))
    assert "done already" in capsys.readouterr().out


def test_a_measure_that_does_not_follow_the_truth_is_not_shown(annotated, tmp_path, monkeypatch, capsys):
    known = {"correlation": 0.05, "low": 0.0, "high": 0.1, "n": 9, "follows": False}
    monkeypatch.setattr(standing, "STANDING", {"verbatim": known, "consistency": known | {"follows": True}})
    monkeypatch.setattr(report, "STANDING", standing.STANDING)
    judge_reasons(str(annotated), None, tmp_path / "judge", JudgeSettings(planted=0.5))
    page, printed = (tmp_path / "judge" / "report.html").read_text(), capsys.readouterr().out
    left_out = "Left out: verbatim (do not follow the truth where it is known); transitivity, boilerplate, specificity "
    left_out += "(have no standing: nothing shows that they follow the truth). Their figures are in measures.json."
    assert f"<p>{left_out}</p>" in page and left_out in printed
    assert "<td>consistency" in page and "<td>0.050</td>" in page
    assert not any(f"<td>{name}" in page or f"\n{name}" in printed for name in ("verbatim", "transitivity", "boilerpl"))
    measures = json.loads((tmp_path / "judge" / "measures.json").read_text())["measures"]
    follows = {"verbatim": False, "consistency": True, "transitivity": None, "boilerplate": None, "specificity": None}
    assert {name: one["follows"] for name, one in measures.items()} == follows
    assert measures["verbatim"]["value"] == measures["transitivity"]["value"] == 1


def test_another_standing_and_other_measures_open_a_finished_folder_again(annotated, tmp_path, monkeypatch, capsys):
    made = partial(stage.stage, str(annotated), None, tmp_path / "judge", JudgeSettings(planted=0.5))
    judge_reasons(str(annotated), None, tmp_path / "judge", JudgeSettings(planted=0.5))
    assert stages.plan([made()])[0].why == []
    with monkeypatch.context() as changed:
        changed.setattr(standing, "STANDING", standing.STANDING | {"verbatim": {"follows": False}})
        (why,) = stages.plan([made()])[0].why
        assert why.startswith("standing: ")
    with monkeypatch.context() as changed:
        changed.setattr(measure, "version", lambda: "another")
        (why,) = stages.plan([made()])[0].why
        assert why.startswith("measures: ") and why.endswith(" -> another")
    # What models were asked does not depend on either.
    identity = stages.identify(made())
    assert not {"measures", "standing"} & {*judging._SETTINGS, *probe._SETTINGS} and "standing" in identity.what


def test_the_version_of_the_measures_follows_their_code(tmp_path):
    for name, text in {"a.py": "1", "b.py": "2"}.items():
        (tmp_path / name).write_text(text)
    before = measure.version(tmp_path)
    (tmp_path / "notes.txt").write_text("3")
    assert measure.version(tmp_path) == before
    (tmp_path / "b.py").write_text("4")
    assert measure.version(tmp_path) != before != measure.version()


def test_systems_stand_beside_each_other(annotated, ranked, tmp_path, capsys):
    flags = ["--rankings", str(ranked[0]), "--candidates", str(ranked[1]), "--planted", "0.9"]
    assert cli.main(["judge", *flags, "--against", f"big={annotated}", "--out", str(tmp_path / "judge")]) == 0
    found = json.loads((tmp_path / "judge" / "measures.json").read_text())
    assert found["name"] == "rerank" and found["against"]["big"]["verbatim"] == {
        **{"value": 1, "low": 1, "high": 1},
        "n": 120,
    }
    beside = report._compared(
        found, {"verbatim": found["measures"]["verbatim"], "agreement": found["measures"]["verbatim"]}
    )
    # No other system has agreement.
    assert beside[0] == ["measure", "rerank", "big"] and [line[0] for line in beside[1:]] == ["verbatim"]
    assert beside[1][2] == "1.000 (1.000 to 1.000)"
    page = report.render(found | {"measures": {}}, [], [], {})
    assert "Systems beside each other" in page and "<th>big</th>" in page


def test_annotations_with_few_faults_are_kept(annotated, tmp_path, capsys):
    rows = tables.read(annotated, "annotations").to_pylist()
    # Faults: none of three reasons, one, and all, in a third of the queries each.
    for at, one in enumerate(rows):
        wrong = (0, 1, 3)[at % 3]
        one["evidence"] = ["Not in it."] * wrong + TEXTS[wrong:]
    tables.write(rows, annotated, "annotations")
    for most, count in ((0, 14), (0.34, 27), (1, 40)):
        out = tmp_path / f"judge{most}"
        judge_reasons(str(annotated), None, out, JudgeSettings(planted=0.5, keep=most))
        kept = datasets.read_annotations(str(out / "kept"))[0]
        assert len(kept) == count and all(one in rows for one in kept)
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["rows"]["kept/annotations"] == count and manifest["rows"]["left out by keep"] == 40 - count
        assert any(name.startswith("kept/annotations/") for name in manifest["files"])
        assert manifest["kept"] == datasets.fingerprint(str(out / "kept"), "annotations")
    assert "left out by keep" in capsys.readouterr().out


def test_a_share_that_leaves_none_stops(annotated, tmp_path):
    rows = [one | {"evidence": ["Not in it."] * 3} for one in tables.read(annotated, "annotations").to_pylist()[:20]]
    more = [one | {"qid": f"x{one['qid']}", "evidence": ["Not in it.", *TEXTS[1:]]} for one in rows]
    tables.write([*rows, *more], annotated, "annotations")
    with pytest.raises(Stopped, match="keep: 0: none of 40 annotations"):
        judge_reasons(str(annotated), None, tmp_path / "judge", JudgeSettings(planted=0.9, keep=0))
    assert not (tmp_path / "judge" / "manifest.json").exists()


def test_nothing_is_kept_where_no_measure_tells_faults(annotated, tmp_path):
    with pytest.raises(Stopped, match=r"keep: 0\.2: no measure finds faults in these annotations"):
        keep.write(str(annotated), [], [], 0.2, tmp_path)


@pytest.fixture
def models(monkeypatch):
    """A student and a judge that answer without Ray and an engine."""
    monkeypatch.setattr(pool, "run_rows", run_rows)
    monkeypatch.setattr(probe, "Ranker", Ranker)
    monkeypatch.setattr(judging.calls, "open_model", lambda *arguments: Judge())
    monkeypatch.setattr(stage, "check_student", lambda *arguments: None)
    monkeypatch.setattr(stage.calls, "check_teacher", lambda settings: None)


class Ranker:
    """Ranks by the length of the texts, the longest first."""

    def __init__(self, *arguments):
        self.taught = SimpleNamespace(window=3)

    async def rank(self, query, texts):
        return Ranked(sorted(range(len(texts)), key=lambda at: -len(texts[at])), {}, Counter(prompt_tokens=5), [])


class Judge:
    """Finds every reason supported, and no comparison right."""

    max_length = None

    async def complete(self, prompt, *, schema, **sampling):
        judged = schema["properties"]["judged"]["items"]["properties"]["passage"]["enum"]
        claims = [{"claim": "all", "verdict": "supported"}]
        found = [{"passage": number, "claims": claims, "comparison": "wrong"} for number in judged]
        return Reply(json.dumps({"judged": found}), True, 10, 1)


def test_a_student_and_a_judge_add_their_measures(models, annotated, tmp_path, capsys):
    settings = JudgeSettings(judge="http://none/v1#judge", price_in=1e6, planted=0.5)
    out = tmp_path / "judge"
    judge_reasons(str(annotated), None, out, settings, "some/student")
    found = json.loads((out / "measures.json").read_text())
    measures = found["measures"]
    # 40 queries, two calls of 10 tokens each, at 1 a token.
    assert found["cost"] == 800
    # The passages are their evidence: nothing is left to draw random words from.
    assert measures["sufficiency"]["n"] == 0 and measures["sufficiency"]["of"] == 120
    assert measures["agreement"]["value"] == measures["agreement"]["n"] / 40 == 1
    assert measures["supported"]["value"] == 1 and measures["supported"]["of"] == measures["right"]["of"] == 120
    assert measures["right"]["value"] == 0 and measures["right"]["verdicts"] == {"right": 0, "empty": 0, "wrong": 1}
    page = (out / "report.html").read_text()
    # The verdicts are the same for planted errors. Whether the order depends on what is shown says nothing of reasons.
    assert not any(f"<td>{name}" in page for name in ("agreement", "supported", "right"))
    assert "specificity, supported, right (do not notice" in page and "agreement" in page.partition("Left out: ")[2]
    assert measures["agreement"]["follows"] is measures["supported"]["follows"] is None
    said = "supported, right: what a language model says. They have no standing, since the model is yours;"
    assert said in page and said in capsys.readouterr().out
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["rows"]["student/probes"] == manifest["rows"]["judge/verdicts"] == 40
    assert manifest["rows"]["judge/rejects"] == 0 and "judge/verdicts/part-00000.parquet" in manifest["files"]
    assert set(manifest["inputs"]) == {"rankings", "student", "judge"} and "prompt" in manifest["what"]
    judge_reasons(
        str(annotated), None, out, settings.model_copy(update={"attempts": 9, "price_in": 2.0}), "some/student"
    )
    assert "done already" in capsys.readouterr().out


def test_several_draws_of_a_query_are_judged_apart(models, annotated, tmp_path, monkeypatch):
    class Reader(Judge):
        async def complete(self, prompt, **sampling):
            reply = await super().complete(prompt, **sampling)
            return reply._replace(
                text=reply.text.replace("supported", "contradicted" if "Nothing, one" in prompt else "supported")
            )

    monkeypatch.setattr(judging.calls, "open_model", lambda *arguments: Reader())
    sound = tables.read(annotated, "annotations").to_pylist()
    texts = [f"Nothing, {word}, is here to see." for word in ("one", "two and more", "three")]
    other = {"texts": texts, "docids": ["w1", "w2", "w3"], "evidence": ["Not in it."] * 3}
    tables.write([one for row in sound for one in (row | other, row)], annotated, "annotations")
    settings = JudgeSettings(judge="http://none/v1#judge", planted=0.5, keep=0.5)
    out = tmp_path / "judge"
    judge_reasons(str(annotated), None, out, settings, "some/student")
    found = json.loads((out / "measures.json").read_text())
    assert found["queries"] == 40 and found["reasons"] == 240
    judged = tables.read(out, "judged").to_pylist()
    assert Counter(one["docid"][0] for one in judged) == {"w": 120, "d": 120}
    for one in judged:
        values = dict(one["values"])
        # Where an error was planted, there is no verdict.
        assert values["verbatim"] == (one["docid"][0] == "d") == values.get("supported", values["verbatim"])
    assert sum("supported" in dict(one["values"]) for one in judged) > 60
    kept = datasets.read_annotations(str(out / "kept"))[0]
    assert len(kept) == 40 and all(one["docids"][0] == "d 1" for one in kept)
    # The page shows each reason with its own passage.
    shown = re.findall(
        r"· ([^<]*)</span></p>\s*<p class=.text. dir=.auto.>([^<]*)</p>", (out / "report.html").read_text()
    )
    assert len(shown) == 20 and all(docid.startswith("w") == text.startswith("Nothing") for docid, text in shown)


def test_the_worst_reasons_are_those_with_most_faults_by_measures_that_notice():
    judged = [{"qid": str(at), "docid": "d", "flagged": [], "values": {"a": 1.0, "b": 1.0}} for at in range(12)]
    judged[3] |= {"flagged": ["a"]}
    judged[4] |= {"flagged": ["a", "b"]}
    judged[5] |= {"flagged": ["c"]}
    judged[6] |= {"values": {"c": 1.0}}
    worst, best = report.pick(judged, ["a", "b"])
    assert [one["qid"] for one in worst] == ["4", "3"]
    assert len(best) == 9 and {"3", "4", "6"}.isdisjoint(one["qid"] for one in best)


def test_the_page_is_safe_from_what_the_texts_say(annotated, tmp_path):
    found = {"source": "<b>", "queries": 1, "reasons": 1, "planted": {"swapped": 0}}
    found |= {"measures": {}, "name": "<b>", "against": {}}
    judged = [{"qid": "q1", "docid": "<i>", "rank": 1, "flagged": [], "values": {}, "direct": "<script>"}]
    assert "<script>" not in report.render(found, [row()], [judged], {})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rankings", "none"], "none: holds no rankings and no annotations"),
        (["--rankings", "teacher:none"], "none: no such file"),
        (["--rankings", "RERANK"], "candidates: missing"),
        (["--rankings", "ANNOTATE", "--candidates", "RETRIEVE"], "leave candidates out"),
        (["--rankings", "RERANK", "--candidates", "OTHERS"], "qid q1: has no passage d2"),
        (["--rankings", "EMPTY"], "has no reasons to judge"),
        (["--rankings", "RERANK", "--candidates", "RETRIEVE", "--keep", "0"], "keep: 0: keeps annotations"),
        (["--rankings", "ANNOTATE", "--planted", "0"], "planted: '0'"),
        (["--rankings", "ANNOTATE", "--adapter", "ANNOTATE"], "needs the student that it was made for"),
        (["--rankings", "ANNOTATE", "--student", "demo", "--engine", '{"no_such": 1}'], "no_such"),
        (["--rankings", "ANNOTATE", "--judge", "demo", "--max-cost", "1"], "max_cost: needs prices"),
    ],
)
def test_a_mistake_ends_with_a_line(annotated, ranked, tmp_path, capsys, arguments, said):
    silent = tables.read(annotated, "annotations").to_pylist()[:1]
    silent[0] |= {name: [""] * 3 for name in ("direct", "evidence", "comparison")}
    tables.write(silent, tmp_path / "empty", "annotations")
    other = tables.read(ranked[1], "candidates").to_pylist()[0] | {"docids": ["d 1", "x", "y"]}
    tables.write([other], tmp_path / "others", "candidates")
    places = {"ANNOTATE": annotated, "RERANK": ranked[0], "RETRIEVE": ranked[1]}
    places |= {"EMPTY": tmp_path / "empty", "OTHERS": tmp_path / "others"}
    words = [str(places.get(word, word)) for word in arguments]
    assert cli.main(["judge", *words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()
