"""Ablations of one run file: which parts of the method make the student rank?

    python benchmarks/ablations.py jobs/configs/demo.yaml --work DIR --train-queries demo#train2000 --seeds 3

The condition `standard` is the run file. Each other condition changes one thing: the reasons in the replies, a loss,
the position of the order, the teacher's samples, or the number of annotated queries. Each condition is distilled and
reranked once per seed, with the run file's number of steps, and measured by nDCG@10 on the run file's queries. The seed
decides the order of the data and LoRA's initial weights. All conditions share the index, the candidates and the
annotations. N annotated queries are the first N of the pool `--train-queries`, without the rejected ones. So the pool
should begin with the run file's own train_queries.

Owns the conditions, the order of the runs, and the results: `ablations.json`, `ablations.md` and `ablations.svg` in the
folder, written again after every run. The stages do the work, each in its own process; their output goes to `log.txt`.
The same command resumes after a stop.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from r2r.config import LOSSES, DistillSettings, EvaluateSettings, RerankSettings, RunFile, Section
from r2r.errors import BadInput, Stopped

ROOT = Path(__file__).resolve().parents[1]
MEASURE = "nDCG@10"
NUMBERS = (100, 200, 500, 1000, 2000)


class Condition(NamedTuple):
    """queries: how many annotated queries. samples: the teacher's samples. distill, rerank: settings of the stages."""

    name: str
    queries: int
    samples: int
    distill: DistillSettings
    rerank: RerankSettings


def conditions(settings: RunFile, standard: int, numbers: list[int]) -> list[Condition]:
    """Return the conditions, `standard` first.

    standard: number of annotated queries, in all conditions but those for `numbers`. Leaves out conditions that equal
    an earlier one, and impossible ones, such as reasons that the teacher does not give.
    """

    def changed(
        name: str, update: dict[str, Any], queries: int = standard, samples: int = settings.annotate.samples
    ) -> Condition:
        distill = settings.distill.model_copy(update=update)
        # The student ranks in the format that it was trained on.
        as_taught = {"reasoning": distill.reasoning, "order_position": distill.order_position, "explain": 0}
        return Condition(name, queries, samples, distill, settings.rerank.model_copy(update=as_taught))

    asked = [
        changed("standard", {}),
        *(changed(f"reasoning {which}", {"reasoning": which}) for which in ("none", "direct", "comparison", "both")),
        *(changed(f"{loss} off", {loss: 0.0}) for loss in LOSSES),
        changed("only generation", {loss: 0.0 for loss in LOSSES if loss != "generation"}),
        *(changed(f"order {place}", {"order_position": place}) for place in ("first", "last")),
        changed("3 samples", {}, samples=3),
        *(changed(f"{number} queries", {}, queries=number) for number in sorted(numbers)),
    ]
    found: list[Condition] = []
    for one in asked:
        if _possible(one, settings) and all(one[1:] != other[1:] for other in found):
            found.append(one)
    return found


def _possible(one: Condition, settings: RunFile) -> bool:
    """Return whether the teacher gives the condition's reasons, a loss is left, and its student can rank."""
    given = settings.annotate.reasoning in ("both", one.distill.reasoning) or one.distill.reasoning == "none"
    losses = any(getattr(one.distill, loss) for loss in LOSSES)
    return given and losses and not (one.rerank.order_position == "last" and one.rerank.mode == "generate")


def summary(values: dict[str, float]) -> dict[str, Any]:
    """Return the mean and the sample standard deviation over one condition's seeds. One seed has the spread None."""
    found = list(values.values())
    spread = round(statistics.stdev(found), 6) if len(found) > 1 else None
    return {"seeds": values, "mean": round(statistics.mean(found), 6), "spread": spread}


