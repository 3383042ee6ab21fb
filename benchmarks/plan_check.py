"""The predictions of `plan.py`, held against jobs that ran: `annotate` with a fake server, calibrated on one small run.

    python benchmarks/plan_check.py --work DIR

The server gives each request its own 200 tokens per second, and replies of half to one and a half of a mean length, so
it stands for an engine whose speed is known. The first run is small; from it come the start of the job, that of each
further actor, the tokens per second, and the end. The others differ in rows, actors, rows in flight and reply length,
and one loses an actor now and then (SIGKILL). Each is predicted before it runs. Rows are made up.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from annotate_scale import JOB, Connection, Counted, serve, serving
from plan import Load, simulate
from pool_scale import PASSAGES, make_rows

SPEED = 200.0


class Case(NamedTuple):
    """A run. kill_every: mean seconds between two losses of an actor, 0 for none."""

    name: str
    rows: int
    actors: int
    in_flight: int
    tokens: int
    kill_every: float = 0.0


CALIBRATION = Case("calibration", 500, 2, 16, 300)
CASES = [
    Case("more in flight", 3000, 2, 64, 300),
    Case("more actors, longer replies", 2000, 4, 16, 600),
    Case("with losses", 4000, 3, 32, 300, 25.0),
]


class Engine(Connection):
    """Answers after as long as its reply takes to write."""

    mean = 0

    def answer(self, content: dict[str, Any]) -> None:
        if "usage" not in content:
            return super().answer(content)
        drawn = int.from_bytes(hashlib.sha256(json.dumps(content).encode()).digest()[:4]) / 2**32
        tokens = content["usage"]["completion_tokens"] = round(self.mean * (0.5 + drawn))
        asyncio.get_running_loop().call_later(tokens / SPEED, super().answer, content)


class Measured(NamedTuple):
    """Seconds from the command to the moments of a run: each actor's process is there, its first row is on disk, the
    last row is, and the command ends."""

    actors: list[float]
    firsts: list[float]
    last: float
    ended: float
    rows_per_second: float
    kills: int


def measure(case: Case, work: Path, seed: int = 0) -> Measured:
    """Run the job."""
    rows = work / f"rows-{case.rows}"
    if not (rows / "manifest.json").exists():
        make_rows(rows, case.rows)
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    draw = random.Random(seed)
    with serving(case.tokens, __file__) as address:
        given = {"candidates": rows, "teacher": address, "out": out, "passages": PASSAGES, "cpus": 0.1}
        given |= {"actors": case.actors, "in-flight": case.in_flight}
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        begun, log = time.monotonic(), (work / "job.log").open("w")
        environment = os.environ | {"RAY_ADDRESS": "local"}
        job = subprocess.Popen([sys.executable, str(JOB), *words], stdout=log, stderr=log, env=environment)
        counted, seen, firsts = (
            Counted(lambda: list(out.glob("rows/*/*.jsonl"))),
            dict[int, float](),
            dict[Path, float](),
        )
        last, kills, next_kill = 0.0, 0, float("inf")
        while job.poll() is None:
            now = time.monotonic() - begun
            before = counted.lines
            counted.look()
            if counted.lines > before:
                last = now
            for file, size in counted.seen.items():
                if size:
                    firsts.setdefault(file, now)
            if now > next_kill or len(seen) < case.actors:
                for actor in _actors(job.pid):
                    seen.setdefault(actor, now)
            if case.kill_every and len(firsts) >= case.actors and next_kill == float("inf"):
                next_kill = now + draw.expovariate(1 / case.kill_every)
            if now > next_kill and counted.lines < case.rows:
                with suppress(ProcessLookupError):
                    os.kill(draw.choice(_actors(job.pid)), signal.SIGKILL)
                    kills += 1
                next_kill = now + draw.expovariate(1 / case.kill_every)
            time.sleep(0.1)
        ended = time.monotonic() - begun
    stats = out / "stats.json"
    if job.returncode or json.loads(stats.read_text())["rows"]["annotations"] != case.rows:
        raise RuntimeError((work / "job.log").read_text()[-2000:])
    return Measured(sorted(seen.values()), sorted(firsts.values()), last, ended, counted.per_second(case.rows), kills)


def _actors(job: int) -> list[int]:
    found = []
    for process in psutil.Process(job).children(recursive=True):
        with suppress(psutil.Error):
            if "MapWorker" in " ".join(process.cmdline()[:1]):
                found.append(process.pid)
    return found


class Calibrated(NamedTuple):
    """From the small run, in seconds: the first actor asks; each further one does; a request's token; an actor comes
    back; the end."""

    start: float
    stagger: float
    token: float
    back: float
    end: float


def calibrate(case: Case, run: Measured) -> Calibrated:
    """Return what one run shows. The first row of an actor is the shortest of those it asked first: half a mean."""
    latency = case.actors * case.in_flight / run.rows_per_second
    start = run.firsts[0] - latency / 2
    stagger = (run.firsts[-1] - run.firsts[0]) / max(1, case.actors - 1)
    return Calibrated(start, stagger, latency / case.tokens, start - run.actors[0], run.ended - run.last)


def predict(case: Case, known: Calibrated) -> tuple[float, float]:
    """Return the seconds to the last row and to the end; with losses, as the mean of 20 simulations."""
    load = Load(case.rows, case.actors, case.in_flight, known.token * case.tokens)
    ready = [known.start + known.stagger * actor for actor in range(case.actors)]
    loss = 3600 / case.kill_every / case.actors if case.kill_every else 0.0
    runs = [simulate(load, ready, loss, known.back, seed).seconds for seed in range(20 if loss else 1)]
    last = sum(runs) / len(runs)
    return last, last + known.end


def main(words: list[str]) -> None:
    """Calibrate, predict, run, and print the table."""
    if words[:1] == ["serve"]:
        Engine.mean = int(words[1])
        return asyncio.run(serve(lambda: Engine(0.0)))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=lambda name: Path(name).resolve(), help="folder to write to")
    parser.add_argument("--cases", nargs="+", type=int, default=list(range(len(CASES))), help="which of the cases")
    given = parser.parse_args(words)
    given.work.mkdir(parents=True, exist_ok=True)
    small = given.work / "calibration.json"
    if not small.exists():
        small.write_text(json.dumps(measure(CALIBRATION, given.work)._asdict()))
    known = calibrate(CALIBRATION, Measured(**json.loads(small.read_text())))
    print("calibrated:", ", ".join(f"{name} {value:.3f} s" for name, value in known._asdict().items()), flush=True)
    print(
        "| run | rows | actors | in flight | reply | lost | predicted, s | measured, s | ratio | last row: predicted, "
        "measured | ratio | load |"
    )
    print(f"| --- |{' ---: |' * 11}")
    for number in given.cases:
        case = CASES[number]
        last, whole = predict(case, known)
        run = measure(case, given.work)
        sizes = f"{case.rows:,} | {case.actors} | {case.in_flight} | {case.tokens} | {run.kills}"
        times = f"{whole:.1f} | {run.ended:.1f} | {whole / run.ended:.2f}"
        times += f" | {last:.1f}, {run.last:.1f} | {last / run.last:.2f}"
        print(f"| {case.name} | {sizes} | {times} | {os.getloadavg()[0]:.1f} |", flush=True)
        print(json.dumps({"case": case._asdict(), "run": run._asdict()}), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
