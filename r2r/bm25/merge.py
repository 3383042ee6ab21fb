"""Copies all shards of an index into one Lucene index, for programs that open only one, such as plain Pyserini.

Owns the merged index. Lucene copies files and does not analyse the texts again, so it needs as much disk as the shards.
Does not own the shards: they stay, and the retrieve stage still searches them.

    merge_shards([Path("index/shards/00000"), Path("index/shards/00001")], Path("index/merged"), heap=512)
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from r2r.bm25 import java, shard


def merge_shards(shards: list[Path], folder: Path, heap: int) -> None:
    """Write one Lucene index of all `shards` into `folder` and replace what is there. The JVM gets `heap` MiB."""
    autoclass = java.start(heap)
    # Renamed only when it is complete.
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)

    directory = shard.open_directory(aside)
    # It analyzes nothing: the shards are copied.
    config = autoclass("org.apache.lucene.index.IndexWriterConfig")(shard.analyzer("en"))
    writer = autoclass("org.apache.lucene.index.IndexWriter")(directory, config)
    writer.addIndexes(*(shard.open_directory(one / "lucene") for one in shards))
    writer.close()
    documents, tokens = zip(*(shard.statistics(shard.open_directory(one / "lucene")) for one in shards), strict=True)
    if shard.statistics(directory) != (sum(documents), sum(tokens)):
        raise RuntimeError(f"{folder}: the merged index does not hold the same documents as its shards")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)
