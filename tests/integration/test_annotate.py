"""One annotation job of 300 queries: with an engine of its own and undisturbed; killed again and again; and through a
server. All three come to the same.

Owns the kills: of the driver, of Ray's actor, of the engine's process, of the Ray node, at moments drawn from a seed.
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
import pyarrow.parquet as pq
import pytest

from r2r import tables
from r2r.demo.models import demo_model
from r2r.llm.journal import Journal

R2R = str(Path(sys.executable).parent / "r2r")
ROWS, IN_FLIGHT = 300, 8
KINDS = ["driver", "actor", "engine", "node"]
WORK = Path(__file__).parents[2] / "r2r" / "demo" / "collection" / "corpus.jsonl"


@pytest.fixture(scope="module")
def candidates(tmp_path_factory):
    """300 queries with two passages each, made of the words of the built-in collection."""
    folder = tmp_path_factory.mktemp("candidates")
    texts = [json.loads(line)["text"] for line in WORK.read_text().splitlines()]
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

    def __init__(self, candidates: Path, out: Path, teacher: str = "demo"):
        self.out = out
        flags = (
            f"--passages 2 --reasoning direct --reason-chars 80 --attempts 1 --max-tokens 256 --in-flight {IN_FLIGHT}"
        )
        flags += " --false-evidence drop --max-reject-rate 1"
        self.command = [R2R, "annotate", "--candidates", str(candidates), "--out", str(out), "--teacher", teacher]
        self.command += flags.split()
        self.log = (out.parent / f"{out.name}.log").open("ab")
        self.start()

    def start(self) -> None:
        env = os.environ | {"RAY_ADDRESS": "local"}
        self.process = subprocess.Popen(self.command, env=env, stdout=self.log, stderr=self.log, start_new_session=True)

    def answered(self) -> int:
        return sum(file.read_bytes().count(b"\n") for file in self.out.glob("rows/*/*.jsonl"))

    def victim(self, kind: str) -> psutil.Process | None:
        """Return the process of a kind, None where there is none at the moment."""
        if self.process.poll() is not None:
            return None
        driver = psutil.Process(self.process.pid)
        if kind == "driver":
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


def results(out: Path) -> list[dict]:
    found = pq.read_table(out / "annotations").to_pylist() + pq.read_table(out / "rejects").to_pylist()
    return sorted(found, key=lambda row: row["qid"])


@pytest.fixture(scope="module")
def undisturbed(candidates, tmp_path_factory):
    """The job that nobody kills, just started."""
    return Annotation(candidates, tmp_path_factory.mktemp("annotations") / "undisturbed")


def test_twenty_kills_change_nothing(candidates, undisturbed, tmp_path):
    job = Annotation(candidates, tmp_path / "killed")
    draw = random.Random(7)
    # Some kills come while rows are being answered, the others at any time, of which most is the start of an engine.
    plan = [(kind, True) for kind in KINDS] + [(kind, False) for kind in KINDS * 4]
    draw.shuffle(plan)
    begun, killed = time.monotonic(), Counter()
    for kind, working in plan:
        wanted = job.answered() + draw.randrange(1, 20) if working else 0
        time.sleep(draw.uniform(0, 4))
        while job.answered() < wanted or (victim := job.victim(kind)) is None:
            assert job.process.poll() != 0, "the job was over before the last kill"
            if job.process.poll() is not None:
                job.start()
            time.sleep(0.05)
        print(f"{time.monotonic() - begun:.0f} s: {job.answered()} rows, {kind} is killed", flush=True)
        victim.kill()
        killed[kind] += 1
        if kind == "driver":
            job.process.wait()
            job.start()
    assert sum(killed.values()) >= 20
    while job.process.wait() != 0:
        job.start()
    print(f"{time.monotonic() - begun:.0f} s: done", flush=True)
    assert undisturbed.process.wait() == 0
    lines = [line for file in job.out.glob("rows/*/*.jsonl") for line in file.read_bytes().splitlines()]
    journal = sum(b'"row"' in line for line in lines)
    rows = results(job.out)
    assert len({row["key"] for row in rows}) == len(rows) == ROWS
    assert rows == results(undisturbed.out)
    # No finished row was asked again: each stands once in what was written as it was answered.
    assert journal == ROWS
    (folder,) = (job.out / "rows").iterdir()
    assert len(list(Journal(folder))) == ROWS


@pytest.fixture
def server():
    """The demo's teacher behind vLLM's own server, with the settings of an engine in process; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--no-enable-chunked-prefill"]
    flags += ["--dtype", "float32", "--max-num-seqs", "256"]
    flags += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    # What `vllm serve` runs, whose command does not know itself in the build for CPUs.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", demo_model("teacher"), *flags]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        while process.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(f"{address}/health").is_success:
                    break
            time.sleep(0.5)
        assert process.poll() is None
        yield f"{address}/v1"
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_a_server_gives_the_same_answers(candidates, undisturbed, server, tmp_path):
    job = Annotation(candidates, tmp_path / "served", server)
    assert job.process.wait() == 0 and undisturbed.process.wait() == 0
    served, own = results(job.out), results(undisturbed.out)
    for row in served + own:
        # A key knows the teacher's name.
        assert row.pop("key")
        row.pop("teacher", None)
    assert served == own
