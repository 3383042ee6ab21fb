"""The benchmark runs from end to end. Its figures for so small a model mean nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "distill.py"


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path):
    sizes = {"steps": 2, "layers": 1, "width": 64, "threads": 1}
    flags = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, str(SCRIPT), "--work", str(tmp_path), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "A step with all three losses takes" in done.stdout
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["ratio"] > 0 and found["speed"] > 0 and len(found["seconds"]["plain"]) == 4
    # On the same tokens, the plain loop has the same loss.
    assert all(abs(mine - theirs) < 1e-3 for mine, theirs in found["first_losses"])
