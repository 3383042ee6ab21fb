"""A Ray cluster over hosts (`tests/hosts.py`), set up as cluster.yaml does it: the head does no work, and nobody gets
in without the token. An object store and a laptop, from which jobs are submitted, are hosts of their own. No disk is
shared.

    with cluster("worker-1", "worker-2") as (hosts, store):
        job = submit(hosts, ["python", "jobs/pipeline.py", ...])
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import s3
from tests.hosts import ROOT, Host, inside, network, run, start, titles

HEAD, STORE, LAPTOP = "head", "store", "laptop"
DASHBOARD = f"http://{HEAD}:8265"
ENV = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "f" * 64,
    "RAY_USAGE_STATS_ENABLED": "0",
    # Kept small: the stores of all nodes are in this machine's memory.
    "OMP_NUM_THREADS": "1",
    "AWS_ENDPOINT_URL": f"http://{STORE}:9000",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
}
# A worker has no code but what comes with a job.
_CODE = [ROOT / name for name in ("r2r", "jobs", "demo_models")]


@contextmanager
def cluster(*workers: str, checks: int = 10) -> Iterator[tuple[dict[str, Host], s3.Store]]:
    """Start a head, a store, a laptop and workers with a CPU each, as Ray counts them, and end them.

    checks: how many health checks, of ten seconds each, a node may miss. Also yields what is in the store, whose server
    is this process.
    """
    with network(HEAD, STORE, LAPTOP, *workers, without=dict.fromkeys(workers, _CODE)) as hosts, ExitStack() as serving:
        with inside(hosts[STORE]):
            store = serving.enter_context(s3.serving("0.0.0.0", 9000))
        start_head(hosts, checks)
        for name in workers:
            start_worker(hosts, name)
        wait_for_nodes(hosts, 1 + len(workers))
        yield hosts, store


def start_head(hosts: Mapping[str, Host], checks: int = 10) -> None:
    env = ENV | {"RAY_health_check_failure_threshold": str(checks)}
    _start_node(hosts[HEAD], env, "--head", "--port=6379", "--dashboard-host=0.0.0.0", "--num-cpus=0")


def start_worker(hosts: Mapping[str, Host], name: str) -> None:
    # By its address: Ray looks up no names in /etc/hosts here.
    _start_node(hosts[name], ENV, f"--address={hosts[HEAD].address}:6379", "--num-cpus=1")


def _start_node(host: Host, env: Mapping[str, str], *flags: str) -> None:
    own = [f"--node-ip-address={host.address}", "--object-store-memory=80000000"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start(host, ["ray", "start", "--block", *own, *flags], env, **quiet)


def runs_ray(host: Host) -> bool:
    return any("/raylet/raylet " in title for title in titles(host))


def having(hosts: Mapping[str, Host], title: str) -> Host | None:
    """Return the first host on which a process has this title, None if there is none."""
    return next((host for host in hosts.values() if any(title in one for one in titles(host))), None)


def nodes_alive(hosts: Mapping[str, Host]) -> int:
    """Return how many nodes the head knows to be alive; 0 while it does not answer."""
    told = run(hosts[LAPTOP], ["python", "-c", _COUNT], ENV)
    return 0 if told.returncode else int(told.stdout)


_COUNT = f"""
import json, urllib.request
token = {{"Authorization": "Bearer {ENV["RAY_AUTH_TOKEN"]}"}}
request = urllib.request.Request("{DASHBOARD}/api/v0/nodes", headers=token)
nodes = json.load(urllib.request.urlopen(request, timeout=10))["data"]["result"]["result"]
print(sum(node["state"] == "ALIVE" for node in nodes))
"""


def wait_for_nodes(hosts: Mapping[str, Host], count: int, seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while (found := nodes_alive(hosts)) != count:
        assert time.monotonic() < until, f"{found} of {count} nodes came up in {seconds:.0f} s"
        time.sleep(1)


def submit(hosts: Mapping[str, Host], command: Sequence[str], log: Path) -> subprocess.Popen:
    """Submit a job from the laptop, with the code of this checkout, and follow it. `log` gets what it prints."""
    words = ["ray", "job", "submit", "--address", DASHBOARD, "--working-dir", str(ROOT), "--", *command]
    with log.open("ab") as file:
        return start(hosts[LAPTOP], words, ENV | {"PYTHONUNBUFFERED": "1"}, stdout=file, stderr=file)
