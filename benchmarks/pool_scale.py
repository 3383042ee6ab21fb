"""The rows' pool with many actors and no model: where does it stop scaling?

    python benchmarks/pool_scale.py --work DIR [--rows 20000] [--actors 200] [--seconds 20] [--in-flight 32]

Real are `run_rows`, Ray and its actor processes, the journal with a file of each actor, the reports of each second, the
progress line, and the tables. Simulated is the answer: a sleep of `--seconds` on average, then an annotation of usual
length. Actors reserve 0.01 CPUs, so that many fit on one machine, and share its cores and its disk.

The script answers all rows, then runs again with all rows done, as a job does that was killed at its end. It says how
long each part took, and what the driver, the board of the progress, Ray and the actors took of CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import psutil

PASSAGES, _ROWS_PER_FILE = 5, 1000
_REASON = "Passage {} speaks of what the query asks, and says of it what a reader needs."
_COMPARISON = "[{}] says more of it than what stands below, and less than what stands above."


def make_rows(work: Path, rows: int) -> None:
    """Write candidates of drawn words, five passages of some 340 characters a row, as those of MS MARCO are."""
    from r2r import identity, tables

    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]
    pool = [" ".join(draw.choices(words, k=52)) for _ in range(5000)]
    tables.clear(work, "candidates")
    docids, scores = [str(place) for place in range(PASSAGES)], [1.0] * PASSAGES
    for first in range(0, rows, _ROWS_PER_FILE):
        made = [
            {
                "qid": str(number),
                "query": f"{' '.join(draw.choices(words, k=6))} {number}",
                "docids": docids,
                "texts": draw.sample(pool, PASSAGES),
                "scores": scores,
            }
            for number in range(first, min(rows, first + _ROWS_PER_FILE))
        ]
        tables.write_part(made, work, "candidates", f"part-{first // _ROWS_PER_FILE:05}")
    manifest = {"identity": "", "content": f"rows:{rows}", "files": identity.sizes(work, ["candidates"])}
    tables.write_text(json.dumps(manifest), work / "manifest.json")


class Sleeper:
    """Answers a row after a pause of `seconds` on average, from half of it to one and a half."""

    def __init__(self, seconds: float, row_key: Any):
        self.seconds, self.key = seconds, row_key

    def in_writing(self) -> int:
        return 0

    def close(self) -> None:
        pass

    async def __call__(self, row: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
        key = self.key(row)
        await asyncio.sleep(self.seconds * (0.5 + int(key[:8], 16) / 2**32))
        return "annotations", annotation(row, key), COUNTS


COUNTS = {"prompt_tokens": 900, "completion_tokens": 300, "cached_tokens": 0, "replies": 1, "attempts_1": 1}
COUNTS |= {"evidence": 1, "verbatim": 1, "cut_texts": 0, "same_as_shown": 0, "repaired": 0, "tau": -1.0, "agree": 0}


def annotation(row: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an annotation of usual length."""
    places = range(1, PASSAGES + 1)
    return {
        "qid": row["qid"],
        "key": key,
        "attempts": 1,
        "query": row["query"],
        "docids": row["docids"],
        "texts": row["texts"],
        "ranking": list(reversed(places)),
        "direct": [_REASON.format(place) for place in places],
        "evidence": [row["texts"][0][:150], *[""] * (PASSAGES - 1)],
        "comparison": [_COMPARISON.format(place) for place in places],
        "teacher": "sleeper",
        "prompt_tokens": 900,
        "completion_tokens": 300,
        "agreement": None,
    }


class Spent:
    """CPU seconds by role, of this process and of all that it started."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, str], float] = {}

    def look(self) -> None:
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            try:
                used, name = process.cpu_times(), " ".join(process.cmdline())
            except psutil.Error:
                continue
            actor = "board" if "_Board" in name else "tables" if "Table" in name else "actors"
            role = "driver" if process.pid == me.pid else actor if name.startswith("ray::") else "Ray"
            self.seen[process.pid, role] = used.user + used.system

    def sums(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for (_, role), seconds in self.seen.items():
            found[role] += seconds  # type: ignore[assignment]
        return found


def run(work: Path, out: Path, settings: Any, seconds: float) -> dict[str, Any]:
    """Run the pool over all rows. Return when what was reached, in seconds, and the CPU seconds."""
    from r2r import datasets
    from r2r.rows import pool
    from r2r.teacher import ask

    rows, version = datasets.open_candidates(str(work)), "v2-simulated"
    row_key = partial(ask.key, version=version, passages=PASSAGES)
    job = pool.Job("simulated", Sleeper, (seconds, row_key), row_key, version, ("annotations", "rejects"))
    spent, total, noted = Spent(), len(rows.qids), list[tuple[float, int, int]]()
    begun = time.monotonic()

    def go_on(counts: Counter[str]) -> bool:
        noted.append((time.monotonic() - begun, counts["done"], counts["in flight"]))
        spent.look()
        return True

    done = pool.run_rows(rows, job, settings, out, go_on)
    ended = time.monotonic() - begun
    spent.look()
    if done.counts["annotations"] != total:
        raise RuntimeError(f"{done.counts['annotations']} of {total} rows are answered")
    tenth, nine = (next((at for at, count, _ in noted if count >= share * total), ended) for share in (0.1, 0.9))
    full = next((at for at, _, flight in noted if flight >= settings.actors * settings.in_flight), float("nan"))
    # Of rows that were done before, not all are reported.
    answered = next((at for at, count, _ in noted if count == total), noted[-1][0])
    first = next((at for at, count, _ in noted if count), answered)
    return {
        "rows per second": 0.8 * total / (nine - tenth) if nine > tenth else float("inf"),
        "all actors full": full,
        "first row": first,
        "nine tenths": nine,
        "last row": answered,
        "tables": ended - answered,
        "looks per second": len(noted) / answered,
        "cpu": {role: round(spent, 1) for role, spent in spent.sums().items()},
        "content": done.contents["annotations"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=lambda name: Path(name).resolve(), help="folder to write to")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--actors", type=int, default=200)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0, help="mean time of an answer")
    given = parser.parse_args()
    from r2r.config import ModelWorkers

    settings = ModelWorkers(actors=given.actors, in_flight=given.in_flight, cpus=0.01)
    given.work.mkdir(parents=True, exist_ok=True)
    made = given.work / "made"
    if not made.exists() or made.read_text() != str(given.rows):
        make_rows(given.work, given.rows)
        made.write_text(str(given.rows))
    out = given.work / "out"
    shutil.rmtree(out, ignore_errors=True)
    for title in ("answered", "all done before"):
        found = run(given.work, out, settings, given.seconds)
        print(title, json.dumps(found), f"load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
