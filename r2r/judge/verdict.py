"""The figures of a judge's verdicts, with what is known of the judge itself.

Owns how verdicts become figures, the same for direct reasons and comparisons.

    figures(verdicts, "direct", CLAIM, seed=0)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from r2r.judge.figures import by_query, honesty, mean
from r2r.judge.kappa import kappa
from r2r.judge.question import CLAIM, COMPARISON

# Measure -> the part of the reasons that it judges, and the good verdict.
MEASURES = {"supported": ("direct", CLAIM[0]), "right": ("comparison", COMPARISON[0])}


def of(row: Mapping[str, Any], at: int) -> dict[str, float]:
    """Return measure -> share of good verdicts in two passes, of one passage of a row of the table verdicts.

    Nothing of reasons that were not written, or in which an error was planted.
    """
    found = {}
    for measure, (part, good) in MEASURES.items():
        if row[f"{part}_1"][at] and not row[f"planted_{part}"][at]:
            found[measure] = sum(row[f"{part}_{number}"][at] == good for number in (1, 2)) / 2
    return found


def figures(verdicts: Sequence[Mapping[str, Any]], part: str, known: Sequence[str], seed: int) -> dict[str, Any]:
    """Return an entry of measures.json, as `figures.figures` does.

    verdicts: rows of that table. part: direct or comparison. known: the verdicts, the good one first.

    value: mean over the reasons that are not planted of the share of good verdicts in two passes. floor: the same over
    planted errors. kappa: Cohen's, between the two passes. verdicts: the share of each, in the first pass, of reasons
    that are not planted. A fault is a verdict that is not good.
    """
    values, counts, pairs, shares = [], [], [], Counter[str]()
    columns = (f"{part}_1", f"{part}_2", f"planted_{part}")
    of_rows = [list(zip(*(row[column] for column in columns), strict=True)) for row in verdicts]
    for of_query in by_query((row["qid"] for row in verdicts), of_rows):
        own: list[float | None] = []
        found = [0.0] * 4
        for first, second, planted in of_query:
            if not first:
                continue
            faults = [one != known[0] for one in (first, second)]
            pairs.append((first, second))
            found[0 if planted else 2] += sum(faults) / 2
            found[1 if planted else 3] += 1
            if not planted:
                own.append(1 - sum(faults) / 2)
                shares[first] += 1
        values.append(own)
        counts.append(found)
    honest = honesty(counts, seed)
    floor = None if honest["detected"] is None else 1 - honest["detected"]
    bounds = {"floor": floor, "ceiling": 1.0, "of": len(pairs) - int(honest["planted"]), "better": "higher"}
    judged = {name: shares[name] / shares.total() for name in known} if shares else {}
    return {**mean(values or [[]], seed), **bounds, **honest, "kappa": kappa(pairs), "verdicts": judged}
