"""One annotation job of 160 queries, twice, in an object store: with an engine of its own, and through a server. Both
are killed again and again, and come to the same.

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
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from demo_models.world import world
from r2r import tables
from r2r.rows.journal import without_parts
from tests.ending import terminate
from tests.tiny import VLLM_ENV, VLLM_FLAGS, tiny_model

pytestmark = pytest.mark.slow

R2R = str(Path(sys.executable).parent / "r2r")
ROWS, IN_FLIGHT = 160, 8
# What is killed of each job: while rows are being answered, and at any time, most of which is the start of an engine.
# What only ends the driver is killed where the engine, which takes longest to start, is the server's.
KILLS = {
    "engine": (["actor", "engine"], ["driver", "actor", "engine"]),
    "server": (["driver"], ["driver", "SIGTERM", "node", "node"]),
}


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
        command += ["--host", "127.0.0.1", "--port", str(port), "--max-num-seqs", "256", *VLLM_FLAGS]
        command += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=os.environ | VLLM_ENV, **quiet)

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


def kept(store, name: str) -> dict[str, bytes]:
    """Return the finished rows in a job's journal, by key: each is there once."""
    rows = {}
    objects = {key.rpartition("/")[2]: one for key, one in list(store.objects.items()) if f"{name}/rows/" in key}
    for file in without_parts(set(objects)):
        for line in objects[file].content.splitlines():
            if "row" in (entry := json.loads(line)):
                assert entry["key"] not in rows, file
                rows[entry["key"]] = line
    return rows


def results(out: str) -> list[dict]:
    found = tables.read(out, "annotations").to_pylist() + tables.read(out, "rejects").to_pylist()
    return sorted(found, key=lambda row: row["qid"])


def kill_again_and_again(job: Annotation, store, name: str, draw: random.Random) -> int:
    """Kill a job as KILLS says, giving its command again whenever it has ended, and return how often.

    No finished row is asked again, none is lost, and the journal's many objects are put together.
    """
    working, any_time = KILLS[name]
    plan = [(kind, True) for kind in working] + [(kind, False) for kind in any_time]
    draw.shuffle(plan)
    begun, before = time.monotonic(), {}
    for kind, while_working in plan:
        wanted = len(kept(store, name)) + draw.randrange(1, 20) if while_working else 0
        time.sleep(draw.uniform(0, 3))
        while len(kept(store, name)) < wanted or (victim := job.victim(kind)) is None:
            assert job.process.poll() != 0, "the job was over before the last kill"
            if job.process.poll() is not None:
                job.start()
            time.sleep(0.05)
        print(f"{time.monotonic() - begun:.0f} s: {len(kept(store, name))} rows, {kind} is killed", flush=True)
        if kind == "SIGTERM":
            terminate(job.process, job.log)
        else:
            victim.kill()
        if kind in ("driver", "SIGTERM"):
            job.process.wait()
            job.start()
        before |= kept(store, name)
    while job.process.wait() != 0:
        job.start()
    print(f"{time.monotonic() - begun:.0f} s: done", flush=True)
    after = kept(store, name)
    assert len(after) == ROWS and before.items() <= after.items()
    assert len(store.keys(f"{name}/rows/")) <= 8
    return len(plan)


def test_kills_and_a_server_change_nothing(candidates, server, store, tmp_path):
    # The listing is so late that the job's end cannot rely on it. An actor's start does, and takes longer than that.
    store.faults.throttle, store.faults.cut, store.faults.late = 0.02, 0.02, 0.5
    draw, found, kills = random.Random(7), {}, 0
    for name in KILLS:
        teacher = tiny_model() if name == "engine" else f"{server.address}/v1"
        while name == "server" and not server.ready():
            time.sleep(0.5)
        job = Annotation(candidates, f"s3://bucket/{name}", teacher, tmp_path / f"{name}.log")
        kills += kill_again_and_again(job, store, name, draw)
        found[name] = results(f"s3://bucket/{name}")
    assert kills == 10

    for rows in found.values():
        assert len({row["key"] for row in rows}) == len(rows) == ROWS
        for row in rows:
            # A key knows the teacher's name.
            assert row.pop("key")
            row.pop("teacher", None)
    assert found["engine"] == found["server"]
    assert any("ranking" in row for row in found["engine"]) and any("reason" in row for row in found["engine"])
