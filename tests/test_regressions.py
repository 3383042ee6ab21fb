"""`benchmarks/regressions.py`: a figure that is off is seen, and what is recorded can be run."""

import json
import shlex

import pytest

from benchmarks import regressions
from r2r import cli


@pytest.fixture
def case(tmp_path):
    (tmp_path / "qrels.txt").write_text("q1 0 a 1\nq2 0 a 1\n")
    (tmp_path / "run.txt").write_text("q1 Q0 a 1 9 t\nq2 Q0 b 1 9 t\n")
    words = f"r2r evaluate --qrels {tmp_path}/qrels.txt --run x={tmp_path}/run.txt --out {{work}}/x --measures AP"
    return {"name": "tiny", "commands": [words], "metrics": "{work}/x/metrics.json", "figures": {}}


@pytest.mark.parametrize(
    ("figures", "status", "said"),
    [
        ({"x": {"AP": [0.5, 0.0001]}}, 0, "ok       tiny: x AP 0.5, recorded 0.5 ± 0.0001"),
        ({"x": {"AP": [0.52, 0.01]}}, 1, "OFF      tiny: x AP 0.5, recorded 0.52 ± 0.01"),
        ({"y": {"AP": [0.5, 0.1]}}, 1, "OFF      tiny: y AP None"),
    ],
)
def test_figures_are_compared(case, figures, status, said, tmp_path, capsys):
    file = tmp_path / "recorded.json"
    file.write_text(
        json.dumps([case | {"figures": figures}, {"name": "long", "demo": True}, {"name": "far", "reads": "no"}])
    )
    assert regressions.main(["--work", str(tmp_path / "work"), "--recorded", str(file)]) == status
    printed = capsys.readouterr().out
    assert said in printed and f"regressions: {status} off, 2 cases skipped" in printed


def test_a_folder_with_earlier_work_is_refused(tmp_path, capsys):
    """It is of other code, and would be passed over as done."""
    (tmp_path / "dl19").mkdir()
    assert regressions.main(["--work", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_command_that_fails_is_off(case, tmp_path):
    case["commands"].insert(0, "r2r evaluate --qrels none.txt --run x=none.txt --out {work}/none")
    ((good, line),) = regressions.measure(case, {"work": str(tmp_path), "data": ""})
    assert not good and line == "r2r evaluate ended with status 2"


def test_what_is_recorded_can_be_asked():
    for case in json.loads(regressions.RECORDED.read_text()):
        for command in case["commands"]:
            _, name, *rest = shlex.split(command.format(data="data", work="work"))
            cli._parse(name, cli.COMMANDS[name], rest)
