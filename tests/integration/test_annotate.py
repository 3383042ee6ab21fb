"""One annotation job of 160 queries, twice: in an object store, with an engine of its own and killed again and again;
and on a disk, through a server and undisturbed. Both come to the same.

Owns the kills: of the driver, of Ray's actor, of the engine's process, of the Ray node, and SIGTERM to the driver, at
moments drawn from a seed. The store throttles, cuts connections and lists late all the while.
"""

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from demo_models.world import world
from r2r import tables
from r2r.rows.journal import without_parts
from tests.ending import terminate
from tests.tiny import tiny_model

pytestmark = pytest.mark.slow

R2R = str(Path(sys.executable).parent / "r2r")
ROWS, IN_FLIGHT = 160, 8
# What is killed while rows are being answered, and at any time, most of which is the start of an engine.
WORKING = ["driver", "actor", "engine"]
ANY_TIME = ["driver"] * 2 + ["SIGTERM", "actor", "engine"] + ["node"] * 2


@pytest.fixture
def candidates(tmp_path):
    """160 queries with two passages each, made of the words of the built-in world."""
    folder = tmp_path / "candidates"
    texts = [passage.text for passage in world().world.passages]
    draw = random.Random(0)
    rows = []
    for number in range(ROWS):
        passages = draw.sample(texts, 2)
        query = " ".join(draw.sample(passages[0].split(), 5))
        row = {"qid": f"q{number}", "query": query, "docids": ["a", "b"], "texts": passages, "scores": [2.0, 1.0]}
        rows.append(row)
    tables.write(rows, folder, "candidates")
    return folder


class Annotation:
    """The job, run by one command that is given again whenever it was killed."""

    def __init__(self, candidates: Path, out: str, teacher: str, log: Path):
        flags = (
            f"--passages 2 --reasoning direct --reason-chars 8 --attempts 1 --max-tokens 256 --in-flight {IN_FLIGHT}"
        )
        flags += " --cpus 1 --temperature 0.7 --false-evidence drop --max-reject-rate 1"
        self.command = [R2R, "annotate", "--candidates", str(candidates), "--out", out, "--teacher", teacher]
        self.command += flags.split()
        self.log = log
        self.start()

    def start(self) -> None:
        env = os.environ | {"RAY_ADDRESS": "local"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=env, stdout=log, stderr=log, start_new_session=True)

    def told(self) -> str:
        return self.log.read_text(errors="replace").strip()

    def victim(self, kind: str) -> psutil.Process | None:
        """Return the process of a kind, None where there is none at the moment."""
        if self.process.poll() is not None:
            return None
        driver = psutil.Process(self.process.pid)
        if kind in ("driver", "SIGTERM"):
            return driver
        names = {"actor": "ray::MapWorker", "engine": "VLLM::EngineCore", "node": "raylet"}
        for process in driver.children(recursive=True):
            try:
                title = Path((process.cmdline() or [""])[0]).name
            except psutil.Error:
                continue
            if title.startswith(names[kind]):
                return process
        return None


class Server:
    """The same teacher behind vLLM's own server, with the settings of an engine in process."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        # What `vllm serve` runs, whose command does not know itself in the build for CPUs.
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", tiny_model()]
        command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-num-seqs", "256"]
        command += ["--enforce-eager", "--no-enable-chunked-prefill"]
        command += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
        env = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=os.environ | env, **quiet)

    def ready(self) -> bool:
        assert self.process.poll() is None
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.address}/health").is_success
        return False


@pytest.fixture
def server():
    started = Server()
    yield started
    # vLLM's server takes minutes to end by itself on a busy machine, and its engine stays if only the server is killed.
    processes = [started.process, *psutil.Process(started.process.pid).children(recursive=True)]
    for process in processes:
        process.kill()
    started.process.wait()


def kept(store) -> dict[str, bytes]:
    """Return the finished rows in the store's journal, by key: each is there once."""
    rows = {}
    objects = {name.rpartition("/")[2]: one for name, one in list(store.objects.items()) if "killed/rows/" in name}
    for name in without_parts(set(objects)):
        for line in objects[name].content.splitlines():
            if "row" in (entry := json.loads(line)):
                assert entry["key"] not in rows, name
                rows[entry["key"]] = line
    return rows


def results(out: str) -> list[dict]:
    found = tables.read(out, "annotations").to_pylist() + tables.read(out, "rejects").to_pylist()
    return sorted(found, key=lambda row: row["qid"])


def test_kills_and_a_server_change_nothing(candidates, server, store, tmp_path):
    store.faults.throttle, store.faults.cut, store.faults.late = 0.02, 0.02, 2
    job = Annotation(candidates, "s3://bucket/killed", tiny_model(), tmp_path / "killed.log")
    draw, before = random.Random(7), {}
    plan = [(kind, True) for kind in WORKING] + [(kind, False) for kind in ANY_TIME]
    draw.shuffle(plan)
    begun, killed, served = time.monotonic(), Counter(), None
    for kind, working in plan:
        wanted = len(kept(store)) + draw.randrange(1, 20) if working else 0
        time.sleep(draw.uniform(0, 3))
        while len(kept(store)) < wanted or (victim := job.victim(kind)) is None:
            assert job.process.poll() != 0, "the job was over before the last kill"
            if job.process.poll() is not None:
                job.start()
            if served is None and server.ready():
                served = Annotation(
                    candidates, str(tmp_path / "served"), f"{server.address}/v1", tmp_path / "served.log"
                )
            time.sleep(0.05)
        print(f"{time.monotonic() - begun:.0f} s: {len(kept(store))} rows, {kind} is killed", flush=True)
        if kind == "SIGTERM":
            terminate(job.process, job.log)
        else:
            victim.kill()
        killed[kind] += 1
        if kind in ("driver", "SIGTERM"):
            job.process.wait()
            job.start()
        before |= kept(store)
    assert sum(killed.values()) == 10
    while job.process.wait() != 0:
        job.start()
    print(f"{time.monotonic() - begun:.0f} s: done", flush=True)
    assert served is not None
    while served.process.wait() != 0:
        # Ray may not start in time while the other job has both cores.
        assert "r2r: ray: did not start" in served.told().splitlines()[-1], served.told()[-3000:]
        served.start()

    rows, undisturbed = results("s3://bucket/killed"), results(str(tmp_path / "served"))
    assert len({row["key"] for row in rows}) == len(rows) == ROWS
    # No finished row was asked again, and none was lost. The many objects were put together.
    after = kept(store)
    assert len(after) == ROWS and before.items() <= after.items()
    assert len(store.keys("killed/rows/")) <= 8
    for row in rows + undisturbed:
        # A key knows the teacher's name.
        assert row.pop("key")
        row.pop("teacher", None)
    assert rows == undisturbed
    assert any("ranking" in row for row in rows) and any("reason" in row for row in rows)
