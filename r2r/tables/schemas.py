"""The tables between the stages: their columns, and reading them with checks.

Owns the schemas. A table is a folder of Parquet files, `OUT/<table>/*.parquet`. What a table means is the business of
the stage that writes it.

    read("runs/demo/retrieve", "candidates").num_rows
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from r2r.errors import BadInput
from r2r.identity import add_digests, row_digest
from r2r.places import Place, place, readable
from r2r.places import files as files_of

_strings = pa.list_(pa.string())

SCHEMAS = {
    "corpus": pa.schema({"docid": pa.string(), "title": pa.string(), "text": pa.string()}),
    "queries": pa.schema({"qid": pa.string(), "query": pa.string()}),
    "qrels": pa.schema({"qid": pa.string(), "docid": pa.string(), "relevance": pa.int64()}),
    # The passages that get a query.
    "passages": pa.schema({"qid": pa.string(), "docid": pa.string(), "text": pa.string()}),
    # Each query that a teacher wrote, also those that are not kept.
    "written": pa.schema(
        {
            "qid": pa.string(),
            "query": pa.string(),
            "docid": pa.string(),
            "teacher": pa.string(),
            "key": pa.string(),
            "attempts": pa.int64(),
            "prompt_tokens": pa.int64(),
            "completion_tokens": pa.int64(),
        }
    ),
    "candidates": pa.schema(
        {
            "qid": pa.string(),
            "query": pa.string(),
            "docids": _strings,
            "texts": _strings,
            "scores": pa.list_(pa.float64()),
        }
    ),
    "annotations": pa.schema(
        {
            "qid": pa.string(),
            "query": pa.string(),
            "docids": _strings,
            "texts": _strings,
            "ranking": pa.list_(pa.int64()),
            "direct": _strings,
            "evidence": _strings,
            "comparison": _strings,
            "teacher": pa.string(),
            "key": pa.string(),
            "attempts": pa.int64(),
            "prompt_tokens": pa.int64(),
            "completion_tokens": pa.int64(),
            "agreement": pa.float64(),
        }
    ),
    "rejects": pa.schema(
        {
            "qid": pa.string(),
            "key": pa.string(),
            "reason": pa.string(),
            "reply": pa.string(),
            "attempts": pa.int64(),
        }
    ),
    "rankings": pa.schema(
        {
            "qid": pa.string(),
            "query": pa.string(),
            "docids": _strings,
            "scores": pa.list_(pa.float64()),
            "direct": _strings,
            "evidence": _strings,
            "comparison": _strings,
        }
    ),
    # One row a passage with a reason. Comparisons name passages by rank; `values` has what each measure says of it.
    "judged": pa.schema(
        {
            "qid": pa.string(),
            "docid": pa.string(),
            "rank": pa.int64(),
            "direct": pa.string(),
            "evidence": pa.string(),
            "comparison": pa.string(),
            "values": pa.map_(pa.string(), pa.float64()),
            "flagged": _strings,
        }
    ),
    # One row a query. `ranks` are those of the passages that were probed, in the ranking that is judged; the columns up
    # to `only_random` are aligned with it, and hold ranks among the `passages` that the student ranked again. `above`
    # and `below` are ranks of two passages whose evidence was swapped, with whether their order turned. The last two
    # are Kendall's tau of orders by nothing and by the reasons alone; null with less than two reasons.
    "probes": pa.schema(
        {
            "qid": pa.string(),
            "key": pa.string(),
            "passages": pa.int64(),
            "agreement": pa.float64(),
            "ranks": pa.list_(pa.int64()),
            "whole": pa.list_(pa.int64()),
            "without": pa.list_(pa.int64()),
            "without_random": pa.list_(pa.int64()),
            "only": pa.list_(pa.int64()),
            "only_random": pa.list_(pa.int64()),
            "above": pa.list_(pa.int64()),
            "below": pa.list_(pa.int64()),
            "turned": pa.list_(pa.bool_()),
            "turned_random": pa.list_(pa.bool_()),
            "unseen": pa.float64(),
            "simulated": pa.float64(),
        }
    ),
    # One row a query. Lists are aligned with `ranks`, the ranks of its passages with reasons; "" is no verdict.
    "verdicts": pa.schema(
        {
            "qid": pa.string(),
            "key": pa.string(),
            "attempts": pa.int64(),
            "ranks": pa.list_(pa.int64()),
            "planted_direct": pa.list_(pa.bool_()),
            "planted_comparison": pa.list_(pa.bool_()),
            "direct_1": _strings,
            "direct_2": _strings,
            "comparison_1": _strings,
            "comparison_2": _strings,
            "claims": _strings,
        }
    ),
    # One row an optimizer step, as distill logs it while it trains; null where a step has no such figure.
    "steps": pa.schema(
        {
            "step": pa.int64(),
            "loss": pa.map_(pa.string(), pa.float64()),
            "learning_rate": pa.float64(),
            "grad_norm": pa.float64(),
            "tokens": pa.int64(),
            "seconds": pa.float64(),
            "ndcg": pa.float64(),
            "mfu": pa.float64(),
        }
    ),
}

# What annotations from elsewhere need not have: Kendall's tau between samples, null where only one was asked for.
_OPTIONAL = {"agreement"}


# What an annotation says of its making. Annotations that differ in nothing else are the same.
_RECEIPTS = {"teacher", "key", "attempts", "prompt_tokens", "completion_tokens"}


def row_content(row: Mapping[str, Any], name: str) -> int:
    """Return the hash of a row of the table `name`, for `identity.add_digests`."""
    counted = [row.get(column) for column in SCHEMAS[name].names if column not in _RECEIPTS]
    return row_digest(json.dumps(counted, ensure_ascii=False))


def content(digest: int) -> str:
    """Return the content hash of a table, from the sum of its rows' hashes."""
    return f"rows:{digest:032x}"


