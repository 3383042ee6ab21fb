"""The index stage: cuts a corpus into shards, which Ray Data workers build.

Owns the cutting, the resume after a kill, and the manifest. Does not own what a shard holds (`shard.py`) or the
search. OUT holds `shards/00000 …` and `manifest.json`, with the counts over all shards. With the setting `merge`, it
also holds `merged/`: one Lucene index of all documents, for plain Pyserini.

    build_index("beir:scifact", "runs/scifact/index", IndexSettings(shards=4))
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2r import datasets, tables
from r2r import stage as stages
from r2r.bm25 import duplicates, java, shard
from r2r.bm25.merge import merge_shards
from r2r.config import IndexSettings
from r2r.datasets.documents import Part
from r2r.errors import BadInput
from r2r.workers import on_workers, progress, start_ray

if TYPE_CHECKING:
    import pyarrow as pa

# With less than this per worker, Java's optimizing compiler would take half of the build's time (benchmarks/README.md).
_BRIEF = {"B": 100 * 2**20, "document": 250_000}


def build_index(corpus: str, out: str, settings: IndexSettings) -> None:
    """Index a corpus into `settings.shards` shards under `out`; of a build that was killed, only the missing ones.

    Raises BadInput for a corpus that cannot be read, an unsound document, a docid that comes twice, and no Java.
    """
    java.find_java()
    parts = datasets.corpus_parts(corpus, settings.shards)
    stage = stages.Stage("index", out, {"corpus": corpus}, settings)
    if stage.done:
        return
    content = json.dumps([stage.manifest["inputs"]["corpus"]["fingerprint"], settings.shards])
    key = hashlib.sha256(content.encode()).hexdigest()
    folders = [stage.out / "shards" / f"{number:05}" for number in range(settings.shards)]
    missing = [number for number, folder in enumerate(folders) if shard.counts(folder, key) is None]
    if len(missing) == len(folders):
        tables.clear(stage.out, "shards")
    elif missing:
        print(f"index: {len(folders) - len(missing)} of {len(folders)} shards are built already", flush=True)
    tables.clear(stage.out, "merged")
    if missing:
        _build(parts, folders, missing, key, settings)

    built = [shard.counts(folder, key) for folder in folders]
    total = {
        name: sum(counts[name] for counts in built) for name in ("documents", "empty", "repaired", "tokens", "bytes")
    }
    if not total["documents"]:
        raise BadInput(f"{corpus}: holds no document; a corpus has at least one")
    duplicates.reject_duplicates(parts, folders)
    if settings.merge:
        print(f"index: merging {len(folders)} shards", flush=True)
        _merge(folders, stage.out / "merged", settings.heap)
    files = ["shards", "merged"] if settings.merge else ["shards"]
    stage.finish({"documents": total.pop("documents")}, files=files, shards=len(folders), **total)


def _build(parts: list[Part], folders: list[Path], missing: list[int], key: str, settings: IndexSettings) -> None:
    import pyarrow as pa

    sizes = [parts[number].size for number in missing]
    total = None if None in sizes else sum(sizes)
    blocks = [pa.table({"shard": [number]}) for number in missing]
    with progress("index", total, parts[0].unit, lambda counts, _: f"{counts['documents']:,} documents") as tell:
        worker = parts, folders, key, settings.heap, is_brief(parts, settings.workers), tell
        # With more ahead, the first worker to start would take shards that another could build.
        for _ in on_workers(blocks, _Builder, worker, settings.workers, ahead=1):
            pass


def is_brief(parts: list[Part], workers: int) -> bool:
    """Return whether each worker has so little to do that Java's optimizing compiler costs more time than it saves."""
    sizes = [part.size for part in parts]
    return None not in sizes and sum(sizes) / workers < _BRIEF[parts[0].unit]


def _merge(shards: list[Path], folder: Path, heap: int) -> None:
    start_ray()
    import ray

    # In a worker, because the driver must not have a JVM.
    ray.get(ray.remote(num_cpus=1, max_calls=1)(merge_shards).remote(shards, folder, heap))


class _Builder:
    """A Ray Data worker that builds shards, one per block. Starts its own JVM with `heap` MiB."""

    def __init__(self, parts: list[Part], folders: list[Path], key: str, heap: int, brief: bool, tell: Any):
        java.start(heap, brief)
        self.parts, self.folders, self.key, self.heap, self.tell = parts, folders, key, heap, tell

    def __call__(self, block: pa.Table) -> dict[str, Any]:
        number = block["shard"][0].as_py()

        def tell(documents: int, done: int) -> None:
            self.tell.remote(number, {"documents": documents, "done": done})

        return shard.build(self.parts[number], self.folders[number], self.key, self.heap, tell)
