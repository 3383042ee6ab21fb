"""The annotations whose reasons are sound, for a student to learn from.

Owns which rows are kept. Reads and writes whole rows of the table annotations; changes nothing in them.

    r2r judge --rankings runs/x/annotate --keep 0.2 --out runs/x/judge
    r2r distill --annotations runs/x/judge/kept --student MODEL --out runs/x/distill
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from r2r import datasets, tables
from r2r.errors import Stopped
from r2r.places import Place


def write(
    annotations: str, judged: Sequence[Sequence[Mapping[str, Any]]], measures: Sequence[str], most: float, out: Place
) -> tuple[dict[str, int], str]:
    """Write the annotations with faults in at most a share `most` of their reasons. Return the counts of rows, and the
    content hash of those that were kept.

    judged: of each annotation, its rows of that table. measures: those whose faults count. An annotation without any
    reason is kept. Raises Stopped if there is no such measure, or if none is left.
    """
    if not measures:
        raise Stopped(f"keep: {most:g}: no measure finds faults in these annotations; leave keep out")
    rows = datasets.read_annotations(annotations)[0]
    kept = [
        row
        for row, own in zip(rows, judged, strict=True)
        if sum(not set(one["flagged"]).isdisjoint(measures) for one in own) <= most * len(own)
    ]
    if not kept:
        raise Stopped(f"keep: {most:g}: none of {len(rows):,} annotations has so few faults; give a larger share")
    content = tables.write(kept, out / "kept", "annotations")
    return {"kept/annotations": len(kept), "left out by keep": len(rows) - len(kept)}, content
