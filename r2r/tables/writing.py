"""Atomic writing: tables and files are written aside and then renamed, so that no reader meets half of one.

write([{"qid": "q1", "query": "how long do fleas live"}], "runs/x", "queries")
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from r2r.identity import add_digests
from r2r.tables.schemas import SCHEMAS, content, path, row_content


def write_part(rows: list[dict], folder: Path, name: str, part: str) -> int:
    """Write one Parquet file of a table. Return the sum of its rows' hashes, for `schemas.content`."""
    folder = path(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{part}.tmp"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[name]), aside)
    os.replace(aside, folder / f"{part}.parquet")
    return add_digests(row_content(row, name) for row in rows)


def write(rows: list[dict], folder: str | Path, name: str) -> str:
    """Write a whole table in one file, in place of any table of that name. Return its content hash."""
    clear(folder, name)
    return content(write_part(rows, Path(folder), name, "part-00000"))


def clear(folder: str | Path, *names: str) -> None:
    """Remove tables from a stage's folder before they are written anew."""
    for name in names:
        shutil.rmtree(path(folder, name), ignore_errors=True)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a path to write to, which takes the place of `file` once the block ends without an error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.tmp")
    yield aside
    os.replace(aside, file)


def write_text(text: str, file: Path) -> None:
    with replacing(file) as aside:
        aside.write_text(text, encoding="utf-8")
