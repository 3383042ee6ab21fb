"""Finds docids that occur twice in a corpus, in one shard or in two.

Owns the search for equal hashes, one range of hashes at a time, so memory is bounded. Does not own the reading of
documents. Two docids may share a hash, so the docids of suspects are read from the corpus again.

    reject_duplicates(parts, [Path("index/shards/00000"), Path("index/shards/00001")])
"""

from __future__ import annotations

from collections.abc import Iterator

from r2r.datasets.documents import Part
from r2r.errors import BadInput
from r2r.places import Place, fetch

# Needs 100 MB for hashes and positions, and as much again to sort them.
_DOCUMENTS_AT_ONCE = 4_000_000


def reject_duplicates(parts: list[Part], shards: list[Place]) -> None:
    """Raise BadInput, with both places, for a docid that occurs twice. `shards` are the folders built from `parts`."""
    for suspects in _groups_of_equal_hash(shards):
        seen: dict[str, tuple[int, int]] = {}
        for number, at in sorted(suspects):
            docid = next(document.docid for position, document in parts[number].read() if position == at)
            if docid in seen:
                first, before = seen[docid]
                places = f"{parts[number].place(at)}: docid {docid} again, first in {parts[first].place(before)}"
                raise BadInput(f"{places}; each document has its own id")
            seen[docid] = (number, at)


def _groups_of_equal_hash(shards: list[Place]) -> Iterator[list[tuple[int, int]]]:
    """Yield, for each hash that occurs more than once, its documents as (number of the shard, position)."""
    import numpy as np

    docids = [np.load(fetch(shard / "docids.npy"), mmap_mode="r") for shard in shards]
    ranges = sum(hashes.shape[1] for hashes in docids) // _DOCUMENTS_AT_ONCE + 1
    bounds = [np.array(2**64 * bound // ranges, dtype=np.uint64) for bound in range(1, ranges)]
    cuts = [[0, *np.searchsorted(hashes[0], bounds), hashes.shape[1]] for hashes in docids]
    for index in range(ranges):
        spans = [hashes[:, cut[index] : cut[index + 1]] for hashes, cut in zip(docids, cuts, strict=True)]
        hashes, positions = np.concatenate(spans, axis=1)
        numbers = np.repeat(np.arange(len(spans)), [span.shape[1] for span in spans])
        order = np.argsort(hashes)
        hashes, positions, numbers = hashes[order], positions[order], numbers[order]
        for value in np.unique(hashes[1:][hashes[1:] == hashes[:-1]]):
            first, last = np.searchsorted(hashes, value, "left"), np.searchsorted(hashes, value, "right")
            yield list(zip(numbers[first:last].tolist(), positions[first:last].tolist(), strict=True))
