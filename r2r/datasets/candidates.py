"""Candidate lists in parts, so that no process holds them all: from a stage's folder, or from RankGPT's JSON.

Owns the cut into parts and the checks of a row. Does not own the formats: `parquet.py` and `rankgpt.py` read the rows.

    parts = of_stage("runs/scifact/retrieve").parts(64)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from r2r import tables
from r2r.datasets import parquet, rankgpt
from r2r.datasets.documents import Part
from r2r.errors import BadInput

_COLUMNS = {name: name for name in tables.SCHEMAS["candidates"].names}


@dataclass(frozen=True)
class Listed:
    """A part whose rows are in memory."""

    rows: tuple[dict, ...]
    unit: ClassVar[str] = "row"

    @property
    def size(self) -> int:
        return len(self.rows)

    def read(self) -> Iterator[tuple[int, dict]]:
        yield from enumerate(self.rows)

    def place(self, at: int) -> str:
        return f"qid {self.rows[at]['qid']}"


class Candidates(NamedTuple):
    """`qids` are in the order of the rows. `parts(n)` cuts the rows into parts of about n, for workers to read."""

    qids: list[str]
    parts: Callable[[int], list[Part]]


def of_rankgpt(file: str) -> Candidates:
    """Return the candidates of a RankGPT file. Reads it whole, because it may be one JSON text."""
    found = rankgpt.candidates(file)
    return Candidates(
        [row["qid"] for row in found],
        lambda rows: [Listed(tuple(found[at : at + rows])) for at in range(0, len(found), rows)],
    )


def of_stage(folder: str) -> Candidates:
    """Return the candidates of a stage's folder. Reads only the qids; workers read the rest.

    Raises BadInput for a qid that is no text, is empty or repeats, and for a table without rows.
    """
    where = tables.path(folder, "candidates")
    files = [str(file) for file in tables.files(folder, "candidates")]
    (column,) = parquet.split(files, {"qid": "qid"}, 1, _qid)
    seen: dict[str, int] = {}
    for at, qid in column.read():
        if qid in seen:
            raise BadInput(f"{column.place(at)}, qid {qid}: comes twice; there is one row a query")
        seen[qid] = at
    if not seen:
        raise BadInput(f"{where}: holds no rows; each query is one")
    return Candidates(list(seen), lambda rows: list(parquet.split(files, _COLUMNS, -(-len(seen) // rows), _row)))


def _qid(record: dict, names: dict[str, str], repaired: bool) -> str:
    if not isinstance(record["qid"], str) or not record["qid"]:
        raise ValueError(f"has the qid {record['qid']!r}; a text that is not empty is needed")
    return record["qid"]


def _row(record: dict, names: dict[str, str], repaired: bool) -> dict:
    row = record | {name: record[name] or [] for name in ("docids", "texts", "scores")}
    if len({len(row[name]) for name in ("docids", "texts", "scores")}) > 1:
        raise ValueError(f"qid {row['qid']}: docids, texts and scores differ in length; they are aligned")
    if not row["docids"]:
        raise ValueError(f"qid {row['qid']}: has no candidates; each query needs at least one")
    if not isinstance(row["query"], str) or not all(isinstance(text, str) for text in row["docids"] + row["texts"]):
        raise ValueError(f"qid {row['qid']}: query, docids and texts are not all text")
    return row
