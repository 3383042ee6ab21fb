"""BM25, compared with the usual alternatives: Pyserini and bm25s.

    R2R_DATA_DIR=DIR python benchmarks/bm25.py --work DIR [--passages 10000 100000 1000000] [--threads 2]

One run measures, over the same files, the index build, the search of one index and of four shards, and the growth with
the collection; with `--load N`, also one retrieve job of N queries and the memory of its driver. The script prints the
tables of `README.md`, which explains the figures, and writes WORK/results.json.

The collections are msmarco-pool, if R2R_DATA_DIR is set, and generated ones of each size in `--passages`: about 60
words per passage, from 500,000 words with frequencies by Zipf's law, the same in every run. bm25s is no dependency of
this project: install it into its own environment (uv venv ENV; uv pip install --python ENV bm25s), and give that
environment's interpreter, --bm25s ENV/bin/python.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

K, K1, B, SHARDS = 100, 0.9, 0.4, 4
HEAP = 1024  # MiB for each of our workers; Pyserini's single process gets this for each of its threads
WARM_UP = 3  # rounds
MS_MARCO = 8_841_823  # passages
JOBS = Path(__file__).resolve().parents[1] / "jobs"


# The collections, one JSON object a line, in the format of Anserini's JsonCollection.


def generate(file: Path, passages: int) -> None:
    """Write a collection. A smaller one is the beginning of a larger one."""
    import numpy as np

    words = np.array([f"w{number}" for number in range(500_000)], dtype=object)
    # Shifted, since the most frequent words of real text are stop words, which the index leaves out.
    sums = np.cumsum(1 / (np.arange(len(words)) + 50))
    draw = np.random.default_rng(0)
    with file.open("w") as out:
        for start in range(0, passages, 10_000):
            lengths = draw.integers(20, 101, 10_000)
            drawn = words[np.searchsorted(sums, draw.random(lengths.sum()) * sums[-1])]
            for number, text in enumerate(np.split(drawn, np.cumsum(lengths)[:-1])[: passages - start], start):
                out.write(f'{{"id": "{number}", "contents": "{" ".join(text)}"}}\n')


def cut(file: Path, folder: Path, parts: int) -> None:
    """Split a file's lines into `parts` files: each thread of Pyserini's indexer reads its own file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = file.read_bytes().splitlines(keepends=True)
    for part in range(parts):
        bounds = len(lines) * part // parts, len(lines) * (part + 1) // parts
        (folder / f"{part}.jsonl").write_bytes(b"".join(lines[slice(*bounds)]))


def sample_queries(file: Path, count: int) -> list[str]:
    """Return queries of 2 to 6 words, each from one passage."""
    draw = random.Random(0)
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        found: list[str] = []
        while len(found) < count:
            stream.seek(draw.randrange(size))
            stream.readline()
            if line := stream.readline():
                words = json.loads(line)["contents"].split()
                found.append(" ".join(draw.sample(words, min(len(words), draw.randint(2, 6)))))
    return found


# These functions run in the measured processes. Each process keeps what it opened, so that start-up is not counted.

_opened: dict[str, Any] = {}


def start_ours(file: Path, threads: int) -> None:
    """Start up as a worker of the index job does."""
    from r2r import datasets
    from r2r.bm25 import java
    from r2r.bm25.index import is_brief

    _opened["parts"] = datasets.corpus_parts(_corpus(file), SHARDS)
    java.start(HEAP, is_brief(_opened["parts"], threads))


def read_ours(shards: list[int]) -> None:
    """Read the shards' passages and do nothing else. (Pyserini reads in Java, in its own format.)"""
    for number in shards:
        for _ in _opened["parts"][number].read():
            pass


def build_ours(shards: list[int], folder: Path) -> None:
    """Build shards as a worker of the index job does."""
    from r2r.bm25 import shard

    for number in shards:
        shard.build(_opened["parts"][number], folder / f"{number:05}", "", HEAP, lambda *told: None)


def open_ours(index: Path) -> None:
    """Open the index as a worker of the retrieve job does."""
    from r2r.bm25.search import Searcher

    _opened["ours"] = Searcher(index, K1, B, HEAP)


def search_ours(queries: list[str]) -> int:
    """Search, with docid, score and text of each hit in Python; return the number of hits."""
    return sum(len(_opened["ours"].search(query, K).docids) for query in queries)


def start_pyserini(threads: int) -> Callable[[str], Any]:
    """Start a JVM with Java's default options except the heap, as Pyserini does; return jnius' autoclass."""
    import jnius_config

    from r2r.bm25 import java

    if not jnius_config.vm_running:
        os.environ["JAVA_HOME"] = java.find_java()
        jnius_config.add_classpath(java.anserini_jar())
        jnius_config.add_options(f"-Xmx{HEAP * threads}m")
    import jnius

    return jnius.autoclass


