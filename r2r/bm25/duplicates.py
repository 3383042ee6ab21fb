"""Docids that come twice in a corpus, in whichever shards.

Owns finding them from the hashes that each shard keeps, a range of hashes at a time, so that memory is bounded. Does
not own the reading of documents: two docids may share a hash, so a suspect's docid comes from the corpus itself.

    check(parts, [Path("index/shards/00000"), Path("index/shards/00001")])
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from r2r.datasets.documents import Part
from r2r.errors import BadInput

# Documents that are compared at a time: 100 MB of hashes and places, and as much again to sort them.
_AT_ONCE = 4_000_000


def check(parts: list[Part], shards: list[Path]) -> None:
    """Raise BadInput, naming both places, for a docid that comes twice in the corpus."""
    for suspects in _same_hash(shards):
        found: dict[str, tuple[int, int]] = {}
        for number, at in sorted(suspects):
            docid = next(document.docid for place, document in parts[number].read() if place == at)
            if docid in found:
                first, before = found[docid]
                places = f"{parts[number].place(at)}: docid {docid} again, first in {parts[first].place(before)}"
                raise BadInput(f"{places}; each document has its own id")
            found[docid] = (number, at)


def _same_hash(shards: list[Path]) -> Iterator[list[tuple[int, int]]]:
    """Yield the documents, as numbers of shards and places in them, of each hash that comes more than once."""
    import numpy as np

    docids = [np.load(shard / "docids.npy", mmap_mode="r") for shard in shards]
    ranges = sum(hashes.shape[1] for hashes in docids) // _AT_ONCE + 1
    bounds = [np.array(2**64 * bound // ranges, dtype=np.uint64) for bound in range(1, ranges)]
    cuts = [[0, *np.searchsorted(hashes[0], bounds), hashes.shape[1]] for hashes in docids]
    for index in range(ranges):
        spans = [hashes[:, cut[index] : cut[index + 1]] for hashes, cut in zip(docids, cuts, strict=True)]
        hashes, places = np.concatenate(spans, axis=1)
        numbers = np.repeat(np.arange(len(spans)), [span.shape[1] for span in spans])
        order = np.argsort(hashes)
        hashes, places, numbers = hashes[order], places[order], numbers[order]
        for value in np.unique(hashes[1:][hashes[1:] == hashes[:-1]]):
            first, last = (
                np.searchsorted(hashes, [value, value], side="left")[0],
                np.searchsorted(hashes, value, "right"),
            )
            yield list(zip(numbers[first:last].tolist(), places[first:last].tolist(), strict=True))
