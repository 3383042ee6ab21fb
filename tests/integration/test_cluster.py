"""The whole pipeline as a job on a cluster: three nodes of a real Ray, on loopback, each with ports of its own.

Owns the nodes that it starts, and ends them by process id: `ray stop` would end every Ray of this machine. The nodes
are set up as cluster.yaml does it: the head does no work, and nobody gets in without the token.

    .venv/bin/python -m pytest tests/integration/test_cluster.py
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
RAY = str(BIN / "ray")
# Loopback addresses, one for each node. For 127.0.0.1 Ray would take the outer address of this machine.
HEAD, *WORKERS = "127.0.0.2", "127.0.0.3", "127.0.0.4"
STAGES = ["index", "retrieve", "retrieve-train", "annotate", "distill", "rerank", "evaluate"]


class Cluster(NamedTuple):
    dashboard: str
    env: dict[str, str]


def free_ports(count: int) -> list[int]:
    # All are held until the last one is known, so that no two are the same.
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def start_node(env: dict[str, str], address: str, temp: str, *flags: str) -> subprocess.Popen:
    names = ("node-manager", "object-manager", "runtime-env-agent", "dashboard-agent-listen", "metrics-export")
    ports = [f"--{name}-port={port}" for name, port in zip(names, free_ports(len(names)), strict=True)]
    # Worker ports of 0 are picked by the system; Ray's default is one range for all nodes of the machine.
    ports += ["--min-worker-port=0", "--max-worker-port=0"]
    # A folder of its own, as on a machine of its own: two nodes that unpack a job's code into one folder take it away
    # from under the running job.
    own = [f"--temp-dir={temp}/{address}", "--object-store-memory=200000000"]
    command = [RAY, "start", "--block", f"--node-ip-address={address}", *ports, *own, *flags]
    return subprocess.Popen(command, env=env, start_new_session=True)


def end_node(node: subprocess.Popen) -> None:
    """End what `ray start --block` started, of which Ray puts some into sessions of their own."""
    try:
        processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    node.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=20)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=20)


def nodes_alive(cluster: Cluster) -> int:
    request = urllib.request.Request(
        f"{cluster.dashboard}/api/v0/nodes", headers={"Authorization": f"Bearer {cluster.env['RAY_AUTH_TOKEN']}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        nodes = json.load(answer)["data"]["result"]["result"]
    return sum(node["state"] == "ALIVE" for node in nodes)


def wait_for_nodes(cluster: Cluster, count: int, newest: subprocess.Popen) -> bool:
    """Return whether `count` nodes are alive, once they are or the newest has given up."""
    deadline = time.monotonic() + 120
    while newest.poll() is None and time.monotonic() < deadline:
        # The dashboard takes its time to come up, and may not know the nodes at first.
        with suppress(OSError):
            if nodes_alive(cluster) == count:
                return True
        time.sleep(1)
    return False


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Another HOME keeps this cluster's token apart from the user's own; the caches stay, since what they hold is slow
    # to make.
    env.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    env |= {
        "HOME": str(tmp_path),
        "PATH": f"{BIN}{os.pathsep}{env['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    gcs, dashboard, client = free_ports(3)
    started = Cluster(f"http://127.0.0.1:{dashboard}", env)
    # Not under tmp_path: a socket's path may not be longer than 107 characters.
    temp = tempfile.mkdtemp(prefix="r2r-")
    head = [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    nodes = [start_node(env, HEAD, temp, "--head", "--num-cpus=0", *head)]
    try:
        assert wait_for_nodes(started, 1, nodes[-1])
        for count, address in enumerate(WORKERS, start=2):
            # Ray gives a node 30 seconds to join, which a busy machine may need more than once.
            for _ in range(3):
                nodes.append(start_node(env, address, temp, f"--address={HEAD}:{gcs}", "--num-cpus=2"))
                if joined := wait_for_nodes(started, count, nodes[-1]):
                    break
            assert joined
        yield started
    finally:
        for node in reversed(nodes):
            end_node(node)
        shutil.rmtree(temp, ignore_errors=True)


def test_pipeline_as_a_job_on_three_nodes(cluster, tmp_path):
    settings = yaml.safe_load((ROOT / "jobs/configs/demo.yaml").read_text())
    settings["distill"]["steps"] = 4
    settings["rerank"]["explain"] = 1
    run_file, out = tmp_path / "run.yaml", tmp_path / "run"
    run_file.write_text(yaml.safe_dump(settings))

    submit = [RAY, "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--"]
    pipeline = ["python", "jobs/pipeline.py", str(run_file), "--out", str(out)]
    job = subprocess.run([*submit, *pipeline], cwd=ROOT, env=cluster.env, timeout=900)

    assert job.returncode == 0
    assert nodes_alive(cluster) == 3
    assert [stage for stage in STAGES if not (out / stage / "manifest.json").is_file()] == []
    metrics = json.loads((out / "evaluate/metrics.json").read_text())
    assert {"bm25", "student", "random", "oracle"} <= set(metrics["systems"])
    assert (out / "rerank/run.txt").stat().st_size > 0
    assert (out / "distill/adapter/adapter_config.json").is_file()
