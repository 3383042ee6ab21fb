"""Runs of any first stage, one hit at a time: TREC run files, the JSON that BEIR and ranx write, and ranx' Parquet.

Owns these formats, the fusion of runs, and what follows `run:`, which is `FILE[+FILE]#corpus=...,queries=...`. Does not
own a run's line and its order (`trec.py`), nor the texts of its documents (`joined.py`).

    for at, (qid, docid, score) in open_run("dense.run.gz").read(): ...
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TextIO

from r2r.datasets import parquet
from r2r.datasets.documents import Part, as_id, clean
from r2r.datasets.files import Lines, open_file, open_text, reading
from r2r.datasets.trec import RUN_LINE, in_order, run_line
from r2r.errors import BadInput
from r2r.places import place
from r2r.tables import run_id

_WANTED = f'a run is a text file with lines of {RUN_LINE}, or JSON: {{"qid": {{"docid": score}}}}'
# A hit's columns in Parquet, as ranx names them.
_COLUMNS = {"qid": "q_id", "docid": "doc_id", "score": "score"}
# Files that hold Python or Numba objects, which may run code when they are opened, or only their own library reads.
_OBJECTS = (".pkl", ".pickle", ".p", ".joblib", ".lz4")
# Characters of JSON to read at once. A query's hits that are longer are read in doubled pieces.
_PIECE = 2**16
_NEXT = re.compile(r"\s*([{,}])\s*")
_COLON = re.compile(r"\s*:\s*")
# The constant k of reciprocal rank fusion.
_RRF_K = 60
_NAMES = ("corpus", "index", "queries", "k")


@dataclass(frozen=True)
class RunSpec:
    """Runs, and the datasets that have their queries and texts: what a `run:` string says.

    Either `corpus` or `index`, a folder that index wrote, has the texts. k: candidates per query, None: the default.
    """

    files: list[str]
    queries: str
    corpus: str | None = None
    index: str | None = None
    k: int | None = None


def parse_spec(source: str, fragment: str) -> RunSpec:
    """Return what `run:SOURCE#FRAGMENT` says. Raises BadInput for a fragment that says too much or too little.

    A value goes on to the next `,NAME=` of this string, so dataset strings keep their own # and commas.
    """
    spec = f"run:{source}#{fragment}"
    right = f"write run:{source}#corpus=DATASET,queries=DATASET (index=DIR may stand for corpus; k=N cuts the lists)"
    pairs = [pair.partition("=") for pair in re.split(rf",(?=(?:{'|'.join(_NAMES)})=)", fragment)]
    found = {name: value for name, _, value in pairs}
    if len(found) < len(pairs) or not set(found) <= set(_NAMES) or not all(found.values()):
        raise BadInput(f"{spec}: {fragment or 'nothing after #'!r}: cannot be read; {right}")
    if "queries" not in found or ("corpus" in found) == ("index" in found):
        raise BadInput(f"{spec}: needs queries, and a corpus or an index for the texts; {right}")
    if not re.fullmatch(r"[1-9]\d{0,8}", found.get("k", "1")):
        raise BadInput(f"{spec}: k={found['k']}: a whole number from 1 is needed")
    k = int(found["k"]) if "k" in found else None
    return RunSpec(several(source, "+"), found["queries"], found.get("corpus"), found.get("index"), k)


def several(text: str, separator: str) -> list[str]:
    """Return the files that a text names, with a separator between them. One file's own name may hold the separator."""
    return [text] if place(text).exists() else text.split(separator)


def check(file: str) -> None:
    """Raise BadInput for a file that is not there, or that is no run by its name or its first character."""
    _open(file)


def open_run(file: str) -> Part:
    """Return a run, whose `read` yields each hit as (qid, docid, score) with its position.

    Ids are as run files hold them (`tables.run_id`); the rank column does not count. Reading raises BadInput, with the
    place, for a broken line, for a score that is not a number, and for a run without any hit.
    """
    match _open(file):
        case "{":
            return _JsonRun(file)
        case "PAR1":
            (part,) = parquet.split([file], _COLUMNS, 1, _parquet_hit)
            if not part.size:
                raise BadInput(f"{file}: is empty; {_WANTED}")
            return part
    return _TrecRun(file, run_line)


def _open(file: str) -> str:
    """Return a run's first visible character, "" for an empty file, PAR1 for Parquet. Raises BadInput as `check`."""
    name = (file.partition("?")[0] if "://" in file else file).lower().removesuffix(".gz")
    if name.endswith(_OBJECTS):
        raise BadInput(f"{file}: holds objects of a program, not text; write the run as text or JSON: {_WANTED}")
    with reading(file), open_text(file, wanted=_WANTED) as stream:
        begun = stream.read(1024)
    if begun.startswith(b"PAR1"):
        return "PAR1"
    first = begun.decode(errors="replace").lstrip("\ufeff \t\r\n")[:1]
    if first == "[":
        raise BadInput(f"{file}: holds a JSON list; candidates in RankGPT's JSON are rankgpt:{file}; {_WANTED}")
    if first == "\ufffd":
        raise BadInput(f"{file}: is not text, perhaps a pickled run; {_WANTED}")
    return first


