"""A stage done again from its manifest: the same output, another one, a run that was moved, versions that differ."""

import json
import shutil

import pytest

from r2r import cli, config, firststage
from r2r.bm25 import index, retrieve
from r2r.datasets.runs import RunSpec
from r2r.evaluation import evaluate
from r2r.hub import export, upload
from r2r.judge import stage as judge
from r2r.reproduce import SETTINGS, stage_of
from r2r.student import distill, rerank
from r2r.teacher import annotate, queries
from tests.hub.made import finished_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def run(made, tmp_path):
    """A finished run that lies elsewhere than it was made."""
    shutil.copytree(made, tmp_path / "moved")
    made.rename(made.with_name("gone"))
    yield tmp_path / "moved"
    made.with_name("gone").rename(made)


def reproduce(*words):
    return cli.main(["reproduce", *map(str, words)])


def test_the_same_output_though_the_run_was_moved(run, capsys):
    again = run.parent / "again"
    assert reproduce(run / "evaluate" / "manifest.json", "--out", again) == 0
    printed = capsys.readouterr().out
    for line in ("versions: the same", "inputs: the same", "settings: the same", "evaluate: the same output, "):
        assert f"reproduce: {line}" in printed
    assert (again / "metrics.json").read_bytes() == (run / "evaluate" / "metrics.json").read_bytes()


def test_a_collection_of_a_run_that_was_moved_is_found(run, capsys):
    for name in ("rerank", "evaluate"):
        shutil.move(run / name, run / "evaluations" / "fiqa" / name)
    assert reproduce(run / "evaluations" / "fiqa" / "evaluate", "--out", run.parent / "again") == 0
    assert "reproduce: evaluate: the same output, " in capsys.readouterr().out


def test_what_differs_is_named_and_another_output_is_status_3(run, capsys):
    file = run / "evaluate" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["versions"] |= {"numpy": "1.0", "gone": "2"}
    manifest["what"]["baseline"] = "student"
    file.write_text(json.dumps(manifest))
    (run / "bm25.txt").write_text("q1 Q0 d1 1 1 bm25\n")
    assert reproduce(run / "evaluate", "--out", run.parent / "again") == 3
    said = capsys.readouterr()
    assert "numpy 1.0 -> " in said.out and "gone 2 -> none" in said.out
    assert "inputs: run 1 bm25: other content" in said.out
    assert "settings: baseline student -> None" in said.out
    assert said.err.splitlines()[-1].startswith("r2r: reproduce: evaluate: another output, ")


def stages(folder):
    """Every stage with all inputs that it can have, and a setting that is not at its default."""
    out, given = folder / "out", [str(folder / name) for name in "abcdefg"]
    (folder / "dataset" / "data").mkdir(parents=True)
    (folder / "dataset" / "README.md").touch()
    (folder / "dataset" / "data" / "train.parquet").touch()
    one, two, three, four, five, six, seven = given
    named = {"bm25": one, "my student": two}
    yield index.stage(one, out, config.IndexSettings(shards=3))
    yield retrieve.stage(one, two, out, config.RetrieveSettings(k1=0.5))
    for corpus, shards in ((three, None), (None, four)):
        yield firststage.stage(RunSpec([one, two], five, corpus, shards), out, config.RetrieveSettings(k=7))
    yield queries.stage(one, two, out, config.QueriesSettings(teacher=three, examples=four, n=9))
    yield annotate.stage(one, out, config.AnnotateSettings(teacher=two, positives=three, passages=4), corpus=four)
    yield distill.stage(one, out, config.DistillSettings(student=two, steps=3))
    yield rerank.stage(one, two, three, out, config.RerankSettings(window=4, stride=2))
    yield evaluate.stage(one, named, out, config.EvaluateSettings(baseline="bm25"), three, four, five)
    judged = config.JudgeSettings(judge=one, seed=4)
    yield judge.stage(two, three, out, judged, four, five, {"other one": six, "recorded": seven})
    yield export.stage(str(folder / "dataset"), out, config.ExportSettings(push="somebody/something"))


def manifest_for(one):
    """Return what a manifest of the stage would say of its inputs and settings."""
    inputs = {name: {"source": put.source, "fingerprint": "x"} for name, put in one.inputs.items()}
    return {"stage": one.name, "inputs": inputs, "settings": one.settings.model_dump(mode="json")}


def test_a_stage_of_a_manifest_has_its_inputs_and_settings(made, tmp_path):
    all_stages = [*stages(tmp_path), export.stage(str(made), tmp_path / "out", config.ExportSettings(license="mit"))]
    assert {one.name for one in all_stages} == set(SETTINGS)
    for one in all_stages:
        found = stage_of(manifest_for(one), tmp_path / "run" / "stage", one.out)
        assert (found.name, found.settings) == (one.name, one.settings)
        assert [(key, put.source) for key, put in found.inputs.items()] == [
            (key, put.source) for key, put in one.inputs.items()
        ]


def test_what_was_uploaded_is_not_uploaded_again(made, tmp_path, monkeypatch, capsys):
    uploads = []
    monkeypatch.setattr(upload, "push", lambda folder, name, kind: uploads.append(name))
    monkeypatch.setattr(upload, "check_name", lambda name: None)
    export.export(str(made), tmp_path / "export", config.ExportSettings(base="a/b", push="somebody/something"))
    assert reproduce(tmp_path / "export", "--out", tmp_path / "again") == 0
    assert uploads == ["somebody/something"] and "export: the same output, " in capsys.readouterr().out


def test_all_stages_are_known():
    # serve writes nothing, run and reproduce are no stages.
    assert set(cli.COMMANDS) - {"serve", "run", "reproduce"} == set(SETTINGS)
    assert {name: command.settings for name, command in cli.COMMANDS.items() if name in SETTINGS} == SETTINGS


def test_mistakes(made, tmp_path, capsys):
    assert reproduce(tmp_path, "--out", tmp_path / "x") == 2
    assert "is no manifest of a finished stage" in capsys.readouterr().err
    assert reproduce(made / "evaluate", "--out", made / "evaluate") == 2
    assert "holds the work that is to be reproduced" in capsys.readouterr().err
