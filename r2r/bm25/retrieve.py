"""The retrieve stage: finds candidates for every query, on Ray Data workers that each search all shards.

Owns the spreading of queries, the removal of the documents that a collection excludes (before the cut to k), the
table of candidates, the run file, and the count of queries that match nothing. Does not own scores (`search.py`).

    retrieve("runs/scifact/index", "beir:scifact#test", "runs/scifact/retrieve", RetrieveSettings(k=100))
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2r import datasets, tables
from r2r import stage as stages
from r2r.bm25 import java
from r2r.config import RetrieveSettings
from r2r.errors import BadInput
from r2r.workers import bar, on_workers

if TYPE_CHECKING:
    import pyarrow as pa

# Queries per block and per file of candidates. With 1,000 passages each, a worker holds about 100 MB.
_AT_MOST = 256


def retrieve(index: str, queries: str, out: str, settings: RetrieveSettings) -> None:
    """Write the tables candidates and rejects (queries that match no document), and run.txt, under `out`.

    Raises BadInput for an index or queries that cannot be read, where no query matches any document, and no Java.
    """
    java.find_java()
    statistics = _statistics(index)
    asked = _with_excluded(datasets.read_queries(queries), datasets.read_excluded(queries))
    stage = stages.Stage("retrieve", out, {"index": index, "queries": queries}, settings)
    if stage.done:
        return
    tables.clear(stage.out, "candidates", "rejects")
    unmatched, documents, excluded = _search(index, statistics, asked, stage.out, settings)
    found = asked.num_rows - len(unmatched)
    if not found:
        raise BadInput(f"{queries}: no query matches any document of {index}; are both in the same language?")
    reject = {"key": "", "reason": "matches no document", "reply": "", "attempts": 1}
    tables.write([{"qid": qid, **reject} for qid in unmatched], stage.out, "rejects")
    rows = bar("retrieve: run.txt", found, "query", iterable=tables.ranked(out, "candidates"))
    tables.write_run(rows, stage.out / "run.txt", "bm25")
    rows = {"candidates": found, "rejects": len(unmatched)}
    size = sum(file.stat().st_size for file in tables.path(stage.out, "candidates").iterdir())
    counts = {"documents": documents, "excluded": excluded, "bytes": size}
    stage.finish(rows, files=["run.txt"], **counts, unmatched=unmatched[:20])


def _with_excluded(asked: pa.Table, excluded: dict[str, set[str]]) -> pa.Table:
    """Return the queries with a column `excluded`: the docids that must not be in the query's ranking."""
    import pyarrow as pa

    column = [sorted(excluded.get(qid, ())) for qid in asked["qid"].to_pylist()]
    return asked.append_column("excluded", pa.array(column, pa.list_(pa.string())))


def _statistics(index: str) -> tuple[int, int]:
    """Return how many documents with text and how many tokens the index should hold, by its manifest.

    Raises BadInput if there is no finished index.
    """
    try:
        found = json.loads(Path(index, "manifest.json").read_text())
        return found["rows"]["documents"] - found["empty"], found["tokens"]
    except (OSError, ValueError, KeyError):
        raise BadInput(
            f"{index}: holds no finished index; build one with: r2r index --corpus … --out {index}"
        ) from None


def _search(
    index: str, statistics: tuple[int, int], asked: pa.Table, out: Path, settings: RetrieveSettings
) -> tuple[list[str], int, int]:
    """Search every query and write the candidates.

    Returns the qids that match nothing, the number of candidates, and the number of excluded documents.
    """
    size = min(_AT_MOST, -(-asked.num_rows // (4 * settings.workers)))
    blocks = [asked.slice(at, size) for at in range(0, asked.num_rows, size)]
    blocks = [block.append_column("part", [[number] * block.num_rows]) for number, block in enumerate(blocks)]
    unmatched, documents, excluded = [], 0, 0
    with bar("retrieve", asked.num_rows, "query") as shown:
        for answer in on_workers(blocks, _Worker, (index, statistics, out, settings), settings.workers, ahead=2):
            shown.update(answer["queries"])
            unmatched += answer["unmatched"]
            documents += answer["documents"]
            excluded += answer["excluded"]
    return unmatched, documents, excluded


class _Worker:
    """A Ray Data worker that searches blocks of queries. Starts its own JVM with `settings.heap` MiB.

    Raises BadInput if the index does not hold what its manifest says (`statistics`: documents, tokens).
    """

    def __init__(self, index: str, statistics: tuple[int, int], out: Path, settings: RetrieveSettings):
        from r2r.bm25.search import Searcher

        self.searcher = Searcher(index, settings.k1, settings.b, settings.heap)
        found = self.searcher.statistics()
        if found != statistics:
            held, wanted = (
                f"{documents:,} documents and {tokens:,} tokens" for documents, tokens in (found, statistics)
            )
            raise BadInput(f"{index}: holds {held}, its manifest says {wanted}; build it again")
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
        # Named by the block's number, so that a block that is searched again, after a lost worker, replaces its file.
        if rows:
            tables.write_part(rows, self.out, "candidates", f"part-{block['part'][0].as_py():05}")
        documents = sum(len(row["docids"]) for row in rows)
        return {"queries": block.num_rows, "unmatched": unmatched, "documents": documents, "excluded": excluded}