def kept(file: Path, key: str) -> dict[str, Any]:
    """Return the conditions in a result file of an earlier run; none if its settings or inputs were others."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return found["conditions"] if found["key"] == key else {}
    except (OSError, ValueError, KeyError):
        return {}


def table(results: dict[str, Any]) -> str:
    """Return the results in Markdown: a row per condition, compared with `standard`."""
    found = results["conditions"]
    lines = [
        f"| condition | queries | annotations | {results['measure']} | ± | against standard | seeds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, one in found.items():
        spread = "" if one["spread"] is None else f"{one['spread']:.4f}"
        change = "" if name == "standard" else f"{one['mean'] - found['standard']['mean']:+.4f}"
        cells = (name, f"{one['queries']:,}", f"{one['annotations']:,}", f"{one['mean']:.4f}", spread, change)
        lines.append(f"| {' | '.join(cells)} | {len(one['seeds'])} |")
    for name in ("bm25", "teacher"):
        if results[name] is not None:
            lines.append(f"| {name} | | | {results[name]:.4f} | | {results[name] - found['standard']['mean']:+.4f} | |")
    note = f"{results['measure']} is the mean over {results['queries_evaluated']:,} queries, and then over the seeds; "
    note += "± is the sample standard deviation between seeds."
    return "\n".join([*lines, "", note, *([results["caption"]] if results["caption"] else []), ""])


INK, MUTED, GRID, ACCENT = "#1a2029", "#5c6675", "#e3e6eb", "#2f6fb3"
LINES = {"bm25": "#b3371f", "teacher": "#16713f"}
WIDTH, TOP, ROW = 900, 96, 30


def plot(results: dict[str, Any]) -> str:
    """Return a plot of the results as SVG: the learning curve on the left, the other conditions on the right.

    The tooltip of each dot has the condition's name and figures.
    """
    found = results["conditions"]
    standard = found["standard"]
    # Only the conditions of the learning curve have other numbers of queries.
    right = {name: one for name, one in found.items() if one["queries"] == standard["queries"]}
    left = {name: one for name, one in found.items() if name == "standard" or name not in right}
    bottom = TOP + max(240, ROW * len(right))
    notes = textwrap.wrap(results["caption"], 125)
    height = bottom + 68 + 17 * len(notes) + 6 * bool(notes)
    title = f"What makes the student rank: {results['measure']} on {results['queries_evaluated']:,} queries"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label={quoteattr(title)} '
        f"font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"12.5\">",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        _text(20, 30, title, size=18, weight=600),
        _text(20, 51, "Dots: means over seeds. Whiskers: ± one sample standard deviation of the seeds.", MUTED),
        _text(20, 80, "More annotated queries", size=14, weight=600),
        _text(478, 80, "One setting changed", size=14, weight=600),
        *_curve(left, results, bottom),
        *_rows(right, results["measure"], bottom),
        *(_text(20, bottom + 76 + 17 * at, line, MUTED) for at, line in enumerate(notes)),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _curve(found: dict[str, Any], results: dict[str, Any], bottom: int) -> Iterator[str]:
    """Yield the elements of the learning curve. found: the conditions in it."""
    start, end = 74, 346
    levels = {name: results[name] for name in LINES if results[name] is not None}
    ticks, label = _ticks([*(edge for one in found.values() for edge in _edges(one)), *levels.values()])
    y = _scale(ticks[0], ticks[-1], bottom, TOP)
    points = sorted(found.items(), key=lambda point: point[1]["queries"])
    numbers = [one["queries"] for _, one in points]
    x = _scale(math.log(numbers[0]), math.log(numbers[-1]), start + 18, end - 18)
    for tick in ticks:
        yield _line(start, y(tick), end, y(tick), GRID)
        yield _text(start - 8, y(tick) + 4, label(tick), MUTED, "end")
    yield _text(22, (TOP + bottom) / 2, results["measure"], MUTED, "middle", turned=True)
    yield _text((start + end) / 2, bottom + 48, "annotated queries (log scale)", MUTED, "middle")
    for (name, value), place in zip(levels.items(), _apart([y(value) for value in levels.values()], 15), strict=True):
        yield _line(start, y(value), end, y(value), LINES[name], dashed=True)
        yield _text(end + 6, place + 4, f"{name} {value:.3f}", LINES[name])
    along = " ".join(f"{x(math.log(one['queries'])):.1f},{y(one['mean']):.1f}" for _, one in points)
    yield f'<polyline points="{along}" fill="none" stroke="{ACCENT}" stroke-width="1.5"/>'
    last = -math.inf
    for name, one in points:
        at = x(math.log(one["queries"]))
        low, high = _edges(one)
        yield _line(at, y(low), at, y(high), ACCENT, 2)
        yield _dot(at, y(one["mean"]), name, one)
        yield _line(at, bottom, at, bottom + 4, MUTED)
        if at - last > 36:
            yield _text(at, bottom + 18, f"{one['queries']:,}", MUTED, "middle")
            last = at
        if name == "standard":
            yield _text(at, bottom + 32, "standard", ACCENT, "middle")


def _rows(found: dict[str, Any], measure: str, bottom: int) -> Iterator[str]:
    """Yield the elements of the rows on the right. found: the conditions in them."""
    start, end = 608, 778
    ticks, label = _ticks([edge for one in found.values() for edge in _edges(one)])
    x = _scale(ticks[0], ticks[-1], start, end)
    for tick in ticks:
        yield _line(x(tick), TOP, x(tick), bottom, GRID)
        yield _text(x(tick), bottom + 18, label(tick), MUTED, "middle")
    yield _text((start + end) / 2, bottom + 48, measure, MUTED, "middle")
    middle = x(found["standard"]["mean"])
    yield _line(middle, TOP, middle, bottom, ACCENT, dashed=True)
    for at, (name, one) in enumerate(found.items()):
        y = TOP + ROW * (at + 0.5)
        low, high = _edges(one)
        spread = "" if one["spread"] is None else f" ± {one['spread']:.3f}"
        yield _text(start - 14, y + 4, name, anchor="end", weight=600 if name == "standard" else 400)
        yield _line(x(low), y, x(high), y, ACCENT, 2)
        yield _dot(x(one["mean"]), y, name, one)
        yield _text(end + 12, y + 4, f"{one['mean']:.3f}{spread}", MUTED)


def _edges(one: dict[str, Any]) -> tuple[float, float]:
    spread = one["spread"] or 0.0
    return one["mean"] - spread, one["mean"] + spread


def _ticks(values: list[float]) -> tuple[list[float], Callable[[float], str]]:
    """Return three to six round numbers around all values, and a function that formats them."""
    low, high = min(values), max(values)
    span = max(high - low, 0.02)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= 4)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [number * step for number in range(first, last + 1)], lambda tick: f"{tick:.{digits}f}"


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    if low == high:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _apart(places: list[float], gap: float) -> list[float]:
    """Return the places of at most two labels, moved apart if they would touch."""
    if len(places) < 2 or abs(places[0] - places[1]) >= gap:
        return places
    middle, sign = sum(places) / 2, 1 if places[0] >= places[1] else -1
    return [middle + sign * gap / 2, middle - sign * gap / 2]


def _text(
    x: float,
    y: float,
    text: str,
    color: str = INK,
    anchor: str = "start",
    *,
    size: float = 12.5,
    weight: int = 400,
    turned: bool = False,
) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    look = f'fill="{color}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}{turn}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1, *, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{width}"{dashes}/>'


def _dot(x: float, y: float, name: str, one: dict[str, Any]) -> str:
    spread = "" if one["spread"] is None else f" ± {one['spread']:.4f}"
    told = f"{name}: {one['mean']:.4f}{spread}, {len(one['seeds'])} seeds, {one['annotations']:,} annotations"
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.8" fill="{ACCENT}" stroke="#fff" stroke-width="1">'
        f"<title>{escape(told)}</title></circle>"
    )


def flags(settings: Section) -> list[str]:
    """Return settings as the flags of a stage's command line, without those at their defaults."""
    found: list[str] = []
    for name, value in settings.model_dump(mode="json", exclude_defaults=True).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            found.append(f"--{flag}" if value else f"--no-{flag}")
            continue
        text = " ".join(value) if isinstance(value, list) else json.dumps(value) if isinstance(value, dict) else value
        found.append(f"--{flag}={text}")
    return found


