"""The server under load: latency beside the bare engine, overload, memory, and what a killed process costs.

    python benchmarks/serve.py [--requests 300] [--documents 20] [--memory 10000]
           [--memory-documents 2] [--replicas 1] [--out serve.json]

Each request has a query and as many passages of the built-in world, drawn anew, so that no two prompts share more than
their beginning. The bare engine answers the same prompts in the same run, as token ids in its own process, with no
HTTP, no Ray and no reading of requests between: what a server could reach at best. Server and engine have the same
settings, and one thread each.

Owns the load and what is measured. The server is `r2r serve`, as a user starts it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from demo_models.world import world

CLIENTS = (1, 4, 16, 64)
ROUNDS = 3
# The number of the first request, for each of CLIENTS, and of the warm-up, with its requests.
FIRST, WARM_UP = (1_000_000, 2_000_000, 3_000_000, 4_000_000), (10_000_000, 50)
# Processes that are killed, by the beginning of their titles.
VICTIMS = {"engine": "VLLM::EngineCore", "replica": "ray::ServeReplica:rerank", "proxy": "ray::ProxyActor"}
# Seconds after which a lost replica has a successor.
REPLACED = 75
# Answers in a row after which the server counts as back.
IN_A_ROW = 20

# Answers one request, by its number; returns its HTTP status, 200 for the bare engine.
Send = Callable[[int], Awaitable[int]]


class Requests:
    """Requests by number: the same number is the same request."""

    def __init__(self, documents: int):
        made = world()
        self.passages = [passage.text for passage in made.world.passages]
        self.queries = [query.text for query in made.queries["dev"]]
        self.documents = documents

    def of(self, number: int) -> tuple[str, list[str]]:
        """Return the query and the documents of a request."""
        draw = random.Random(number)
        return f"{draw.choice(self.queries)} {number}", draw.sample(self.passages, self.documents)


async def under_load(send: Send, clients: int, requests: int, first: int) -> tuple[list[float], Counter[int], float]:
    """Send so many requests, numbered from `first`, from clients that each wait for an answer before they go on.

    Returns the seconds of each answer with status 200, all statuses, and the seconds of the whole.
    """
    seconds: list[float] = []
    statuses: Counter[int] = Counter()
    numbers = iter(range(first, first + requests))

    async def client() -> None:
        for number in numbers:
            begun = time.perf_counter()
            status = await send(number)
            statuses[status] += 1
            if status == 200:
                seconds.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return seconds, statuses, time.perf_counter() - begun


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return the median and the 95th percentile, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=20)
    return {"p50_ms": round(1000 * cuts[9], 1), "p95_ms": round(1000 * cuts[18], 1)}


async def latencies(sides: dict[str, Send], requests: int) -> dict[str, dict[str, Any]]:
    """Return latency and throughput of each side for each of CLIENTS, after a warm-up. The sides take turns, ROUNDS
    times, since a machine's speed changes while it is measured."""
    for send in sides.values():
        await under_load(send, 4, WARM_UP[1], first=WARM_UP[0])
    found: dict[str, dict[str, Any]] = {name: {} for name in sides}
    for clients, first in zip(CLIENTS, FIRST, strict=True):
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        whole: Counter[str] = Counter()
        for turn in range(ROUNDS):
            for name, send in sides.items():
                share = requests // ROUNDS
                answered, statuses, took = await under_load(send, clients, share, first + turn * share)
                assert statuses == {200: share}, statuses
                seconds[name] += answered
                whole[name] += took
        for name in sides:
            found[name][str(clients)] = percentiles(seconds[name]) | {
                "per_second": round(len(seconds[name]) / whole[name], 1)
            }
        print(f"  {clients} clients: { {name: found[name][str(clients)] for name in sides} }", flush=True)
    return found


