"""The demo's world as a collection, made on the spot: `demo` is its test split, `demo#train500` the first 500 queries
that students learn from.

Owns how the world is handed out. The world itself is `r2r.demo.world`.

    queries("", "test")[0]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from r2r.datasets.documents import Document
from r2r.errors import BadInput


class Passages(NamedTuple):
    """The passages [start, stop) of the world."""

    start: int
    stop: int
    unit: ClassVar[str] = "document"

    @property
    def size(self) -> int:
        return self.stop - self.start

    def read(self) -> Iterator[tuple[int, Document]]:
        from r2r.demo.world import world

        for at, one in enumerate(world().world.passages[self.start : self.stop]):
            yield at, Document(one.docid, one.subject.name, one.text, False)

    def place(self, at: int) -> str:
        return f"demo: passage {self.start + at + 1}"


def corpus(_: str, split: str, parts: int) -> list[Passages]:
    from r2r.demo.world import world

    total = len(world().world.passages)
    edges = [total * part // parts for part in range(parts + 1)]
    return [Passages(start, stop) for start, stop in itertools.pairwise(edges)]


def queries(_: str, split: str) -> list[dict]:
    return [{"qid": one.qid, "query": one.text} for one in _asked(split)]


def qrels(_: str, split: str) -> list[dict]:
    from r2r.demo.world import world

    found = world().world
    return [
        {"qid": query.qid, "docid": passage.docid, "relevance": grade}
        for query in _asked(split)
        for passage, grade in found.judged(query)
    ]


def _asked(split: str) -> list:
    from r2r.demo.world import world

    splits = world().queries
    if (split or "test") not in splits:
        raise BadInput(f"demo#{split}: no such split; it has {', '.join(f'#{name}' for name in splits)}")
    return splits[split or "test"]
