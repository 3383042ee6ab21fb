"""How long, and how much: annotate, distill and rerank on a cluster, from speeds that were measured or are assumed.

    python benchmarks/plan.py                                        # prints the tables, writes plan.json beside this
    python benchmarks/plan.py --gpus 32 --price 1.2 --loss 0.1 --speed 70B=900 --start 70B=240

Asking is simulated row by row: actors that start, rows in flight, blocks as `r2r.rows.pool` shares them out, and spot
nodes that are lost. The rest is arithmetic. Every figure that goes in is in `ASSUMED` or `MEASURED`, with its source;
`plan_check.py` holds the predictions against jobs that ran. No GPU was at hand: what depends on one is assumed.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from r2r.config import AnnotateSettings, DistillSettings, RerankSettings
from r2r.errors import BadInput
from r2r.rows import pool
from r2r.student.strategies import STRATEGIES
from r2r.teacher.calls import cost
from r2r.teacher.stats import engine_hours, guessed_reply

OUT = Path(__file__).with_suffix(".json")
QUERIES, PASSAGES, CORPUS = 500_000, 5, 8_841_823

# The GPU of cluster.yaml: an L40S.
ASSUMED: dict[str, tuple[float, str]] = {
    "peak": (362e12, "dense bfloat16 operations per second of an L40S, as its maker says; FP8 is twice as fast"),
    "bandwidth": (864e9, "bytes per second of its memory, as its maker says"),
    "memory": (48e9, "bytes of its memory, as its maker says"),
    "MFU": (0.4, "share of the peak in reading prompts and in training: usual for dense models of this size"),
    "bandwidth share": (0.7, "share of the bandwidth that writing reaches: usual for paged attention"),
    "tensor parallel": (0.5, "what is left of an engine's speed over 4 GPUs without NVLink, the sum being 1"),
    "weights of memory": (0.9, "vLLM's gpu_memory_utilization"),
    "price": (0.9, "per GPU hour: a third of g6e.12xlarge on demand, by 4 GPUs; spot prices move, so look yours up"),
    "loss": (0.05, "share of the spot nodes that is taken away each hour: a region with room; others lose 20 %"),
    "node": (300.0, "seconds until a node is there, with an image that is ready"),
    "start 70B": (300.0, "seconds to load 140 GB from a shared disk at 0.6 GB/s, and to compile"),
    "start 8B": (120.0, "seconds to load 16 GB, and to compile"),
    "price_in": (0.6, "of a million prompt tokens of a 70B model at a provider"),
    "price_out": (0.8, "of a million reply tokens of a 70B model at a provider"),
    "disk": (1e9, "bytes per second of the shared disk, all nodes together: EFS, elastic"),
    "puts": (3500.0, "requests to write per second and prefix of S3, as its maker says"),
}
# What runs without a GPU, on 2 cores; README.md says how.
MEASURED: dict[str, tuple[float, str]] = {
    "job": (18.5, "seconds from the command to the first request, without an engine's start: plan_check.py"),
    "row": (0.0022, "CPU seconds of a row in its actor, with HTTP, reading, checking, the journal: annotate_scale.py"),
    "prompt": (
        0.0056,
        "CPU seconds to make, cut and tokenize a prompt of 5 passages, Qwen's tokenizer, with its start",
    ),
    "tables": (0.00026, "CPU seconds of a row in the tables"),
    "index": (0.00001, "CPU seconds of a row in the journal's index"),
    "journal": (3429, "bytes of a row in the journal: annotate_scale.py"),
    "report": (0.00074, "CPU seconds of an actor's report on the board, one a second, of 200 actors"),
    "block": (0.0075, "CPU seconds of a block in the driver: what 600 more blocks took in pool_scale.py"),
    "index build": (2 * 300 / CORPUS, "core seconds of a passage in the index: bm25.py, extrapolated"),
    "search": (2 / 280, "core seconds of a query in 8.8 million passages: bm25.py, extrapolated"),
    "prompt tokens": (602, "of a row's prompt, Qwen's tokenizer, 300 rows of msmarco-pool"),
    "passage tokens": (84, "of a passage, the same"),
}


class Load(NamedTuple):
    """Rows to ask. `seconds`: the mean time of an answer while its engine is full; each takes from 1 - spread to 1 +
    spread of it. `slots`: the rows that fill an engine, 0 if all `in_flight` are needed for it."""

    rows: int
    actors: int
    in_flight: int
    seconds: float
    spread: float = 0.5
    slots: int = 0


class Asked(NamedTuple):
    """When the last row was answered, in seconds; the answers that were lost in flight; the engines lost; and the share
    of the slots' time that went into answers that counted, from the first actor's start."""

    seconds: float
    lost_rows: int
    deaths: int
    busy: float


def simulate(load: Load, ready: list[float], loss: float = 0.0, back: float = 0.0, seed: int = 0) -> Asked:
    """Simulate the pool.

    Arguments:
        ready: when each actor starts to ask, in seconds.
        loss: engines lost per engine and hour. A lost one asks the rows that it holds again, `back` seconds later.
    """
    draw, at_once = random.Random(seed), load.slots or load.in_flight
    size = pool.part_size(load.rows, load.actors, load.in_flight)
    parts = -(-load.rows // size)
    bounds = [load.rows * number // parts for number in range(parts + 1)]
    blocks = [bounds[one[-1] + 1] - bounds[one[0]] for one in pool.shares(parts, load.actors, size)]
    most, waiting = pool.ahead(len(blocks), load.actors), deque(blocks)
    actors = range(min(load.actors, len(blocks)))
    slots: list[list[float]] = [[] for _ in actors]
    # By actor: the times at which the rows of each block it holds end.
    held: list[dict[int, list[float]]] = [{} for _ in actors]
    alive, lives = set[int](), [0 for _ in actors]
    number, ended, lost_rows, deaths = 0, 0.0, 0, 0
    # Time, kind, actor, its life, block.
    events = [(ready[actor], "ready", actor, 0, 0) for actor in actors]
    heapq.heapify(events)

    def place(actor: int, now: float, rows: int) -> list[float]:
        ends = []
        for _ in range(rows):
            seconds = load.seconds * draw.uniform(1 - load.spread, 1 + load.spread)
            end = max(now, slots[actor][0]) + seconds
            heapq.heapreplace(slots[actor], end)
            ends.append(end)
        return ends

    def hold(actor: int, block: int, ends: list[float]) -> None:
        held[actor][block] = ends
        heapq.heappush(events, (max(ends), "done", actor, lives[actor], block))

    while events:
        now, kind, actor, life, block = heapq.heappop(events)
        if kind == "ready":
            alive.add(actor)
            slots[actor] = [now] * at_once
            for again, ends in list(held[actor].items()):
                hold(actor, again, place(actor, now, len(ends)))
            if loss:
                heapq.heappush(events, (now + draw.expovariate(loss / 3600), "lost", actor, lives[actor], 0))
        elif kind == "done" and life == lives[actor]:
            ended = max(ended, now)
            del held[actor][block]
        elif kind == "lost" and (waiting or held[actor]):
            deaths += 1
            lives[actor] += 1
            alive.discard(actor)
            left = {one: [end for end in ends if end > now] for one, ends in held[actor].items()}
            held[actor] = {one: ends for one, ends in left.items() if ends}
            lost_rows += min(at_once, sum(map(len, left.values())))
            heapq.heappush(events, (now + back, "ready", actor, lives[actor], 0))
        while waiting and alive:
            idle = min(alive, key=lambda one: len(held[one]))
            if len(held[idle]) >= most:
                break
            number += 1
            hold(idle, number, place(idle, now, waiting.popleft()))
    first = min(ready[: len(actors)])
    return Asked(ended, lost_rows, deaths, load.rows * load.seconds / (load.actors * at_once * (ended - first)))


class Model(NamedTuple):
    """A model: parameters, bytes of one, GPUs of an engine, and bytes of the cache for each token."""

    parameters: float
    bytes: float
    gpus: int
    cache: float


# Llama 3.3 70B in FP8 and Llama 3.1 8B, by their configurations: layers, 8 heads of 128 for keys and for values, in two
# bytes. Qwen 2.5 7B has 28 layers and 4 heads.
MODELS = {
    "70B": Model(70e9, 1, 4, 80 * 2 * 8 * 128 * 2),
    "8B": Model(8e9, 2, 1, 32 * 2 * 8 * 128 * 2),
    "7B": Model(7.6e9, 2, 1, 28 * 2 * 4 * 128 * 2),
}


def reading(model: Model, known: dict[str, float]) -> float:
    """Return the prompt tokens per second of an engine: two operations for each parameter and token."""
    share = known["tensor parallel"] if model.gpus > 1 else 1.0
    return model.gpus * known["peak"] * 2 / model.bytes * known["MFU"] * share / (2 * model.parameters)


def writing(model: Model, context: float, in_flight: int, known: dict[str, float]) -> tuple[float, int]:
    """Return the reply tokens per second of an engine, and how many rows fit into its cache at once.

    Each step reads all weights and the cache of each row. context: mean tokens of a row in the cache.
    """
    weights = model.parameters * model.bytes
    room = model.gpus * known["memory"] * known["weights of memory"] - weights
    rows = max(1, min(in_flight, int(room / (context * model.cache))))
    share = known["tensor parallel"] if model.gpus > 1 else 1.0
    step = (weights + rows * context * model.cache) / (
        model.gpus * known["bandwidth"] * known["bandwidth share"] * share
    )
    return rows / step, rows


def reply_speed(name: str, prompt: float, reply: float, in_flight: int, known: dict[str, float]) -> tuple[float, int]:
    """Return the reply tokens per second of an engine that reads the prompts, too; and the rows in flight."""
    model = MODELS[name]
    write, rows = writing(model, prompt + reply / 2, in_flight, known)
    given = known.get(f"speed {name}")
    return given or reply / (prompt / reading(model, known) + reply / write), rows


def annotate(name: str, gpus: int, known: dict[str, float], rows: int = QUERIES) -> dict[str, Any]:
    """Predict annotating `rows` queries with a teacher on `gpus` GPUs. Raises BadInput if no engine fits."""
    settings = AnnotateSettings(
        teacher="teacher",
        in_flight=256,
        actors=max(1, gpus // MODELS[name].gpus),
        price_in=known["price_in"],
        price_out=known["price_out"],
    )
    if gpus < MODELS[name].gpus:
        raise BadInput(f"gpus: {gpus}: an engine of {name} takes {MODELS[name].gpus}; give at least as many")
    prompt, reply = known["prompt tokens"], guessed_reply(PASSAGES, settings.reasoning)
    speed, in_flight = reply_speed(name, prompt, reply, settings.in_flight, known)
    found = asked_rows(rows, settings.actors, in_flight, reply / speed, gpus, known[f"start {name}"], known)
    engines = engine_hours(rows * reply, speed)
    api = cost(int(rows * prompt), rows * reply, settings) if name == "70B" else None
    limits = list(saturation(found["rows_per_second"], settings.actors, in_flight, rows, found["seconds"], known))
    return {
        "stage": "annotate",
        "model": name,
        "gpus": gpus,
        "engines": settings.actors,
        "rows": rows,
        "tokens_per_second": round(speed * settings.actors),
        "engine_hours_alone": round(engines, 1),
        "api": api,
        "limits": limits,
        **found,
    }


def asked_rows(
    rows: int,
    actors: int,
    in_flight: int,
    seconds: float,
    gpus: int,
    start: float,
    known: dict[str, float],
    slots: int = 0,
) -> dict[str, Any]:
    """Predict the time, losses and cost of `rows` rows. seconds: of a row, if an engine did nothing else. slots: the
    rows that fill an engine, 0 if it takes all in flight."""
    # An actor is one Python process: however fast its engine is, that makes so many rows.
    seconds = max(seconds, known["row"] + known["prompt"])
    share = min(slots or in_flight, -(-rows // actors))
    begin = known["job"] + known["node"] + start
    load = Load(rows, actors, in_flight, seconds * share, slots=share)
    # When an engine is lost is chance: the mean of three draws.
    draws = range(3 if known["loss"] else 1)
    runs = [simulate(load, [begin] * actors, known["loss"], known["node"] + start, draw) for draw in draws]
    last, lost_rows, deaths, busy = (sum(figures) / len(runs) for figures in zip(*runs, strict=True))
    tables = tables_seconds(rows, known)
    whole = last + tables
    return {
        "seconds": round(whole),
        "rows_per_second": round(rows / (last - begin), 1),
        "busy": round(busy, 3),
        "tables": round(tables),
        "lost_engines": round(deaths, 1),
        "lost_rows": round(lost_rows),
        "gpu_hours": round(gpus * whole / 3600, 1),
        "cost": round(gpus * whole / 3600 * known["price"], 2),
    }


def saturation(
    rows_per_second: float, actors: int, in_flight: int, rows: int, seconds: float, known: dict[str, float]
) -> Iterator[tuple[str, float, str]]:
    """Yield what else a job uses: its name, the share that it uses of what there is, and how it was counted.

    The share is at most 1 where the engines are the limit. Resuming is counted in the time of the whole job.
    """
    each = rows_per_second / actors
    size = pool.part_size(rows, actors, in_flight)
    blocks = len(pool.shares(-(-rows // size), actors, size)) / seconds
    yield "an actor's process", each * (known["row"] + known["prompt"]), f"{each:.1f} rows/s of one core"
    yield "prompts' tokenization", each * known["prompt"], "a part of the process"
    yield "progress reports", actors * known["report"], f"{actors} a second, on the board's core"
    yield "driver", blocks * known["block"], f"{blocks:.2f} blocks/s on its core"
    yield (
        "journal",
        rows_per_second * known["journal"] / known["disk"],
        f"{rows_per_second * known['journal'] / 1e6:.1f} MB/s",
    )
    puts = min(rows_per_second, actors)
    yield "object store", puts / known["puts"], f"{puts:.0f} objects/s, one a second and actor"
    resumed = actors * rows * known["journal"] / known["disk"]
    yield "journal, at a resume", resumed / seconds, f"{actors} actors read {rows * known['journal'] / 1e9:.1f} GB each"
    tables = tables_seconds(rows, known)
    yield "tables", tables / seconds, f"{tables:.0f} s after the last row"


def tables_seconds(rows: int, known: dict[str, float]) -> float:
    """Return the seconds that the tables take: the driver reads the journal's index, and writes all rows."""
    return rows * (known["index"] + known["tables"])


