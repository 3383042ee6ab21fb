"""The sheet that people rate: what it shows and hides, filled in with the keyboard in a browser, and read back."""

import base64
import json
import time

import pytest

from r2r import cli, tables
from r2r.errors import BadInput
from r2r.judge import people, sheet
from r2r.judge.krippendorff import alpha
from tests.serving.browser import PROGRAM, browser

# Four observers, twelve units: Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, sections C and D.
OBSERVERS = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."]
UNITS = [[int(one) for one in unit if one != "."] for unit in zip(*(line.split() for line in OBSERVERS), strict=True)]


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_alpha_is_that_of_the_published_example(level, published):
    assert alpha(UNITS, level) == pytest.approx(published, abs=0.0005)


def test_alpha_of_nothing_to_compare_is_none():
    assert alpha([[1], [2], []], "ordinal") is None and alpha([[3, 3], [3, 3]], "ordinal") is None
    assert alpha([[1, 1], [2, 2]], "nominal") == 1


@pytest.fixture
def systems(tmp_path):
    """The folders of two systems' annotations of 10 queries. Their reasons tell which system wrote them."""
    for name in ("ours", "theirs"):
        made = {"docids": ["d1", "d2"], "texts": ["A flea.", "</script><b>A dog."], "ranking": [1, 2], "teacher": "t"}
        made |= {"direct": [f"{name} says so"] * 2, "evidence": ["A flea.", ""], "comparison": ["Above [2].", ""]}
        made |= {"key": "k", "attempts": 1, "prompt_tokens": 0, "completion_tokens": 0}
        rows = [made | {"qid": f"q{at}", "query": f"query {at}"} for at in range(10)]
        tables.write(rows, tmp_path / name, "annotations")
    return {name: str(tmp_path / name) for name in ("ours", "theirs")}


def sheet_of(systems, tmp_path, queries=6):
    """Write a sheet; return its file and its key."""
    file = tmp_path / "sheet.html"
    flags = ["--rankings", systems["ours"], "--against", f"theirs={systems['theirs']}", "--sheet", str(file)]
    assert cli.main(["judge", *flags, "--sheet-queries", str(queries)]) == 0
    return file, json.loads(sheet.key_of(str(file)).read_text())


def test_a_sheet_is_blind_and_its_key_is_not(systems, tmp_path, capsys):
    file, key = sheet_of(systems, tmp_path)
    page = file.read_text()
    assert "6 queries" in capsys.readouterr().out and len(key["items"]) == len(set(key["qids"].values())) == 6
    # All pairs are shown equally often, each system on both sides.
    bare = f"ours {sheet.BARE}"
    pairs = [tuple(sorted(pair)) for pair in key["items"].values()]
    assert {pair: pairs.count(pair) for pair in pairs} == {
        ("ours", "theirs"): 2,
        ("ours", bare): 2,
        tuple(sorted((bare, "theirs"))): 2,
    }
    assert len({tuple(pair) for pair in key["items"].values()}) > 3
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert set(data["items"][0]) == {"id", "query", "sides"} and str(tmp_path) not in page and bare not in page
    for item in data["items"]:
        for passages, name in zip(item["sides"], key["items"][item["id"]], strict=True):
            assert passages[0]["text"] == "A flea."
            assert passages[0].get("direct") == (None if name == bare else f"{name} says so")
    again, same = sheet_of(systems, tmp_path)
    assert again.read_text() == page and same == key


def answers(key, rater, rate, prefer):
    """Return a rater's file: `rate` gives the scale's value of a system, `prefer` the better of two."""
    found = {}
    for item, pair in key["items"].items():
        found[item] = {"choice": ("left", "right")[pair.index(prefer(pair))]}
        for side, name in zip(("left", "right"), pair, strict=True):
            scales = ("useful",) if sheet.BARE in name else sheet.SCALES
            found[item] |= {f"{side}_{scale}": rate(name) for scale in scales}
    return {"sheet": key["sheet"], "rater": rater, "answers": found}