class Server:
    """`r2r serve` with the demo's student and so many replicas, ready."""

    def __init__(self, replicas: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "r2r", "serve", "--student", "demo", "--port", str(port)]
        command += ["--replicas", str(replicas), "--min-replicas", str(replicas)]
        env = os.environ | {"RAY_ADDRESS": "local"}
        begun = time.monotonic()
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if line.startswith("serve:"))
        self.start = time.monotonic() - begun
        self.url = line.split("POST ")[1].split(";")[0]

    def find(self, title: str) -> psutil.Process | None:
        """Return the process below the server whose title begins so."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if Path((process.cmdline() or [""])[0]).name.startswith(title):
                    return process
            except psutil.Error:
                continue
        return None

    def memory(self) -> dict[str, int]:
        """Return the resident memory of each process of VICTIMS, in MiB."""
        found = {name: self.find(title) for name, title in VICTIMS.items()}
        return {name: process.memory_info().rss >> 20 for name, process in found.items() if process}

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(120)


@asynccontextmanager
async def sending(url: str, requests: Requests) -> AsyncIterator[Send]:
    """Yield what sends a request to the server. A request without an answer has status 0."""
    # One client for each request in flight: at every request, httpx looks at all connections of a client's pool, which
    # for 1,280 of them takes longer than the server does.
    idle: list[httpx.AsyncClient] = []

    async def send(number: int) -> int:
        query, documents = requests.of(number)
        client = idle.pop() if idle else httpx.AsyncClient(timeout=60, verify=False)
        try:
            answer = await client.post(url, json={"query": query, "documents": documents})
        except httpx.HTTPError:
            return 0
        finally:
            idle.append(client)
        return answer.status_code

    try:
        yield send
    finally:
        await asyncio.gather(*(client.aclose() for client in idle))


async def overload(send: Send, clients: int) -> dict[str, Any]:
    """Return what becomes of one request from each of so many clients at once."""
    seconds, statuses, whole = await under_load(send, clients, clients, first=50_000_000)
    found = {"clients": clients, "statuses": dict(statuses), "seconds": round(whole, 1), **percentiles(seconds)}
    print(f"  overload: {found}", flush=True)
    return found


async def memory(server: Server, send: Send, requests: int) -> dict[str, dict[str, int]]:
    """Return the server's memory after a tenth of so many requests, and after all."""
    found = {}
    for share, first in ((requests // 10, 60_000_000), (requests - requests // 10, 70_000_000)):
        _, statuses, _ = await under_load(send, 16, share, first)
        assert set(statuses) == {200}, statuses
        found[str(share if first == 60_000_000 else requests)] = server.memory()
    print(f"  memory in MiB: {found}", flush=True)
    return found


async def kill(server: Server, send: Send, name: str, first: int) -> dict[str, Any]:
    """Kill a process under the load of 8 clients. Return the failed requests, and the seconds until the server is back:
    from the kill to the first of IN_A_ROW answers in a row."""
    statuses: Counter[int] = Counter()
    victim = server.find(VICTIMS[name])
    assert victim is not None, f"no {name}"
    row: list[float] = []
    killed = time.perf_counter()
    numbers = iter(range(first, first + 1_000_000))

    async def client() -> None:
        for number in numbers:
            status = await send(number)
            statuses[status] += 1
            if status == 200:
                row.append(time.perf_counter())
            else:
                row.clear()
                await asyncio.sleep(0.1)
            # The first answers after a kill may come from what the process had done already.
            if len(row) >= IN_A_ROW and row[-IN_A_ROW] > killed + 2:
                return

    async def strike() -> None:
        nonlocal killed
        await asyncio.sleep(2)
        killed = time.perf_counter()
        victim.kill()

    await asyncio.gather(strike(), *(client() for _ in range(8)))
    failed = {status: count for status, count in statuses.items() if status != 200}
    found = {"failed": failed, "answered": statuses[200], "back_after_s": round(row[-IN_A_ROW] - killed, 1)}
    print(f"  {name} killed: {found}", flush=True)
    return found


async def measured(requests: Requests, given: argparse.Namespace) -> dict[str, Any]:
    """Return everything that is measured: latencies of both sides, then what only a server has."""
    server = Server(given.replicas)
    print(f"server: ready after {server.start:.0f} s", flush=True)
    found: dict[str, Any] = {"start_s": round(server.start)}
    try:
        async with sending(server.url, requests) as send:
            with bare_engine(requests, given) as ask:
                found["latency"] = await latencies({"server": send, "engine": ask}, given.requests)
            found["overload"] = await overload(send, 1280)
            if given.memory:
                async with sending(server.url, Requests(given.memory_documents)) as short:
                    found["memory"] = await memory(server, short, given.memory)
            found["kills"] = {}
            for place, name in enumerate(VICTIMS):
                if place and given.replicas > 1:
                    # Others answered, so the one that was lost is still to be replaced.
                    await asyncio.sleep(REPLACED)
                found["kills"][name] = await kill(server, send, name, 100_000_000 * (place + 1))
    finally:
        server.end()
    return found


@contextmanager
def bare_engine(requests: Requests, given: argparse.Namespace) -> Iterator[Send]:
    """Start an engine in this process, with one thread, and yield what asks it the requests' prompts."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from r2r import builtin
    from r2r.llm import open_label_model
    from r2r.llm.engine import with_short_steps
    from r2r.llm.prompt import chat_ids
    from r2r.student.prompt import label_ids, prompt

    model = open_label_model(builtin.model("demo", "student"), with_short_steps({}))
    labels = label_ids(model.tokenizer, "demo")[: given.documents]
    ids: dict[int, list[int]] = {}
    for first, count in [WARM_UP, *((first, given.requests) for first in FIRST)]:
        for number in range(first, first + count):
            ids[number] = chat_ids(model.tokenizer, prompt(*requests.of(number)))

    async def send(number: int) -> int:
        await model.label_logprobs(ids.pop(number), labels)
        return 200

    try:
        yield send
    finally:
        model.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300, help="requests for each number of clients")
    parser.add_argument("--documents", type=int, default=20, help="documents of a request, at most 20")
    parser.add_argument("--memory", type=int, default=10_000, help="requests over which memory is watched; 0 for none")
    parser.add_argument("--memory-documents", type=int, default=2, help="documents of each of those requests")
    parser.add_argument("--replicas", type=int, default=1, help="replicas of the server, of which kills hit one")
    parser.add_argument("--out", type=Path, help="file for the figures, as JSON")
    given = parser.parse_args()
    requests = Requests(given.documents)
    found = asyncio.run(measured(requests, given))
    latency = found["latency"]
    ratios = {
        clients: round(latency["server"][clients]["p50_ms"] / latency["engine"][clients]["p50_ms"], 2)
        for clients in map(str, CLIENTS)
    }
    print(f"p50 of the server / of the bare engine, by clients: {ratios}", flush=True)
    if given.out:
        given.out.write_text(json.dumps(found | {"p50_ratio": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
