"""Moves the hits of a search out of Java: docids, texts and scores of all hits in a few calls.

Owns the loop over the hits. In Python the loop would call Java once per hit, which takes as long as the search itself.
So the loop runs in Java, composed of method handles (java.lang.invoke). Does not own the search or the order of hits.

    docids, texts, scores = HitReader(index_searcher).read(index_searcher.search(query, 100))
"""

from __future__ import annotations

import struct
from typing import Any

from r2r.bm25.shard import CONTENTS, ID

_HIT = "org.apache.lucene.search.ScoreDoc"
# A method signature writes the same class in another way.
_HIT_IN_SIGNATURE = f"L{_HIT.replace('.', '/')};"


class HitReader:
    """Reads hits of one IndexSearcher. Its two buffers in Java serve every call, so only one thread may use it."""

    def __init__(self, searcher: Any):
        visitor = _java("org.apache.lucene.document.DocumentStoredFieldVisitor")()
        self._fields = visitor.getDocument()
        self._scores = _java("java.io.ByteArrayOutputStream")()
        self._load_all = _for_each_hit("doc", "java.lang.Integer", _load_document(searcher, visitor))
        self._write_all = _for_each_hit("score", "java.lang.Float", _write_float(self._scores))
        self._arguments = _java("java.util.Collections").singletonList

    def read(self, found: Any) -> tuple[list[str], list[str], list[float]]:
        """Return docids, texts and scores of a TopDocs, in its order."""
        self._fields.clear()
        self._scores.reset()
        self._load_all.invokeWithArguments(self._arguments(found))
        self._write_all.invokeWithArguments(self._arguments(found))
        docids, texts = self._fields.getValues(ID), self._fields.getValues(CONTENTS)
        return docids, texts, list(struct.unpack(f">{len(docids)}f", bytes(self._scores.toByteArray())))


# Each function below returns a Java method handle. Its docstring shows the same as Java source.


def _load_document(searcher: Any, visitor: Any) -> Any:
    """(int doc) -> searcher.storedFields().document(doc, visitor)"""
    signature = "(ILorg/apache/lucene/index/StoredFieldVisitor;)V"
    load = _method("org.apache.lucene.index.StoredFields", "document", signature)
    return _handles().insertArguments(load.bindTo(searcher.storedFields()), 1, visitor)


def _write_float(stream: Any) -> Any:
    """(float value) -> new DataOutputStream(stream).writeFloat(value)"""
    data = "java.io.DataOutputStream"
    return _method(data, "writeFloat", "(F)V").bindTo(_java(data)(stream))


def _for_each_hit(field: str, kind: str, action: Any) -> Any:
    """(TopDocs found) -> { for (ScoreDoc hit : found.scoreDocs) action(hit.FIELD); }, where FIELD is a `kind`"""
    handles, hits = _handles(), _class(f"[L{_HIT};")
    # The loop's body takes the index (I) first, then the array; the getter takes them in the other order.
    body = _signature(f"(I[{_HIT_IN_SIGNATURE}){_HIT_IN_SIGNATURE}")
    nth_hit = handles.permuteArguments(handles.arrayElementGetter(hits), body, 1, 0)
    on_hit = handles.filterArguments(action, 0, _field(_HIT, field, _java(kind).TYPE))
    loop = handles.countedLoop(handles.arrayLength(hits), None, handles.filterReturnValue(nth_hit, on_hit))
    return handles.filterArguments(loop, 0, _field("org.apache.lucene.search.TopDocs", "scoreDocs", hits))


def _method(owner: str, name: str, signature: str) -> Any:
    """(OWNER object, arguments) -> object.NAME(arguments)"""
    return _handles().publicLookup().findVirtual(_class(owner), name, _signature(signature))


def _field(owner: str, name: str, kind: Any) -> Any:
    """(OWNER object) -> object.NAME"""
    return _handles().publicLookup().findGetter(_class(owner), name, kind)


def _handles() -> Any:
    return _java("java.lang.invoke.MethodHandles")


def _signature(written: str) -> Any:
    return _java("java.lang.invoke.MethodType").fromMethodDescriptorString(written, None)


def _class(name: str) -> Any:
    """Return Java's own Class object, which lookups take."""
    return _java("java.lang.Class").forName(name)


def _java(name: str) -> Any:
    """Return a Java class to call from Python."""
    # Importing jnius starts the JVM.
    import jnius

    return jnius.autoclass(name)
