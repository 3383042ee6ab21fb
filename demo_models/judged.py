"""Do the measures of `r2r judge` follow the truth? On the demo's world the truth of every reason is known.

Reasons of known quality are planted: true ones, and ones that are wrong in the ways that reasons are wrong. Each
measure's value is correlated with the truth of the reason that it is about. A measure that was not seen to follow the
truth is not shown in any report (`r2r/judge/standing.py`).

Owns what is planted, which reasons are true, and the correlation. The measures are the package's own.

    python -m demo_models.judged --out runs/truth                     # the measures of the words, in seconds
    python -m demo_models.judged --out runs/truth --student demo --adapter runs/demo/distill \
        --write r2r/judge/standing.json                               # with those of a student: 3 minutes on 2 cores
    python -m demo_models.judged --out runs/truth --run runs/demo     # of a finished demo's own reasons, too
    python -m demo_models.judged --out runs/truth --judge Qwen/Qwen2.5-7B-Instruct    # with a judge's verdicts

Rows that a student has ranked or a judge has answered are kept in the folder, so the same command goes on after a stop.
A judge's verdicts have no standing that could ship: it would be that of one judge.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demo_models import truth
from demo_models.world import Passage, Query, grade, world
from r2r import tables
from r2r.config import JudgeSettings
from r2r.judge import explained
from r2r.judge.bootstrap import interval
from r2r.judge.explained import Explained
from r2r.judge.stage import MEASURES, VERDICTS, judge_reasons

SEED = 22
# A measure follows the truth if the interval of its correlation with it lies above this.
LEAST = 0.1
# How often a reason is true; else it is wrong in one of these ways, which come equally often.
TRUE = 0.5
KINDS = {
    "direct": ("of another passage", "made up", "empty talk"),
    "evidence": ("another sentence", "of another passage", "made up"),
    "comparison": ("the other way round", "wrong about the other", "of another passage", "empty talk"),
}
_COMPARISON = re.compile(rf"It stands (above|below) \[(\d+)\], which ({'|'.join(truth.NEIGHBOUR.values())})\.")


def planted(queries: Sequence[Query], seed: int) -> tuple[list[dict[str, Any]], dict[str, dict[str, dict[str, str]]]]:
    """Return annotations with reasons of known quality, and qid -> docid -> part -> "true" or a kind of error."""
    rows, kinds = [], dict[str, dict[str, dict[str, str]]]()
    for query in queries:
        passages = [passage for passage, _ in world().world.judged(query)]
        ideal, rng = truth.ideal(query, passages), random.Random(f"{seed} {query.qid}")
        row: dict[str, Any] = {"qid": query.qid, "query": query.text, "docids": [one.docid for one in passages]}
        row |= {"texts": [one.shown for one in passages], "ranking": [at + 1 for at in ideal.order], "key": query.qid}
        row |= {"teacher": "planted", "attempts": 1, "prompt_tokens": 0, "completion_tokens": 0}
        kinds[query.qid] = {one.docid: {} for one in passages}
        for part, errors in KINDS.items():
            row[part] = list(getattr(ideal, part))
            for at, passage in enumerate(passages):
                kind = "true" if rng.random() < TRUE else rng.choice(errors)
                if kind != "true":
                    row[part][at] = _wrong(part, kind, query, passages, ideal, at, rng)
                # By chance or for want of another, an error may say what is true.
                kinds[query.qid][passage.docid][part] = "true" if row[part][at] == getattr(ideal, part)[at] else kind
        rows.append(row)
    return rows, kinds


def _wrong(
    part: str, kind: str, query: Query, passages: Sequence[Passage], ideal: truth.Ideal, at: int, rng: random.Random
) -> str:
    """Return a reason that is wrong in this way."""
    own, true = passages[at], getattr(ideal, part)[at]
    others = [other for place, other in enumerate(getattr(ideal, part)) if place != at and other]
    attribute = query.entity.attribute(query.attribute)
    if kind == "of another passage":
        return rng.choice(others or [true])
    if kind == "another sentence":
        said = [one for one in re.split(r"(?<=[.!?])\s+", own.text) if one != true]
        return rng.choice(said or [true])
    if kind == "empty talk":
        return "It is better." if part == "comparison" else "It is relevant to the question."
    if kind == "made up":
        value = rng.choice([one for one in attribute.values if one != query.entity.values[query.attribute]])
        if part == "direct":
            return f"It tells {attribute.topic.format(e=query.entity.name)}: {value}."
        return attribute.tells[0].format(v=value, V=value[0].upper() + value[1:])
    found = _COMPARISON.fullmatch(true)
    assert found
    word, number, told = found.groups()
    if kind == "the other way round":
        word = "above" if word == "below" else "below"
    else:
        told = rng.choice([other for other in truth.NEIGHBOUR.values() if other != told])
    return f"It stands {word} [{number}], which {told}."


def is_true(part: str, text: str, query: Query, passages: Sequence[Passage], at: int) -> bool:
    """Return whether a reason is true. passages: in the order of the ranking. Comparisons name them by rank.

    A comparison is true if what it says of the other passage is, and if the one that it puts above has the higher
    grade; of two with the same grade, if it is above in the ranking.
    """
    if part == "direct":
        return text == truth.direct(query, passages[at])
    if part == "evidence":
        return text == truth.evidence(query, passages[at])
    found = _COMPARISON.fullmatch(text)
    if not found or not 1 <= int(found[2]) <= len(passages) or int(found[2]) == at + 1:
        return False
    place = int(found[2]) - 1
    own, other = ((grade(query, passages[one]), -one) for one in (at, place))
    return found[3] == truth.NEIGHBOUR[other[0]] and (own > other) == (found[1] == "above")


def truths(rows: Sequence[Explained]) -> dict[tuple[str, str], dict[str, float]]:
    """Return (qid, docid) -> part -> 1 for a true reason, 0 for another one; nothing where there is none."""
    passages = {one.docid: one for one in world().world.passages}
    queries = {one.qid: one for split in world().queries.values() for one in split}
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        shown = [passages[docid] for docid in row.docids]
        for at, docid in enumerate(row.docids):
            for part in explained.PARTS:
                if text := getattr(row, part)[at]:
                    found[row.qid, docid][part] = float(is_true(part, text, queries[row.qid], shown, at))
    return dict(found)


def correlation(pairs: Mapping[str, Sequence[tuple[float, float]]], seed: int) -> dict[str, Any]:
    """Return Pearson's correlation of value and truth, with its interval over queries. pairs: qid -> (value, truth).

    Source: the point-biserial correlation, which Pearson's is where one of the two is 0 or 1.
    """
    sums = [
        np.asarray([(1, x, y, x * x, y * y, x * y) for x, y in one] or [(0,) * 6], float).sum(axis=0)
        for one in pairs.values()
    ]

    def pearson(of: np.ndarray) -> np.ndarray:
        n, x, y, xx, yy, xy = of.T
        spread = np.sqrt(np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0))
        return np.divide(n * xy - x * y, spread, out=np.full(len(of), np.nan), where=spread > 1e-9)

    value = float(pearson(np.sum(sums, axis=0)[None])[0])
    low, high = interval(sums, pearson, seed)
    return {
        "correlation": None if np.isnan(value) else round(value, 3),
        "low": None if low is None else round(low, 3),
        "high": None if high is None else round(high, 3),
        "n": int(sum(one[0] for one in sums)),
        "follows": low is not None and low > LEAST,
    }


# Which reasons a measure is about. Those of a whole query are about all of its reasons.
_OF = {one.name: one.part for one in MEASURES} | {
    "comprehensiveness": "evidence",
    "sufficiency": "evidence",
    "supported": "direct",
    "right": "comparison",
}


def validated(out: Path, rows: Sequence[Explained]) -> dict[str, dict[str, Any]]:
    """Return measure -> `correlation` with the truth, of what `judge` wrote into `out` about these rows."""
    known = truths(rows)
    pairs: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    better = {one.name: -1.0 if one.better == "lower" else 1.0 for one in MEASURES}
    for one in tables.read(out, "judged").to_pylist():
        for name, value in dict(one["values"]).items():
            if name in _OF and _OF[name] in known[one["qid"], one["docid"]]:
                true = known[one["qid"], one["docid"]][_OF[name]]
                pairs[name][one["qid"]].append((better.get(name, 1.0) * value, true))
    for name, qid, value, true in _of_queries(out, rows, known):
        pairs[name][qid].append((value, true))
    return {name: correlation(found, SEED) for name, found in pairs.items()}


def _of_queries(
    out: Path, rows: Sequence[Explained], known: Mapping[tuple[str, str], Mapping[str, float]]
) -> Iterator[tuple[str, str, float, float]]:
    """Yield measure, qid, value and truth of the measures that are not about one reason.

    The truth of a swap is that of the evidence of both passages, as far as they have any; of an order by reasons, the
    share of true ones among the direct reasons and comparisons.
    """
    row_of = {row.qid: row for row in rows}
    place = out / "student"
    for one in tables.read(place, "probes").to_pylist() if tables.path(place, "probes").is_dir() else []:
        docids = row_of[one["qid"]].docids
        for above, below, turned, by_chance in zip(
            one["above"], one["below"], one["turned"], one["turned_random"], strict=True
        ):
            both = [known[one["qid"], docids[rank - 1]].get("evidence") for rank in (above, below)]
            true = min(value for value in both if value is not None)
            yield "counterfactual", one["qid"], float(turned) - float(by_chance), true
        said = [
            known[one["qid"], docid][part]
            for docid in docids[: one["passages"]]
            for part in ("direct", "comparison")
            if part in known.get((one["qid"], docid), {})
        ]
        if one["simulated"] is not None and said:
            yield "simulatability", one["qid"], one["simulated"], sum(said) / len(said)


def by_kind(out: Path, kinds: Mapping[str, Mapping[str, Mapping[str, str]]]) -> dict[str, dict[str, float]]:
    """Return measure -> kind of reason -> mean value: which errors a measure sees."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in tables.read(out, "judged").to_pylist():
        for name, value in dict(one["values"]).items():
            if name in _OF:
                found[name][kinds[one["qid"]][one["docid"]][_OF[name]]].append(value)
    return {
        name: {kind: round(float(np.mean(values)), 3) for kind, values in sorted(of.items())}
        for name, of in found.items()
    }


