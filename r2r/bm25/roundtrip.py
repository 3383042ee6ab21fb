"""Whether BM25 finds a passage again by the query that was written for it.

Owns this search on Ray Data workers. Does not own scores (`search.py`), or what happens to a query that fails.

    places("runs/scifact/index", [{"qid": "q1", "query": "how long do fleas live", "docid": "d1"}], 20)  # {"q1": 3}
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2r.bm25.retrieve import open_searcher
from r2r.bm25.search import Facts, facts
from r2r.config import RetrieveSettings
from r2r.workers import bar, on_workers

if TYPE_CHECKING:
    import pyarrow as pa

# Queries that a worker searches for between two steps of the bar.
_QUERIES_PER_BLOCK = 256


def places(index: str | Path, asked: list[dict[str, Any]], within: int) -> dict[str, int]:
    """Return qid -> the place of the passage `docid` among the first `within` hits, from 1; 0 if it is not there.

    asked: rows with qid, query and docid. BM25's parameters are retrieve's defaults. Raises BadInput for an index that
    is not finished or cannot be opened.
    """
    import pyarrow as pa

    settings = RetrieveSettings(k=within)
    rows = [{name: row[name] for name in ("qid", "query", "docid")} for row in asked]
    table = pa.Table.from_pylist(rows)
    size = min(_QUERIES_PER_BLOCK, -(-len(rows) // (2 * settings.workers)))
    blocks = [table.slice(at, size) for at in range(0, len(rows), size)]
    found: dict[str, int] = {}
    with bar("queries: searching", len(rows), "query") as shown:
        worker = (str(index), facts(str(index)), settings)
        for answer in on_workers(blocks, _Finder, worker, settings.workers, ahead=2):
            found |= answer["places"]
            shown.update(len(answer["places"]))
    return found


class _Finder:
    """A worker that searches for blocks of queries. Starts its own JVM."""

    def __init__(self, index: str, known: Facts, settings: RetrieveSettings):
        self.searcher, self.within = open_searcher(index, known, settings), settings.k

    def __call__(self, block: pa.Table) -> dict[str, Any]:
        places = {}
        for row in block.to_pylist():
            docids = self.searcher.search(row["query"], self.within).docids
            places[row["qid"]] = docids.index(row["docid"]) + 1 if row["docid"] in docids else 0
        return {"places": places}