def build_pyserini(folder: str, index: str, threads: int) -> None:
    """Call what `python -m pyserini.index.lucene` calls, with stored texts and buffers as ours."""
    options = f"-collection JsonCollection -threads {threads} -memoryBuffer {HEAP // 4 * threads} -storeContents"
    start_pyserini(threads)("io.anserini.index.IndexCollection").main(
        [*options.split(), "-input", folder, "-index", index]
    )


def open_pyserini(index: str, threads: int) -> None:
    """Open what Pyserini's LuceneSearcher wraps. Importing LuceneSearcher needs an OpenAI key and loads torch."""
    searcher = start_pyserini(threads)("io.anserini.search.SimpleSearcher")(index)
    searcher.set_bm25(K1, B)
    _opened["pyserini"] = searcher, threads


def search_pyserini(queries: list[str], texts: bool) -> int:
    """Do what LuceneSearcher.batch_search does, up to the dict that it returns; return the number of hits.

    texts: also read docid, score and text of each hit into Python, as ours does.
    """
    import jnius

    searcher, threads = _opened["pyserini"]
    asked, qids = (jnius.autoclass("java.util.ArrayList")() for _ in range(2))
    for number, query in enumerate(queries):
        asked.add(query)
        qids.add(str(number))
    results = searcher.batch_search(asked, qids, K, threads)
    found = {result.getKey(): result.getValue() for result in results.entrySet().toArray()}
    if texts:
        for hits in found.values():
            [(hit.docid, hit.score, hit.lucene_document.get("contents")) for hit in hits]
    return sum(map(len, found.values()))


def run_bm25s(file: str, queries: str, threads: int) -> None:
    """Print the seconds of build and search. Runs in the environment of bm25s."""
    import bm25s

    with open(file) as lines:
        texts = [json.loads(line)["contents"] for line in lines]
    asked = json.loads(Path(queries).read_text())
    start = time.perf_counter()
    index = bm25s.BM25(k1=K1, b=B)
    index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    built = time.perf_counter() - start
    start = time.perf_counter()
    tokens = bm25s.tokenize(asked, show_progress=False, return_ids=False)
    index.retrieve(tokens, k=min(K, len(texts)), show_progress=False, n_threads=threads)
    print(json.dumps([built, time.perf_counter() - start]))


# The measuring.


