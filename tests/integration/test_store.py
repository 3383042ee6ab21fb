"""All stages with their folders in an object store, and nothing shared between their processes but that: the same as on
a disk. And an annotation job in a store that is killed again and again: nothing is lost but what was in flight.

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
from r2r.places import CACHE_VARIABLE, place
from tests.test_stores import upload

pytestmark = pytest.mark.slow

R2R = str(Path(sys.executable).parent / "r2r")
STAGES = ("index", "retrieve", "retrieve-train", "annotate", "distill", "rerank", "judge", "evaluate")
ROWS = 400


def environment(cache: Path) -> dict[str, str]:
    # PEFT writes a set of names in the order of their hashes.
    return os.environ | {"RAY_ADDRESS": "local", CACHE_VARIABLE: str(cache), "PYTHONHASHSEED": "0"}


@pytest.fixture
def world(store, tmp_path):
    """A small part of the built-in world, and its student, in the store. Returns the run file."""
    held, data = builtin.COLLECTIONS["demo"], tmp_path / "data"
    (data / "qrels").mkdir(parents=True)
    (data / "corpus.jsonl").write_text("".join((held / "corpus.jsonl").read_text().splitlines(keepends=True)[:300]))
    (data / "queries.jsonl").write_text((held / "queries.jsonl").read_text())
    for split, rows in (("train", 60), ("test", 30)):
        lines = (held / "qrels" / f"{split}.tsv").read_text().splitlines(keepends=True)
        (data / "qrels" / f"{split}.tsv").write_text("".join(lines[: rows + 1]))
    upload(store, data, "data")
    upload(store, builtin.MODELS["demo", "student"], "models/student")
    with serving(0.01) as teacher:
        settings = {
            **{"out": "unset", "corpus": "beir:s3://bucket/data", "train_queries": "beir:s3://bucket/data#train"},
            **{"queries": "beir:s3://bucket/data", "qrels": "beir:s3://bucket/data", "judge_reasons": True},
            "index": {"shards": 2, "workers": 1, "merge": True},
            "retrieve": {"k": 8, "workers": 1},
            "annotate": {"teacher": f"{teacher}#fake", "reason_chars": 160},
            "distill": {
                **{"student": "s3://bucket/models/student", "labels": "first", "steps": 4, "batches": 1, "workers": 1},
                **{"save_every": 2, "evaluate_every": 2},
            },
            "rerank": {"window": 5, "explain": 1, "reason_chars": 40},
        }
        # JSON is YAML.
        (tmp_path / "run.yaml").write_text(json.dumps(settings))
        yield tmp_path / "run.yaml"


def test_every_stage_in_a_store_comes_to_what_it_comes_to_on_a_disk(world, store, tmp_path):
    # A cache of its own each, as on machines of their own.
    for number, out in enumerate(("s3://bucket/runs/x", str(tmp_path / "disk"))):
        command = [R2R, "run", str(world), "--out", out]
        done = subprocess.run(command, env=environment(tmp_path / f"cache{number}"), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name in STAGES:
        stored = json.loads((place("s3://bucket/runs/x") / name / "manifest.json").read_text())
        local = json.loads((tmp_path / "disk" / name / "manifest.json").read_text())
        for what in ("content", "identity", "rows"):
            assert stored[what] == local[what], (name, what)
        assert stored["files"].keys() == local["files"].keys(), name
    for folder, table in (("retrieve", "candidates"), ("annotate", "annotations"), ("rerank", "rankings")):
        rows = tables.read(f"s3://bucket/runs/x/{folder}", table)
        assert rows == tables.read(tmp_path / "disk" / folder, table)
    # Nothing of the training's own is left, and nothing is written beside the run.
    assert not store.keys("runs/x/distill/checkpoints") and {key.split("/")[1] for key in store.keys("runs/")} == {"x"}
    # Each object of the journal was one of many.
    assert all(len(store.keys(f"runs/x/{name}/rows/")) <= 8 for name in ("annotate", "rerank"))
    again = subprocess.run(
        [R2R, "run", str(world), "--out", "s3://bucket/runs/x"],
        env=environment(tmp_path / "cache2"),
        capture_output=True,
        text=True,
    )
    assert again.stdout.count("done already, nothing to do") == len(STAGES), again.stdout + again.stderr


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
    flags = [
        "--passages",
        "2",
        "--reason-chars",
        "160",
        "--actors",
        "2",
        "--cpus",
        "1",
        "--in-flight",
        "4",
        "--max-tokens",
        "400",
    ]
    with serving(0.2) as teacher:
        command = [R2R, "annotate", "--candidates", "s3://bucket/candidates", "--teacher", f"{teacher}#fake", *flags]

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
