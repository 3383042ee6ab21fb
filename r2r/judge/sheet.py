"""A sheet for people: an HTML file in which they rate reasons, and the key that says whose reasons they were.

Owns which results are shown, in which order, and both files; `sheet.html.j2` owns the looks and the keys. Does not read
answers (`people.py`).

Each item shows one query and two results of it, left and right: two systems, or a system with and without its reasons.
The sheet does not say which; `FILE.key.json`, which stays with whoever made the sheet, does.

    write("sheet.html", {"student": "runs/demo/rerank", "teacher": "runs/demo/annotate-test"}, "runs/demo/retrieve",
          queries=20, seed=0)
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from r2r import tables
from r2r.errors import BadInput
from r2r.identity import digest
from r2r.judge import explained
from r2r.judge.explained import Explained
from r2r.places import Place, place
from r2r.templates import load

# Passages of a result, from the top.
PASSAGES = 3
BARE = "without reasons"
# What is asked about each side, from 1 to 5, and about both. Without reasons, only usefulness can be asked.
SCALES = ("useful", "true", "complete")
CHOICE = "choice"


class Shown(NamedTuple):
    """One side of an item: a system's first passages about a query, with their reasons or without."""

    system: str
    passages: list[dict[str, str]]


def write(file: str, systems: Mapping[str, str], candidates: str | None, queries: int, seed: int) -> None:
    """Write a sheet and its key, and say where they are.

    systems: name -> folder with rankings or annotations, or teacher:FILE; the first one is also shown without reasons.
    candidates: the passages of rankings tables. queries: items at most; each has a query of its own, which all systems
    have explained. Raises BadInput if there is none.
    """
    items = _items(systems, candidates, queries, seed)
    name = digest(items)[:12]
    shown = [
        {"id": one["id"], "query": one["query"], "sides": [side["passages"] for side in one["sides"]]} for one in items
    ]
    key = {
        "sheet": name,
        "systems": dict(systems),
        "items": {one["id"]: [side["system"] for side in one["sides"]] for one in items},
        "qids": {one["id"]: one["qid"] for one in items},
    }
    tables.write_text(_render(name, shown), place(file))
    tables.write_text(json.dumps(key, indent=2, ensure_ascii=False) + "\n", key_of(file))
    print(f"sheet: {len(items)} queries, two results each -> {file}")
    print(f"sheet: whose they are, not for the raters -> {key_of(file)}", flush=True)


def key_of(file: str) -> Place:
    """Return where the key of a sheet lies."""
    return place(f"{file}.key.json")


def _items(systems: Mapping[str, str], candidates: str | None, queries: int, seed: int) -> list[dict[str, Any]]:
    found = {name: _by_qid(source, candidates) for name, source in systems.items()}
    first, *others = found.values()
    both = [qid for qid in first if all(qid in other for other in others)]
    if not both:
        raise BadInput(f"sheet: no query has reasons of all of {', '.join(systems)}; give systems of the same queries")
    rng = random.Random(f"{seed} sheet")
    drawn = rng.sample(both, min(queries, len(both)))
    bare = f"{next(iter(systems))} {BARE}"
    pairs = list(combinations([*systems, bare], 2))
    items = []
    for number, qid in enumerate(drawn):
        # All pairs come equally often; which pair a query gets is chance, since the queries were drawn.
        pair = list(pairs[number % len(pairs)])
        rng.shuffle(pair)
        sides = [
            Shown(name, _passages(first[qid] if name == bare else found[name][qid], name != bare))._asdict()
            for name in pair
        ]
        items.append({"qid": qid, "query": first[qid].query, "sides": sides})
    rng.shuffle(items)
    return [{"id": f"i{number}", **item} for number, item in enumerate(items, start=1)]


def _by_qid(source: str, candidates: str | None) -> dict[str, Explained]:
    rows = explained.read(source, explained.passages_of(source, candidates))
    return {row.qid: row for row in rows if row.places()}


def _passages(row: Explained, reasons: bool) -> list[dict[str, str]]:
    """Return the first passages, each with its text and, if wanted, those reasons that it has."""
    parts: Sequence[str] = explained.PARTS if reasons else ()
    return [
        {"text": row.texts[at], **{part: text for part in parts if (text := getattr(row, part)[at])}}
        for at in range(min(PASSAGES, len(row.docids)))
    ]


def _render(name: str, items: list[dict[str, Any]]) -> str:
    template = load(Path(__file__).with_name("sheet.html.j2"))
    # As data in a script element, where only "<" could end it.
    data = json.dumps({"sheet": name, "items": items}, ensure_ascii=False).replace("<", "\\u003c")
    return template.render(data=data, count=len(items))
