"""The benchmark runs from end to end; what it measures on so few passages says nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bm25.py"


def test_the_benchmark_runs(ray_local, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "R2R_DATA_DIR"}
    # Its jobs join the Ray that is here.
    environment["RAY_ADDRESS"] = ray_local.get_runtime_context().gcs_address
    sizes = "--passages 50 200 --queries 20 --rounds 1 --threads 1".split()
    command = [sys.executable, str(SCRIPT), "--work", str(tmp_path), *sizes]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Queries per second:" in done.stdout
    assert "Extrapolated, not measured" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())["collections"]
    assert [one["passages"] for one in results] == [50, 200]
    assert all(one[name] > 0 for one in results for name in one if name.startswith(("build", "search")))
    first, second = ((tmp_path / f"generated-{count}.jsonl").read_text() for count in (50, 200))
    assert second.startswith(first)