def stage(work: Path, name: str, settings: Section, *inputs: tuple[str, str | Path]) -> None:
    """Run one stage in its own process.

    Raises BadInput or Stopped with the stage's own message, and SystemExit if it failed otherwise.
    """
    given = [f"--{flag}={value}" for flag, value in inputs]
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *given, *flags(settings)]
    log = work / "log.txt"
    with log.open("a", encoding="utf-8") as out:
        out.write(f"\n$ {' '.join(command)}\n")
        out.flush()
        status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT).returncode
    if status in (2, 3):
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
        line = next(line for line in reversed(said) if line.startswith("r2r"))
        raise {2: BadInput, 3: Stopped}[status](line.removeprefix("r2r: "))
    if status:
        raise SystemExit(f"ablations: {name} ended with status {status}; {log} says why, and the same command goes on")


def measure(work: Path, out: Path, qrels: str, runs: dict[str, Path]) -> tuple[dict[str, float], int]:
    """Return each run's nDCG@10, and the number of queries that it is the mean of. runs: name -> file or folder."""
    given = [("run", f"{name}={file}") for name, file in runs.items()]
    stage(work, "evaluate", EvaluateSettings(measures=[MEASURE]), ("qrels", qrels), *given, ("out", out))
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return {name: metrics["systems"][name][MEASURE] for name in runs}, metrics["queries"]


