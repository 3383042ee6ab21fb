"""The page: which queries it picks, what it marks, and that all foreign text is escaped."""

import re
from typing import Any

import pyarrow as pa

from r2r.evaluation import report
from r2r.tables import SCHEMAS


def test_pick_shows_a_loss_beside_the_gains():
    before = dict.fromkeys("abcdefgh", 0.5)
    after = before | {"a": 0.6, "b": 1.0, "c": 0.7, "d": 0.8, "e": 0.9, "f": 0.1, "g": 0.4}
    assert report.pick(before, after) == ["b", "e", "d", "c", "f"]
    assert report.pick(before, before | {"b": 1.0, "f": 0.1, "g": 0.4}) == ["b", "f", "g", "a", "c"]
    assert report.pick(after, after) == list("abcde")
    assert report.pick({"a": 0.0}, {"a": 1.0}) == ["a"]


def test_changes():
    before = {"a": 0.3, "b": 0.3, "c": 0.1 + 0.2}
    assert report.changes(before, {"a": 0.4, "b": 0.2, "c": 0.3}) == {"improved": 1, "worse": 1, "equal": 1}


def test_snippet_marks_verbatim_evidence():
    assert report.snippet("One.  Two\nthree. Four.", "Two three.") == [
        ("One. ", False),
        ("Two three.", True),
        (" Four.", False),
    ]


def test_snippet_goes_where_the_evidence_is():
    words = " ".join(f"word{number}" for number in range(500))
    (before, _), (evidence, marked), (after, _) = report.snippet(words, "word300 word301")
    assert evidence == "word300 word301" and marked
    assert before.startswith("… word29") and before.endswith("word299 ")
    assert after.startswith(" word302 ") and after.endswith(" …")
    assert len(before + evidence + after) < report.SNIPPET + 10


def test_snippet_without_evidence_is_the_start():
    [(piece, marked)] = report.snippet("word " * 200, "not in it")
    assert not marked and piece.startswith("word word") and piece.endswith("word …")
    assert len(piece) <= report.SNIPPET + 2
    assert report.snippet("x" * 1000, "")[0][0] == "x" * report.SNIPPET + " …"
    assert report.snippet("", "") == [("", False)]


TESTED = {"difference": 0.25, "low": 0.125, "high": 0.375, "p_t": 1e-7, "p_permutation": 0.0123, "p_holm": 0.0246}


def metrics(systems=None, tests=None):
    """Return metrics.json with these systems, and these tests of nDCG@10 against bm25."""
    means = {"bm25": 0.25, "student": 0.5, "random": 0.125, "oracle": 0.75}
    systems = systems or {name: {"nDCG@10": mean} for name, mean in means.items()}
    tested = {"student": {"nDCG@10": TESTED}} if tests is None else tests
    given = {"measures": ["nDCG@10"], "queries": 1, "systems": systems}
    return given | {"tests": {"baseline": "bm25", "systems": tested}}


def page(**changed):
    measure = "nDCG@10"
    runs = {"bm25": {"q": ["a", "b"]}, "student": {"q": ["b", "new"]}}
    given = {
        "metrics": metrics(),
        "values": {"bm25": {measure: {"q": 0.25}}, "student": {measure: {"q": 0.5}}},
        "runs": runs,
        "qrels": {"q": {"a": 0, "b": 2}},
        "queries": {"q": "a question"},
        "texts": {"q": {"a": "Passage a.", "b": "Before. The evidence. After.", "new": "Passage new."}},
        "reasons": {"q": {"b": {"direct": "It answers.", "evidence": "The evidence.", "comparison": "Above all."}}},
        "counted": {
            "explained": 1,
            "evidence_empty": 0.0,
            "evidence_verbatim": 1.0,
            "compared": 1,
            "neighbours": 0.0,
        },
        "warnings": [],
        "sources": [("qrels", "qrels.txt")],
        "caption": "",
        "training": [],
    }
    return report.render(**given | changed)


def test_page_shows_grades_moves_reasons_and_the_best():
    html = page(caption="Random models.")
    assert "<b>0.5000</b>" in html and "<b>0.2500</b>" not in html and "<b>0.7500</b>" not in html
    assert "<mark>The evidence.</mark>" in html
    assert 'class="move up" title="moved up">▲ from 2' in html and 'title="moved up">▲ to 1' in html
    assert ">new<" in html and ">dropped<" in html
    assert "relevance 2" in html and "relevance 0" in html and "not judged" in html
    assert "It answers." in html and "Above all." in html and "Random models." in html
    assert "nDCG@10 +0.2500" in html
    assert re.search(r"<svg[^>]*aria-label=\"Bar chart of nDCG@10", html)


def test_differences_have_intervals_and_a_mark_that_is_explained():
    html = page()
    assert '<b>0.5000</b><span class="mark">*</span>' in html and '0.2500<span class="mark"></span>' in html
    assert "* differs from bm25: p &lt; 0.05 by a paired randomization test" in html
    row = re.search(r"<tr><th scope=\"row\">student</th><td>nDCG@10</td>.*", html)[0]
    cells = re.sub(r"<[^>]+>", " ", row).split()
    assert " ".join(cells) == "student nDCG@10 1 0 0 +0.2500 * +0.1250 to +0.3750 &lt; .0001 0.0123 0.0246"
    unsure = page(metrics=metrics(tests={"student": {"nDCG@10": TESTED | {"p_holm": 0.05}}}))
    assert ">*<" not in unsure and "no run differs significantly from bm25" in unsure


