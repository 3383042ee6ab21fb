"""A run of another first stage with its texts, compared with Pyserini that fetches the same documents in a loop.

    R2R_DATA_DIR=DIR python benchmarks/first_stage.py --work DIR [--lines 100000 1000000]

The run has 100 passages per query, drawn at random from msmarco-pool if R2R_DATA_DIR is set, else from a generated
collection. Ours is the whole command `r2r retrieve --run`, from the start of Python to the last file. Pyserini's side
is `searcher.doc(docid)` and the text of each line, in a JVM that has started, over an index that is built beforehand;
it writes nothing. The script prints the table of `README.md`, and writes WORK/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bm25 import K, Processes, build_pyserini, generate, start_pyserini

JOBS = Path(__file__).resolve().parents[1] / "jobs"


def write_run(docids: list[str], lines: int, work: Path) -> None:
    """Write a run of about `lines` lines, and its queries."""
    draw, size = random.Random(0), min(K, len(docids))
    with (work / "run.txt").open("w") as run, (work / "queries.jsonl").open("w") as queries:
        for qid in range(-(-lines // size)):
            queries.write(json.dumps({"qid": str(qid), "query": f"query {qid}"}) + "\n")
            for rank, docid in enumerate(draw.sample(docids, size), start=1):
                run.write(f"{qid} Q0 {docid} {rank} {size - rank + draw.random():.6f} random\n")


def fetch(index: str, run: str) -> None:
    """Fetch each line's text as Pyserini's `LuceneSearcher.doc(docid)` does."""
    searcher = start_pyserini(1)("io.anserini.search.SimpleSearcher")(index)
    with open(run) as lines:
        for line in lines:
            searcher.doc(line.split()[2]).get("contents")


def join(file: Path, work: Path) -> tuple[float, int]:
    """Run `r2r retrieve --run` in a process of its own. Return its seconds, and its largest memory in MiB."""
    shutil.rmtree(work / "out", ignore_errors=True)
    command = [sys.executable, str(JOBS / "retrieve.py"), "--run", str(work / "run.txt"), "--k", str(K)]
    command += ["--corpus", f"jsonl:{file}#docid=id,text=contents", "--queries", f"jsonl:{work / 'queries.jsonl'}"]
    start = time.perf_counter()
    job = subprocess.Popen([*command, "--out", str(work / "out")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(job.pid, 0)
    job.returncode = os.waitstatus_to_exitcode(status)
    if job.returncode:
        raise RuntimeError(f"the job failed with exit status {job.returncode}")
    return time.perf_counter() - start, used.ru_maxrss // 1024


def measure(file: Path, work: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """Return the figures of each number of lines."""
    with file.open() as lines:
        docids = [json.loads(line)["id"] for line in lines]
    shutil.rmtree(work / "input", ignore_errors=True)
    (work / "input").mkdir(parents=True)
    (work / "input" / "corpus.jsonl").symlink_to(file)
    theirs = Processes(1)
    theirs.run(start_pyserini, (1,))
    shutil.rmtree(work / "index", ignore_errors=True)
    theirs.run(build_pyserini, (str(work / "input"), str(work / "index"), 1))
    found = []
    for size in sizes:
        write_run(docids, size, work)
        seconds, memory = join(file, work)
        loop, _ = theirs.run(fetch, (str(work / "index"), str(work / "run.txt")))
        one = {"lines": size, "ours": seconds, "memory": memory, "pyserini": loop}
        found.append(one | {"load": os.getloadavg()[0]})
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    theirs.close()
    return found


def main(arguments: list[str]) -> None:
    """Run the benchmark, print the table, and write WORK/results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=lambda name: Path(name).resolve(), help="folder to write to")
    parser.add_argument("--lines", type=int, nargs="*", default=[100_000], help="lines of the run")
    parser.add_argument("--passages", type=int, default=30_000, help="passages of a generated collection")
    settings = parser.parse_args(arguments)
    settings.work.mkdir(parents=True, exist_ok=True)
    if "R2R_DATA_DIR" in os.environ:
        file = Path(os.environ["R2R_DATA_DIR"], "msmarco-pool", "corpus.jsonl").resolve()
    else:
        file = settings.work / "corpus.jsonl"
        generate(file, settings.passages)
    results = measure(file, settings.work, settings.lines)
    (settings.work / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(
        "| lines | Pyserini's loop, s | ours, s | Pyserini / ours | our memory, MiB |\n| --- | --- | --- | --- | --- |"
    )
    for one in results:
        ratio = one["pyserini"] / one["ours"]
        print(f"| {one['lines']:,} | {one['pyserini']:.1f} | {one['ours']:.1f} | {ratio:.2f} | {one['memory']} |")


if __name__ == "__main__":
    main(sys.argv[1:])
