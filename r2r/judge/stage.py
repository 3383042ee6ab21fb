"""The judge stage: what the reasons of a ranking, or of annotations, are worth.

Owns the lists of measures, the table `judged` and the stage's folder. Each measure has a file of its own; `figures.py`
tests those that need no model with planted errors, `probe.py` asks the student, and `report.py` shows the figures.

    judge_reasons("runs/demo/rerank", "runs/demo/retrieve", "runs/demo/judge", JudgeSettings(), "demo")
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from r2r import builtin, datasets, tables
from r2r.config import JudgeSettings
from r2r.errors import BadInput
from r2r.identity import digest, manifest_of
from r2r.identity import fingerprint as identity_of
from r2r.judge import (
    agreement,
    boilerplate,
    comprehensiveness,
    consistency,
    counterfactual,
    explained,
    judging,
    keep,
    measure,
    probe,
    question,
    report,
    right,
    simulatability,
    specificity,
    standing,
    sufficiency,
    supported,
    transitivity,
    verbatim,
    verdict,
)
from r2r.judge.explained import Explained
from r2r.judge.figures import Planted, by_query, figures, mean, plant
from r2r.llm.engine import check_arguments
from r2r.places import Place, place
from r2r.stage import Identity, Input, Result, Stage, There, run
from r2r.student.rank import check_student
from r2r.teacher import calls

MEASURES = [one.MEASURE for one in (verbatim, consistency, transitivity, boilerplate, specificity)]
# Those that look at a row of the table probes, and those that look at the judge's verdicts.
PROBES = {
    "comprehensiveness": comprehensiveness,
    "sufficiency": sufficiency,
    "counterfactual": counterfactual,
    "agreement": agreement,
    "simulatability": simulatability,
}
VERDICTS = {"supported": supported, "right": right}
# What is wrong with a reason that they flag, in words.
WHY = {one.name: one.why for one in MEASURES} | {
    "supported": "the judge does not find a claim of its reason in the passage",
    "right": "the judge does not find its comparison right",
}
# Measures of the same reasons as those of the verdicts: direct reasons and comparisons.
_SAME_REASONS = ("boilerplate", "consistency")


def named(rankings: str, against: Mapping[str, str]) -> dict[str, str]:
    """Return name -> source of the system that is judged, first, and of those that it is compared with.

    The first one's name is that of its folder. Raises BadInput if another one has it, too.
    """
    name = "recorded" if rankings.startswith("teacher:") else place(rankings).absolute().name
    if name in against:
        raise BadInput(f"against {name}: is the name of {rankings}; give it another name")
    return {name: rankings, **against}


def stage(
    rankings: str,
    candidates: str | None,
    out: str | Place,
    settings: JudgeSettings,
    student: str | None = None,
    adapter: str | None = None,
    against: Mapping[str, str] | None = None,
) -> Stage:
    """Return the stage that judges reasons.

    rankings: a folder with the table rankings or annotations, or teacher:FILE. candidates: the passages of a rankings
    table; None for annotations, which have their own. student, adapter: a model that ranks the passages again, as for
    `r2r.student.rerank`; None leaves its measures out. against: name -> rankings or annotations of other systems, for
    which the measures of the words are given, too.
    """
    systems = named(rankings, against or {})
    lone = len(systems) == 1

    def passages(source: str) -> str | None:
        return candidates if lone else explained.passages_of(source, candidates)

    def check(there: There) -> None:
        if adapter is not None and student is None:
            raise BadInput(f"adapter: {adapter}: needs the student that it was made for; give student, too")
        if student is not None:
            check_arguments(settings.engine)
            fits = adapter if adapter and there(adapter) else None
            check_student(student, fits, probe.rank_settings(settings))
        if settings.judge is not None:
            calls.check_teacher(judging.teacher_settings(settings))
        for source in systems.values():
            if there(source) and (candidates is None or there(candidates)):
                explained.read(source, passages(source))
        if settings.keep is not None and there(rankings) and not explained.is_annotations(rankings):
            raise BadInput(f"keep: {settings.keep:g}: keeps annotations, and {rankings} holds rankings; leave keep out")

    def work(identity: Identity) -> Result:
        first, *others = (explained.read(source, passages(source)) for source in systems.values())
        rows = first
        made = plant(rows, settings.planted, settings.seed)
        probes = probe.probe(rows, student, adapter, settings, place(out) / "student", identity) if student else None
        verdicts = judging.ask(made, settings, place(out) / "judge", identity) if settings.judge else None
        compared = dict(zip(list(systems)[1:], others, strict=True))
        return _work(rankings, made, probes, verdicts, place(out), settings, compared)

    inputs = {"rankings": Input(rankings, explained.fingerprint)}
    if candidates is not None:
        inputs["candidates"] = Input(candidates, partial(datasets.fingerprint, what="candidates"))
    for name, source in (against or {}).items():
        inputs[f"against {name}"] = Input(source, explained.fingerprint)
    if student is not None:
        inputs["student"] = Input(student, lambda name: identity_of(builtin.named(name, "student")))
    if adapter is not None:
        inputs["adapter"] = Input(adapter)
    if settings.judge is not None:
        inputs["judge"] = Input(settings.judge, calls.identify_teacher)
    kept = ["kept/annotations"] * (settings.keep is not None)
    writes = ["judged", *kept, *_asked(bool(student), bool(settings.judge)), "measures.json", "report.html"]
    versions = {"measures": measure.version(), "standing": standing.version()}
    if settings.judge:
        versions["prompt"] = question.VERSION
    told = partial(report.tell, place(out))
    return Stage("judge", place(out), settings, inputs, check, work, writes, versions, told)


def _asked(student: bool, judge: bool) -> list[str]:
    """Return the tables that models fill. Each model has a folder of its own, since both may reject rows."""
    return ["student/probes", "student/rejects"] * student + ["judge/verdicts", "judge/rejects"] * judge


def judge_reasons(
    rankings: str,
    candidates: str | None,
    out: str | Place,
    settings: JudgeSettings,
    student: str | None = None,
    adapter: str | None = None,
    against: Mapping[str, str] | None = None,
) -> None:
    """Measure reasons; write `measures.json`, the table `judged` and `report.html` into `out`, and print the table.

    Arguments as for `stage`. `figures.figures` says what measures.json has of each measure; `follows` there says
    whether it follows a known truth, None where that is not known (`standing.py`). `report.shown` decides which are in
    the report. Raises BadInput for a folder without either table, candidates that are missing or others than those
    ranked, a table without reasons, and a student that cannot rank.
    """
    run(stage(rankings, candidates, out, settings, student, adapter, against))


def _work(
    rankings: str,
    made: Planted,
    probes: Sequence[Mapping[str, Any] | None] | None,
    verdicts: tuple[Sequence[Mapping[str, Any] | None], float] | None,
    out: Place,
    settings: JudgeSettings,
    compared: Mapping[str, Sequence[Explained]],
) -> Result:
    rows = made.rows
    measures = {one.name: figures(one, made, settings.seed) for one in MEASURES}
    none = [None] * len(rows)
    judged = list(map(_judged, rows, probes or none, verdicts[0] if verdicts else none))
    if probes is not None:
        probed = [one for one in probes if one]
        measures |= {name: _probed(one, probed, settings.seed) for name, one in PROBES.items()}
        measures["comprehensiveness"]["of"] = measures["sufficiency"]["of"] = measures["verbatim"]["of"]
    if verdicts is not None:
        given = [one for one in verdicts[0] if one]
        measures |= {name: one.figures(given, settings.seed) for name, one in VERDICTS.items()}
        measures["supported"]["of"], measures["right"]["of"] = (measures[name]["of"] for name in _SAME_REASONS)
    for name, one in measures.items():
        one["follows"] = standing.follows(name)
    found = {
        "source": rankings,
        "name": next(iter(named(rankings, {}))),
        "queries": len({row.qid for row in rows}),
        "reasons": sum(map(len, judged)),
        # False texts that were left out before are in no table, and in no measure.
        "dropped": (manifest_of(place(rankings)) or {}).get("dropped", {}),
        "planted": {"rate": settings.planted, "swapped": sum(map(len, made.wrong))},
        "measures": measures,
        "against": {
            name: {
                one.name: mean(by_query((row.qid for row in other), map(one.values, other)), settings.seed)
                for one in MEASURES
            }
            for name, other in compared.items()
        },
    }
    if verdicts is not None:
        found["cost"] = verdicts[1]
    tables.write([*chain.from_iterable(judged)], out, "judged")
    tables.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", out / "measures.json")
    tables.write_text(report.render(found, rows, judged, WHY), out / "report.html")
    counts, more = {"queries": found["queries"], "judged": found["reasons"]}, {}
    if settings.keep is not None:
        kept, more["kept"] = keep.write(rankings, judged, list(report.shown(found)[0]), settings.keep, out)
        counts |= kept
    for name in _asked(probes is not None, verdicts is not None):
        folder, _, table = name.partition("/")
        counts[name] = tables.read(out / folder, table).num_rows if (out / name).is_dir() else 0
    return Result(counts, digest([measures, found["against"]]), ["measures.json", "report.html"], more)


def _probed(measure: Any, probes: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """Return the entry in measures.json of a measure of probes. Errors cannot be planted in it: noticed is None."""
    most = [value for one in probes for value in measure.most(one)]
    found = mean(by_query((one["qid"] for one in probes), map(measure.values, probes)) or [[]], seed)
    least = [value for one in probes for value in measure.least(one)]
    bounds = {"floor": sum(least) / len(least) if least else None, "ceiling": sum(most) / len(most) if most else None}
    unknown = {"planted": 0, "detected": None, "false_alarms": None, "noticed": None}
    return {**found, **bounds, "of": found["n"], "better": "higher", **unknown}


def _judged(
    row: Explained, probe: Mapping[str, Any] | None, verdicts: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Return the rows of the table `judged` of one explained row: one for each passage with a reason."""
    values = {one.name: one.values(row) for one in MEASURES}
    probed: dict[int, dict[str, float]] = {}
    if probe:
        for at, rank in enumerate(probe["ranks"]):
            probed[rank] = {name: PROBES[name].values(probe)[at] for name in ("comprehensiveness", "sufficiency")}
    asked = {rank: verdict.of(verdicts, at) for at, rank in enumerate(verdicts["ranks"])} if verdicts else {}
    found = []
    for at in row.places():
        own = {name: value for name, by_place in values.items() if (value := by_place[at]) is not None}
        flagged = [one.name for one in MEASURES if one.name in own and one.flags(own[one.name])]
        found_true = asked.get(at + 1, {})
        flagged += [name for name, value in found_true.items() if value == 0]
        own |= probed.get(at + 1, {}) | found_true
        judged: dict[str, Any] = dict(zip(explained.PARTS, row.reasons(at), strict=True))
        judged |= {"qid": row.qid, "docid": row.docids[at], "rank": at + 1, "values": own, "flagged": flagged}
        found.append(judged)
    return found
