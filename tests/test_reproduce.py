"""A stage done again from its manifest: the same output, another one, a run that was moved, versions that differ."""

import json
import shutil

import pytest

from r2r import cli, stage
from r2r.reproduce import SETTINGS, stage_of
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


@pytest.mark.parametrize("name", ["annotate", "distill", "rerank", "evaluate"])
def test_a_stage_of_a_manifest_has_its_inputs_and_settings(made, name):
    then = stage.manifest_of(made / name)
    if name in ("annotate", "rerank"):
        then["inputs"]["candidates"] = {"source": "demo", "fingerprint": "x"}
    found = stage_of(then, made / name, made / "again")
    assert found.name == name and found.settings.model_dump(mode="json") == then["settings"]
    assert {key: one.source for key, one in found.inputs.items()} == {
        key: one["source"] for key, one in then["inputs"].items()
    }


def test_all_stages_are_known():
    # serve writes nothing, run and reproduce are no stages.
    assert set(cli.COMMANDS) - {"serve", "run", "reproduce"} == set(SETTINGS)
    assert {name: command.settings for name, command in cli.COMMANDS.items() if name in SETTINGS} == SETTINGS


def test_mistakes(made, tmp_path, capsys):
    assert reproduce(tmp_path, "--out", tmp_path / "x") == 2
    assert "is no manifest of a finished stage" in capsys.readouterr().err
    assert reproduce(made / "evaluate", "--out", made / "evaluate") == 2
    assert "holds the work that is to be reproduced" in capsys.readouterr().err
