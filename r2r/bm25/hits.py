"""What a search found, out of Java: ids, texts and scores of all hits in a few calls.

Owns the loop over the hits. One in Python calls Java for every hit, which takes as long as the search itself; this one
runs in Java, put together from Java's method handles. Does not own the search, nor the order of the hits.

    docids, texts, scores = reader(index_searcher)(index_searcher.search(query, 100))
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from r2r.bm25.shard import CONTENTS, ID

_HIT = "org.apache.lucene.search.ScoreDoc"


def reader(searcher) -> Callable[..., tuple[list[str], list[str], list[float]]]:
    """Return a function that reads docids, texts and scores of a TopDocs, in its order; for one thread."""
    from jnius import autoclass

    handles = autoclass("java.lang.invoke.MethodHandles")
    lookup, named = handles.publicLookup(), autoclass("java.lang.Class").forName
    hit, hits = named(_HIT), named(f"[L{_HIT};")

    def signature(written: str):
        return autoclass("java.lang.invoke.MethodType").fromMethodDescriptorString(written, None)

    def method(owner: str, name: str, written: str):
        return lookup.findVirtual(named(owner), name, signature(written))

    def with_field(action, name: str, kind: str):
        """Turn an action on a field's value into one on a hit."""
        return handles.filterArguments(action, 0, lookup.findGetter(hit, name, autoclass(kind).TYPE))

    def for_each(action):
        """Turn an action on a hit into one on a TopDocs."""
        order = signature("(I[L{0};)L{0};".format(_HIT.replace(".", "/")))
        nth = handles.permuteArguments(handles.arrayElementGetter(hits), order, 1, 0)
        loop = handles.countedLoop(handles.arrayLength(hits), None, handles.filterReturnValue(nth, action))
        in_found = lookup.findGetter(named("org.apache.lucene.search.TopDocs"), "scoreDocs", hits)
        return handles.filterArguments(loop, 0, in_found)

    visitor = autoclass("org.apache.lucene.document.DocumentStoredFieldVisitor")()
    stored = "org.apache.lucene.index.StoredFields"
    load = method(stored, "document", "(ILorg/apache/lucene/index/StoredFieldVisitor;)V")
    load = handles.insertArguments(load.bindTo(searcher.storedFields()), 1, visitor)
    load_all = for_each(with_field(load, "doc", "java.lang.Integer"))

    scores = autoclass("java.io.ByteArrayOutputStream")()
    write = method("java.io.DataOutputStream", "writeFloat", "(F)V")
    write = write.bindTo(autoclass("java.io.DataOutputStream")(scores))
    write_all = for_each(with_field(write, "score", "java.lang.Float"))

    documents, only = visitor.getDocument(), autoclass("java.util.Collections").singletonList

    def read(found) -> tuple[list[str], list[str], list[float]]:
        documents.clear()
        scores.reset()
        load_all.invokeWithArguments(only(found))
        write_all.invokeWithArguments(only(found))
        docids, texts = documents.getValues(ID), documents.getValues(CONTENTS)
        return docids, texts, list(struct.unpack(f">{len(docids)}f", bytes(scores.toByteArray())))

    return read