def _parquet_hit(record: dict, names: dict[str, str], repaired: bool) -> tuple[str, str, float]:
    qid, docid, score = (record[names[name]] for name in _COLUMNS)
    if math.isnan(number := _number(score)):
        raise ValueError(f"score {score!r}: is no number")
    return _id(qid, "query"), _id(docid, "document"), number


def _id(value: Any, what: str) -> str:
    """Return an id as run files hold it. Raises ValueError for a value that is none."""
    return run_id(clean(as_id(value, what))[0])


def _number(score: Any) -> float:
    """Return a score as a float, NaN for what is no number. Raises OverflowError for one beyond 64-bit floats."""
    return math.nan if isinstance(score, bool) or not isinstance(score, int | float) else float(score)


class _TrecRun(Lines):
    def read(self) -> Iterator[tuple[int, Any]]:
        empty = True
        for hit in super().read():
            empty = False
            yield hit
        if empty:
            raise BadInput(f"{self.file}: is empty; {_WANTED}")


@dataclass(frozen=True)
class _JsonRun:
    """A run in JSON, read one query at a time. A position is the query's number, from 0."""

    file: str
    unit: ClassVar[str] = "query"
    size: ClassVar[int | None] = None

    def read(self) -> Iterator[tuple[int, Any]]:
        seen: set[str] = set()
        hits, last = 0, "the start"
        with io.TextIOWrapper(open_file(self.file), encoding="utf-8-sig") as stream:
            try:
                for at, (name, found) in enumerate(_members(stream)):
                    qid = _id(name, "query")
                    if qid in seen:
                        raise ValueError("comes twice; a run has each query once")
                    seen.add(qid)
                    last = f"query {qid}"
                    for docid, score in _hits(found):
                        hits += 1
                        yield at, (qid, docid, score)
            except UnicodeDecodeError:
                raise BadInput(f"{self.file}: is not UTF-8; {_WANTED}") from None
            except OSError as error:
                raise BadInput(f"{self.file}: cannot be read to its end: {error}; copy or download it again") from None
            except ValueError as error:
                raise BadInput(f"{self.file}: at {last}: {error}") from None
        if not hits:
            raise BadInput(f"{self.file}: is empty; {_WANTED}")

    def place(self, at: int) -> str:
        return f"{self.file}: query number {at + 1}"


def _hits(found: Any) -> Iterator[tuple[str, float]]:
    """Yield docid and score of a query's JSON object, which comes as a tuple of pairs. Raises ValueError."""
    if not isinstance(found, tuple):
        raise ValueError('its hits are no object; expected {"docid": score}')
    for docid, score in found:
        try:
            number = _number(score)
        except OverflowError:
            raise ValueError(f"document {docid} has a score beyond 64-bit floats; a number is needed") from None
        if math.isnan(number):
            raise ValueError(f"document {docid} has the score {score!r}; a number is needed")
        yield _id(docid, "document"), number


def _members(stream: TextIO) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each member of a JSON object, which is never in memory as a whole.

    Objects in it are tuples of pairs, so that a name that comes twice is seen. Raises ValueError for broken JSON.
    """
    decoder = json.JSONDecoder(object_pairs_hook=tuple)
    text, at, wanted, piece = "", 0, "{", _PIECE
    while True:
        mark = _NEXT.match(text, at)
        try:
            if mark and mark[1] == "}" and wanted == ",":
                break
            if not mark or mark[1] != wanted:
                raise json.JSONDecodeError(f"expected {wanted!r}", text, at)
            if wanted == "{" and re.match(r"\s*}", text[mark.end() :]):
                return
            name, end = decoder.raw_decode(text, mark.end())
            if not (isinstance(name, str) and (colon := _COLON.match(text, end))):
                raise json.JSONDecodeError("expected a name and a colon", text, end)
            value, end = decoder.raw_decode(text, colon.end())
        except json.JSONDecodeError as error:
            # Perhaps the rest of it has not been read yet.
            if not (more := stream.read(piece)):
                raise ValueError(f"is not JSON ({error.msg}); {_WANTED}") from None
            text, at, piece = text[at:] + more, 0, 2 * piece
            continue
        except RecursionError:
            raise ValueError(f"is not JSON (nested too deeply); {_WANTED}") from None
        yield name, value
        at, wanted, piece = end, ",", _PIECE
    if text[mark.end() :].strip() or stream.read().strip():
        raise ValueError(f"is not JSON (more follows the object); {_WANTED}")


def fused(rankings: Sequence[Sequence[tuple[float, str]]]) -> list[tuple[float, str]]:
    """Return one ranking of several, each (score, docid) best first, by reciprocal rank fusion.

    A document's score is the sum of 1 / (60 + rank) over the rankings that list it, ranks from 1: Cormack, Clarke and
    Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods", SIGIR 2009.
    """
    parts: dict[str, list[float]] = {}
    for ranking in rankings:
        for rank, (_, docid) in enumerate(ranking, start=1):
            parts.setdefault(docid, []).append(1 / (_RRF_K + rank))
    # An exact sum: the same ranks in another order are the same score.
    return in_order({docid: math.fsum(found) for docid, found in parts.items()})