def shares(rows: Sequence[Explained]) -> dict[str, float]:
    """Return the share of true reasons of each part, of those that were written."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in truths(rows).values():
        for part, value in one.items():
            found[part].append(value)
    return {part: round(float(np.mean(values)), 3) for part, values in found.items()}


def _table(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| measure | correlation | 95 % interval | n | follows the truth |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for name, one in found.items():
        if one["correlation"] is None:
            yield f"| {name} | - | - | {one['n']:,} | - |"
        else:
            span = f"{one['low']:.2f} to {one['high']:.2f}"
            yield f"| {name} | {one['correlation']:.2f} | {span} | {one['n']:,} | {'yes' if one['follows'] else 'no'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the planted reasons and what is found")
    parser.add_argument("--student", help="model that ranks again, as for r2r judge")
    parser.add_argument("--adapter", help="its adapter")
    parser.add_argument("--judge", help="model that judges the planted reasons, as for r2r judge")
    parser.add_argument("--queries", type=int, help="only so many queries (default: all 200)")
    parser.add_argument(
        "--run", type=Path, help="folder of a finished demo run: its teacher's and student's reasons, too"
    )
    parser.add_argument("--write", type=Path, help="where to write the standing of the measures")
    given = parser.parse_args()

    rows, kinds = planted(world().queries["test"][: given.queries], SEED)
    source = given.out / "planted"
    tables.write(rows, source, "annotations")
    # Of a weak judge, too, the replies that can be read are to be seen; it would hardly answer better a second time.
    settings = JudgeSettings(merge=given.adapter is not None, judge=given.judge, attempts=1, max_reject_rate=1.0)
    say: Callable[[str], None] = print
    found: dict[str, dict[str, Any]] = {}

    def measured(name: str, rankings: str, candidates: str | None) -> dict[str, dict[str, Any]]:
        place = given.out / f"judge-{name}"
        judge_reasons(rankings, candidates, place, settings, given.student, given.adapter)
        read = explained.read(rankings, candidates)
        found[name] = {"true": shares(read), "measures": validated(place, read)}
        say(f"\n{name}: true reasons {found[name]['true']}\n")
        say("\n".join(_table(found[name]["measures"])))
        return found[name]["measures"]

    standing = measured("planted", str(source), None)
    found["planted"]["kinds"] = by_kind(given.out / "judge-planted", kinds)
    for name, means in found["planted"]["kinds"].items():
        say(f"{name}: {means}")
    if given.run:
        measured("teacher", str(given.run / "annotate-test"), None)
        measured("student", str(given.run / "rerank"), str(given.run / "retrieve"))
    tables.write_text(json.dumps(found, indent=2) + "\n", given.out / "truth.json")
    if given.write:
        ours = {name: one for name, one in standing.items() if name not in VERDICTS}
        tables.write_text(json.dumps(ours, indent=2) + "\n", given.write)


if __name__ == "__main__":
    main()