def annotate_pool(
    work: Path, settings: RunFile, pool: list[str], needed: set[tuple[int, int]]
) -> dict[tuple[int, int], tuple[Path, int]]:
    """Annotate the pool's queries, once for each number of samples.

    pool: qids. needed: pairs (queries, samples). Returns for each pair the folder with the annotations of the first so
    many queries, and the number of these annotations.
    """
    from r2r import datasets, tables

    found = {}
    for samples in sorted({samples for _, samples in needed}):
        numbers = sorted(queries for queries, count in needed if count == samples)
        asked, answered = work / f"candidates-{samples}", work / f"annotate-{samples}"
        wanted = set(pool[: numbers[-1]])
        tables.clear(asked, "candidates")
        # In parts, since a pool may have all training queries of MS MARCO.
        for number, part in enumerate(datasets.open_candidates(str(work / "retrieve-train")).parts(256)):
            if rows := [row for _, row in part.read() if row["qid"] in wanted]:
                tables.write_part(rows, asked, "candidates", f"part-{number:05}")
        teacher = settings.annotate.model_copy(update={"samples": samples})
        print(f"annotate: {len(wanted):,} queries, samples: {samples}", flush=True)
        stage(work, "annotate", teacher, ("candidates", asked), ("out", answered))
        by_qid = {row["qid"]: row for row in tables.read(answered, "annotations").to_pylist()}
        for queries in numbers:
            rows = [by_qid[qid] for qid in pool[:queries] if qid in by_qid]
            folder = work / "annotations" / f"{queries}-queries-{samples}-samples"
            # The same rows have the same fingerprint, so a student that learned from them is not trained again.
            tables.write(rows, folder, "annotations")
            found[queries, samples] = folder, len(rows)
    return found


def prepare(work: Path, settings: RunFile, pool: str) -> None:
    """Build the index; retrieve candidates of the run file's queries and of the pool."""
    # A run file with train_queries has a corpus and queries.
    assert settings.corpus is not None and settings.queries is not None
    stage(work, "index", settings.index, ("corpus", settings.corpus), ("out", work / "index"))
    for name, queries in (("retrieve", settings.queries), ("retrieve-train", pool)):
        inputs = ("index", work / "index"), ("queries", queries), ("out", work / name)
        stage(work, "retrieve", settings.retrieve, *inputs)


def references(work: Path, settings: RunFile) -> dict[str, Any]:
    """Return the figures of BM25 and of the teacher; None for the teacher if the run file has no teacher_row."""
    runs = {"bm25": work / "retrieve" / "run.txt"}
    if settings.teacher_row:
        runs["teacher"] = work / "annotate-evaluated"
        inputs = ("candidates", work / "retrieve"), ("out", runs["teacher"])
        stage(work, "annotate", settings.annotate, *inputs)
    found, queries = measure(work, work / "evaluate", settings.qrels, runs)
    return {"queries_evaluated": queries, "bm25": found["bm25"], "teacher": found.get("teacher")}


def student(work: Path, settings: RunFile, one: Condition, seed: int, learned: Path) -> float:
    """Train one student on the annotations in `learned`; return its nDCG@10."""
    folder = work / "runs" / one.name.replace(" ", "-") / f"seed-{seed}"
    distill = one.distill.model_copy(update={"seed": seed})
    stage(work, "distill", distill, ("annotations", learned), ("out", folder / "distill"))
    inputs = ("candidates", work / "retrieve"), ("student", distill.student), ("adapter", folder / "distill")
    stage(work, "rerank", one.rerank, *inputs, ("out", folder / "rerank"))
    found, _ = measure(work, folder / "evaluate", settings.qrels, {"student": folder / "rerank" / "run.txt"})
    return found["student"]


