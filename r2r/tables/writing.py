"""Atomic writing: tables and files are written aside and then put in place, so that no reader meets half of one.

write([{"qid": "q1", "query": "how long do fleas live"}], "runs/x", "queries")
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from r2r import places
from r2r.identity import add_digests
from r2r.places import Place, place, replacing, write_text
from r2r.tables.schemas import SCHEMAS, content, path, row_content

__all__ = ["clear", "replacing", "seal", "write", "write_part", "write_text"]


def write_part(rows: list[dict], folder: Place, name: str, part: str) -> int:
    """Write one Parquet file of a table. Return the sum of its rows' hashes, for `schemas.content`.

    The table is whole once all its parts are sealed.
    """
    with replacing(path(folder, name) / f"{part}.parquet") as aside:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[name]), aside)
    return add_digests(row_content(row, name) for row in rows)


def seal(folder: Place, name: str, parts: Iterable[str]) -> None:
    """Say that a table is whole, and which parts it has."""
    places.seal(path(folder, name), [f"{part}.parquet" for part in parts])


def write(rows: list[dict], folder: str | Place, name: str) -> str:
    """Write a whole table in one file, in place of any table of that name. Return its content hash."""
    clear(folder, name)
    digest = write_part(rows, place(folder), name, "part-00000")
    seal(place(folder), name, ["part-00000"])
    return content(digest)


def clear(folder: str | Place, *names: str) -> None:
    """Remove tables from a stage's folder before they are written anew."""
    for name in names:
        places.remove(path(folder, name))
