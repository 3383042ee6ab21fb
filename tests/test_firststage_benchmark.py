"""The benchmark runs from end to end. Its figures mean nothing on so few lines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "first_stage.py"


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "R2R_DATA_DIR"}
    command = [sys.executable, str(SCRIPT), "--work", str(tmp_path), "--lines", "500", "--passages", "200"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "| 500 |" in done.stdout
    (found,) = json.loads((tmp_path / "results.json").read_text())
    assert found["lines"] == 500
    assert all(found[name] > 0 for name in ("ours", "pyserini", "memory"))
