"""The index stage: cuts a corpus into shards, which Ray Data workers build.

Owns the cutting, the resume after a kill, and the manifest. Does not own what a shard holds (`shard.py`) or the
search. OUT holds `shards/00000 …` and `manifest.json`, with the counts over all shards. With the setting `merge`, it
also holds `merged/`: one Lucene index of all documents, for plain Pyserini.

    build_index("beir:scifact", "runs/scifact/index", IndexSettings(shards=4))
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from r2r import datasets, tables
from r2r.bm25 import duplicates, java, shard
from r2r.bm25.merge import merge_shards
from r2r.config import IndexSettings
from r2r.datasets.documents import Part
from r2r.errors import BadInput
from r2r.identity import add_digests, digest
from r2r.places import Place, place
from r2r.stage import Identity, Input, Result, Stage, There, run
from r2r.workers import on_workers, progress, start_ray

if TYPE_CHECKING:
    import pyarrow as pa

# With less than this per worker, Java's optimizing compiler would take half of the build's time (benchmarks/README.md).
_BRIEF = {"B": 100 * 2**20, "document": 250_000}


def stage(corpus: str, out: str | Place, settings: IndexSettings) -> Stage:
    """Return the stage that indexes `corpus`, a dataset, into `settings.shards` shards under `out`."""

    def check(there: There) -> None:
        java.find_java()
        datasets.check(corpus, "corpus")

    def work(identity: Identity) -> Result:
        return _work(corpus, place(out), settings, identity.inputs["corpus"])

    inputs = {"corpus": Input(corpus, partial(datasets.fingerprint, what="corpus"))}
    return Stage("index", place(out), settings, inputs, check, work, ["shards", *["merged"] * settings.merge])


def build_index(corpus: str, out: str | Place, settings: IndexSettings) -> None:
    """Index a corpus into `settings.shards` shards under `out`. After a kill, builds only the missing shards.

    Raises BadInput for a corpus that cannot be read, an unsound document, a docid that comes twice, and no Java.
    """
    run(stage(corpus, out, settings))


def _work(corpus: str, out: Place, settings: IndexSettings, fingerprint: str) -> Result:
    parts = datasets.corpus_parts(corpus, settings.shards)
    # What is left out at its default was not there in earlier releases.
    language = [settings.analyzer] * (settings.analyzer != "en")
    key = digest([fingerprint, settings.shards, *language])
    folders = [out / "shards" / f"{number:05}" for number in range(settings.shards)]
    missing = [number for number, folder in enumerate(folders) if shard.counts(folder, key) is None]
    if len(missing) == len(folders):
        tables.clear(out, "shards")
    elif missing:
        print(f"index: {len(folders) - len(missing)} of {len(folders)} shards are built already", flush=True)
    tables.clear(out, "merged")
    if missing:
        _build(parts, folders, missing, key, settings)

    built = [counts for folder in folders if (counts := shard.counts(folder, key))]
    total = {
        name: sum(counts[name] for counts in built) for name in ("documents", "empty", "repaired", "tokens", "bytes")
    }
    if not total["documents"]:
        raise BadInput(f"{corpus}: holds no document; a corpus has at least one")
    duplicates.reject_duplicates(parts, folders)
    if settings.merge:
        print(f"index: merging {len(folders)} shards", flush=True)
        _merge(folders, out / "merged", settings.heap)
    documents = {"documents": total.pop("documents")}
    # The same documents, analyzed in another way, are found by other queries.
    content = ":".join([tables.content(add_digests(int(counts["content"], 16) for counts in built)), *language])
    files = [*(f"shards/{folder.name}" for folder in folders), *["merged"] * settings.merge]
    return Result(documents, content, files, {"shards": len(folders), **total})


def _build(parts: list[Part], folders: list[Place], missing: list[int], key: str, settings: IndexSettings) -> None:
    import pyarrow as pa

    total = _size([parts[number] for number in missing])
    blocks = [pa.table({"shard": [number]}) for number in missing]
    with progress("index", total, parts[0].unit, lambda counts, _: f"{counts['documents']:,} documents") as tell:
        worker = parts, folders, key, settings.heap, is_brief(parts, settings.workers), settings.analyzer, tell
        # With more ahead, the first worker to start would take shards that another could build.
        for _ in on_workers(blocks, _Builder, worker, settings.workers, ahead=1):
            pass


def is_brief(parts: list[Part], workers: int) -> bool:
    """Return whether each worker has so little to do that Java's optimizing compiler costs more time than it saves."""
    size = _size(parts)
    return size is not None and size / workers < _BRIEF[parts[0].unit]


def _size(parts: list[Part]) -> int | None:
    """Return the size of all parts in their unit, None if one does not know its own."""
    known = [part.size for part in parts if part.size is not None]
    return sum(known) if len(known) == len(parts) else None


def _merge(shards: list[Place], folder: Place, heap: int) -> None:
    start_ray()
    import ray

    # In a worker: the driver has no JVM.
    ray.get(ray.remote(num_cpus=1, max_calls=1)(merge_shards).remote(shards, folder, heap))


class _Builder:
    """A Ray Data worker that builds shards, one per block. Starts its own JVM with `heap` MiB."""

    def __init__(
        self, parts: list[Part], folders: list[Place], key: str, heap: int, brief: bool, language: str, tell: Any
    ):
        java.start(heap, brief)
        self.parts, self.folders, self.key, self.heap, self.tell = parts, folders, key, heap, tell
        self.language = language

    def __call__(self, block: pa.Table) -> dict[str, Any]:
        number = block["shard"][0].as_py()

        def tell(documents: int, done: int) -> None:
            self.tell.remote(number, {"documents": documents, "done": done})

        return shard.build(self.parts[number], self.folders[number], self.key, self.heap, tell, self.language)
