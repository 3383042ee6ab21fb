"""The ablations: which there are, what is said of them, and how they go on. The stages are replaced by short ones."""

import importlib.util
import json
import subprocess
import sys
import types
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from r2r import cli, datasets, tables
from r2r.config import DistillSettings, EvaluateSettings, RerankSettings, RunFile
from r2r.errors import BadInput, Stopped

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ablations.py"
_spec = importlib.util.spec_from_file_location("ablations", SCRIPT)
ablations = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(ablations)

RUN = {"out": "unused", "corpus": "demo", "queries": "demo", "qrels": "demo"}
NAMES = [
    *("standard", "reasoning none", "reasoning direct", "reasoning comparison"),
    *("pairwise off", "listwise off", "generation off", "only generation", "order last", "3 samples"),
]


def run_file(**sections):
    given = {"annotate": {"teacher": "demo"}, "distill": {"student": "demo"}, "rerank": {"explain": 3}, **sections}
    return RunFile(**RUN, train_queries="demo#train", **given)


def entry(value, queries=500, spread=0.01):
    counts = {"queries": queries, "annotations": queries - 3, "rejected": 3}
    return {"seeds": {"0": value, "1": value}, "mean": value, "spread": spread, **counts}


def results(**more):
    found = {name: entry(0.8 + 0.01 * at) for at, name in enumerate(NAMES)}
    found |= {f"{number} queries": entry(0.7, number) for number in (100, 2000)}
    known = {"measure": "nDCG@10", "queries_evaluated": 200, "bm25": 0.55, "teacher": None, "caption": "", "key": "k"}
    return known | {"conditions": found} | more


def test_each_condition_changes_one_thing():
    found = ablations.conditions(run_file(), 500, [2000, 100, 500])
    assert [one.name for one in found] == [*NAMES, "100 queries", "2000 queries"]
    by_name = {one.name: one for one in found}
    standard = by_name["standard"]
    assert all(one.rerank.explain == 0 for one in found)
    changed = {
        name: {key: value for key, value in one.distill.model_dump().items() if value != getattr(standard.distill, key)}
        for name, one in by_name.items()
    }
    assert changed["reasoning none"] == {"reasoning": "none"} and by_name["reasoning none"].rerank.reasoning == "none"
    assert changed["listwise off"] == {"listwise": 0}
    assert changed["only generation"] == {"pairwise": 0, "listwise": 0}
    assert changed["order last"] == {"order_position": "last"}
    assert by_name["order last"].rerank.order_position == "last"
    for name, queries, samples in (("3 samples", 500, 3), ("100 queries", 100, 1), ("2000 queries", 2000, 1)):
        assert not changed[name] and (by_name[name].queries, by_name[name].samples) == (queries, samples)


def test_no_condition_is_run_twice_or_cannot_be_run():
    distill = {"student": "demo", "pairwise": 0, "reasoning": "none"}
    found = ablations.conditions(
        run_file(
            annotate={"teacher": "demo", "samples": 3, "reasoning": "direct"},
            distill=distill,
            rerank={"mode": "generate"},
        ),
        500,
        [500, 500, 200, 200],
    )
    # Without the pairwise loss, the listwise one off leaves only generation.
    expected = ["standard", "reasoning direct", "listwise off", "generation off", "200 queries"]
    assert [one.name for one in found] == expected
    alone = {"student": "demo", "listwise": 0, "pairwise": 0}
    names = [one.name for one in ablations.conditions(run_file(distill=alone), 500, [])]
    assert not {"pairwise off", "listwise off", "generation off", "only generation"} & set(names)


def test_mean_and_spread():
    found = ablations.summary({"0": 0.8, "1": 0.9, "2": 0.7})
    assert found == {"seeds": {"0": 0.8, "1": 0.9, "2": 0.7}, "mean": 0.8, "spread": 0.1}
    assert ablations.summary({"0": 0.8})["spread"] is None


def test_the_table_has_a_row_for_each_condition():
    lines = ablations.table(results(teacher=0.9, caption="A toy.")).splitlines()
    assert "| standard | 500 | 497 | 0.8000 | 0.0100 |  | 2 |" in lines
    assert "| 100 queries | 100 | 97 | 0.7000 | 0.0100 | -0.1000 | 2 |" in lines
    assert "| bm25 | | | 0.5500 | | -0.2500 | |" in lines and "| teacher | | | 0.9000 | | +0.1000 | |" in lines
    assert lines[-1] == "A toy." and len(lines) == 2 + 12 + 2 + 3
    assert "teacher" not in ablations.table(results())


