"""Scores and strategies of a student: calls, seconds and nDCG@10 of each strategy, with a paired test, the calibration
of the scores, and their fusion with the first stage's.

    r2r retrieve --index runs/demo/index --queries demo --k 100 --out runs/deep
    r2r retrieve --index runs/demo/index --queries demo#dev --k 20 --out runs/dev
    r2r annotate --candidates runs/dev --teacher demo --passages 8 --reason-chars 160 --attempts 6 --out runs/dev-said
    python benchmarks/scores.py --student demo --adapter runs/demo/distill --qrels demo --window 8 \\
           --candidates 20=runs/demo/retrieve --candidates 100=runs/deep --annotations runs/dev-said

`--annotations` are some that the student did not learn from. Seconds are of a ranking in the engine of this process:
the median of queries one at a time, and of four at a time. The engine's prefix cache is off: it would know the prompts
of the second round from the first.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np

from r2r import datasets
from r2r.config import RerankSettings
from r2r.evaluation.measures import Values, average, parse_measures, scorer
from r2r.evaluation.significance import paired_tests
from r2r.student.rank import Ranked, Ranker
from r2r.student.scores import FirstStage, fused

WEIGHTS = (0.0, 0.1, 0.3, 0.5, 1.0)
_BINS = 10


def calibration_error(chances: list[float]) -> float:
    """Return the expected calibration error of the chances given to what came true; that of its opposite is 1 - chance.

    Ten bins of equal width (Naeini et al. 2015); both sides of each pair count, so the result does not depend on which
    passage of a pair is named first.
    """
    said = np.array([*chances, *(1 - chance for chance in chances)])
    true = np.arange(len(said)) < len(chances)
    bins = np.minimum((said * _BINS).astype(int), _BINS - 1)
    return float(
        sum(
            abs(said[bins == number].mean() - true[bins == number].mean()) * (bins == number).mean()
            for number in range(_BINS)
            if (bins == number).any()
        )
    )


def log_loss(chances: list[float]) -> float:
    return float(-np.log(np.maximum(chances, 1e-300)).mean())


async def ranked(ranker: Ranker, rows: list[dict[str, Any]], at_once: int) -> tuple[list[Ranked], list[float]]:
    """Return the rankings of candidates rows, `at_once` at a time, and the seconds of each."""
    gate, seconds = asyncio.Semaphore(at_once), []

    async def one(row: dict[str, Any]) -> Ranked:
        async with gate:
            start = time.perf_counter()
            found = await ranker.rank(row["query"], row["texts"])
            seconds.append(time.perf_counter() - start)
            return found

    return list(await asyncio.gather(*map(one, rows))), seconds


async def differences(ranker: Ranker, rows: list[dict[str, Any]]) -> list[float]:
    """Return the difference of values of each pair of passages of annotations: the teacher's better minus its worse."""
    apart = []
    for row in rows:
        order, _, values = await ranker.valued(row["query"], row["texts"], False, Counter())
        value = dict(zip(order, values, strict=True))
        if value:
            best_first = [value[position - 1] for position in row["ranking"]]
            apart += [one - other for one, other in combinations(best_first, 2)]
    return apart


async def measure(ranker: Ranker, given: argparse.Namespace) -> None:
    """Print the tables."""
    qrels: dict[str, dict[str, int]] = {}
    for row in datasets.read_qrels(given.qrels).to_pylist():
        qrels.setdefault(row["qid"], {})[row["docid"]] = row["relevance"]

    def each(rows: list[dict[str, Any]], orders: list[list[int]]) -> Values:
        score = scorer(parse_measures(["nDCG@10"]), {row["qid"]: qrels[row["qid"]] for row in rows})
        return score({row["qid"]: [row["docids"][at] for at in order] for row, order in zip(rows, orders, strict=True)})

    def ndcg(rows: list[dict[str, Any]], orders: list[list[int]]) -> float:
        return average(each(rows, orders))["nDCG@10"]

    await ranker.check_adapter()
    head = ("candidates", "strategy", "calls", "s, 1 at a time", "s, 4 at a time", "nDCG@10")
    print(f"| {' | '.join(head)} |\n{'| --- ' * len(head)}|")
    kept: dict[str, tuple[list[dict[str, Any]], list[Ranked]]] = {}
    tests = []
    # A query likelihood is of one passage: there are no windows to go over.
    strategies = ("sliding",) if ranker.taught.scores == "likelihood" else ("sliding", "parallel")
    for candidates in given.candidates:
        depth, _, folder = candidates.partition("=")
        rows = datasets.read_candidates(folder).to_pylist()[: given.queries]
        for strategy in strategies:
            ranker.settings = ranker.settings.model_copy(update={"strategy": strategy})
            found, alone = await ranked(ranker, rows, 1)
            _, together = await ranked(ranker, rows, 4)
            calls = sum(one.counts["windows"] for one in found) / len(found)
            value = ndcg(rows, [one.order for one in found])
            times = f"{statistics.median(alone):.3f} | {statistics.median(together):.3f}"
            print(f"| {depth} | {strategy} | {calls:.1f} | {times} | {value:.4f} |", flush=True)
            kept[f"{depth}, {strategy}"] = rows, found
        if len(strategies) == 1:
            continue
        by_strategy = {
            strategy: each(rows, [one.order for one in kept[f"{depth}, {strategy}"][1]]) for strategy in strategies
        }
        test = paired_tests(by_strategy, "sliding")["systems"]["parallel"]["nDCG@10"]
        tests.append(
            f"{depth} candidates: parallel - sliding {test['difference']:+.4f} "
            f"[{test['low']:+.4f}, {test['high']:+.4f}], p {test['p_permutation']:.3f}, {len(rows)} queries"
        )
    print("", *tests, sep="\n", flush=True)
    if given.annotations:
        apart = np.array(await differences(ranker, datasets.read_annotations(given.annotations)[0]))
        print(f"\n{len(apart):,} pairs\n\n| temperature | ECE | log loss |\n| --- | --- | --- |")
        for temperature in dict.fromkeys((1.0, ranker.taught.temperature or 1.0)):
            chances = (0.5 + np.tanh(apart / temperature / 2) / 2).tolist()
            print(f"| {temperature:.3f} | {calibration_error(chances):.4f} | {log_loss(chances):.4f} |", flush=True)
    print(f"\n| weight of the first stage | {' | '.join(kept)} |\n{'| --- ' * (len(kept) + 1)}|")
    for weight in WEIGHTS:
        values = []
        for rows, found in kept.values():
            both = [
                fused(one.order, one.scores, FirstStage(row["scores"], weight))[0]
                for row, one in zip(rows, found, strict=True)
            ]
            values.append(f"{ndcg(rows, both):.4f}")
        print(f"| {weight} | {' | '.join(values)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True)
    parser.add_argument("--adapter")
    parser.add_argument("--qrels", required=True)
    parser.add_argument(
        "--candidates", action="append", required=True, metavar="NAME=DATASET", help="may be given again"
    )
    parser.add_argument("--annotations", help="some that the student did not learn from")
    parser.add_argument("--queries", type=int, help="the first so many only")
    parser.add_argument("--window", type=int)
    parser.add_argument("--passage-tokens", type=int, default=256)
    given = parser.parse_args()
    settings = RerankSettings(
        window=given.window,
        passage_tokens=given.passage_tokens,
        merge=given.adapter is not None,
        engine={"enable_prefix_caching": False},
    )
    ranker = Ranker(given.student, given.adapter, settings)
    try:
        asyncio.run(measure(ranker, given))
    finally:
        ranker.model.close()
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
