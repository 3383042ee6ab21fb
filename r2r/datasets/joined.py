"""Candidates from runs: the hits of a first stage, joined with the queries and with the texts of their documents.

Owns the join, on disk: memory grows neither with the runs nor with the corpus. SQLite, in one file that is removed at
the end, groups the hits by query, and holds the texts of the documents that the runs name, found in one pass over the
corpus. Owns what is left out, and that it is counted and printed. Does not own the formats (`runs.py`, the
collections).

    join([open_run("dense.run")], asked, Corpus(parts, "beir:fiqa"), Path("out"), k=100, max_missing=0.01)
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from r2r import places, tables
from r2r.datasets.documents import Part, contents
from r2r.datasets.runs import fused
from r2r.datasets.trec import in_order
from r2r.errors import BadInput
from r2r.identity import add_digests
from r2r.places import Place
from r2r.tables import run_id
from r2r.workers import bar

# What a file of candidates holds at most, unless one query has more: it is in memory while it is written.
_QUERIES_PER_FILE = 256
_CHARACTERS_PER_FILE = 16 * 2**20
_CACHE_KIB = 64 * 2**10
_NAMED = 5
# Characters of an id in a message.
_SHOWN = 80

_SCHEMA = """
CREATE TABLE hits (query INTEGER, run INTEGER, docid TEXT, score REAL, PRIMARY KEY (query, run, docid)) WITHOUT ROWID;
CREATE TABLE wanted (docid TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE texts (key TEXT UNIQUE, docid TEXT, text TEXT, place INTEGER);
"""


class Texts(Protocol):
    """Where the texts of documents come from."""

    @property
    def name(self) -> str:
        """Return its name, for messages."""
        ...

    def read(self, wanted: Iterable[str]) -> Iterator[tuple[str, str, str, int]]:
        """Yield (docid as runs hold it, docid, text, position) of each wanted document; of others too, if cheaper."""
        ...

    def place(self, at: int) -> str:
        """Return where a person finds a position."""
        ...


class Corpus(NamedTuple):
    """The texts of a corpus in one part."""

    part: Part
    name: str

    def read(self, wanted: Iterable[str]) -> Iterator[tuple[str, str, str, int]]:
        with bar("retrieve: texts", self.part.size, self.part.unit, unit_scale=True) as shown:
            for at, document in self.part.read():
                shown.update(at - shown.n)
                yield run_id(document.docid), document.docid, contents(document), at

    def place(self, at: int) -> str:
        return self.part.place(at)


class Joined(NamedTuple):
    """What a join wrote. contents: hash of all rows. rejects: rows of the table rejects. excluded: documents taken out
    by the collection's rules, from the whole runs. missing_documents: those that the corpus lacks. unknown_queries:
    those of the runs that the dataset lacks."""

    candidates: int
    rejects: list[dict[str, Any]]
    documents: int
    excluded: int
    missing_documents: int
    unknown_queries: int
    contents: int


def join(
    runs: Mapping[str, Part],
    asked: Sequence[Mapping[str, str]],
    queries: str,
    excluded: Mapping[str, set[str]],
    texts: Texts,
    out: Place,
    k: int,
    max_missing: float,
) -> Joined:
    """Write the table candidates into `out`, in the order of `asked`; return what it came to.

    runs: file -> hits; several are fused. asked: rows of queries. queries: their name, for messages. excluded: qid ->
    docids that must not be in its ranking. k: documents per query, after the exclusions. max_missing: largest share of
    the runs' documents, after that cut, that `texts` may lack.

    Scores are 32-bit floats, and order and ties are trec_eval's (`trec.in_order`). Raises BadInput for a run that
    cannot be read, a document that a run or the corpus has twice, a run without any of the queries, and too many
    missing documents.
    """
    tables.clear(out, "candidates")
    numbers = {run_id(row["qid"]): number for number, row in enumerate(asked)}
    barred = [{run_id(docid) for docid in excluded.get(row["qid"], ())} for row in asked]
    with places.working(out) as folder, _store(folder / ".joined.tmp") as store:
        unknown = _read(runs, numbers, queries, store)

        def lists() -> Iterator[_List]:
            return _lists(store, len(runs) > 1, barred, k)

        store.executemany(
            "INSERT OR IGNORE INTO wanted VALUES (?)", ((docid,) for one in lists() for docid in one.docids)
        )
        _find(texts, store)
        missing = _missing(store, ", ".join(runs), texts.name, max_missing)
        done = _write(lists(), asked, store, out)._replace(missing_documents=missing, unknown_queries=unknown)
    if done.rejects:
        lacking = [row["qid"] for row in done.rejects]
        line = (
            f"{len(lacking):,} of {len(asked):,} queries have no candidates: {_listed(lacking[:_NAMED], len(lacking))}"
        )
        print(f"{', '.join(runs)}: warning: {line}", file=sys.stderr, flush=True)
    return done


@contextmanager
def _store(file: Path) -> Iterator[sqlite3.Connection]:
    file.unlink(missing_ok=True)
    # Nobody else opens it, and shared file systems may not know locks.
    store = sqlite3.connect(f"file:{_quoted(file)}?nolock=1", uri=True, isolation_level=None)
    try:
        # It is of no use after a crash.
        for setting in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}", "page_size=8192"):
            store.execute(f"PRAGMA {setting}")
        store.executescript(_SCHEMA)
        store.execute("BEGIN")
        yield store
    except sqlite3.OperationalError as error:
        raise BadInput(f"{file}: cannot be written: {error}; there must be room for the runs and their texts") from None
    finally:
        store.close()
        file.unlink(missing_ok=True)


def _quoted(file: Path) -> str:
    from urllib.parse import quote

    return quote(os.path.abspath(file))


def _read(runs: Mapping[str, Part], numbers: Mapping[str, int], queries: str, store: sqlite3.Connection) -> int:
    """Store the hits of the known queries. Return the number of queries that are not known."""
    unknown: dict[str, None] = {}
    for number, (file, run) in enumerate(runs.items()):
        last: tuple[int, str, str] = (0, "", "")

        def hits(number: int = number, run: Part = run) -> Iterator[tuple[int, int, str, float]]:
            nonlocal last
            with bar("retrieve: run", run.size, run.unit, unit_scale=True) as shown:
                for at, (qid, docid, score) in run.read():
                    shown.update(at - shown.n)
                    if qid not in numbers:
                        unknown[qid] = None
                        continue
                    last = at, qid, docid
                    yield numbers[qid], number, docid, score

        try:
            store.executemany("INSERT INTO hits VALUES (?, ?, ?, ?)", hits())
        except sqlite3.IntegrityError:
            at, qid, docid = last
            place = run.place(at)
            raise BadInput(
                f"{place}: document {docid} stands twice in query {qid}; a run lists it once a query"
            ) from None
        if not last[1]:
            theirs, ours = next(iter(unknown)), next(iter(numbers))
            raise BadInput(
                f"{file}: none of its queries is in {queries}: the run has query {theirs!r}, the queries have "
                f"{ours!r}; give the run's own queries"
            )
    if unknown:
        _tell(", ".join(runs), len(unknown), "queries", queries, list(unknown)[:_NAMED])
    return len(unknown)


class _List(NamedTuple):
    """A query's number, its documents, best first, and how many the collection's rules took out."""

    query: int
    docids: list[str]
    scores: list[float]
    excluded: int


def _lists(store: sqlite3.Connection, fuse: bool, barred: Sequence[set[str]], k: int) -> Iterator[_List]:
    hits = store.execute("SELECT query, run, docid, score FROM hits ORDER BY query, run")
    for query, of_query in itertools.groupby(hits, itemgetter(0)):
        of_runs = (dict(row[2:] for row in of_run) for _, of_run in itertools.groupby(of_query, itemgetter(1)))
        rankings = [in_order(scores) for scores in of_runs]
        ranking = fused(rankings) if fuse else rankings[0]
        kept = [pair for pair in ranking if pair[1] not in barred[query]]
        cut = kept[:k]
        yield _List(query, [docid for _, docid in cut], [score for score, _ in cut], len(ranking) - len(kept))


def _find(texts: Texts, store: sqlite3.Connection) -> None:
    """Store the texts of the wanted documents."""
    found: tuple[str, str, str, int] = ("", "", "", 0)

    def rows() -> Iterator[tuple[str, str, str, int]]:
        nonlocal found
        for row in texts.read(docid for (docid,) in store.execute("SELECT docid FROM wanted")):
            found = row
            yield row

    known = "EXISTS (SELECT 1 FROM wanted WHERE docid = ?1)"
    try:
        store.executemany(f"INSERT INTO texts SELECT ?1, ?2, ?3, ?4 WHERE {known}", rows())
    except sqlite3.IntegrityError:
        ((first,),) = store.execute("SELECT place FROM texts WHERE key = ?", found[:1])
        again = f"docid {found[1]} again, first in {texts.place(first)}"
        raise BadInput(f"{texts.place(found[3])}: {again}; each document has its own id") from None


def _missing(store: sqlite3.Connection, runs: str, corpus: str, most: float) -> int:
    """Return how many of the wanted documents have no text. Raises BadInput if their share is more than `most`."""
    count = "SELECT count(*) FROM"
    ((wanted,),), ((found,),) = store.execute(f"{count} wanted"), store.execute(f"{count} texts")
    if missing := wanted - found:
        lacks = "SELECT docid FROM wanted WHERE NOT EXISTS (SELECT 1 FROM texts WHERE key = wanted.docid) LIMIT ?"
        named = [docid for (docid,) in store.execute(lacks, (_NAMED,))]
        if missing > most * wanted:
            raise BadInput(
                f"{runs}: {missing:,} of its {wanted:,} documents are not in {corpus}: {_listed(named, missing)}; give "
                f"the corpus that the run ranked (max_missing allows {most:.1%} to be missing)"
            )
        _tell(runs, missing, f"of its {wanted:,} documents", corpus, named)
    return missing


def _tell(runs: str, count: int, what: str, where: str, named: Sequence[str]) -> None:
    line = f"{runs}: warning: {count:,} {what} are not in {where} and are left out: {_listed(named, count)}"
    print(line, file=sys.stderr, flush=True)


def _listed(named: Sequence[str], count: int) -> str:
    shown = (one if len(one) <= _SHOWN else f"{one[:_SHOWN]}..." for one in named)
    # A control character would break the line, or command the terminal.
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in ", ".join(shown))
    return line + ", ..." * (count > len(named))


def _write(lists: Iterable[_List], asked: Sequence[Mapping[str, str]], store: sqlite3.Connection, out: Place) -> Joined:
    """Write the candidates. A query without any is a reject."""
    lacking = dict.fromkeys(range(len(asked)), "no run has a line for it")
    counts = Counter[str]()

    def rows() -> Iterator[dict[str, Any]]:
        with bar("retrieve", len(asked), "query") as shown:
            for one in lists:
                shown.update(one.query - shown.n)
                counts["excluded"] += one.excluded
                row = dict(asked[one.query]) | _with_texts(one, store)
                if row["docids"]:
                    del lacking[one.query]
                    counts.update(candidates=1, documents=len(row["docids"]))
                    yield row
                else:
                    lacking[one.query] = "none of its documents is left"

    digests = [
        tables.write_part(portion, out, "candidates", f"part-{number:05}")
        for number, portion in enumerate(_portions(rows()))
    ]
    tables.seal(out, "candidates", (f"part-{number:05}" for number in range(len(digests))))
    rejects = [
        {"qid": asked[number]["qid"], "key": "", "reason": reason, "reply": "", "attempts": 1}
        for number, reason in lacking.items()
    ]
    return Joined(counts["candidates"], rejects, counts["documents"], counts["excluded"], 0, 0, add_digests(digests))


def _portions(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Cut rows into those of a file each."""
    portion: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        portion.append(row)
        size += sum(map(len, row["texts"]))
        if len(portion) == _QUERIES_PER_FILE or size > _CHARACTERS_PER_FILE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _with_texts(one: _List, store: sqlite3.Connection) -> dict[str, list]:
    """Return docids, texts and scores of a query, without the documents that have no text."""
    columns: dict[str, list] = {"docids": [], "texts": [], "scores": []}
    for key, score in zip(one.docids, one.scores, strict=True):
        for docid, text in store.execute("SELECT docid, text FROM texts WHERE key = ?", (key,)):
            columns["docids"].append(docid)
            columns["texts"].append(text)
            columns["scores"].append(score)
    return columns
