"""Copies all shards of an index into one Lucene index, for programs that open only one, such as plain Pyserini.

Owns the merged index. Lucene copies files and does not analyse the texts again, so it needs as much disk as the shards.
Does not own the shards: they stay, and the retrieve stage still searches them.

    merge_shards([Path("index/shards/00000"), Path("index/shards/00001")], Path("index/merged"), heap=512)
"""

from __future__ import annotations

from r2r.bm25 import java, shard
from r2r.places import Place, fetch, replacing_folder


def merge_shards(shards: list[Place], folder: Place, heap: int) -> None:
    """Write one Lucene index of all `shards` into `folder` and replace what is there. The JVM gets `heap` MiB."""
    autoclass = java.start(heap)
    held = [shard.open_directory(fetch(one) / "lucene") for one in shards]
    with replacing_folder(folder) as aside:
        directory = shard.open_directory(aside)
        # It analyzes nothing: the shards are copied.
        config = autoclass("org.apache.lucene.index.IndexWriterConfig")(shard.analyzer("en"))
        writer = autoclass("org.apache.lucene.index.IndexWriter")(directory, config)
        writer.addIndexes(*held)
        writer.close()
        documents, tokens = zip(*map(shard.statistics, held), strict=True)
        if shard.statistics(directory) != (sum(documents), sum(tokens)):
            raise RuntimeError(f"{folder}: the merged index does not hold the same documents as its shards")