def content_of(folder: str | Place, name: str) -> str:
    """Return the content hash of the table `name`, read from its files."""
    tables = (read_file(file, name) for file in files(folder, name))
    return content(add_digests(row_content(row, name) for table in tables for row in table.to_pylist()))


def path(folder: str | Place, name: str) -> Place:
    return place(folder) / name


def files(folder: str | Place, name: str) -> list[Place]:
    """Return the Parquet files of a table, in the order of its rows. Raises BadInput where the folder has none."""
    held = path(folder, name)
    found = [held / file for file in files_of(held) if "/" not in file and file.endswith(".parquet")]
    if not found:
        raise BadInput(f"{folder}: holds no {name} table; expected Parquet files in {held}")
    return found


def read(folder: str | Place, name: str) -> pa.Table:
    """Return the table `name` of a stage's folder with its schema's columns.

    Raises BadInput if the folder has no such table, or one with other columns.
    """
    return pa.concat_tables([read_file(file, name) for file in files(folder, name)])


def read_file(file: Place, name: str) -> pa.Table:
    """Return one Parquet file of the table `name` with its schema's columns. Raises BadInput as `read`."""
    try:
        table = pq.read_table(readable(file))
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{file}: not a Parquet file: {error}") from None
    return checked(table, name, str(file))


def checked(table: pa.Table, name: str, file: str) -> pa.Table:
    """Return rows of the table `name` with its schema's columns. Raises BadInput, which names the file, as `read`."""
    schema = SCHEMAS[name]
    for column in _OPTIONAL.difference(table.column_names).intersection(schema.names):
        table = table.append_column(schema.field(column), pa.nulls(len(table), schema.field(column).type))
    missing = [column for column in schema.names if column not in table.column_names]
    if missing:
        raise BadInput(f"{file}: column {missing[0]} is missing; the {name} table has {', '.join(schema.names)}")
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(f"{file}: {error}; the {name} table has {schema.to_string()}".replace("\n", ", ")) from None


def ranked(folder: str | Place, name: str) -> Iterator[dict]:
    """Yield qid, docids and scores of a table's rows, in their order, a file at a time."""
    for file in files(folder, name):
        yield from pq.read_table(readable(file), columns=["qid", "docids", "scores"]).to_pylist()
