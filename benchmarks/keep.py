"""Does a student get better if it learns from the annotations that `r2r judge --keep` keeps?

    python benchmarks/keep.py --run runs/demo --out runs/keep                   # after `make demo`; 12 students
    python benchmarks/keep.py --run runs/demo --out runs/keep --conditions all kept --seeds 0

The annotations are those of a finished demo run. Conditions: `all` of them; those that are `kept`; all, with reasons
that are handed to the next passage in every third query (`spoiled`); and what is kept of these (`spoiled-kept`). Each
student sees as many examples, fewer than the demo's. It ranks the first passages of the dev queries, in one window, and
explains the first ones. The figures: nDCG@10, and the share of its reasons that are true, which the demo's world knows.
KEEP was chosen by how many of the demo's annotations it keeps, about two thirds, before any student was made.

Owns the conditions and the table. Quality, not speed. Each stage is done once; the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path

import r2r
from demo_models import judged
from r2r import datasets, tables
from r2r.config import load_run_file
from r2r.judge import explained
from r2r.judge.stage import judge

ROOT = Path(__file__).resolve().parents[1]
KEEP, STEPS, PASSAGES, EXPLAINED = 0.4, 100, 8, 2
QUERIES = "demo#dev"
CONDITIONS = ("all", "kept", "spoiled", "spoiled-kept")


def learned(condition: str, run: Path, out: Path) -> str:
    """Return the folder with the annotations of a condition, which is made unless it is there."""
    source = run / "annotate"
    if condition.startswith("spoiled"):
        rows = datasets.read_annotations(str(source))[0]
        for row in rows[::3]:
            row |= {part: [*row[part][1:], row[part][0]] for part in explained.PARTS}
        source = out / "spoiled"
        tables.write(rows, source, "annotations")
    if condition.endswith("kept"):
        place = out / f"judge-{condition}"
        judge(str(source), None, place, r2r.JudgeSettings(keep=KEEP))
        source = place / "kept"
    return str(source)


def measured(annotations: str, seed: int, place: Path, candidates: Path) -> dict[str, float]:
    """Make the student of a seed in the folder `place`, unless it is there, and return its figures."""
    settings = load_run_file(str(ROOT / "jobs" / "configs" / "demo.yaml"))
    few = {"steps": STEPS, "seed": seed, "held_out": 0, "save_every": STEPS}
    r2r.distill(annotations, str(place / "distill"), settings.distill.model_copy(update=few))
    ranking = settings.rerank.model_copy(update={"explain": EXPLAINED})
    r2r.rerank(str(candidates), settings.distill.student, str(place / "distill"), str(place / "rerank"), ranking)
    runs = {"bm25": str(candidates / "run.txt"), "student": str(place / "rerank" / "run.txt")}
    r2r.evaluate(QUERIES, runs, str(place / "evaluate"), r2r.EvaluateSettings(measures=["nDCG@10"]))
    metrics = json.loads((place / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    true = judged.shares(explained.read(str(place / "rerank"), str(candidates)))
    return {
        "nDCG@10": metrics["systems"]["student"]["nDCG@10"],
        **{f"{part}, true": true[part] for part in explained.PARTS},
    }


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished demo run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=CONDITIONS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    given = parser.parse_args()
    candidates = given.out / "retrieve"
    r2r.retrieve(str(given.run / "index"), QUERIES, str(candidates), r2r.RetrieveSettings(k=PASSAGES))
    found = {}
    for condition in given.conditions:
        annotations = learned(condition, given.run, given.out)
        places = {seed: given.out / f"{condition}-{seed}" for seed in given.seeds}
        found[condition] = {seed: measured(annotations, seed, place, candidates) for seed, place in places.items()}
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
