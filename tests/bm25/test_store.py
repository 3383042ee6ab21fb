"""An index in a store that lists late, throttles and cuts: the same as on a disk, shard by shard and hit by hit."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_an_index_in_a_store_is_that_of_a_disk(tmp_path):
    # In a process of its own: a JVM stays in the one that starts it.
    command = [sys.executable, "-m", "tests.bm25.instore", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    same, throttled = done.stdout.splitlines()[-1].rsplit(" ", 1)
    assert same == "[true, true, true, true]" and int(throttled) > 3
