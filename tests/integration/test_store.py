"""An annotation job in an object store that is killed again and again: nothing is lost but what was in flight.

test_demo.py has all stages in a store.

Owns the store, on loopback (tests/s3.py), and a teacher of made-up replies.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.annotate_scale import serving
from r2r import builtin, tables
from r2r.nodecache import CACHE_VARIABLE
from r2r.places import place

pytestmark = pytest.mark.slow

R2R = str(Path(sys.executable).parent / "r2r")
ROWS = 400
FLAGS = "--passages 2 --reason-chars 160 --actors 2 --cpus 1 --in-flight 4 --max-tokens 400"


def environment(cache: Path) -> dict[str, str]:
    return os.environ | {"RAY_ADDRESS": "local", CACHE_VARIABLE: str(cache)}


def test_kills_of_a_job_in_a_store_lose_nothing_but_what_was_in_flight(store, tmp_path):
    texts = [json.loads(line)["text"] for line in (builtin.COLLECTIONS["demo"] / "corpus.jsonl").open()]
    draw = random.Random(0)
    rows = []
    for number in range(ROWS):
        passages = draw.sample(texts, 2)
        row = {"qid": f"q{number}", "query": f"{passages[0].split()[0]} {number}", "docids": ["a", "b"]}
        rows.append(row | {"texts": passages, "scores": [2.0, 1.0]})
    tables.write(rows, "s3://bucket/candidates", "candidates")
    # The bad days of a store, all at once, and many seconds long.
    store.faults.late, store.faults.throttle, store.faults.cut = 5, 0.02, 0.02
    out, log = "s3://bucket/killed", tmp_path / "log"
    with serving(0.2) as teacher:
        command = [R2R, "annotate", "--candidates", "s3://bucket/candidates", "--teacher", f"{teacher}#fake"]
        command += FLAGS.split()

        def start(to: str) -> subprocess.Popen:
            with log.open("ab") as told:
                env = environment(tmp_path / "cache")
                return subprocess.Popen([*command, "--out", to], env=env, stdout=told, stderr=told)

        def kept() -> int:
            return sum(
                one.content.count(b"\n") for key, one in list(store.objects.items()) if key.startswith("killed/rows")
            )

        for number in range(3):
            job, wanted = start(out), kept() + draw.randrange(20, 80)
            while kept() < wanted:
                assert job.poll() is None, log.read_text()[-3000:]
                time.sleep(0.05)
            job.kill()
            job.wait()
            print(f"kill {number + 1}: {kept()} rows", flush=True)
            # Until the listing knows what this life wrote.
            time.sleep(store.faults.late)
        before = Counter(line for key, one in store.objects.items() if "killed/rows" in key for line in _keys(one))
        assert start(out).wait() == 0, log.read_text()[-3000:]
        # Before the end, the journal's objects were put together.
        assert len(store.keys("killed/rows/")) <= 8
        after = Counter(line for key in store.keys("killed/rows/") for line in _keys(store.objects[key]))
        # Each row that was kept is still there, and was not asked again, but for those in flight at a kill.
        assert not before - after and len(after) == ROWS
        assert start("s3://bucket/undisturbed").wait() == 0, log.read_text()[-3000:]
    for table in ("annotations", "rejects"):
        assert tables.read(out, table) == tables.read("s3://bucket/undisturbed", table)
    contents = [
        json.loads((place(one) / "manifest.json").read_text())["content"] for one in (out, "s3://bucket/undisturbed")
    ]
    assert contents[0] == contents[1] and sum(after.values()) == ROWS


def _keys(one) -> list[str]:
    return [json.loads(line)["key"] for line in one.content.splitlines()]