def distill(gpus: int, known: dict[str, float], examples: int = QUERIES) -> dict[str, Any]:
    """Predict one pass of a LoRA student over the annotations. More GPUs than batches of a step stay idle."""
    settings = DistillSettings(student="student", batch=1, batches=32, workers=min(gpus, 32), gpus=1)
    workers = min(gpus, settings.batches)
    tokens = known["prompt tokens"] + guessed_reply(PASSAGES, settings.reasoning)
    model = MODELS["7B"]
    # Two operations for each parameter forward, and two back through the frozen weights, which get no gradient.
    speed = known.get("speed distill") or known["peak"] * known["MFU"] / (4 * model.parameters)
    steps = examples // (settings.batch * settings.batches)
    of_step = tokens * settings.batch * -(-settings.batches // workers) / speed
    # A node that is lost takes the steps since the last checkpoint with it, and all wait for another.
    work = steps * of_step
    deaths = known["loss"] * workers * work / 3600
    again = deaths * (known["node"] + known["start 8B"] + settings.save_every / 2 * of_step)
    seconds = known["job"] + known["node"] + known["start 8B"] + work + again
    return {
        "stage": "distill",
        "model": "7B",
        "gpus": gpus,
        "engines": workers,
        "rows": examples,
        "steps": steps,
        "tokens_per_second": round(speed * workers),
        "seconds": round(seconds),
        "lost_engines": round(deaths, 1),
        # The others are not asked for.
        "gpu_hours": round(workers * seconds / 3600, 1),
        "cost": round(workers * seconds / 3600 * known["price"], 2),
    }


def rerank(queries: int, gpus: int, known: dict[str, float], candidates: int = 100, window: int = 20) -> dict[str, Any]:
    """Predict reranking with a 7B student: label scores in windows, no reasons."""
    settings = RerankSettings(actors=gpus, in_flight=256)
    calls = STRATEGIES[settings.long_lists].calls(candidates, window, 1)
    tokens = calls * (window * known["passage tokens"] + 150)
    speed = known.get("speed rerank") or reading(MODELS["7B"], known)
    actors = min(gpus, queries)
    # Reading is a matter of arithmetic, which two prompts keep busy; writing is one of many rows at once.
    found = asked_rows(queries, actors, settings.in_flight, tokens / speed, actors, known["start 8B"], known, slots=2)
    return {
        "stage": "rerank",
        "model": "7B",
        "gpus": gpus,
        "engines": actors,
        "rows": queries,
        "windows": calls,
        "tokens_per_second": round(speed * actors),
        **found,
    }


def first_stage(known: dict[str, float]) -> list[dict[str, Any]]:
    """Predict index and retrieve on the CPU nodes of cluster.yaml, 16 of 16 cores."""
    cores = 256
    work = {"index": CORPUS * known["index build"], "retrieve": QUERIES * known["search"]}
    rows = {"index": CORPUS, "retrieve": QUERIES}
    return [
        {
            "stage": stage,
            "cores": cores,
            "rows": rows[stage],
            "seconds": round(known["job"] + known["node"] + seconds / cores),
        }
        for stage, seconds in work.items()
    ]


def known_with(changes: dict[str, float]) -> dict[str, float]:
    """Return all figures that go in, with those that the user gives in their place. Raises BadInput for a bad one."""
    for name, value in changes.items():
        if not value >= 0 or (value == 0 and name != "loss"):
            raise BadInput(f"{name}: {value:g}; a figure above 0 is needed")
    return {name: value for name, (value, _) in (ASSUMED | MEASURED).items()} | changes


def plans(sizes: list[int], known: dict[str, float]) -> list[dict[str, Any]]:
    """Predict all that the tables show."""
    found = first_stage(known)
    for gpus in sizes:
        found += [annotate(name, gpus, known) for name in ("70B", "8B")]
        found += [distill(gpus, known)]
        found += [rerank(queries, gpus, known) for queries in (43, 6_980, QUERIES)]
    return found


def _time(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.0f} min"


def show(found: list[dict[str, Any]]) -> None:
    """Print the tables."""
    print(
        "Times of annotate and rerank are simulated, those of the others arithmetic; tokens/s and prices are assumed, "
        "unless given.\n"
    )
    print("| stage | rows | GPUs used | time | GPU hours | cost | tokens/s | engines lost | slots busy |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for one in found:
        if "gpus" not in one:
            print(f"| {one['stage']} | {one['rows']:,} | 0, {one['cores']} cores | {_time(one['seconds'])} | | | | | |")
            continue
        name = f"{one['stage']}, {one['model']}"
        used = one["engines"] * MODELS[one["model"]].gpus
        busy = f"{one['busy']:.0%}" if "busy" in one else ""
        figures = f"{one['gpu_hours']:,.0f} | {one['cost']:,.0f} | {one['tokens_per_second']:,}"
        print(
            f"| {name} | {one['rows']:,} | {used} of {one['gpus']} | {_time(one['seconds'])} | {figures} | "
            f"{one['lost_engines']} | {busy} |"
        )
    print(
        "\n| annotate | engines | rows/s | used most, beside the engines | share |\n| --- | ---: | ---: | --- | ---: |"
    )
    for one in found:
        for name, share, how in sorted(one.get("limits", []), key=lambda limit: -limit[1])[:3]:
            title = f"{one['model']}, {one['gpus']} GPUs"
            print(f"| {title} | {one['engines']} | {one['rows_per_second']:,} | {name}: {how} | {share:.2f} |")


def _changes(given: argparse.Namespace) -> dict[str, float]:
    changes = {name: getattr(given, name) for name in ("price", "loss") if getattr(given, name) is not None}
    for kind in ("speed", "start"):
        for word in getattr(given, kind):
            name, _, value = word.partition("=")
            allowed = [*MODELS, *(["distill", "rerank"] if kind == "speed" else [])]
            if name not in allowed:
                raise BadInput(f"{kind}: {word}: names no model; write {kind} as NAME=NUMBER, of {', '.join(allowed)}")
            try:
                changes[f"{kind} {name}"] = float(value)
            except ValueError:
                raise BadInput(f"{kind}: {word}: is no number; write it as {name}=900") from None
    return changes


def main(words: list[str]) -> int:
    """Print the tables and write them. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 256], help="sizes of the cluster")
    parser.add_argument("--price", type=float, help="of a GPU hour")
    parser.add_argument("--loss", type=float, help="share of the spot nodes that is lost each hour")
    parser.add_argument("--speed", nargs="+", default=[], metavar="NAME=N", help="tokens per second of one engine")
    parser.add_argument("--start", nargs="+", default=[], metavar="NAME=N", help="seconds until an engine answers")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(words)
    try:
        if min(given.gpus) < 1:
            raise BadInput(f"gpus: {min(given.gpus)}; at least 1 is needed")
        known = known_with(_changes(given))
        found = plans(given.gpus, known)
    except BadInput as error:
        print(f"plan: {error}", file=sys.stderr)
        return 2
    show(found)
    sources = {
        name: {"value": known.get(name), "is": kind, "source": source}
        for kind, table in (("assumed", ASSUMED), ("measured", MEASURED))
        for name, (_, source) in table.items()
    }
    given.out.write_text(json.dumps({"figures": sources, "plans": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
