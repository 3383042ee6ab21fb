"""Does a student get better if it learns from the annotations that `r2r judge --keep` keeps?

    python benchmarks/keep.py --run runs/demo --out runs/keep                     # after `make demo`; 12 students
    python benchmarks/keep.py --run runs/demo --out runs/keep --conditions all kept --seeds 0
    python benchmarks/keep.py --real --out runs/keep-real --conditions all kept   # with the data of R2R_DATA_DIR

The annotations are those of a finished demo run, or the 500 that are recorded from GPT-4. Conditions: `all` of them;
those that are `kept`; all, with reasons that are handed to the next passage in every third query (`spoiled`); and what
is kept of these (`spoiled-kept`). Each student sees as many examples, fewer than the demo's. It ranks the first
passages of the dev queries, in one window, and explains the first ones. The figures: nDCG@10, and the share of its
reasons that are true, which the demo's world knows.
KEEP was chosen by how many of the demo's annotations it keeps, about two thirds, before any student was made.

With `--real` the student is the language model of `real.py`, which learns the order only: nobody knows which of its
reasons are true. It reranks TREC DL 2019 as it does there, and the one figure is nDCG@10.

Owns the conditions and the table. Quality, not speed. Each stage is done once; the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import r2r
from r2r import datasets, tables
from r2r.cli import exit_status
from r2r.config import load_run_file
from r2r.errors import BadInput
from r2r.evaluation.significance import paired_tests
from r2r.judge import explained
from r2r.judge.stage import judge_reasons

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import real  # noqa: E402
from demo_models import judged  # noqa: E402

KEEP, STEPS, PASSAGES, EXPLAINED = 0.4, 100, 8, 2
# Of the real model, whose held-out nDCG rises little after them (docs/real.md).
REAL_STEPS = 28
QUERIES = "demo#dev"
CONDITIONS = ("all", "kept", "spoiled", "spoiled-kept")


def learned(condition: str, source: str, out: Path) -> str:
    """Return where the annotations of a condition are, which are made of those in `source` unless they are there."""
    if condition.startswith("spoiled"):
        rows = datasets.read_annotations(source)[0]
        for row in rows[::3]:
            row |= {part: [*row[part][1:], row[part][0]] for part in explained.PARTS}
        tables.write(rows, out / "spoiled", "annotations")
        source = str(out / "spoiled")
    if condition.endswith("kept"):
        place = out / f"judge-{condition}"
        judge_reasons(source, None, place, r2r.JudgeSettings(keep=KEEP))
        source = str(place / "kept")
    return source


def measured(annotations: str, seed: int, place: Path, candidates: Path) -> dict[str, float]:
    """Make the student of a seed in the folder `place`, unless it is there, and return its figures."""
    settings = load_run_file(str(ROOT / "jobs" / "configs" / "demo.yaml"))
    few = {"steps": STEPS, "seed": seed, "held_out": 0, "save_every": STEPS}
    r2r.distill(annotations, str(place / "distill"), settings.distill.model_copy(update=few))
    ranking = settings.rerank.model_copy(update={"explain": EXPLAINED})
    r2r.rerank(str(candidates), settings.distill.student, str(place / "distill"), str(place / "rerank"), ranking)
    true = judged.shares(explained.read(str(place / "rerank"), str(candidates)))
    return {
        "nDCG@10": ndcg(place, QUERIES),
        **{f"{part}, true": true[part] for part in explained.PARTS},
    }


def measured_real(annotations: str, seed: int, place: Path, candidates: Path, qrels: str) -> dict[str, float]:
    """Do the same with the real model, which learns the order only."""
    base = real.bring(real.CACHE)
    settings = real.distill_settings(base, False, REAL_STEPS, seed)
    r2r.distill(annotations, str(place / "distill"), settings.model_copy(update={"held_out": 0}))
    r2r.rerank(str(candidates), base, str(place / "distill"), str(place / "rerank"), real.rank_settings())
    return {"nDCG@10": ndcg(place, qrels)}


def ndcg(place: Path, qrels: str) -> float:
    """Return the nDCG@10 of the student in the folder `place`."""
    runs = {"student": str(place / "rerank" / "run.txt")}
    r2r.evaluate(qrels, runs, str(place / "evaluate"), r2r.EvaluateSettings(measures=["nDCG@10"]))
    metrics = json.loads((place / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    return metrics["systems"]["student"]["nDCG@10"]


def table(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> list[str]:
    """Return the lines of a table in Markdown: mean ± standard deviation, and the figure of each seed."""
    names = next(iter(next(iter(found.values())).values()))
    lines = [f"| annotations | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for condition, seeds in found.items():
        cells = []
        for name in names:
            values = [one[name] for one in seeds.values()]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread} ({', '.join(f'{value:.3f}' for value in values)})")
        lines.append(f"| {condition} | {' | '.join(cells)} |")
    return lines


def compared(places: Mapping[str, Mapping[int, Path]]) -> list[str]:
    """Return a line for each condition but the first: its difference from that one, and p.

    places: the folder of each condition's students, by seed. The test is paired, over the queries; a query's value is
    the mean of the seeds.
    """
    values = {}
    for condition, seeds in places.items():
        by_query: dict[str, list[float]] = defaultdict(list)
        for place in seeds.values():
            with (place / "evaluate" / "per_query.csv").open(newline="") as file:
                for row in csv.DictReader(file):
                    if row["system"] == "student":
                        by_query[row["qid"]].append(float(row["nDCG@10"]))
        values[condition] = {"nDCG@10": {qid: statistics.mean(found) for qid, found in by_query.items()}}
    lines, first = [], next(iter(places))
    for condition, tests in paired_tests(values, first)["systems"].items():
        found = tests["nDCG@10"]
        interval = f"{found['low']:+.4f} to {found['high']:+.4f}"
        difference = f"{condition} - {first}: nDCG@10 {found['difference']:+.4f}"
        lines.append(f"{difference} ({interval}), p {found['p_holm']:.3f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", type=Path, help="folder of a finished demo run")
    which.add_argument("--real", action="store_true", help="the real model, on the data of R2R_DATA_DIR")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=CONDITIONS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    given = parser.parse_args()
    if given.real:
        if not (data := os.environ.get("R2R_DATA_DIR")):
            raise BadInput("keep: --real: no data; set R2R_DATA_DIR")
        source = real.ANNOTATIONS.format(data=data)
        candidates = Path(real.candidates(real.DL19.format(data=data), given.out))
        measure = partial(measured_real, qrels=real.DL19_QRELS.format(data=data))
    else:
        source, candidates, measure = str(given.run / "annotate"), given.out / "retrieve", measured
        r2r.retrieve(str(given.run / "index"), QUERIES, str(candidates), r2r.RetrieveSettings(k=PASSAGES))
    places = {
        condition: {seed: given.out / f"{condition}-{seed}" for seed in given.seeds} for condition in given.conditions
    }
    found = {}
    for condition, seeds in places.items():
        annotations = learned(condition, source, given.out)
        found[condition] = {seed: measure(annotations, seed, place, candidates) for seed, place in seeds.items()}
    print("\n".join([*table(found), "", *compared(places)]))


if __name__ == "__main__":
    sys.exit(exit_status(main))
