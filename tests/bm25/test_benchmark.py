"""The benchmark runs from end to end. Its figures mean nothing on so few passages."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bm25.py"


def test_the_benchmark_runs(ray_local, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "R2R_DATA_DIR"}
    # Its jobs join the Ray of these tests.
    environment["RAY_ADDRESS"] = ray_local.get_runtime_context().gcs_address
    sizes = {"passages": 200, "queries": 20, "rounds": 1, "threads": 1}
    flags = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, str(SCRIPT), "--work", str(tmp_path), *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Queries per second:" in done.stdout
    (found,) = json.loads((tmp_path / "results.json").read_text())["collections"]
    assert found["passages"] == 200
    assert all(found[name] > 0 for name in found if name.startswith(("build", "search")))
