"""SIGTERM to index and to retrieve: one line, status 143, no process left, and the same command goes on.

The stages with models are terminated in the tests of their kills: annotate, distill, and rerank in a run (test_dl19).
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ending import terminate

pytestmark = pytest.mark.slow

R2R = str(Path(sys.executable).parent / "r2r")


def test_index_and_retrieve_are_terminated_and_go_on(tmp_path):
    log, index, found = tmp_path / "log", tmp_path / "index", tmp_path / "retrieve"

    def start(*command):
        with log.open("ab") as both:
            env = os.environ | {"RAY_ADDRESS": "local"}
            return subprocess.Popen([R2R, *command], env=env, stdout=both, stderr=both, start_new_session=True)

    def goes_on(sign, *command):
        process = start(*command)
        while not sign.exists():
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.01)
        terminate(process, log)
        assert not any((out / "manifest.json").exists() for out in (sign, sign.parent))
        assert start(*command).wait(timeout=300) == 0, log.read_text()[-3000:]

    goes_on(index / "shards", "index", "--corpus", "demo", "--shards", "2", "--out", str(index))
    goes_on(found, "retrieve", "--index", str(index), "--queries", "demo#dev", "--k", "5", "--out", str(found))
    assert len((found / "run.txt").read_text().splitlines()) == 500
