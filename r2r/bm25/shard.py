"""One shard of an index: a Lucene index of a part of the corpus, built by one worker.

Owns what of a document is indexed and stored, and a shard's folder. Does not own which documents a shard gets, nor
other shards. A shard's folder holds `lucene/`, an index that Pyserini opens too, `docids.npy`, by which duplicates are
found, and `shard.json`, its counts. It is built aside and renamed, so a folder in place is a whole one.

    build(part, Path("index/shards/00000"), key="", heap=512, tell=print)["documents"]
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from r2r.bm25 import java
from r2r.datasets.documents import Document, Part
from r2r.errors import BadInput

# Anserini's names, so that plain Pyserini finds what it expects.
ID, CONTENTS = "id", "contents"

# What neither Python nor Java's trim() takes for blank; Anserini refuses a document in which there is none of it.
_SOLID = re.compile(r"[^\s\x00-\x20]")
# A JSON string, some times faster than json.dumps of an object.
_quoted = json.encoder.encode_basestring_ascii

# Characters that go to Java at a time: Anserini starts threads anew for every call.
_BATCH = 2**21


def contents(document: Document) -> str:
    """Return what is searched, and handed on as the candidate's text: the title, a line break and the text."""
    return f"{document.title}\n{document.text}" if document.title else document.text


def counts(folder: Path, key: str) -> dict | None:
    """Return the counts of a finished shard that was built from the same input (`key`), None where there is none."""
    try:
        found = json.loads((folder / "shard.json").read_text())
    except (OSError, ValueError):
        return None
    return found if found["key"] == key else None


def build(part: Part, folder: Path, key: str, heap: int, tell: Callable[[int, int], None]) -> dict:
    """Build the shard of `part`, in place of any that is there, and return its counts.

    A quarter of the heap (MiB) holds documents that are not on disk yet. `tell` hears about every second how many
    documents were read, and how much of the source. Raises BadInput, with the place, for an unsound document.
    """
    autoclass = java.start(heap)
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "lucene").mkdir(parents=True)

    arguments = autoclass("io.anserini.index.IndexCollection$Args")()
    arguments.index = str(aside / "lucene")
    arguments.memoryBuffer = heap // 4
    arguments.storeContents = True
    arguments.threads = 1
    indexer = autoclass("io.anserini.index.SimpleIndexer")(arguments)
    docids = array("Q"), array("Q")
    try:
        found = _add(indexer, part, docids, tell)
    finally:
        indexer.close()
    documents, tokens = statistics(open_directory(aside / "lucene"))
    if documents != found["documents"] - found["empty"]:
        added = found["documents"] - found["empty"]
        raise RuntimeError(f"{folder}: holds {documents} documents, {added} were added to it")
    found |= {"key": key, "tokens": tokens}
    found["bytes"] = sum(file.stat().st_size for file in (aside / "lucene").iterdir())
    _save_docids(*docids, aside / "docids.npy")
    (aside / "shard.json").write_text(json.dumps(found))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)
    return found


def _add(indexer, part: Part, docids: tuple[array, array], tell: Callable[[int, int], None]) -> dict:
    hashes, places = docids
    found = {"documents": 0, "empty": 0, "repaired": 0}
    batch, size, told = [], 0, time.monotonic()
    for at, document in part.read():
        found["documents"] += 1
        found["repaired"] += document.repaired
        hashes.append(docid_hash(document.docid))
        places.append(at)
        text = contents(document)
        if _SOLID.search(text):
            raw = f'{{"{ID}":{_quoted(document.docid)},"{CONTENTS}":{_quoted(text)}}}'
            batch.append((at, document.docid, raw))
            size += len(batch[-1][2])
        else:
            # No query can find it; Anserini leaves such a document out too.
            found["empty"] += 1
        if size > _BATCH:
            _add_batch(indexer, part, batch)
            batch, size = [], 0
        if time.monotonic() - told > 1:
            tell(found["documents"], at - places[0])
            told = time.monotonic()
    _add_batch(indexer, part, batch)
    tell(found["documents"], part.size or 0)
    return found


def _add_batch(indexer, part: Part, batch: list[tuple[int, str, str]]) -> None:
    """Index documents (position, docid, JSON). Raises BadInput for one that Lucene refuses."""
    if indexer.addRawDocuments([raw for _, _, raw in batch]) == len(batch):
        return
    # It says how many it took, not which. The index is given up in any case, so they can be told by trying.
    at, docid = next((at, docid) for at, docid, raw in batch if indexer.addRawDocuments([raw]) != 1)
    right = "an id of at most 32,766 bytes and a text of at most 20 million characters are needed"
    raise BadInput(f"{part.place(at)}: Lucene refuses document {docid[:80]}; {right}")


def statistics(directory) -> tuple[int, int]:
    """Return the number of documents, and of tokens, in a finished Lucene index."""
    import jnius

    reader = jnius.autoclass("org.apache.lucene.index.DirectoryReader").open(directory)
    try:
        return reader.numDocs(), max(0, reader.getSumTotalTermFreq(CONTENTS))
    finally:
        reader.close()


def analyzer():
    """Return Anserini's default analysis: English, Porter stemmer, Lucene's stop words."""
    import jnius

    return jnius.autoclass("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance()


def open_directory(folder: Path):
    import jnius

    path = jnius.autoclass("java.nio.file.Paths").get(str(folder))
    return jnius.autoclass("org.apache.lucene.store.FSDirectory").open(path)


def docid_hash(docid: str) -> int:
    return int.from_bytes(hashlib.blake2b(docid.encode(), digest_size=8).digest())


def _save_docids(hashes: array, places: array, file: Path) -> None:
    """Save hash and place of every docid, in the order of the hashes, so that a range of them is read alone."""
    import numpy as np

    found = np.array([hashes, places], dtype=np.uint64).reshape(2, -1)
    np.save(file, found[:, np.argsort(found[0])])
