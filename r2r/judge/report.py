"""The page about the reasons of one table, and the same figures as text.

Owns which measures and reasons are shown; `report.html.j2` owns the looks.

    page = render(found, rows, judged)    # as stage.py calls it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r2r.identity import digest
from r2r.judge.explained import Explained

SHOWN = 10
_TITLE = "{reasons:,} passages with reasons, {queries:,} queries; errors planted in {swapped:,}"
_ENVIRONMENT = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}


def render(found: Mapping[str, Any], rows: Sequence[Explained], judged: Sequence[Mapping[str, Any]]) -> str:
    """Return the page. found: as in measures.json. judged: the rows of that table."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, **_ENVIRONMENT)  # type: ignore[arg-type]
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    shown, hidden = _shown(found)
    row_of = {row.qid: row for row in rows}
    worst, best = pick(judged, list(shown))

    def reason(one: Mapping[str, Any]) -> dict[str, Any]:
        row = row_of[one["qid"]]
        return {**one, "query": row.query, "text": row.texts[one["rank"] - 1]}

    return template.render(
        title=_title(found),
        source=found["source"],
        head=_HEAD,
        shown=_lines(shown),
        hidden=", ".join(hidden),
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


def tell(out: Path) -> None:
    """Print the table of a finished stage's folder."""
    found = json.loads((out / "measures.json").read_text(encoding="utf-8"))
    shown, hidden = _shown(found)
    lines = [list(_HEAD), *_lines(shown)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"judge: {_title(found)}")
    for first, *others in lines:
        print(
            "  ".join([first.ljust(widths[0]), *(cell.rjust(to) for cell, to in zip(others, widths[1:], strict=True))])
        )
    if hidden:
        print(f"judge: not shown, since they do not notice planted errors here: {', '.join(hidden)}")
    print(f"report: {out / 'report.html'}", flush=True)


_HEAD = ("measure", "value", "95 % interval", "floor", "ceiling", "judged", "detected", "false alarms", "kappa")


def _lines(shown: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the cells of the table, a line a measure, in the order of _HEAD."""
    lines = []
    for name, one in shown.items():
        better = "" if one["better"] == "higher" else " (lower is better)"
        span = f"{_number(one['low'])} to {_number(one['high'])}"
        judged = f"{one['n']:,} of {one['of']:,}"
        ends = [_number(one[end]) for end in ("floor", "ceiling")]
        honest = [_share(one["detected"]), _share(one["false_alarms"]), _number(one.get("kappa"))]
        lines.append([f"{name}{better}", _number(one["value"]), span, *ends, judged, *honest])
    return lines


def _shown(found: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the measures that are shown, and the names of the others."""
    measures = found["measures"]
    return {name: one for name, one in measures.items() if one["noticed"] is not False}, [
        name for name, one in measures.items() if one["noticed"] is False
    ]


def _title(found: Mapping[str, Any]) -> str:
    return _TITLE.format(**found, swapped=found["planted"]["swapped"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
