"""All shards of an index in one Lucene index, for programs that open no more than one, such as plain Pyserini.

Owns that index, which is built aside and renamed. Does not own the shards: they stay, and the retrieve stage goes on
searching them. It takes as much disk again as they do; Lucene copies them file by file, without a second analysis.

    merge([Path("index/shards/00000"), Path("index/shards/00001")], Path("index/merged"), heap=512)
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from r2r.bm25 import java, shard


def merge(shards: list[Path], folder: Path, heap: int) -> None:
    """Write the documents of all `shards` into one Lucene index in `folder`, in place of any that is there."""
    autoclass = java.start(heap)
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)

    directory = shard.open_directory(aside)
    config = autoclass("org.apache.lucene.index.IndexWriterConfig")(shard.analyzer())
    writer = autoclass("org.apache.lucene.index.IndexWriter")(directory, config)
    writer.addIndexes(*(shard.open_directory(one / "lucene") for one in shards))
    writer.close()
    held = [shard.statistics(shard.open_directory(one / "lucene")) for one in shards]
    if shard.statistics(directory) != tuple(map(sum, zip(*held, strict=True))):
        raise RuntimeError(f"{folder}: holds other documents than the shards it was merged from")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)