class Processes:
    """`count` processes; `run` calls a function in each, with its own arguments.

    It returns the seconds until the last one ends, and the CPU seconds of all of them. Other work on the machine hardly
    changes the CPU seconds.
    """

    def __init__(self, count: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pools = [ProcessPoolExecutor(1, mp_context=spawn, initializer=_quiet) for _ in range(count)]

    def run(self, call: Callable[..., Any], *arguments: tuple[Any, ...]) -> tuple[float, float]:
        start = time.perf_counter()
        waiting = [pool.submit(_cpu_of, call, own) for pool, own in zip(self.pools, arguments, strict=True)]
        cpu = sum(one.result() for one in waiting)
        return time.perf_counter() - start, cpu

    def close(self) -> None:
        for pool in self.pools:
            pool.shutdown()


def _quiet() -> None:
    # Anserini logs to stdout, where the tables go.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _cpu_of(call: Callable[..., Any], arguments: tuple[Any, ...]) -> float:
    before = time.process_time()
    call(*arguments)
    return time.process_time() - before


def measure(name: str, file: Path, work: Path, settings: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one collection: seconds of builds, queries per second of searches."""
    threads = settings.threads
    queries = sample_queries(file, settings.queries)
    with file.open("rb") as lines:
        found: dict[str, Any] = {"collection": name, "passages": sum(1 for _ in lines)}
    found["load_before"] = os.getloadavg()[0]
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    found |= _builds(file, work, threads)
    found |= _searches(work, queries, threads, settings.rounds)
    if settings.bm25s:
        (work / "queries.json").write_text(json.dumps(queries))
        command = [settings.bm25s, __file__, "bm25s", str(file), str(work / "queries.json"), str(threads)]
        built, searched = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        found |= {"build_bm25s": built, "search_bm25s": len(queries) / searched}
    found["load_after"] = os.getloadavg()[0]
    return found


def _builds(file: Path, work: Path, threads: int) -> dict[str, float]:
    """Return the seconds of the builds, and leave the indexes in `work`."""
    cut(file, work / "cut", threads)
    theirs = Processes(1)
    started_theirs = theirs.run(start_pyserini, (threads,))
    built_theirs = theirs.run(build_pyserini, (str(work / "cut"), str(work / "pyserini"), threads))
    theirs.close()

    ours = Processes(threads)
    started_ours = ours.run(start_ours, *[(file, threads)] * threads)
    shares = [list(range(number, SHARDS, threads)) for number in range(threads)]
    (work / "shards" / "shards").mkdir(parents=True)
    read = ours.run(read_ours, *[(share,) for share in shares])
    built_ours = ours.run(build_ours, *[(share, work / "shards" / "shards") for share in shares])
    ours.close()

    # For the search of one index, both sides use the index that Pyserini built.
    (work / "one" / "shards" / "00000").mkdir(parents=True)
    (work / "one" / "shards" / "00000" / "lucene").symlink_to(work / "pyserini")
    return {
        "start_pyserini": started_theirs[0],
        "start_ours": started_ours[0],
        "build_pyserini": built_theirs[0],
        "build_ours": built_ours[0],
        "build_ours_but_reading": built_ours[0] - read[0],
        "cpu_build_pyserini": built_theirs[1],
        "cpu_build_ours": built_ours[1],
    }


def _searches(work: Path, queries: list[str], threads: int, rounds: int) -> dict[str, float]:
    """Return queries per second, and CPU seconds per query, the medians over the rounds."""
    shares = [(queries[number::threads],) for number in range(threads)]
    one, four, theirs = Processes(threads), Processes(threads), Processes(1)
    one.run(open_ours, *[(work / "one",)] * threads)
    four.run(open_ours, *[(work / "shards",)] * threads)
    theirs.run(open_pyserini, (str(work / "pyserini"), threads))
    runs = {
        "search_pyserini": lambda: theirs.run(search_pyserini, (queries, False)),
        "search_ours": lambda: one.run(search_ours, *shares),
        "search_ours_shards": lambda: four.run(search_ours, *shares),
        "search_pyserini_texts": lambda: theirs.run(search_pyserini, (queries, True)),
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    # The first rounds are for Java's compiler. All sides take turns, so that other work slows all of them.
    for number in range(-WARM_UP, rounds):
        for name, call in runs.items():
            taken = call()
            if number >= 0:
                measured[name].append(taken)
    for processes in (one, four, theirs):
        processes.close()
    found: dict[str, float] = {}
    for name, rounds_of in measured.items():
        seconds, cpu = (statistics.median(column) for column in zip(*rounds_of, strict=True))
        found |= {name: len(queries) / seconds, f"cpu_{name}": cpu / len(queries)}
    return found


def measure_load(file: Path, work: Path, count: int, threads: int) -> dict[str, Any]:
    """Run one retrieve job of `count` queries; return its seconds and the memory of its driver over time."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with (work / "queries.jsonl").open("w") as out:
        for number, query in enumerate(sample_queries(file, count)):
            out.write(json.dumps({"qid": str(number), "query": query}) + "\n")
    index = _command("index", work / "index", threads, "--corpus", _corpus(file), "--shards", str(SHARDS))
    subprocess.run(index, check=True, stdout=subprocess.DEVNULL)
    command = _command(
        *("retrieve", work / "out", threads, "--index", str(work / "index")),
        *("--queries", f"jsonl:{work / 'queries.jsonl'}", "--k", str(K)),
    )
    memory, start = [], time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as job:
        while job.poll() is None:
            memory.append((round(time.perf_counter() - start), _resident(job.pid)))
            time.sleep(min(10, 1 + len(memory)))
    if job.returncode:
        raise RuntimeError(f"the job failed with exit status {job.returncode}")
    return {"queries": count, "seconds": time.perf_counter() - start, "memory": [one for one in memory if one[1]]}


def _resident(process: int) -> int:
    """Return the resident memory of a process in MiB; 0 after its end."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0)


def _corpus(file: Path | str) -> str:
    return f"jsonl:{file}#docid=id,text=contents"


def _command(stage: str, out: Path, threads: int, *more: str) -> list[str]:
    script = str(JOBS / f"{stage}.py")
    return [sys.executable, script, "--out", str(out), "--workers", str(threads), "--heap", str(HEAP), *more]


# The tables.


def report(results: list[dict[str, Any]], load: dict[str, Any] | None, threads: int) -> Iterator[str]:
    """Yield the lines of the tables, in Markdown."""
    columns = {
        "passages": "passages",
        "Pyserini": "search_pyserini",
        "and texts": "search_pyserini_texts",
        "ours, texts": "search_ours",
        f"ours, {SHARDS} shards": "search_ours_shards",
        "bm25s": "search_bm25s",
    }
    ratios = {
        "ours / Pyserini": ("search_ours", "search_pyserini"),
        "ours / and texts": ("search_ours", "search_pyserini_texts"),
        f"{SHARDS} shards / one": ("search_ours_shards", "search_ours"),
        "by CPU:": ("cpu_search_pyserini", "cpu_search_ours"),
        "and texts": ("cpu_search_pyserini_texts", "cpu_search_ours"),
        f"{SHARDS} shards": ("cpu_search_ours", "cpu_search_ours_shards"),
    }
    yield from ["", "Queries per second:", ""]
    yield from _table(results, columns, ratios)
    columns = {
        "passages": "passages",
        "Pyserini": "build_pyserini",
        "ours": "build_ours",
        "bm25s": "build_bm25s",
        "start Pyserini": "start_pyserini",
        "start ours": "start_ours",
    }
    yield from ["", "Seconds of the build:", ""]
    ratios = {
        "Pyserini / ours": ("build_pyserini", "build_ours"),
        "without reading": ("build_pyserini", "build_ours_but_reading"),
        "by CPU": ("cpu_build_pyserini", "cpu_build_ours"),
    }
    yield from _table(results, columns, ratios)
    yield ""
    loads = [f"{one['load_before']:.1f} to {one['load_after']:.1f}" for one in results]
    yield f"Load average before and after each collection: {', '.join(loads)}."
    generated = [one for one in results if one["collection"].startswith("generated")]
    if len(generated) > 1:
        yield from ["", *_extrapolation(generated[-2], generated[-1], threads)]
    if load:
        seen = load["memory"][:: max(1, len(load["memory"]) // 12)]
        yield ""
        yield f"One retrieve job of {load['queries']:,} queries, k={K}, {load['seconds']:.0f} s; the driver's memory:"
        yield ", ".join(f"{megabytes} MiB at {second} s" for second, megabytes in seen) + "."


def _extrapolation(smaller: dict[str, Any], larger: dict[str, Any], threads: int) -> Iterator[str]:
    """Yield an extrapolation from two collections to MS MARCO.

    It uses CPU seconds and assumes that only the number of cores limits the speed.
    """
    growth = math.log(larger["cpu_search_ours_shards"] / smaller["cpu_search_ours_shards"])
    power = growth / math.log(larger["passages"] / smaller["passages"])
    search = larger["cpu_search_ours_shards"] * (MS_MARCO / larger["passages"]) ** power
    build = larger["cpu_build_ours"] * MS_MARCO / larger["passages"]
    yield f"Extrapolated, not measured: from {smaller['passages']:,} to {larger['passages']:,} passages, CPU seconds"
    yield f"per query grow as the number of passages to the power of {power:.2f}. At best, {MS_MARCO:,} passages mean"
    for cores in (threads, 64):
        yield (
            f"- on {cores} cores: {cores / search:,.0f} queries per second (k={K}, with texts), "
            f"{build / cores / 60:,.1f} minutes to build"
        )


def _table(results: list[dict[str, Any]], columns: dict[str, str], ratios: dict[str, tuple[str, str]]) -> Iterator[str]:
    titles = ["collection", *columns, *ratios]
    yield f"| {' | '.join(titles)} |"
    yield f"|{' --- |' * len(titles)}"
    for one in results:
        cells = [one.get(name) for name in columns.values()]
        shown = [one["collection"], *map(_figure, cells)]
        shown += [f"{one[above] / one[below]:.2f}" for above, below in ratios.values()]
        yield f"| {' | '.join(shown)} |"


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


def main(arguments: list[str]) -> None:
    """Run the benchmark, print the tables, and write WORK/results.json."""
    if arguments[:1] == ["bm25s"]:
        return run_bm25s(arguments[1], arguments[2], int(arguments[3]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=lambda name: Path(name).resolve(), help="folder to write to")
    parser.add_argument("--passages", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=2_000, help="queries per timed search")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median counts")
    parser.add_argument("--threads", type=int, default=2, help="threads of Pyserini and bm25s; our workers")
    parser.add_argument("--load", type=int, default=0, help="queries of the retrieve job for the driver's memory")
    parser.add_argument("--bm25s", metavar="PYTHON", help="interpreter of an environment with bm25s")
    settings = parser.parse_args(arguments)
    settings.work.mkdir(parents=True, exist_ok=True)

    collections = {}
    if "R2R_DATA_DIR" in os.environ:
        collections["msmarco-pool"] = Path(os.environ["R2R_DATA_DIR"], "msmarco-pool", "corpus.jsonl").resolve()
    for passages in settings.passages:
        file = settings.work / f"generated-{passages}.jsonl"
        generate(file, passages)
        collections[f"generated {passages}"] = file
    results = []
    for name, file in collections.items():
        results.append(measure(name, file, settings.work / name.replace(" ", "-"), settings))
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    load = None
    if settings.load:
        load = measure_load(next(iter(collections.values())), settings.work / "load", settings.load, settings.threads)
    (settings.work / "results.json").write_text(json.dumps({"collections": results, "load": load}, indent=2) + "\n")
    print("\n".join(report(results, load, settings.threads)))


if __name__ == "__main__":
    main(sys.argv[1:])
