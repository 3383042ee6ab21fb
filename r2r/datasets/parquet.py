"""A collection as one Parquet file or a folder of them. The user may name the columns.

Owns that format, and the cut into parts of equal size, which workers read in batches. Does not own the column names
(`columns.py`).

    corpus("passages/", "docid=id,text=contents", parts=4)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from r2r.datasets.columns import columns, document_of, judgement_of, missing, query_of
from r2r.datasets.documents import Document, Part
from r2r.datasets.files import names, open_file, text_of, within
from r2r.datasets.trec import unique_judgements, unique_queries
from r2r.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH = 500


def corpus(path: str, fragment: str, parts: int) -> list[Part]:
    """Return the documents in parts."""
    return split(files(path), columns(fragment, "corpus"), parts, document_row)


def queries(path: str, fragment: str) -> list[dict]:
    """Return the queries. Raises BadInput, with the row, for one that is not sound."""
    (rows,) = split(files(path), columns(fragment, "queries"), 1, query_row)
    return unique_queries(rows, path)


def qrels(path: str, fragment: str) -> list[dict]:
    """Return the judgements. Raises BadInput, with the row, for one that is not sound."""
    (rows,) = split(files(path), columns(fragment, "qrels"), 1, judgement_row)
    return unique_judgements(rows, path)


def document_row(record: dict, names: dict[str, str], repaired: bool) -> Document:
    """Parse a document, as `Rows` needs it."""
    return document_of(record, names, repaired)


def query_row(record: dict, names: dict[str, str], repaired: bool) -> dict:
    """Parse a query, as `Rows` needs it."""
    return query_of(record, names)


def judgement_row(record: dict, names: dict[str, str], repaired: bool) -> dict:
    """Parse a judgement, as `Rows` needs it."""
    return judgement_of(record, names)


def files(path: str) -> list[str]:
    """Return the file, or the .parquet files of the folder. Raises BadInput for a folder without any."""
    there = names(path)
    if there is None:
        return [path]
    found = [within(path, name) for name in there if name.endswith(".parquet") and name[0] not in "._"]
    if not found:
        raise BadInput(f"{path}: holds no .parquet file; expected one or more right in it")
    return found


@dataclass(frozen=True)
class Rows:
    """A part of Parquet files whose rows are numbered through all files.

    A piece is (file, start, stop, first): the file's rows [start, stop); `first` is the number of row `start`.
    `parse` takes a record, the names, and whether U+FFFD replaced broken UTF-8 in it. It raises ValueError with what
    is wrong and what would be right.
    """

    pieces: tuple[tuple[str, int, int, int], ...]
    names: dict[str, str]
    parse: Callable[[dict, dict[str, str], bool], Any]
    unit: ClassVar[str] = "document"

    @property
    def size(self) -> int:
        return sum(stop - start for _, start, stop, _ in self.pieces)

    def read(self) -> Iterator[tuple[int, Any]]:
        """Yield each row, parsed, with its number. Raises BadInput, with the place, for a row that `parse` refuses."""
        for file, start, stop, first in self.pieces:
            for at, (record, repaired) in enumerate(_records(file, start, stop, self.names), start=first):
                try:
                    row = self.parse(record, self.names, repaired)
                except ValueError as error:
                    raise BadInput(f"{self.place(at)}: {error}") from None
                yield at, row

    def place(self, at: int) -> str:
        """Return `FILE: row N`, N from 1, for the row with the number `at`."""
        file, start, _, first = next(piece for piece in reversed(self.pieces) if piece[3] <= at)
        return f"{file}: row {start + at - first + 1}"


def split(
    files: list[str],
    names: dict[str, str],
    parts: int,
    parse: Callable[..., Any],
    of: Callable[..., Part] = Rows,
) -> list[Part]:
    """Cut files into `parts` of equal size that together hold each row once. `names` are the columns to read; `of`
    makes a part of what `Rows` takes."""
    counts = [_count(file, names) for file in files]
    total = sum(counts)
    found: list[Part] = []
    for index in range(parts):
        begin, end = total * index // parts, total * (index + 1) // parts
        pieces, first = [], 0
        for file, count in zip(files, counts, strict=True):
            start, stop = max(begin - first, 0), min(end - first, count)
            if start < stop:
                pieces.append((file, start, stop, first + start))
            first += count
        found.append(of(tuple(pieces), names, parse))
    return found


def _count(file: str, names: dict[str, str]) -> int:
    """Return the number of rows. Raises BadInput for a file that lacks one of the columns."""
    parquet = open_parquet(file)
    if wrong := missing(names, parquet.schema_arrow.names):
        raise BadInput(f"{file}: {wrong}")
    return parquet.metadata.num_rows


def open_parquet(file: str) -> pq.ParquetFile:
    """Open a Parquet file to be read in batches. Raises BadInput for one that is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without a buffer, the pages of a whole row group are in memory at once.
        return pq.ParquetFile(open_file(file), buffer_size=2**20)
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(file, error) from None


def _records(file: str, start: int, stop: int, names: dict[str, str]) -> Iterator[tuple[dict, bool]]:
    """Yield rows [start, stop) of a file, each with whether U+FFFD replaced broken UTF-8 in it."""
    import pyarrow as pa

    parquet = open_parquet(file)
    wanted = sorted(set(names.values()))
    row = 0
    for group in range(parquet.num_row_groups):
        size = parquet.metadata.row_group(group).num_rows
        if row < stop and row + size > start:
            at = row
            batches = parquet.iter_batches(_BATCH, row_groups=[group], columns=wanted)
            while at < min(stop, row + size):
                try:
                    batch = next(batches)
                except (OSError, pa.ArrowInvalid) as error:
                    raise _damaged(file, error) from None
                kept = batch.slice(max(0, start - at), max(0, stop - max(start, at)))
                at += batch.num_rows
                for values in zip(*map(_values, kept.columns), strict=True):
                    record = {name: value for name, (value, _) in zip(kept.schema.names, values, strict=True)}
                    yield record, any(repaired for _, repaired in values)
        row += size


def _values(column: pa.Array) -> list[tuple[Any, bool]]:
    """Return each value of a column, with whether U+FFFD replaced broken UTF-8 in it."""
    import pyarrow as pa

    try:
        return [(value, False) for value in column.to_pylist()]
    except UnicodeDecodeError:
        texts = column.cast(pa.large_binary()).to_pylist()
        return [(None, False) if text is None else text_of(text) for text in texts]


def _damaged(file: str, error: Exception) -> Exception:
    if hasattr(error, "response"):
        # Of a hub, not of the file: `hf.told` has the words.
        return error
    return BadInput(f"{file}: is not a Parquet file, or a damaged one: {str(error).splitlines()[0]}")