@pytest.mark.parametrize("teacher", [None, 0.551])
def test_the_plot_is_sound_and_holds_every_condition(teacher):
    caption = 'Generated, & "a toy" <world>. ' * 8
    root = ET.fromstring(ablations.plot(results(teacher=teacher, caption=caption)))
    told = ["".join(element.itertext()) for element in root.iter()]
    assert all(any(name in text for text in told) for name in [*NAMES, "100 queries", "2000 queries"])
    assert any("bm25 0.550" in text for text in told) and any("teacher" in text for text in told) == bool(teacher)
    width, height = float(root.get("width")), float(root.get("height"))
    for element in root.iter():
        assert all(0 <= float(element.get(name, 0)) <= width for name in ("x", "x1", "x2", "cx"))
        assert all(0 <= float(element.get(name, 0)) <= height for name in ("y", "y1", "y2", "cy"))


def test_the_first_run_can_be_plotted():
    one = entry(0.8, spread=None)
    root = ET.fromstring(ablations.plot(results(conditions={"standard": one}, bm25=0.8)))
    assert len(root.findall("{*}circle")) == 2


def test_a_stage_is_given_the_very_settings(monkeypatch):
    found = []
    stub = types.SimpleNamespace(rerank=lambda *given: found.append(given[-1]))
    monkeypatch.setitem(sys.modules, "r2r.student.rerank", stub)
    settings = RerankSettings(engine={"max_model_len": 2048}, mode="generate", window=10, gpus=0.5)
    paths = ["--candidates=a", "--student=b", "--out=c"]
    assert cli.main(["rerank", *paths, *ablations.flags(settings)]) == 0
    assert found == [settings]
    settings = DistillSettings(student="x", lora_targets=["q_proj", "v_proj"], checkpointing=True, learning_rate=1e-5)
    stub = types.SimpleNamespace(distill=lambda *given: found.append(given[-1]))
    monkeypatch.setitem(sys.modules, "r2r.student.distill", stub)
    assert cli.main(["distill", "--annotations=a", "--out=c", *ablations.flags(settings)]) == 0
    assert found[1] == settings


@pytest.mark.parametrize(("wrong", "says"), [("steps: x", "distill.steps"), ("{", "not YAML")])
def test_a_bad_run_file_ends_with_one_line(tmp_path, wrong, says):
    file = tmp_path / "run.yaml"
    lines = [f"{name}: {value}" for name, value in RUN.items()]
    file.write_text("\n".join([*lines, "annotate: {teacher: demo}", "distill:", "  student: demo", f"  {wrong}", ""]))
    command = [sys.executable, str(SCRIPT), str(file), "--work", str(tmp_path / "work")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"ablations: {file}:") and says in line


def test_a_stage_that_fails_is_told(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match=r"no\.txt: no such file"):
        ablations.measure(tmp_path, tmp_path / "out", "demo", {"bm25": tmp_path / "no.txt"})
    monkeypatch.setattr(ablations, "ROOT", tmp_path)
    (tmp_path / "jobs").mkdir()
    for status, kind in ((3, Stopped), (1, SystemExit)):
        script = f"import sys; print('r2r: no more money'); print('after'); sys.exit({status})"
        (tmp_path / "jobs" / "index.py").write_text(script)
        with pytest.raises(kind, match="^no more money$" if kind is Stopped else "index ended with status 1"):
            ablations.stage(tmp_path, "index", EvaluateSettings())


