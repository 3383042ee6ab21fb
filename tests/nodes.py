"""A Ray cluster over hosts (`tests/hosts.py`), set up as cluster.yaml does it: the head does no work, and nobody gets
in without the token. A store and a laptop, from which jobs are submitted, are hosts of their own.

    with cluster("worker-1", "worker-2") as hosts:
        job = submit(hosts, ["python", "jobs/pipeline.py", ...])
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.hosts import ROOT, Host, network, restart, run, start

HEAD, STORE, LAPTOP = "head", "store", "laptop"
DASHBOARD = f"http://{HEAD}:8265"
ENV = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "f" * 64,
    "RAY_USAGE_STATS_ENABLED": "0",
    # Kept small: the stores of all nodes are in this machine's memory.
    "OMP_NUM_THREADS": "1",
}
# A worker has no code but what comes with a job.
_CODE = [ROOT / name for name in ("r2r", "jobs", "demo_models")]


@contextmanager
def cluster(*workers: str, cpus: int = 2, env=None) -> Iterator[dict[str, Host]]:
    """Start a head, a store, a laptop and workers with `cpus` CPUs each, as Ray counts them, and end them."""
    with network(HEAD, STORE, LAPTOP, *workers, without=dict.fromkeys(workers, _CODE)) as hosts:
        start_head(hosts, env or {})
        for name in workers:
            start_worker(hosts, name, cpus, env or {})
        wait_for_nodes(hosts, 1 + len(workers))
        yield hosts


def start_head(hosts: dict[str, Host], env) -> None:
    _start_node(hosts[HEAD], env, "--head", "--port=6379", "--dashboard-host=0.0.0.0", "--num-cpus=0")


def start_worker(hosts: dict[str, Host], name: str, cpus: int = 2, env={}) -> None:
    _start_node(hosts[name], env, f"--address={hosts[HEAD].address}:6379", f"--num-cpus={cpus}")


def _start_node(host: Host, env, *flags: str) -> None:
    own = [f"--node-ip-address={host.address}", "--object-store-memory=80000000"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    quiet={"stdout":open(f"/tmp/hosts-{host.name}.log","a"),"stderr":subprocess.STDOUT}
    start(host, ["ray", "start", "--block", *own, *flags], ENV | env, **quiet)


def nodes_alive(hosts: dict[str, Host]) -> int:
    """Return how many nodes the head knows to be alive; 0 while it does not answer."""
    ask = f"""
import json, urllib.request
request = urllib.request.Request("{DASHBOARD}/api/v0/nodes", headers={{"Authorization": "Bearer {ENV['RAY_AUTH_TOKEN']}"}})
print(sum(node["state"] == "ALIVE" for node in json.load(urllib.request.urlopen(request, timeout=10))["data"]["result"]["result"]))
"""
    told = run(hosts[LAPTOP], ["python", "-c", ask], ENV)
    return 0 if told.returncode else int(told.stdout)


def wait_for_nodes(hosts: dict[str, Host], count: int, seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while (found := nodes_alive(hosts)) != count:
        assert time.monotonic() < until, f"{found} of {count} nodes came up in {seconds:.0f} s"
        time.sleep(1)


def submit(hosts: dict[str, Host], command: Sequence[str], **options) -> subprocess.Popen:
    """Submit a job from the laptop, with the code of this checkout, and follow it."""
    words = ["ray", "job", "submit", "--address", DASHBOARD, "--working-dir", str(ROOT), "--", *command]
    return start(hosts[LAPTOP], words, ENV, **options)
