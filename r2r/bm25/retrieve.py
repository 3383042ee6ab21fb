"""The retrieve stage: finds candidates for every query, on Ray Data workers that each search all shards.

Owns the spreading of queries, the removal of the documents that a collection excludes (before the cut to k), the
table of candidates, the run file, and the count of queries that match nothing. Does not own scores (`search.py`).

    retrieve("runs/scifact/index", "beir:scifact#test", "runs/scifact/retrieve", RetrieveSettings(k=100))
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from r2r import datasets, tables
from r2r.bm25 import java
from r2r.bm25.search import Facts, Searcher, facts
from r2r.config import RetrieveSettings
from r2r.errors import BadInput
from r2r.identity import add_digests
from r2r.places import Place, files, place
from r2r.stage import Identity, Input, Result, Stage, There, run
from r2r.workers import bar, on_workers

if TYPE_CHECKING:
    import pyarrow as pa

# Queries in a file of candidates: with 1,000 passages each, a worker holds some 100 MB.
_QUERIES_PER_FILE = 256


def stage(index: str, queries: str, out: str | Place, settings: RetrieveSettings) -> Stage:
    """Return the stage that searches `index`, a folder that index wrote, for `queries`, a dataset."""

    def check(there: There) -> None:
        java.find_java()
        if there(index):
            facts(index)
        if there(queries):
            datasets.check(queries, "queries")

    def work(identity: Identity) -> Result:
        return _work(index, queries, place(out), settings)

    inputs = {"index": Input(index), "queries": Input(queries, partial(datasets.fingerprint, what="queries"))}
    return Stage("retrieve", place(out), settings, inputs, check, work, ["candidates", "rejects", "run.txt"])


def retrieve(index: str, queries: str, out: str | Place, settings: RetrieveSettings) -> None:
    """Write the tables candidates and rejects (queries that match no document), and run.txt, under `out`.

    Raises BadInput for an index or queries that cannot be read, if no query matches any document, and for no Java.
    """
    run(stage(index, queries, out, settings))


def _work(index: str, queries: str, out: Place, settings: RetrieveSettings) -> Result:
    known = facts(index)
    asked = datasets.read_queries(queries)
    barred = datasets.read_barred(queries, asked["qid"].to_pylist(), settings.remove_query)
    asked = _with_excluded(asked, barred)
    tables.clear(out, "candidates", "rejects")
    found = _search(index, known, asked, out, settings)
    matched = asked.num_rows - len(found.unmatched)
    if not matched:
        raise BadInput(f"{queries}: no query matches any document of {index}; are both in the same language?")
    reject = {"key": "", "reason": "matches no document", "reply": "", "attempts": 1}
    tables.write([{"qid": qid, **reject} for qid in found.unmatched], out, "rejects")
    rows = bar("retrieve: run.txt", matched, "query", iterable=tables.ranked(out, "candidates"))
    tables.write_run(rows, out / "run.txt", "bm25")
    size = sum(held.size for held in files(tables.path(out, "candidates")).values())
    counts = {"documents": found.documents, "excluded": found.excluded, "bytes": size}
    return Result(
        {"candidates": matched, "rejects": len(found.unmatched)},
        tables.content(add_digests(found.contents)),
        ["run.txt"],
        {**counts, "unmatched": found.unmatched[:20]},
    )


def _with_excluded(asked: pa.Table, excluded: dict[str, set[str]]) -> pa.Table:
    """Return the queries with a column `excluded`: the docids that must not be in the query's ranking."""
    import pyarrow as pa

    column = [sorted(excluded.get(qid, ())) for qid in asked["qid"].to_pylist()]
    return asked.append_column("excluded", pa.array(column, pa.list_(pa.string())))


class _Found(NamedTuple):
    """unmatched: qids that match nothing. documents: candidates written. excluded: taken out by the collection's rules.
    contents: the content hash of every part written."""

    unmatched: list[str]
    documents: int
    excluded: int
    contents: list[int]


def _search(index: str, known: Facts, asked: pa.Table, out: Place, settings: RetrieveSettings) -> _Found:
    """Search every query; the workers write the candidates."""
    size = min(_QUERIES_PER_FILE, -(-asked.num_rows // (4 * settings.workers)))
    blocks = [asked.slice(at, size) for at in range(0, asked.num_rows, size)]
    blocks = [block.append_column("part", [[number] * block.num_rows]) for number, block in enumerate(blocks)]
    answers = []
    with bar("retrieve", asked.num_rows, "query") as shown:
        for answer in on_workers(blocks, _Worker, (index, known, out, settings), settings.workers, ahead=2):
            shown.update(answer["queries"])
            answers.append(answer)
    tables.seal(out, "candidates", sorted({answer["part"] for answer in answers if answer["documents"]}))
    return _Found(
        [qid for answer in answers for qid in answer["unmatched"]],
        sum(answer["documents"] for answer in answers),
        sum(answer["excluded"] for answer in answers),
        [int(answer["content"], 16) for answer in answers],
    )


def open_searcher(index: str, known: Facts, settings: RetrieveSettings) -> Searcher:
    """Open an index in a worker, whose JVM gets `settings.heap` MiB.

    Raises BadInput if the index does not hold what its manifest says (`known`).
    """
    searcher = Searcher(index, settings.k1, settings.b, settings.heap, known.analyzer)
    found, said = searcher.statistics(), (known.documents, known.tokens)
    if found != said:
        held, wanted = (f"{documents:,} documents and {tokens:,} tokens" for documents, tokens in (found, said))
        raise BadInput(f"{index}: holds {held}, its manifest says {wanted}; build it again")
    return searcher


class _Worker:
    """A Ray Data worker that searches blocks of queries. Starts its own JVM."""

    def __init__(self, index: str, known: Facts, out: Place, settings: RetrieveSettings):
        self.searcher = open_searcher(index, known, settings)
        self.out, self.k = out, settings.k

    def __call__(self, block: pa.Table) -> dict[str, Any]:
        rows, unmatched, excluded = [], [], 0
        for row in block.to_pylist():
            barred = set(row["excluded"])
            hits = self.searcher.search(row["query"], self.k + len(barred))._asdict()
            kept = [at for at, docid in enumerate(hits["docids"]) if docid not in barred]
            excluded += len(hits["docids"]) - len(kept)
            if kept:
                cut = {column: [values[at] for at in kept[: self.k]] for column, values in hits.items()}
                rows.append({"qid": row["qid"], "query": row["query"], **cut})
            else:
                unmatched.append(row["qid"])
        # Named by what it holds: a part that is searched again, after its worker was lost, takes its own place.
        part = f"part-{block['part'][0].as_py():05}"
        content = tables.write_part(rows, self.out, "candidates", part) if rows else 0
        documents = sum(len(row["docids"]) for row in rows)
        counts = {"queries": block.num_rows, "documents": documents, "excluded": excluded, "part": part}
        return {**counts, "unmatched": unmatched, "content": f"{content:x}"}
