"""Passages drawn from a corpus by a seed, whatever its size.

Owns the draw. Each passage gets a number, a hash of the seed and its docid, and the `n` smallest are drawn. So the draw
depends neither on the order of the corpus nor on who reads which part, a larger `n` adds passages and drops none, and a
worker holds `n` passages at most.

    draw("beir:scifact", 1000, 100, seed=0).passages[0]["text"]
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from r2r import datasets
from r2r.bm25.shard import contents
from r2r.datasets.documents import Document, Part
from r2r.errors import BadInput
from r2r.workers import on_workers, progress, start_ray

if TYPE_CHECKING:
    import pyarrow as pa

# What a passage's number, docid and text are in the order of the draw.
Drawn = tuple[str, str, str]


class Sample(NamedTuple):
    """passages: docid and text (title, line break, text) of those drawn, in the order of the draw. documents: in the
    corpus. too_short: those that are shorter than asked for."""

    passages: list[dict[str, str]]
    documents: int
    too_short: int


def draw(corpus: str, n: int, min_chars: int, seed: int) -> Sample:
    """Return `n` passages of at least `min_chars` characters, or all if the corpus, a dataset string, has fewer.

    Raises BadInput for a corpus that cannot be read, has no such passage, or has a docid twice among those drawn.
    """
    start_ray()
    import pyarrow as pa
    import ray

    cores = max(1, int(ray.available_resources().get("CPU", 1)))
    parts = datasets.corpus_parts(corpus, cores)
    blocks = [pa.table({"part": [number]}) for number in range(len(parts))]
    drawn: list[Drawn] = []
    counts = Counter[str]()
    with progress("queries: drawing passages", None, "document") as tell:
        for answer in on_workers(blocks, _Drawing, (parts, n, min_chars, seed, tell), cores, ahead=1):
            drawn = heapq.nsmallest(n, [*drawn, *map(tuple, answer["drawn"])], key=itemgetter(0, 1))
            counts.update(answer["counts"])
    for (_, one, _), (_, other, _) in itertools.pairwise(drawn):
        if one == other:
            raise BadInput(f"{corpus}: docid {one} comes twice; each document has its own id")
    if not drawn:
        raise BadInput(
            f"{corpus}: none of its {counts['done']:,} documents has {min_chars} characters; lower min_chars"
        )
    passages = [{"docid": docid, "text": text} for _, docid, text in drawn]
    return Sample(passages, counts["done"], counts["too_short"])


def smallest(documents: Iterator[Document], n: int, min_chars: int, seed: int, counts: Counter[str]) -> list[Drawn]:
    """Return the `n` passages with the smallest numbers. Adds to `counts`: `done`, all documents, and `too_short`."""

    def long_enough() -> Iterator[Drawn]:
        for document in documents:
            text = contents(document)
            counts["done"] += 1
            if len(text.strip()) < min_chars:
                counts["too_short"] += 1
                continue
            number = hashlib.blake2b(f"{seed} {document.docid}".encode(), digest_size=8).hexdigest()
            yield number, document.docid, text

    return heapq.nsmallest(n, long_enough(), key=itemgetter(0, 1))


class _Drawing:
    """A worker that draws from one part of the corpus, which the block names."""

    def __init__(self, parts: list[Part], n: int, min_chars: int, seed: int, tell: Any):
        self.parts, self.n, self.min_chars, self.seed, self.tell = parts, n, min_chars, seed, tell

    def __call__(self, block: pa.Table) -> dict[str, Any]:
        number = block["part"][0].as_py()
        counts = Counter[str]()

        def documents() -> Iterator[Document]:
            told = time.monotonic()
            for _, document in self.parts[number].read():
                yield document
                if time.monotonic() - told > 1:
                    self.tell.remote(number, {"done": counts["done"]})
                    told = time.monotonic()

        drawn = smallest(documents(), self.n, self.min_chars, self.seed, counts)
        self.tell.remote(number, {"done": counts["done"]})
        return {"drawn": drawn, "counts": counts}