def write(work: Path, results: dict[str, Any]) -> None:
    from r2r import tables

    tables.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", work / "ablations.json")
    tables.write_text(table(results), work / "ablations.md")
    tables.write_text(plot(results), work / "ablations.svg")


def ablate(file: str, work: Path, seeds: int, train_queries: str | None, numbers: list[int] | None) -> None:
    """Run all conditions of a run file and write the results into `work`. Arguments as on the command line.

    Raises BadInput for a wrong run file, one without train_queries, and numbers out of range.
    """
    from r2r import builtin, datasets, identity
    from r2r.config import load_run_file

    settings = load_run_file(file)
    if settings.train_queries is None:
        raise BadInput(f"{file}: train_queries: missing; the students learn from queries that the teacher annotates")
    if seeds < 1:
        raise BadInput(f"seeds: {seeds}: at least one is needed")
    spec = train_queries or settings.train_queries
    pool = datasets.read_queries(spec)["qid"].to_pylist()
    standard = datasets.read_queries(settings.train_queries).num_rows
    if numbers is None:
        numbers = [number for number in NUMBERS if number <= len(pool)]
    for number in (standard, *numbers):
        if not 1 <= number <= len(pool):
            raise BadInput(f"queries: {number}: {spec} has {len(pool)}; give fewer, or more with --train-queries")

    planned = conditions(settings, standard, numbers)
    asked = (settings.queries, spec, settings.train_queries)
    sources = [(settings.corpus, "corpus"), (settings.qrels, "qrels"), *((one, "queries") for one in asked)]
    models = [(settings.distill.student, "student"), (settings.annotate.teacher, "teacher")]
    known = [datasets.fingerprint(str(source), what) for source, what in sources]
    known += [identity.fingerprint(builtin.model(*one)) for one in models]
    key = identity.digest([known, settings.model_dump(mode="json", exclude={"out"})])
    work.mkdir(parents=True, exist_ok=True)
    prepare(work, settings, spec)
    folders = annotate_pool(work, settings, pool, {(one.queries, one.samples) for one in planned})
    results: dict[str, Any] = {"measure": MEASURE, **references(work, settings)}
    results |= {"caption": settings.evaluate.caption, "key": key}
    done = results["conditions"] = kept(work / "ablations.json", key)

    # All conditions with one seed before the next seed, so that a stopped run has something to compare.
    every = [(one, seed) for seed in range(seeds) for one in planned]
    left = [(one, seed) for one, seed in every if str(seed) not in done.get(one.name, {}).get("seeds", {})]
    print(f"{len(planned)} conditions, {seeds} seeds: {len(every) - len(left)} runs are done, {len(left)} are left")
    began = time.monotonic()
    for count, (one, seed) in enumerate(left, start=1):
        folder, rows = folders[one.queries, one.samples]
        value = student(work, settings, one, seed, folder)
        values = done.get(one.name, {}).get("seeds", {}) | {str(seed): round(value, 6)}
        counts = {"queries": one.queries, "annotations": rows, "rejected": one.queries - rows}
        done[one.name] = summary(values) | counts
        write(work, results)
        minutes = (time.monotonic() - began) / count * (len(left) - count) / 60
        print(
            f"[{count}/{len(left)}] {one.name}, seed {seed}: {MEASURE} {value:.4f}; about {minutes:.0f} min left",
            flush=True,
        )
    write(work, results)
    print(f"\n{table(results)}\n{work / 'ablations.svg'}")


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", default=str(ROOT / "jobs" / "configs" / "demo.yaml"), help="run file")
    parser.add_argument("--work", required=True, type=lambda name: Path(name).resolve(), help="folder to write to")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each condition")
    parser.add_argument(
        "--train-queries", metavar="SPEC", help="pool of queries to annotate; default: the run file's train_queries"
    )
    parser.add_argument(
        "--queries",
        type=int,
        nargs="+",
        help=f"numbers of queries in the learning curve; default: those of {NUMBERS} that the pool has",
    )
    asked = parser.parse_args(given)
    try:
        ablate(asked.file, asked.work, asked.seeds, asked.train_queries, asked.queries)
    except (BadInput, Stopped) as error:
        print(f"ablations: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