class Stages:
    """Stages that write what the script reads of them, and of which one query in ten has no annotation."""

    def __init__(self):
        self.calls = []

    def __call__(self, work, name, settings, *inputs):
        given = dict(inputs)
        out = Path(given["out"])
        self.calls.append((name, out.relative_to(work).as_posix(), settings))
        out.mkdir(parents=True, exist_ok=True)
        if name == "retrieve":
            row = {"query": "q", "docids": ["d"], "texts": ["t"], "scores": [1.0]}
            qids = datasets.read_queries(given["queries"])["qid"].to_pylist()
            tables.write([{"qid": qid, **row} for qid in qids], out, "candidates")
        if name == "annotate":
            rows = tables.read(given["candidates"], "candidates").to_pylist()
            # As workers finish: not in the order of the queries.
            tables.write([{"qid": row["qid"]} for row in reversed(rows) if row["qid"][-1] != "0"], out, "annotations")
        if name == "evaluate":
            systems = {given["run"].partition("=")[0]: {"nDCG@10": 0.5 + len(self.calls) / 1000}}
            (out / "metrics.json").write_text(json.dumps({"systems": systems, "queries": 20}))

    def trained(self):
        return [out.removeprefix("runs/").removesuffix("/distill") for name, out, _ in self.calls if name == "distill"]


def pool_of(folder, name, size):
    (folder / f"{name}.jsonl").write_text(
        "".join(json.dumps({"qid": f"q{at:03}", "query": "fleas"}) + "\n" for at in range(size))
    )
    return f"jsonl:{folder / name}.jsonl"


def test_runs_share_the_annotations_and_go_on(tmp_path, monkeypatch, capsys):
    work, file = tmp_path / "work", tmp_path / "run.yaml"
    own, pool = pool_of(tmp_path, "own", 20), pool_of(tmp_path, "pool", 40)
    text = run_file().model_dump_json(exclude={"out", "train_queries"}, exclude_defaults=True)
    file.write_text(json.dumps(json.loads(text) | {"out": "unused", "train_queries": own}))
    stages = Stages()
    monkeypatch.setattr(ablations, "stage", stages)

    ablations.ablate(str(file), work, 1, pool, [10, 40])
    runs = [f"{name.replace(' ', '-')}/seed-0" for name in [*NAMES, "10 queries", "40 queries"]]
    assert stages.trained() == runs
    annotated = [(out, settings.samples) for name, out, settings in stages.calls if name == "annotate"]
    assert annotated == [("annotate-1", 1), ("annotate-3", 3)]
    learned = tables.read(work / "annotations" / "20-queries-1-samples", "annotations")["qid"].to_pylist()
    assert learned == [f"q{at:03}" for at in range(20) if at % 10]
    assert tables.read(work / "candidates-3", "candidates").num_rows == 20
    first = json.loads((work / "ablations.json").read_text())
    assert first["queries_evaluated"] == 20 and first["bm25"] > 0.5 and first["teacher"] is None
    counts = {"queries": 40, "annotations": 36, "rejected": 4}
    assert counts.items() <= first["conditions"]["40 queries"].items()
    assert list(first["conditions"]["standard"]["seeds"]) == ["0"]
    assert "| order last |" in (work / "ablations.md").read_text() and (work / "ablations.svg").exists()
    assert capsys.readouterr().out.count(" min left") == len(runs)

    # Another seed: the first one's runs are not done again. A new number: nor are the other conditions'.
    stages.calls.clear()
    ablations.ablate(str(file), work, 2, pool, [10, 30])
    new = ["30-queries/seed-0", *(run.replace("seed-0", "seed-1") for run in runs[:-1]), "30-queries/seed-1"]
    assert stages.trained() == new
    found = json.loads((work / "ablations.json").read_text())["conditions"]
    assert found["40 queries"] == first["conditions"]["40 queries"]
    assert found["standard"]["seeds"]["0"] == first["conditions"]["standard"]["mean"]
    assert found["standard"]["spread"] > 0

    # Another setting makes other results.
    file.write_text(file.read_text().replace('"explain": 3', '"explain": 3, "stride": 5'))
    stages.calls.clear()
    ablations.ablate(str(file), work, 1, pool, [10])
    assert stages.trained() == runs[:-1]
    assert list(json.loads((work / "ablations.json").read_text())["conditions"]) == [*NAMES, "10 queries"]


def test_too_many_queries_are_told(tmp_path):
    with pytest.raises(
        BadInput, match=r"^queries: 5000: demo#train has \d+; give fewer, or more with --train-queries$"
    ):
        file = tmp_path / "run.yaml"
        file.write_text(run_file().model_dump_json())
        ablations.ablate(str(file), tmp_path / "work", 1, None, [5000])
