"""One table over all collections of a run: collections x systems, with averages, as `summary.json`, page and text.

Owns which figures are averaged, and the reason for every empty cell. An average over collections of which one has no
figure is not shown. Does not own the figures of a collection: they are read from the `metrics.json` that the stage
evaluate wrote. Significance is tested within a collection only.

    write(collect({"scifact": Path("runs/x/evaluations/scifact/evaluate")}, {}, {}, ["nDCG@10"], [], out), out)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r2r import tables
from r2r.evaluation.significance import LEVEL, MARK, is_marked
from r2r.places import Place, relative
from r2r.templates import load

# These come last in the table, as in that of one collection.
_BOUNDS = ("random", "oracle")


def collect(
    places: Mapping[str, Place],
    absent: Mapping[str, str],
    averages: Mapping[str, Sequence[str]],
    measures: Sequence[str],
    quoted: Sequence[Mapping[str, Any]],
    out: Place,
) -> dict[str, Any]:
    """Return the content of summary.json.

    places: collection -> folder that evaluate wrote. absent: collection -> why it has no figures, also of collections
    that are not in `places`; what their folders hold from earlier is not read. averages: name -> collections, or
    averages before it. measures: the first is that of the table. quoted: as in a run file. out: the summary's folder,
    from which links lead to the collections' pages.

    {"measures": [...], "systems": [...],
    "collections": {NAME: {"queries": N, "report": PATH, "systems": {SYSTEM: {MEASURE: FIGURE}}, "marked": {SYSTEM:
    [MEASURE]}}, or {"missing": WHY}},
    "averages": {NAME: {"of": [NAME], "systems": {SYSTEM: {MEASURE: MEAN or null}}, "missing": {SYSTEM: {MEASURE:
    WHY}}}}, "quoted": [...]}
    """
    found: dict[str, Any] = {}
    for name, place in places.items():
        found[name] = {"missing": absent[name]} if name in absent else _read(place, out)
    found |= {name: {"missing": why} for name, why in absent.items() if name not in found}
    systems = list(dict.fromkeys(system for one in found.values() for system in one.get("systems", ())))
    systems = [*(name for name in systems if name not in _BOUNDS), *(name for name in _BOUNDS if name in systems)]
    summary: dict[str, Any] = {"measures": list(measures), "systems": systems, "collections": found, "averages": {}}
    for name, of in averages.items():
        means: dict[str, dict[str, float | None]] = {}
        missing: dict[str, dict[str, str]] = {}
        for system in systems:
            for measure in measures:
                figures = [figure(summary, one, system, measure) for one in of]
                lacking = [one for one, value in zip(of, figures, strict=True) if value is None]
                complete = [value for value in figures if value is not None]
                means.setdefault(system, {})[measure] = None if lacking else sum(complete) / len(of)
                if lacking:
                    missing.setdefault(system, {})[measure] = f"no figure for {', '.join(lacking)}"
        summary["averages"][name] = {"of": list(of), "systems": means, "missing": missing}
    return summary | {"quoted": [dict(one) | {"measure": one["measure"] or measures[0]} for one in quoted]}


def _read(place: Place, out: Place) -> dict[str, Any]:
    metrics = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
    rows, tests = metrics["systems"], metrics["tests"]
    return {
        "queries": metrics["queries"],
        "report": relative(place / "report.html", out),
        "systems": rows,
        "baseline": tests["baseline"],
        "marked": {
            system: [measure for measure in rows[system] if is_marked(tests, system, measure)]
            for system in tests["systems"]
        },
    }


def figure(summary: Mapping[str, Any], name: str, system: str, measure: str) -> float | None:
    """Return a figure of a collection or an average, None where there is none."""
    row = summary["averages"].get(name) or summary["collections"].get(name, {})
    value = row.get("systems", {}).get(system, {}).get(measure)
    return None if value is None else float(value)


def why_not(summary: Mapping[str, Any], name: str, system: str, measure: str) -> str:
    """Return why a collection or an average has no figure of a system."""
    if name in summary["averages"]:
        return str(summary["averages"][name]["missing"][system][measure])
    row = summary["collections"].get(name, {"missing": "not in the run file"})
    if "missing" in row:
        return str(row["missing"])
    return f"has no run {system}" if system not in row["systems"] else f"not measured by {measure}"


def write(summary: Mapping[str, Any], out: Place) -> None:
    """Write `summary.json` and `report.html` into `out`."""
    tables.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", out / "summary.json")
    tables.write_text(render(summary), out / "report.html")


def render(summary: Mapping[str, Any]) -> str:
    """Return the page: a table per measure, the reasons of empty cells, and the quoted figures apart."""
    template = load(Path(__file__).with_name("summary.html.j2"))
    return template.render(
        summary=summary,
        tables=[
            {"measure": measure, "rows": list(_rows(summary, measure)), "reasons": _reasons(summary, measure)}
            for measure in summary["measures"]
        ],
        level=LEVEL,
        mark=MARK,
        baselines=_baselines(summary),
    )


def _rows(summary: Mapping[str, Any], measure: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a measure's table: name, number of queries, page, whether an average, and the cells."""
    for name, row in [*summary["collections"].items(), *summary["averages"].items()]:
        cells = [
            {
                "value": figure(summary, name, system, measure),
                "marked": measure in row.get("marked", {}).get(system, ()),
            }
            for system in summary["systems"]
        ]
        yield {
            "name": name,
            "queries": row.get("queries"),
            "report": row.get("report"),
            "of": row.get("of", []),
            "cells": cells,
        }


