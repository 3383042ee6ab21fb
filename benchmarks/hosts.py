"""The whole pipeline on a cluster of six hosts that share no disk, undisturbed and with each fault that a network has:
do the tables come out right, and what does the user read?

Owns the faults and the table. Does not own the hosts (`tests/hosts.py`) or the cluster on them and the object store
(`tests/nodes.py`): they are namespaces on one machine, with root, about 10 GB of memory and 6 minutes a scenario on two
cores.

    python benchmarks/hosts.py                        # all scenarios
    python benchmarks/hosts.py undisturbed partition
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import s3  # noqa: E402
from tests.hosts import Host, lose, missing, restart  # noqa: E402
from tests.nodes import (  # noqa: E402
    HEAD,
    cluster,
    having,
    runs_ray,
    start_head,
    start_worker,
    submit,
    wait_for_nodes,
)

WORKERS = ["worker-1", "worker-2", "worker-3"]
STAGES = ["index", "retrieve", "retrieve-train", "annotate", "distill", "rerank", "evaluate"]
# The demo's run file with less of everything. One target keeps the adapter small: a connection over the slow link
# carries some 75 KB a second, and each step moves the adapter's gradients.
SMALLER = (
    "--train-queries demo#train100 --queries demo#dev --qrels demo#dev --retrieve.k 10 --no-zero-shot --no-teacher-row "
    "--no-judge-reasons --annotate.actors 2 --annotate.cpus 1 --distill.lora-targets q_proj --distill.steps 12 "
    "--distill.save-every 3 --distill.evaluate-every 6 --rerank.actors 2 --rerank.cpus 1 --rerank.explain 1"
)
# The longest that anything may take; a job that waits without end is a finding.
PATIENCE = 900.0


class Job:
    """A run of the pipeline on the hosts: submitted, watched, and submitted again."""

    def __init__(self, hosts: dict[str, Host], log: Path) -> None:
        self.hosts, self.log, self.begun = hosts, log, time.monotonic()
        self.submit()

    def submit(self) -> None:
        command = ["python", "jobs/pipeline.py", "jobs/configs/demo.yaml", "--out", "s3://bucket/run", *SMALLER.split()]
        self.process = submit(self.hosts, command, self.log)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, true: Callable[[], Any]) -> Any:
        """Return what `true` returns, once that is not nothing. The job must go on until then."""
        until = time.monotonic() + PATIENCE
        while not (found := true()):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the job was over, or waited {PATIENCE:.0f} s, before the fault")
            time.sleep(0.3)
        return found

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """Return the client's exit status; None if it has not ended after so many seconds, and then end it."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return None

    def tell(self, text: str) -> None:
        print(f"  {time.monotonic() - self.begun:4.0f} s: {text}", flush=True)

    def working(self, stage: str) -> Host:
        """Wait until a stage is at work, and return a host that works on it."""
        if stage == "distill":
            host = self.wait_until(lambda: having(self.hosts, "ray::RayTrainWorker"))
            # It loads libraries first, for about as long.
            time.sleep(20)
            return host
        # Annotating until it has answered rows; reranking is over too soon after its first.
        answered = "tokens/s" if stage == "annotate" else ""
        self.wait_until(lambda: re.search(rf"^{stage}: .*{answered}", self.said(), re.MULTILINE))
        return self.wait_until(lambda: having(self.hosts, "VLLM::EngineCore"))

    def cut(self, host: Host, seconds: float) -> None:
        self.tell(f"the link of {host.name} is down for {seconds:.0f} s")
        host.link.up = False
        time.sleep(seconds)
        host.link.up = True


def undisturbed(job: Job) -> None:
    pass


def partition(job: Job) -> None:
    for stage in ("annotate", "distill", "rerank"):
        job.cut(job.working(stage), 30)


def slow_link(job: Job) -> None:
    job.hosts[WORKERS[0]].link.delay, job.hosts[WORKERS[0]].link.loss = 0.1, 0.01


def lost_nodes(job: Job) -> None:
    for stage in ("annotate", "distill"):
        host = job.working(stage)
        job.tell(f"{host.name} is lost for good")
        lose(host)


def head_restart(job: Job) -> None:
    job.working("annotate")
    job.tell("the head is lost, and starts again")
    restart(job.hosts, HEAD)
    start_head(job.hosts)
    status = job.wait(60)
    job.tell(f"the client {'noticed nothing in 60 s' if status is None else f'ended with status {status}'}")
    for name in WORKERS:
        until = time.monotonic() + 120
        while runs_ray(job.hosts[name]) and time.monotonic() < until:
            time.sleep(1)
        job.tell(f"{name}: its node {'is still there' if runs_ray(job.hosts[name]) else 'has ended'}")
        if runs_ray(job.hosts[name]):
            restart(job.hosts, name)
        start_worker(job.hosts, name)
    wait_for_nodes(job.hosts, 1 + len(WORKERS))
    job.tell("the same command again")
    job.submit()


SCENARIOS = {
    "undisturbed": undisturbed,
    "partition": partition,
    "slow-link": slow_link,
    "lost-nodes": lost_nodes,
    "head-restart": head_restart,
}


def contents(store: s3.Store) -> dict[str, Any]:
    """Return what identifies each stage's output. Two trainings differ in the last bits of their weights: distill is
    known by its steps and its nDCG."""
    found = {}
    for stage in STAGES:
        if manifest := store.objects.get(f"run/{stage}/manifest.json"):
            said = json.loads(manifest.content)
            found[stage] = [said["rows"], said["best_step"], said["ndcg"]] if stage == "distill" else said["content"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS), help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--folder", type=Path, help="where logs and what came out lie; a new one in /tmp")
    asked = parser.parse_args()
    if why := missing():
        sys.exit(f"hosts: {why}")
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="r2r-hosts-"))
    folder.mkdir(parents=True, exist_ok=True)
    rows = [("scenario", "status", "seconds", "other than undisturbed", "last line")]
    for name in asked.scenarios:
        print(f"{name}:", flush=True)
        with cluster(*WORKERS) as (hosts, store):
            job = Job(hosts, folder / f"{name}.log")
            try:
                SCENARIOS[name](job)
            except RuntimeError as error:
                job.tell(str(error))
            status, seconds = job.wait(), time.monotonic() - job.begun
        found, known = contents(store), folder / "undisturbed.json"
        if name == "undisturbed":
            known.write_text(json.dumps(found))
        right = json.loads(known.read_text()) if known.exists() else {}
        wrong = [stage for stage in STAGES if stage not in found or found[stage] != right.get(stage)]
        rows.append((name, str(status), f"{seconds:.0f}", ", ".join(wrong) or "none", last_line(job.said())))
        print(" | ".join(rows[-1]), flush=True)
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))


def last_line(said: str) -> str:
    """Return the last line of a log that Ray did not write itself."""
    lines = [line.strip() for line in re.split(r"[\r\n]", said) if line.strip()]
    return next((line for line in reversed(lines) if not re.match(r"\d{4}-\d\d-\d\d |.*\(raylet", line)), "")[:100]


if __name__ == "__main__":
    main()
