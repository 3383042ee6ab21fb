"""Builds one shard of an index: a Lucene index of one part of the corpus, in one worker.

Owns what is indexed and stored of a document, and the shard's folder. Does not own the choice of documents for a
shard. The folder holds `lucene/`, which Pyserini can open too; `docids.npy`, for finding duplicates; and `shard.json`,
the counts. The folder gets its name only when it is complete.

    build(part, Path("index/shards/00000"), key="", heap=512, tell=print)["documents"]
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r2r.bm25 import java
from r2r.datasets.documents import Part, contents
from r2r.errors import BadInput
from r2r.identity import add_digests, row_digest
from r2r.places import Place, has, replacing_folder

# Anserini's names of the two fields, which plain Pyserini expects.
ID, CONTENTS = "id", "contents"

# What `shard.json` holds, beside the key.
_COUNTS = {"documents", "empty", "repaired", "content", "tokens", "bytes"}

# A character that is blank neither for Python nor for Java's trim(). Anserini refuses documents without one.
_VISIBLE = re.compile(r"[^\s\x00-\x20]")
# Writes a JSON string, several times faster than json.dumps writes an object.
_json_string = json.encoder.encode_basestring_ascii

# Documents go to Java in large batches, because Anserini starts new threads for every call.
_BATCH_CHARACTERS = 2**21


def counts(folder: Place, key: str) -> dict[str, Any] | None:
    """Return the counts of a finished shard that was built with the same `key`; None if there is none.

    A shard without a count that `build` writes today is not finished.
    """
    if not has(folder, "shard.json"):
        return None
    try:
        found = json.loads((folder / "shard.json").read_text())
        return found if found["key"] == key and found.keys() >= _COUNTS else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def build(
    part: Part, folder: Place, key: str, heap: int, tell: Callable[[int, int], None], language: str = "en"
) -> dict[str, Any]:
    """Build the shard of `part` in `folder`, replace what is there, and return the counts that `shard.json` holds.

    Returns documents (all that were read), empty (those without text, which are not indexed), repaired (those with
    invalid Unicode), content, tokens, bytes on disk, and `key`. The content is 32 hex digits: `add_digests` of the
    `row_digest` of docid, NUL and contents of every document that was read. So the `add_digests` of all shards depends
    neither on their number nor on the order of documents.

    `heap` is the JVM's, in MiB; a quarter of it buffers documents. `language` names the analyzer. About once a second,
    calls `tell(documents read, units of part.size read)`. Raises BadInput, with the place, for an invalid document.
    """
    autoclass = java.start(heap)
    with replacing_folder(folder) as aside:
        (aside / "lucene").mkdir()
        return _build(part, aside, key, heap, tell, language, autoclass)


def _build(
    part: Part,
    aside: Path,
    key: str,
    heap: int,
    tell: Callable[[int, int], None],
    language: str,
    autoclass: Callable[[str], Any],
) -> dict[str, Any]:
    """Build a shard in the folder `aside`. Arguments as for `build`."""
    arguments = autoclass("io.anserini.index.IndexCollection$Args")()
    arguments.index = str(aside / "lucene")
    arguments.memoryBuffer = heap // 4
    arguments.storeContents = True
    arguments.threads = 1
    # Anserini's name for texts whose words are separated by white space.
    arguments.pretokenized = language == "none"
    arguments.language = language
    indexer = autoclass("io.anserini.index.SimpleIndexer")(arguments)
    docids = array("Q"), array("Q")
    try:
        found = _add_documents(indexer, part, docids, tell)
    finally:
        indexer.close()
    documents, tokens = statistics(open_directory(aside / "lucene"))
    if documents != found["documents"] - found["empty"]:
        added = found["documents"] - found["empty"]
        raise RuntimeError(f"{aside}: holds {documents} documents, but {added} were added")
    found |= {"key": key, "tokens": tokens}
    found["bytes"] = sum(file.stat().st_size for file in (aside / "lucene").iterdir())
    _save_docids(*docids, aside / "docids.npy")
    (aside / "shard.json").write_text(json.dumps(found))
    return found


def _add_documents(
    indexer: Any, part: Part, docids: tuple[array[int], array[int]], tell: Callable[[int, int], None]
) -> dict[str, Any]:
    """Index the documents of `part`, append to `docids` (hashes, positions), and return the counts of the reading."""
    hashes, positions = docids
    found = {"documents": 0, "empty": 0, "repaired": 0}
    batch: list[tuple[int, str, str]] = []
    content, size, told = 0, 0, time.monotonic()
    for at, document in part.read():
        text = contents(document)
        found["documents"] += 1
        found["repaired"] += document.repaired
        content = add_digests((content, row_digest(f"{document.docid}\0{text}")))
        hashes.append(_docid_hash(document.docid))
        positions.append(at)
        if _VISIBLE.search(text):
            raw = f'{{"{ID}":{_json_string(document.docid)},"{CONTENTS}":{_json_string(text)}}}'
            batch.append((at, document.docid, raw))
            size += len(raw)
        else:
            # No query can find it, and Anserini leaves it out too.
            found["empty"] += 1
        if size > _BATCH_CHARACTERS:
            _add_batch(indexer, part, batch)
            batch, size = [], 0
        if time.monotonic() - told > 1:
            tell(found["documents"], at - positions[0])
            told = time.monotonic()
    _add_batch(indexer, part, batch)
    tell(found["documents"], part.size or 0)
    return found | {"content": f"{content:032x}"}


def _add_batch(indexer: Any, part: Part, batch: list[tuple[int, str, str]]) -> None:
    """Index documents, given as (position, docid, JSON). Raises BadInput for one that Lucene refuses."""
    if indexer.addRawDocuments([raw for _, _, raw in batch]) == len(batch):
        return
    # Anserini returns only how many it took. This index is lost anyway, so add them again, one by one.
    at, docid = next((at, docid) for at, docid, raw in batch if indexer.addRawDocuments([raw]) != 1)
    right = "an id of at most 32,766 bytes and a text of at most 20 million characters are needed"
    raise BadInput(f"{part.place(at)}: Lucene refuses document {docid[:80]}; {right}")


def statistics(directory: Any) -> tuple[int, int]:
    """Return the number of documents and the number of tokens in a finished Lucene index."""
    import jnius

    reader = jnius.autoclass("org.apache.lucene.index.DirectoryReader").open(directory)
    try:
        return reader.numDocs(), max(0, reader.getSumTotalTermFreq(CONTENTS))
    finally:
        reader.close()


def analyzer(name: str) -> Any:
    """Return the analyzer that Anserini indexes with under this name, as `IndexSettings.analyzer` has it.

    en: Anserini's own English one, with the Porter stemmer and Lucene's stop words. none: cuts at white space alone.
    """
    import jnius

    if name == "en":
        return jnius.autoclass("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance()
    if name == "none":
        return jnius.autoclass("org.apache.lucene.analysis.core.WhitespaceAnalyzer")()
    return jnius.autoclass("io.anserini.analysis.AnalyzerMap").getLanguageSpecificAnalyzer(name)


def open_directory(folder: Path) -> Any:
    """Return a folder as Lucene's Directory."""
    import jnius

    path = jnius.autoclass("java.nio.file.Paths").get(str(folder))
    return jnius.autoclass("org.apache.lucene.store.FSDirectory").open(path)


def _docid_hash(docid: str) -> int:
    return int.from_bytes(hashlib.blake2b(docid.encode(), digest_size=8).digest())


def _save_docids(hashes: array[int], positions: array[int], file: Path) -> None:
    """Save hash and position of every docid, sorted by hash, so that a range of hashes can be read alone."""
    import numpy as np

    found = np.array([hashes, positions], dtype=np.uint64).reshape(2, -1)
    np.save(file, found[:, np.argsort(found[0])])