def _reasons(summary: Mapping[str, Any], measure: str) -> list[str]:
    """Return a line for each row with an empty cell; systems that lack a figure for the same reason share one."""
    lines = []
    for name in [*summary["collections"], *summary["averages"]]:
        whys: dict[str, list[str]] = {}
        for system in summary["systems"]:
            if figure(summary, name, system, measure) is None:
                whys.setdefault(why_not(summary, name, system, measure), []).append(system)
        for why, systems in whys.items():
            whom = "" if len(systems) == len(summary["systems"]) else f" ({', '.join(systems)})"
            lines.append(f"{name}{whom}: {why}")
        if not summary["systems"]:
            lines.append(f"{name}: {summary['collections'].get(name, {}).get('missing', 'no figure')}")
    return lines


def _baselines(summary: Mapping[str, Any]) -> list[str]:
    """Return the names of the runs that systems were tested against."""
    return sorted({row["baseline"] for row in summary["collections"].values() if "baseline" in row})


def as_text(summary: Mapping[str, Any]) -> str:
    """Return the table of the first measure as text, the reasons of its empty cells, and the quoted figures."""
    measure, *_ = summary["measures"]

    def cell(one: Mapping[str, Any]) -> str:
        return "- " if one["value"] is None else f"{one['value']:.4f}{MARK if one['marked'] else ' '}"

    rows = list(_rows(summary, measure))
    table = [[f"{measure} ", *(f"{system} " for system in summary["systems"])]]
    table += [[f"{row['name']} ", *map(cell, row["cells"])] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        " ".join([texts[0].ljust(widths[0]), *(map(str.rjust, texts[1:], widths[1:]))]).rstrip() for texts in table
    ]
    if any(one["marked"] for row in rows for one in row["cells"]):
        baselines = " or ".join(_baselines(summary))
        lines.append(f"{MARK} differs from {baselines}, p < {LEVEL:g}: the collection's own page says more")
    lines += [f"  - {line}" for line in _reasons(summary, measure)]
    for one in summary["quoted"]:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in one["figures"].items())
        lines.append(f"quoted, not measured here: {one['system']}, {one['measure']}: {figures} ({one['source']})")
    return "\n".join(lines)