def test_raters_files_become_agreement_means_and_tests(systems, tmp_path, capsys):
    file, key = sheet_of(systems, tmp_path, queries=10)

    def rate(name):
        return 2 if sheet.BARE in name else {"ours": 5, "theirs": 3}[name]

    files = []
    for rater in ("ada", "bob"):
        files.append(tmp_path / f"{rater}.json")
        files[-1].write_text(json.dumps(answers(key, rater, rate, lambda pair: max(pair, key=rate))))
    read = ["--read", str(files[0]), "--read", str(files[1]), "--out", str(tmp_path / "out")]
    assert cli.main(["judge", "--sheet", str(file), *read]) == 0
    found = json.loads((tmp_path / "out" / "people.json").read_text())
    assert found["raters"] == ["ada", "bob"] and found["agreement"]["choice"] == {"alpha": 1, "units": 10}
    assert found["agreement"]["useful"] == {"alpha": 1, "units": 20}
    shown = [name for pair in key["items"].values() for name in pair]
    assert found["means"]["ours"]["true"] == {"value": 5, "low": 5, "high": 5, "n": shown.count("ours")}
    assert set(found["means"][f"ours {sheet.BARE}"]) == {"useful"}
    (pair,) = (one for one in found["pairs"] if one["systems"] == ["ours", "theirs"])
    both = sum(set(pair) == {"ours", "theirs"} for pair in key["items"].values())
    # All of the items differ the same way: only this pattern of signs and its opposite are as far from 0.
    assert pair["tests"]["true"] == {"difference": 2, "p": 2 / 2**both, "items": both}
    assert pair["tests"]["preferred"] == {"difference": 1, "p": 2 / 2**both, "items": both}
    assert "Krippendorff's alpha 1.000" in capsys.readouterr().out

    # A rater who turns the scale round agrees less than by chance.
    files[1].write_text(json.dumps(answers(key, "bob", lambda name: 6 - rate(name), lambda pair: min(pair, key=rate))))
    turned = people.figures(str(file), [str(one) for one in files], seed=0)
    assert turned["agreement"]["useful"]["alpha"] < 0 and turned["agreement"]["choice"]["alpha"] < 0
    assert turned["means"]["ours"]["true"]["value"] == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sheet": "other"}, "answers sheet other"),
        ({"answers": {"i99": {}}}, "item i99: is not on the sheet"),
        ({"answers": {"i1": {"left_useful": 6}}}, "left_useful: 6: is no answer"),
        ({"answers": {"i1": {"left_useful": True}}}, "left_useful: True: is no answer"),
        ({"answers": {"i1": {"choice": "both"}}}, "choice: 'both': is no answer"),
        ({"answers": []}, "has no rater and no answers"),
    ],
)
def test_a_file_that_is_no_answer_is_told(systems, tmp_path, change, said):
    file, key = sheet_of(systems, tmp_path)
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"sheet": key["sheet"], "rater": "ada", "answers": {"i1": {"choice": "left"}}} | change))
    with pytest.raises(BadInput, match=said):
        people.figures(str(file), [str(bad)], seed=0)


def test_other_mistakes_end_with_a_line(systems, tmp_path, capsys):
    file, key = sheet_of(systems, tmp_path)
    good = tmp_path / "ada.json"
    good.write_text(json.dumps({"sheet": key["sheet"], "rater": "ada", "answers": {"i1": {"choice": "left"}}}))
    out = ["--out", str(tmp_path / "out")]
    for words, said in [
        (["--sheet", str(file), "--read", f"{good},{good}", *out], "2 files of 1 raters"),
        (["--sheet", str(file), "--read", "none.json", *out], "none.json: no such file"),
        (["--sheet", "other.html", "--read", str(good), *out], "other.html.key.json: no such file"),
        (["--read", str(good), *out], "give --sheet and --out"),
        (["--sheet", str(file)], "rankings: missing"),
        (["--rankings", systems["ours"]], "out: missing"),
        (["--rankings", systems["ours"], "--against", "x", *out], "against 'x': expected NAME=FILE"),
        (["--rankings", systems["ours"], "--against", f"ours={systems['theirs']}", *out], "give it another name"),
    ]:
        assert cli.main(["judge", *words]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(PROGRAM is None, reason="no Chromium: install it (Debian: apt-get install chromium)")
def test_a_sheet_is_filled_in_with_the_keyboard_alone(systems, tmp_path):
    file, key = sheet_of(systems, tmp_path, queries=3)

    def press(page, name):
        text = {"text": name} if len(name) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key=name, **(text if kind == "keyDown" else {}))

    with browser() as page:
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        page.call("Page.navigate", url=file.as_uri())
        page.until("document.activeElement && document.activeElement.id === 'rater'")
        page.type("Ada L.")
        press(page, "Enter")
        page.until("!document.getElementById('panel').hidden")
        assert page.run("document.querySelectorAll('.side').length") == 2
        # A passage's markup is text.
        assert page.run("document.querySelector('.side b')") is None and "<b>A dog." in page.run(
            "document.body.innerText"
        )
        given, asked = 0, []
        while "which result" not in (question := page.run("document.getElementById('ask').textContent")):
            press(page, "9")
            press(page, str(1 + given % 5))
            asked.append(question)
            given += 1
        press(page, "4")
        press(page, "L")
        assert page.run("document.querySelector('h1').textContent").startswith("Query 2 of 3")
        press(page, "ArrowLeft")
        assert "given: left" in page.run("document.getElementById('keys').textContent")
        press(page, "r")
        press(page, "s")
        end = time.monotonic() + 30
        while not (saved := [*(tmp_path / "saved").glob("*.json")]) and time.monotonic() < end:
            time.sleep(0.05)
        assert page.faults == []
        taken = page.call("Page.captureScreenshot")["data"]
    (tmp_path / "sheet.png").write_bytes(base64.b64decode(taken))
    told = json.loads(saved[0].read_text())
    assert (told["sheet"], told["rater"]) == (key["sheet"], "Ada L.")
    sides = ["left", "right"]
    slots = [
        f"{side}_{scale}"
        for side, name in zip(sides, key["items"]["i1"], strict=True)
        for scale in (("useful",) if sheet.BARE in name else sheet.SCALES)
    ]
    assert told["answers"] == {"i1": {slot: 1 + at % 5 for at, slot in enumerate(slots)} | {"choice": "right"}}
    assert len(asked) == len(slots)
    assert people.figures(str(file), [str(saved[0])], seed=0)["answers"] == len(slots) + 1