def test_the_table_as_text():
    assert report.as_text(metrics()).splitlines() == [
        "system   nDCG@10",
        "bm25      0.2500",
        "student   0.5000*",
        "random    0.1250",
        "oracle    0.7500",
        "* differs from bm25: p < 0.05 by a paired randomization test over the queries, Holm-corrected over all runs "
        "and measures",
    ]


def test_bars_start_at_0_and_share_one_axis():
    html = page()
    widths = [float(width) for width in re.findall(r'<rect x="0"[^>]* width="([0-9.]+)%"', html)]
    assert widths == [20.0, 40.0, 10.0, 60.0]
    assert re.findall(r'y="\d+" text-anchor="\w+">([0-9.]+)</text>', html)[::5] == ["0", "1"]


def steps(count: int) -> list[dict[str, Any]]:
    """Rows of the table steps whose losses fall; every tenth step is measured, and the second to last of these is best.

    They are as the table returns them, with null for what a step does not have.
    """
    made: list[dict[str, Any]] = []
    for step in range(1, count + 1):
        row = {"step": step, "tokens": 1000, "seconds": 0.5, "learning_rate": 1e-4, "grad_norm": 1 / step}
        loss = {"pairwise": 1 - step / count, "listwise": 2.0, "generation": 7 - step / count}
        made.append({**row, "loss": loss} | ({"ndcg": 0.9 - abs(count - 10 - step) / count} if step % 10 == 0 else {}))
    return pa.Table.from_pylist(made, schema=SCHEMAS["steps"]).to_pylist()


def test_a_training_is_drawn():
    curves = {curve["title"].partition(",")[0]: curve for curve in report.curves(steps(100))}
    assert list(curves)[:4] == ["pairwise loss", "listwise loss", "generation loss", "nDCG@10 by the teacher's order"]
    loss = curves["pairwise loss"]
    assert loss["points"].startswith("1.00,0.00 2.00,0.40 ") and loss["points"].endswith(" 100.00,40.00")
    assert (loss["first"], loss["last"], loss["best"]) == ("0.990", "0.000", {"step": 90, "x": "90.00"})
    assert curves["tokens per second"]["high"] == "2,000" and "model FLOPs utilisation" not in curves
    html = page(training=steps(100))
    assert html.count("<polyline") == len(curves) and "Dashed: step 90, the best on held-out queries" in html
    assert "Training of the student" not in page()


def test_many_steps_are_few_points_and_one_is_a_dot():
    (loss, *_) = report.curves(steps(12_345))
    assert 100 < len(loss["points"].split()) <= report.CURVE_POINTS
    (loss, *_) = report.curves(steps(1))
    assert len(set(loss["points"].split())) == 1 < len(loss["points"].split())


def test_page_needs_nothing_from_elsewhere():
    html = page(training=steps(20))
    assert not re.search(r"(src|href)=|@import|url\(|<script|https?:", html)


def test_everything_foreign_is_escaped():
    evil = "<script>alert('x')</script>"
    html = page(
        queries={"q": evil},
        texts={"q": {"a": evil, "b": evil + " The evidence. " + evil}},
        reasons={"q": {"b": {"direct": evil, "evidence": "The evidence.", "comparison": evil}}},
        caption=evil,
        warnings=[evil],
        sources=[(evil, evil)],
        runs={"bm25": {"q": [evil]}, "student": {"q": ["b", evil]}},
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 11
    assert "<mark>The evidence.</mark>" in html
    assert "<mark>&lt;script&gt;" in page(
        reasons={"q": {"b": {"direct": "", "evidence": evil, "comparison": ""}}}, texts={"q": {"b": evil}}
    )


def test_evidence_that_is_not_verbatim_is_said_to_be_so():
    reasons = {"q": {"b": {"direct": "Yes.", "evidence": "Made up.", "comparison": ""}}}
    html = page(reasons=reasons)
    assert "Evidence, not word for word in the passage" in html and "Made up." in html and "<mark>" not in html
    assert "not word for word" not in page(reasons=reasons, texts={}, counted=None)


def test_loss_is_shown_as_a_loss():
    values = {"bm25": {"nDCG@10": {"q": 0.5}}, "student": {"nDCG@10": {"q": 0.25}}}
    assert 'class="gain down">nDCG@10 \N{MINUS SIGN}0.2500' in page(values=values)


def test_one_run_alone_has_no_before_and_after():
    html = page(runs={"bm25": {"q": ["a", "b"]}}, counted=None, metrics=metrics(tests={}))
    assert "Before and after" not in html and "Query by query" not in html


def test_student_is_the_after_wherever_it_stands():
    values = {name: {"nDCG@10": {"q": 0.5}} for name in ("bm25", "other", "student")}
    runs = {name: {"q": ["a"]} for name in values}
    systems = {name: {"nDCG@10": 0.5} for name in values}
    html = page(values=values, runs=runs, metrics=metrics(systems=systems))
    assert "Before and after: bm25 → student" in html
    assert "on which student gains most over bm25 in nDCG@10" in html and "those of student with its reasons" in html


def test_say():
    counted = {"explained": 1200, "evidence_empty": 0.1, "evidence_verbatim": 0.825, "compared": 50, "neighbours": 0.98}
    assert report.say(counted) == (
        "explanations: 1,200 written, evidence empty in 10.0%, of all evidence 82.5% word for word in its passage, "
        "of all comparisons 98.0% name the neighbours"
    )
    assert report.say(counted | {"evidence_verbatim": None, "compared": 0, "neighbours": None}) == (
        "explanations: 1,200 written, evidence empty in 10.0%"
    )
    assert report.say(counted | {"explained": 0}) == "explanations: none written"
