"""Reads the stored texts of an index's documents by docid, on Ray Data workers.

Owns the lookup. Does not own which documents are wanted or what is made of their texts.

    for key, docid, text, _ in Stored("runs/scifact/index", workers=2, heap=1024).read(["4983", "7912"]): ...
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from r2r.workers import bar, on_workers

if TYPE_CHECKING:
    import pyarrow as pa

# Documents of one lookup: the texts of a block are in memory together.
_DOCUMENTS_PER_BLOCK = 5_000


class Stored(NamedTuple):
    """The texts that an index stores: title and text together. Documents without any text are not in it."""

    name: str
    workers: int
    heap: int

    def read(self, wanted: Iterable[str]) -> Iterator[tuple[str, str, str, int]]:
        """Yield (docid as runs hold it, docid, text, 0) of each wanted document that the index has."""
        import pyarrow as pa

        keys = iter(wanted)
        blocks = [
            pa.table({"key": block}) for block in iter(lambda: list(itertools.islice(keys, _DOCUMENTS_PER_BLOCK)), [])
        ]
        if not blocks:
            return
        with bar("retrieve: texts", sum(block.num_rows for block in blocks), "document") as shown:
            for answer in on_workers(blocks, _Reader, (self.name, self.heap), self.workers, ahead=2):
                shown.update(answer["asked"])
                yield from ((*found, 0) for found in answer["found"])

    def place(self, at: int) -> str:
        return self.name


class _Reader:
    """A Ray Data worker that looks up blocks of docids. Starts its own JVM with `heap` MiB."""

    def __init__(self, index: str, heap: int):
        from r2r.bm25.search import Searcher

        self.searcher = Searcher(index, 0.9, 0.4, heap)

    def __call__(self, block: pa.Table) -> dict[str, Any]:
        keys = block["key"].to_pylist()
        texts = self.searcher.texts(keys)
        # A run holds white space in docids as in URLs (tables.run_id).
        spaced = {key: _spaced(key) for key in keys if key not in texts and "%" in key}
        others = self.searcher.texts(list(spaced.values())) if spaced else {}
        found = [(key, key, texts[key]) for key in keys if key in texts]
        found += [(key, docid, others[docid]) for key, docid in spaced.items() if docid in others]
        return {"asked": len(keys), "found": found}


def _spaced(key: str) -> str:
    return re.sub(r"%(09|0A|0B|0C|0D|20)", lambda found: chr(int(found[1], 16)), key)
