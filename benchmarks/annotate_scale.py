"""The annotate job at scale and without a model, compared with a plain httpx loop against the same server.

    R2R_DATA_DIR=DIR python benchmarks/annotate_scale.py --work DIR [--rows 200000] [--resume 100000] [--in-flight 64]

Rows are five real passages of msmarco-pool and a query of words of the first. The server runs in a process of its own
and answers every request after 50 ms, with a sound reply that quotes a passage, so the clients are what is measured.
The loop reads JSON lines of prompts, keeps as many requests in flight, and writes JSON lines of the replies' texts: no
check, no fsync, no resuming. The figure is rows per second at steady state: from a tenth of the rows to nine tenths.
A second loop has a client for each request in flight, as the job has. Both loops take --loop-rows of the rows.

The script also measures the memory of the job's driver and worker when 1 %, 50 % and 100 % of the rows are done, the
bytes on disk per row, and how long the command takes to its next row where --resume rows are done already.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

JOB = Path(__file__).resolve().parents[1] / "jobs" / "annotate.py"
PASSAGES, REASONING = 5, "both"
# Rows in a file of the candidates, as the pipeline's own stage writes them.
_ROWS_PER_FILE = 1000
_MIB = 2**20


class Connection(asyncio.Protocol):
    """One connection of the fake server: as little of HTTP as httpx needs, so that it takes little of a core."""

    def __init__(self, delay: float):
        self.delay, self.waiting = delay, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        head, end, body = self.waiting.partition(b"\r\n\r\n")
        if not end:
            return
        size = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(size or 0):
            return
        self.waiting = b""
        if head.startswith(b"GET"):
            self.answer({"object": "list", "data": [{"id": "fake", "object": "model", "owned_by": "benchmark"}]})
        else:
            prompt = json.loads(body)["messages"][0]["content"]
            asyncio.get_running_loop().call_later(self.delay, self.answer, _completion(prompt))

    def answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


def _completion(prompt: str) -> dict[str, Any]:
    """Return a sound answer to a prompt, of some 1,200 characters. It quotes the first words of the first passage."""
    shown = prompt.count("\nPassage [")
    quoted = prompt.partition("Passage [1]: ")[2].partition("\n")[0].partition(".")[0][:200]
    passages = [
        {
            "identifier": number,
            "direct_answer_sentence": quoted if number == 1 else "",
            "direct_reason": f"Passage {number} speaks of what the query asks, and says of it what a reader needs.",
            "listwise_reason": f"[{number}] says more of it than what stands below, and less than what stands above.",
        }
        for number in range(shown, 0, -1)
    ]
    message = {"role": "assistant", "content": json.dumps({"ranked_passages": passages})}
    usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 300}
    return {
        "id": "1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
    }


async def serve(connection: Callable[[], asyncio.Protocol]) -> None:
    """Serve until the process is ended. Prints the port."""
    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def serving(value: float, script: str = __file__) -> Iterator[str]:
    """Run `script serve VALUE`, a server, in a process of its own; here the value is the delay. Yields its address."""
    process = subprocess.Popen([sys.executable, script, "serve", str(value)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def make_rows(data: Path, work: Path, rows: int) -> None:
    """Write the candidates, and the prompts that the job makes of them as JSON lines."""
    from r2r import identity, tables
    from r2r.llm.prompt import break_controls
    from r2r.teacher.prompt import prompt

    with (data / "msmarco-pool" / "corpus.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(line)["contents"] for line in lines]
    draw = random.Random(0)
    tables.clear(work, "candidates")
    with (work / "prompts.jsonl").open("w", encoding="utf-8") as prompts:
        waiting: list[dict[str, Any]] = []
        for number in range(rows):
            passages = draw.sample(texts, PASSAGES)
            words = passages[0].split()
            query = f"{' '.join(draw.sample(words, min(6, len(words))))} {number}"
            docids, scores = [str(place) for place in range(PASSAGES)], [1.0] * PASSAGES
            row = {"qid": str(number), "query": query, "docids": docids, "texts": passages, "scores": scores}
            message = prompt(break_controls(query), [break_controls(text) for text in passages], REASONING)
            prompts.write(json.dumps({"qid": row["qid"], "prompt": message}) + "\n")
            waiting.append(row)
            if len(waiting) == _ROWS_PER_FILE or number + 1 == rows:
                tables.write_part(waiting, work, "candidates", f"part-{number // _ROWS_PER_FILE:05}")
                waiting = []
    # As a stage leaves its folder: the content is known, and need not be hashed by those who read it.
    manifest = {"identity": "", "content": f"rows:{rows}", "files": identity.sizes(work, ["candidates"])}
    tables.write_text(json.dumps(manifest), work / "manifest.json")


async def _loop(address: str, prompts: str, out: str, in_flight: int, clients: int, rows: int) -> None:
    """Ask the first `rows` prompts: the loop that a user would write, with one client. clients: how many share them."""
    import httpx

    from r2r.teacher.prompt import schema

    form = {"name": "reply", "schema": schema(PASSAGES, REASONING, 600), "strict": True}
    fixed = {"model": "fake", "max_tokens": 4096, "temperature": 0.0, "seed": 1}
    fixed["response_format"] = {"type": "json_schema", "json_schema": form}
    limits = httpx.Limits(max_connections=None)
    tls = httpx.create_ssl_context()
    made = [httpx.AsyncClient(timeout=600, limits=limits, verify=tls) for _ in range(clients)]
    with open(prompts, encoding="utf-8") as lines, open(out, "w", encoding="utf-8") as written:
        left = islice(lines, rows)

        async def work(client: httpx.AsyncClient) -> None:
            for line in left:
                row = json.loads(line)
                body = fixed | {"messages": [{"role": "user", "content": row["prompt"]}]}
                answer = (await client.post(f"{address}/chat/completions", json=body)).json()
                text = answer["choices"][0]["message"]["content"]
                written.write(json.dumps({"qid": row["qid"], "reply": text}) + "\n")

        await asyncio.gather(*(work(made[number % clients]) for number in range(in_flight)))


class Counted:
    """Counts the lines of growing files, each byte read once, and notes when there were how many."""

    def __init__(self, files: Callable[[], list[Path]]):
        self.files, self.lines, self.seen = files, 0, dict[Path, int]()
        self.noted: list[tuple[float, int]] = []

    def look(self) -> int:
        for file in self.files():
            with file.open("rb") as opened:
                opened.seek(self.seen.get(file, 0))
                while block := opened.read(_MIB):
                    self.lines += block.count(b"\n")
                self.seen[file] = opened.tell()
        self.noted.append((time.monotonic(), self.lines))
        return self.lines

    def per_second(self, rows: int) -> float:
        """Return the lines per second between a tenth of `rows` and nine tenths."""
        first = next(note for note in self.noted if note[1] >= rows / 10)
        last = next(note for note in self.noted if note[1] >= 0.9 * rows)
        return (last[1] - first[1]) / (last[0] - first[0])


def theirs(work: Path, address: str, rows: int, in_flight: int, clients: int = 1) -> float:
    """Run the loop. Return rows per second."""
    out = work / "loop.jsonl"
    out.unlink(missing_ok=True)
    numbers = [str(number) for number in (in_flight, clients, rows)]
    command = [sys.executable, __file__, "loop", address, str(work / "prompts.jsonl"), str(out), *numbers]
    process = subprocess.Popen(command)
    counted = Counted(lambda: [out] if out.exists() else [])
    while process.poll() is None:
        counted.look()
        time.sleep(0.2)
    if process.returncode or counted.look() != rows:
        raise RuntimeError(f"the loop wrote {counted.lines} of {rows} rows")
    return counted.per_second(rows)


def _command(work: Path, out: Path, address: str, in_flight: int) -> list[str]:
    given = {"candidates": work, "teacher": address, "out": out, "passages": PASSAGES, "in-flight": in_flight}
    return [sys.executable, str(JOB), *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


def _start(command: list[str], log: Path) -> subprocess.Popen:
    with log.open("w") as written:
        env = os.environ | {"RAY_ADDRESS": "local"}
        return subprocess.Popen(command, stdout=written, stderr=written, env=env, start_new_session=True)


def _journal(out: Path) -> Callable[[], list[Path]]:
    return lambda: list(out.glob("rows/*/*.jsonl"))


def memory(job: subprocess.Popen) -> dict[str, int]:
    """Return the memory of the driver and of its worker, in MiB: PSS, in which shared pages count in part."""
    import psutil

    found = {"driver": 0, "worker": 0}
    with suppress(psutil.Error):
        driver = psutil.Process(job.pid)
        found["driver"] = driver.memory_full_info().pss // _MIB
        for process in driver.children(recursive=True):
            with suppress(psutil.Error):
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::MapWorker"):
                    found["worker"] += process.memory_full_info().pss // _MIB
    return found


def ours(work: Path, out: Path, address: str, rows: int, in_flight: int) -> tuple[float, dict[str, dict[str, int]]]:
    """Run the job. Return rows per second, and the memory by the share of rows that are done."""
    job = _start(_command(work, out, address, in_flight), work / "job.log")
    counted, held = Counted(_journal(out)), dict[str, dict[str, int]]()
    latest = {"driver": 0, "worker": 0}
    while job.poll() is None:
        done = counted.look()
        # While the worker is there; it ends before the driver writes the tables.
        if (now := memory(job))["worker"]:
            latest = now
        for share in (0.01, 0.5):
            if done >= share * rows:
                held.setdefault(f"{share:.0%}", latest)
        if done >= rows:
            held["100%"] = {"driver": max(now["driver"], held.get("100%", now)["driver"]), "worker": latest["worker"]}
        time.sleep(0.5)
    if job.returncode:
        raise RuntimeError((work / "job.log").read_text()[-2000:])
    stats = json.loads((out / "stats.json").read_text())
    if stats["rows"] != {"annotations": rows, "rejects": 0}:
        raise RuntimeError(f"the job wrote {stats['rows']}")
    return counted.per_second(rows), held


def resume(work: Path, out: Path, done: int, address: str, in_flight: int) -> float:
    """Start the job where `done` rows are finished, those of `out`. Return the seconds to its next row, and end it."""
    resumed = work / f"{out.name}-resumed"
    (journal,) = out.glob("rows/*")
    there = resumed / "rows" / journal.name
    there.mkdir(parents=True)
    left = done
    for file in sorted(journal.glob("*.jsonl")):
        with file.open("rb") as lines, (there / file.name).open("wb") as kept:
            for line in lines:
                if left:
                    kept.write(line)
                    left -= 1
    counted = Counted(_journal(resumed))
    before = counted.look()
    started = time.monotonic()
    job = _start(_command(work, resumed, address, in_flight), work / "resumed.log")
    try:
        while counted.look() == before:
            if job.poll() is not None:
                raise RuntimeError((work / "resumed.log").read_text()[-2000:])
            time.sleep(0.05)
        return time.monotonic() - started
    finally:
        job.terminate()
        job.wait()
        shutil.rmtree(resumed)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main(given: list[str]) -> None:
    """Run the benchmark and print the tables."""
    if given[:1] == ["serve"]:
        return asyncio.run(serve(lambda: Connection(float(given[1]))))
    if given[:1] == ["loop"]:
        return asyncio.run(_loop(*given[1:4], *map(int, given[4:])))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=lambda name: Path(name).resolve(), help="folder to write to")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--loop-rows", type=int, default=20_000, help="rows that each loop asks")
    parser.add_argument("--resume", type=int, default=100_000, help="rows that are done where the job goes on")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds that the server takes for an answer")
    settings = parser.parse_args(given)
    work, rows, in_flight = settings.work, settings.rows, settings.in_flight
    work.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ["R2R_DATA_DIR"])
    print(f"writes {rows:,} rows", flush=True)
    make_rows(data, work, rows)
    with serving(settings.delay) as address:
        loop = theirs(work, address, min(rows, settings.loop_rows), in_flight)
        print(f"the httpx loop: {loop:.0f} rows per second; load {os.getloadavg()[0]:.1f}", flush=True)
        spread = theirs(work, address, min(rows, settings.loop_rows), in_flight, in_flight)
        out = work / f"out-{time.time():.0f}"
        job, held = ours(work, out, address, rows, in_flight)
        print(f"the job: {job:.0f} rows per second; load {os.getloadavg()[0]:.1f}", flush=True)
        seconds = resume(work, out, settings.resume, address, in_flight) if settings.resume else float("nan")

    print(f"\n{rows:,} rows, {in_flight} requests in flight, answers after {settings.delay:.3f} s")
    print(f"\n| rows per second | httpx loop | the job | ratio | loop of {in_flight} clients | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(f"| steady state | {loop:.0f} | {job:.0f} | {job / loop:.2f} | {spread:.0f} | {job / spread:.2f} |")
    print("\n| MiB (PSS) at | driver | worker |\n| --- | --- | --- |")
    for share, one in held.items():
        print(f"| {share} of the rows | {one['driver']} | {one['worker']} |")
    journal, tables_ = _bytes(out / "rows") / rows, _bytes(out / "annotations") / rows
    print(f"\nOn disk: {journal:.0f} bytes of journal and {tables_:.0f} of table per row.")
    if settings.resume:
        print(f"With {settings.resume:,} rows done, the same command had its next row after {seconds:.1f} s.")


if __name__ == "__main__":
    main(sys.argv[1:])
