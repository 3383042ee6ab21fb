"""The page about the reasons of one table, and the same figures as text.

Owns which measures and reasons are shown; `report.html.j2` owns the looks.

    page = render(found, rows, judged, why)    # as stage.py calls it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r2r.identity import digest
from r2r.judge.explained import Explained
from r2r.judge.standing import STANDING
from r2r.judge.verdict import MEASURES as VERDICTS
from r2r.places import Place
from r2r.templates import load

SHOWN = 10
_NOT_NOTICED = "do not notice planted errors here"
_NO_TRUTH = "do not follow the truth where it is known"
_NO_STANDING = "have no standing: nothing shows that they follow the truth"
_OF_A_MODEL = (
    "{names}: what a language model says. They have no standing, since the model is yours; the planted errors of this "
    "table say what it is worth."
)
_TITLE = "{reasons:,} passages with reasons, {queries:,} queries; errors planted in {swapped:,}"


def render(
    found: Mapping[str, Any],
    rows: Sequence[Explained],
    judged: Sequence[Sequence[Mapping[str, Any]]],
    why: Mapping[str, str],
) -> str:
    """Return the page. found: as in measures.json. judged: of each row, its part of that table. why: measure -> its
    fault in words."""
    template = load(Path(__file__).with_name("report.html.j2"))
    seen, hidden = shown(found)
    reasons = [
        {**one, "query": row.query, "text": row.texts[one["rank"] - 1]}
        for row, own in zip(rows, judged, strict=True)
        for one in own
    ]
    worst, best = pick(reasons, list(seen))

    def reason(one: Mapping[str, Any]) -> dict[str, Any]:
        return {**one, "why": [why[name] for name in one["flagged"] if name in seen]}

    return template.render(
        title=_title(found),
        source=found["source"],
        head=_HEAD,
        shown=_lines(seen),
        compared=_compared(found, seen),
        hidden=_left_out(hidden),
        of_a_model=_of_a_model(found),
        worst=[reason(one) for one in worst],
        best=[reason(one) for one in best],
    )


def pick(
    judged: Sequence[Mapping[str, Any]], measures: Sequence[str]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Return the reasons with the most faults by these measures, and faultless ones that the most of them could judge.

    Reasons that are equal in this are drawn by a hash, so that a page does not show the first queries only.
    """

    def faults(one: Mapping[str, Any]) -> int:
        return len(set(one["flagged"]).intersection(measures))

    def judged_by(one: Mapping[str, Any]) -> int:
        return len(set(one["values"]).intersection(measures))

    drawn = sorted(judged, key=lambda one: digest([one["qid"], one["docid"]]))
    worst = sorted((one for one in drawn if faults(one)), key=lambda one: -faults(one))
    best = sorted((one for one in drawn if judged_by(one) and not faults(one)), key=lambda one: -judged_by(one))
    return worst[:SHOWN], best[:SHOWN]


def tell(out: Place) -> None:
    """Print the table of a finished stage's folder."""
    found = json.loads((out / "measures.json").read_text(encoding="utf-8"))
    seen, hidden = shown(found)
    print(f"judge: {_title(found)}")
    _print([list(_HEAD), *_lines(seen)])
    if compared := _compared(found, seen):
        _print(compared)
    for line in (_left_out(hidden), _of_a_model(found)):
        if line:
            print(f"judge: {line}")
    print(f"report: {out / 'report.html'}", flush=True)


def _print(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        print(
            "  ".join([first.ljust(widths[0]), *(cell.rjust(to) for cell, to in zip(others, widths[1:], strict=True))])
        )


_HEAD = (
    "measure",
    "value",
    "95 % interval",
    "floor",
    "ceiling",
    "judged",
    "detected",
    "false alarms",
    "kappa",
    "truth",
)


def _lines(shown: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the cells of the table, a line a measure, in the order of _HEAD."""
    lines = []
    for name, one in shown.items():
        better = "" if one["better"] == "higher" else " (lower is better)"
        span = f"{_number(one['low'])} to {_number(one['high'])}"
        judged = f"{one['n']:,} of {one['of']:,}"
        ends = [_number(one[end]) for end in ("floor", "ceiling")]
        honest = [_share(one["detected"]), _share(one["false_alarms"]), _number(one.get("kappa"))]
        truth = _number(STANDING[name]["correlation"]) if name in STANDING else "-"
        lines.append([f"{name}{better}", _number(one["value"]), span, *ends, judged, *honest, truth])
    return lines


def _compared(found: Mapping[str, Any], seen: Mapping[str, Any]) -> list[list[str]]:
    """Return the table of measures and systems, its head first; nothing without other systems."""
    against = found["against"]
    if not against:
        return []
    lines = [["measure", found["name"], *against]]
    for name, one in seen.items():
        others = [of.get(name) for of in against.values()]
        if any(others):
            lines.append([name, *("-" if each is None else _spanned(each) for each in (one, *others))])
    return lines


def _spanned(one: Mapping[str, Any]) -> str:
    return f"{_number(one['value'])} ({_number(one['low'])} to {_number(one['high'])})"


def shown(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return the measures of measures.json that are shown, and why -> the names of the others.

    Only those that follow a known truth are, and that notice planted errors, where errors can be planted. The measures
    of a judge have no known truth: the planted errors alone decide.
    """
    seen, hidden = dict[str, Any](), dict[str, list[str]]()
    for name, one in found["measures"].items():
        if one["follows"] is False:
            hidden.setdefault(_NO_TRUTH, []).append(name)
        elif one["follows"] is None and name not in VERDICTS:
            hidden.setdefault(_NO_STANDING, []).append(name)
        elif one["noticed"] is False:
            hidden.setdefault(_NOT_NOTICED, []).append(name)
        else:
            seen[name] = one
    return seen, hidden


def _left_out(hidden: Mapping[str, Sequence[str]]) -> str:
    """Return in a sentence which measures are left out, and why; nothing if none is."""
    said = "; ".join(f"{', '.join(names)} ({why})" for why, names in hidden.items())
    return f"Left out: {said}. Their figures are in measures.json." if said else ""


def _of_a_model(found: Mapping[str, Any]) -> str:
    """Return what the reader must know of the measures of a judge; nothing without one."""
    names = [name for name in VERDICTS if name in found["measures"]]
    return _OF_A_MODEL.format(names=", ".join(names)) if names else ""


def _title(found: Mapping[str, Any]) -> str:
    return _TITLE.format(**found, swapped=found["planted"]["swapped"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
