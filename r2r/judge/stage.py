"""The judge stage: what the reasons of a ranking, or of annotations, are worth.

Owns the list of measures, the table `judged` and the stage's folder. Each measure has a file of its own; `figures.py`
tests it with planted errors, and `report.py` shows those that notice.

    judge("runs/demo/rerank", "runs/demo/retrieve", "runs/demo/judge", JudgeSettings())
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from r2r import datasets, tables
from r2r.config import JudgeSettings
from r2r.identity import digest, manifest_of
from r2r.judge import (
    boilerplate,
    consistency,
    explained,
    neighbours,
    report,
    specificity,
    transitivity,
    verbatim,
)
from r2r.judge.explained import Explained
from r2r.judge.figures import figures, plant
from r2r.stage import Identity, Input, Result, Stage, There, run

MEASURES = [one.MEASURE for one in (verbatim, neighbours, consistency, transitivity, boilerplate, specificity)]


def stage(rankings: str, candidates: str | None, out: str | Path, settings: JudgeSettings) -> Stage:
    """Return the stage that judges reasons.

    rankings: a folder with the table rankings or annotations, or teacher:FILE. candidates: the passages of a rankings
    table; None for annotations, which have their own.
    """

    def check(there: There) -> None:
        if there(rankings) and (candidates is None or there(candidates)):
            explained.read(rankings, candidates)

    def work(identity: Identity) -> Result:
        return _work(rankings, candidates, Path(out), settings)

    inputs = {"rankings": Input(rankings, explained.fingerprint)}
    if candidates is not None:
        inputs["candidates"] = Input(candidates, partial(datasets.fingerprint, what="candidates"))
    writes = ["judged", "measures.json", "report.html"]
    return Stage("judge", Path(out), settings, inputs, check, work, writes, after=lambda: report.tell(Path(out)))


def judge(rankings: str, candidates: str | None, out: str | Path, settings: JudgeSettings) -> None:
    """Measure reasons; write `measures.json`, the table `judged` and `report.html` into `out`, and print the table.

    Arguments as for `stage`. `figures.figures` says what measures.json has of each measure. A measure that does not
    notice planted errors is in measures.json, and not in the report. Raises BadInput for a folder without either table,
    candidates that are missing or others than those ranked, and a table without reasons.
    """
    run(stage(rankings, candidates, out, settings))


def _work(rankings: str, candidates: str | None, out: Path, settings: JudgeSettings) -> Result:
    rows = explained.read(rankings, candidates)
    made = plant(rows, settings.planted, settings.seed)
    measures = {one.name: figures(one, made, settings.seed) for one in MEASURES}
    judged = _judged(rows)
    found = {
        "source": rankings,
        "queries": len(rows),
        "reasons": len(judged),
        # False texts that were left out before are in no table, and in no measure.
        "dropped": (manifest_of(Path(rankings)) or {}).get("dropped", {}),
        "planted": {"rate": settings.planted, "swapped": sum(map(len, made.wrong))},
        "measures": measures,
    }
    tables.write(judged, out, "judged")
    tables.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", out / "measures.json")
    tables.write_text(report.render(found, rows, judged), out / "report.html")
    counts = {"queries": len(rows), "judged": len(judged)}
    return Result(counts, digest(measures), ["measures.json", "report.html"])


def _judged(rows: Sequence[Explained]) -> list[dict[str, Any]]:
    """Return the rows of the table `judged`: one for each passage with a reason."""
    found = []
    for row in rows:
        values = {one.name: one.values(row) for one in MEASURES}
        for at in row.places():
            own = {name: value for name, by_place in values.items() if (value := by_place[at]) is not None}
            judged: dict[str, Any] = dict(zip(explained.PARTS, row.reasons(at), strict=True))
            judged |= {"qid": row.qid, "docid": row.docids[at], "rank": at + 1, "values": own}
            flagged = [one.name for one in MEASURES if one.name in own and one.flags(own[one.name])]
            found.append(judged | {"flagged": flagged})
    return found
