"""The table over all collections, of evaluations that the stage itself wrote: means, empty cells and their reasons."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from r2r.config import EvaluateSettings
from r2r.evaluation import summary
from r2r.evaluation.evaluate import evaluate

MEASURES = ["P@1", "RR"]


@pytest.fixture
def places(tmp_path):
    """Folders of four evaluations. P@1 of bm25: one 1/2, two 1, three 0, four 0; only two has the run dense."""
    found = {}
    for name, relevant in {"one": "ab", "two": "aa", "three": "bb", "four": "bb"}.items():
        folder = tmp_path / "evaluations" / name
        folder.mkdir(parents=True)
        lines = [f"q{place} 0 {docid} 1\n" for place, docid in enumerate(relevant)]
        (folder / "qrels").write_text("".join(lines))
        runs = {"bm25": "ab", "student": "ba"} | ({"dense": "ba"} if name == "two" else {})
        for run, order in runs.items():
            rows = [f"q{qid} Q0 {docid} 1 {2 - at} x\n" for qid in (0, 1) for at, docid in enumerate(order)]
            (folder / run).write_text("".join(rows))
        measures = ["P@1"] if name == "four" else MEASURES
        files = {run: str(folder / run) for run in runs}
        evaluate(str(folder / "qrels"), files, folder / "evaluate", EvaluateSettings(measures=measures))
        found[name] = folder / "evaluate"
    return found


AVERAGES = {"pair": ["two", "three"], "suite": ["one", "pair"], "average": ["one", "pair", "four", "five"]}


def made(places: dict[str, Path], **more) -> dict:
    given = {"absent": {"five": "failed: x.qrels:2: has 1 column"}, "averages": AVERAGES, "quoted": []} | more
    return summary.collect(places, measures=MEASURES, out=places["one"].parent.parent, **given)


def test_a_group_counts_once_and_an_average_needs_all_its_figures(places):
    found = made(places)
    assert found["systems"] == ["bm25", "student", "dense", "random", "oracle"]
    assert found["collections"]["two"]["queries"] == 2
    means = {name: one["systems"]["bm25"] for name, one in found["averages"].items()}
    # Over three collections, suite would be .5.
    assert means["pair"] == {"P@1": 0.5, "RR": 0.75}
    assert means["suite"] == {"P@1": 0.5, "RR": 0.75} and means["average"] == {"P@1": None, "RR": None}
    assert found["averages"]["average"]["missing"]["bm25"] == {
        "P@1": "no figure for five",
        "RR": "no figure for four, five",
    }
    assert found["averages"]["suite"]["systems"]["dense"]["P@1"] is None
    assert found["averages"]["suite"]["missing"]["dense"]["P@1"] == "no figure for one, pair"
    weights = made(places, averages={"all": ["one", "two", "three"], "nested": ["two", "pair"]}, absent={})
    assert weights["averages"]["all"]["systems"]["student"]["P@1"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert (
        summary.figure(made(places, averages={"pair": ["two", "three"], "n": ["two", "pair"]}), "n", "bm25", "P@1")
        == 0.75
    )


def test_every_empty_cell_has_a_reason(places):
    found = made(places)
    assert summary.why_not(found, "five", "bm25", "P@1") == "failed: x.qrels:2: has 1 column"
    assert summary.why_not(found, "one", "dense", "P@1") == "has no run dense"
    assert summary.why_not(found, "four", "bm25", "RR") == "not measured by RR"
    text = summary.as_text(found)
    assert re.search(r"^five +- +- +- +- +-$", text, re.MULTILINE)
    assert re.search(r"^suite +0\.5000 +0\.5000 +- +\d", text, re.MULTILINE)
    assert "  - five: failed: x.qrels:2: has 1 column\n" in text
    assert "  - one (dense): has no run dense\n" in text


def test_what_was_left_out_has_a_row(places):
    found = made(places, absent={"two": "left out", "nine": "left out"})
    assert list(found["collections"]) == ["one", "two", "three", "four", "nine"]
    assert found["collections"]["two"] == found["collections"]["nine"] == {"missing": "left out"}
    nothing = made(places, absent=dict.fromkeys(places, "failed: all of it"))
    assert nothing["systems"] == [] and "  - four: failed: all of it\n" in summary.as_text(nothing)


def test_the_page_links_each_figure_to_its_collection_and_escapes(places, tmp_path):
    out = tmp_path / "evaluations"
    quoted = [{"system": "<b>GPT</b>", "source": "A paper, table 2", "measure": None, "figures": {"one": 0.75}}]
    summary.write(made(places, quoted=quoted), out)
    page = (out / "report.html").read_text()
    links = re.findall(r'href="([^"]+)"', page)
    assert links.count("one/evaluate/report.html") == 2 * 4 and "four/evaluate/report.html" in links
    assert all((out / unquote(link)).is_file() for link in links)
    apart = page[page.index("Quoted, not measured here") :]
    assert "&lt;b&gt;GPT" in apart and "0.7500" in apart and "A paper, table 2" in apart and "<b>GPT" not in page
    assert "Empty: five: failed: x.qrels:2" in page
    text = summary.as_text(made(places, quoted=quoted))
    assert text.splitlines()[-1] == "quoted, not measured here: <b>GPT</b>, P@1: one 0.7500 (A paper, table 2)"
    kept = json.loads((out / "summary.json").read_text())
    assert kept["quoted"][0]["measure"] == "P@1" and kept == made(places, quoted=quoted)


def test_a_difference_that_is_no_chance_is_marked(tmp_path):
    rows = range(20)
    (tmp_path / "qrels").write_text("".join(f"q{qid} 0 b 1\n" for qid in rows))
    for name, order in {"bm25": "ab", "student": "ba"}.items():
        lines = [f"q{qid} Q0 {docid} 1 {2 - at} x\n" for qid in rows for at, docid in enumerate(order)]
        (tmp_path / name).write_text("".join(lines))
    files = {name: str(tmp_path / name) for name in ("bm25", "student")}
    evaluate(str(tmp_path / "qrels"), files, tmp_path / "evaluate", EvaluateSettings(measures=["P@1"]))
    found = summary.collect({"main": tmp_path / "evaluate"}, {}, {}, ["P@1"], [], tmp_path / "evaluations")
    assert found["collections"]["main"]["report"] == "../evaluate/report.html"
    text = summary.as_text(found)
    assert re.search(r"^main +0\.0000 +1\.0000\* ", text, re.MULTILINE) and "* differs from bm25, p < 0.05" in text
    assert '<span class="mark">*</span>' in summary.render(found)
