"""The demo's world as a collection: `demo` is its test split, `demo#train500` the first 500 training queries.

Owns how the world is read as corpus, queries and qrels. Does not own the world itself: `r2r.demo.world` makes it.

    queries("", "test")[0]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from r2r.datasets.documents import Document, Part
from r2r.demo.world import SEED, VERSION, Query, world
from r2r.errors import BadInput


@dataclass(frozen=True)
class Passages:
    """The passages [start, stop) of the world."""

    start: int
    stop: int
    unit: ClassVar[str] = "document"

    @property
    def size(self) -> int:
        return self.stop - self.start

    def read(self) -> Iterator[tuple[int, Document]]:
        for at, one in enumerate(world().world.passages[self.start : self.stop]):
            yield at, Document(one.docid, one.subject.name, one.text, False)

    def place(self, at: int) -> str:
        return f"demo: passage {self.start + at + 1}"


def corpus(_: str, split: str, parts: int) -> list[Part]:
    """Return the passages in parts, the same for every split."""
    total = len(world().world.passages)
    edges = [total * part // parts for part in range(parts + 1)]
    return [Passages(start, stop) for start, stop in itertools.pairwise(edges)]


def queries(_: str, split: str) -> list[dict]:
    """Return the queries of a split (default: test). Raises BadInput for an unknown split."""
    return [{"qid": one.qid, "query": one.text} for one in _asked(split)]


def qrels(_: str, split: str) -> list[dict]:
    """Return the judgements of a split (default: test), grades 0 to 3. Raises BadInput for an unknown split."""
    found = world().world
    return [
        {"qid": query.qid, "docid": passage.docid, "relevance": grade}
        for query in _asked(split)
        for passage, grade in found.judged(query)
    ]


def fingerprint(_: str, split: str) -> str:
    """Return what identifies a split. The world follows from its version and its seed, so these name its content."""
    return f"demo world, version {VERSION}, seed {SEED}, split {split or 'test'}"


def _asked(split: str) -> list[Query]:
    splits = world().queries
    if (split or "test") not in splits:
        raise BadInput(f"demo#{split}: no such split; it has {', '.join(f'#{name}' for name in splits)}")
    return splits[split or "test"]
