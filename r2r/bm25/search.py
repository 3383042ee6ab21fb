"""Searches all shards of an index with exact BM25, in one worker.

Owns the query, the scores and the order of equal scores. Does not own the spreading of queries over workers or how
hits leave Java (`hits.py`). Lucene's MultiReader opens all shards as one index, so document frequencies, N and the
average length are those of the whole corpus, and every score equals that of a single index bit for bit. Shards that
are scored one by one and merged would differ by rounding, and ties would break at random.

    Searcher("runs/demo/index", k1=0.9, b=0.4, heap=512).search("who mends the boats", k=10)
"""

from __future__ import annotations

from typing import Any, NamedTuple

from r2r.bm25 import java
from r2r.bm25.hits import HitReader
from r2r.bm25.shard import CONTENTS, ID, analyzer, open_directory
from r2r.errors import BadInput
from r2r.identity import manifest_of
from r2r.places import Place, fetch, place


class Facts(NamedTuple):
    """What the manifest of an index says: its documents with text, its tokens, and the analyzer of all its texts."""

    documents: int
    tokens: int
    analyzer: str


def facts(index: str | Place) -> Facts:
    """Return what the manifest of an index says. Raises BadInput if there is no finished index."""
    try:
        found = manifest_of(place(index)) or {}
        # Earlier releases knew the English one alone.
        used = found["what"].get("analyzer", "en")
        return Facts(found["rows"]["documents"] - found["empty"], found["tokens"], used)
    except KeyError:
        raise BadInput(
            f"{index}: holds no finished index; build one with: r2r index --corpus … --out {index}"
        ) from None


class Hits(NamedTuple):
    """The documents found for a query, best first. Each text is the indexed one: title and text together."""

    docids: list[str]
    texts: list[str]
    scores: list[float]


class Searcher:
    """Searches the index in the folder `index`. Starts the JVM with `heap` MiB. For one thread.

    language: the index's analyzer, which queries need too. Raises BadInput if Lucene cannot open a shard.
    """

    def __init__(self, index: str | Place, k1: float, b: float, heap: int, language: str = "en"):
        autoclass = java.start(heap)
        readers = [_open_shard(shard) for shard in _shards(place(index))]
        self._reader = autoclass("org.apache.lucene.index.MultiReader")(readers, True)
        # A query has one clause per distinct term, and some queries have thousands of words.
        autoclass("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(2**31 - 1)
        self._searcher = autoclass("org.apache.lucene.search.IndexSearcher")(self._reader.getContext())
        self._searcher.setSimilarity(autoclass("org.apache.lucene.search.similarities.BM25Similarity")(k1, b))
        # Queries rarely repeat, so a cache would only cost time.
        self._searcher.setQueryCache(None)
        self._analyzer = analyzer(language)
        self._query_builder = autoclass("io.anserini.search.query.BagOfWordsQueryGenerator")()
        field = autoclass("org.apache.lucene.search.SortField")
        by_docid = field(ID, autoclass("org.apache.lucene.search.SortField$Type").STRING_VAL, True)
        self._by_score_then_docid = autoclass("org.apache.lucene.search.Sort")(field.FIELD_SCORE, by_docid)
        self._read = HitReader(self._searcher).read

    def statistics(self) -> tuple[int, int]:
        """Return the number of documents and the number of tokens in all shards."""
        return self._reader.numDocs(), max(0, self._reader.getSumTotalTermFreq(CONTENTS))

    def search(self, query: str, k: int) -> Hits:
        """Return the `k` best documents that match at least one term of the query; fewer if fewer match.

        The score is Lucene's BM25, which rounds document lengths to one byte: the sum over the query's terms t of
        count(t) * idf(t) * tf / (tf + k1 * (1 - b + b * length / average length)), with
        idf = ln(1 + (N - df + 0.5) / (df + 0.5)). Equal scores are ordered by docid, descending by code points. This
        is trec_eval's order, so a run file is read back in the order of the candidates.
        """
        terms = self._query_builder.buildQuery(CONTENTS, self._analyzer, query)
        # A search that also sorts equal scores takes three times as long. It is needed only if the list is cut between
        # equal scores, and one more hit shows that.
        docids, texts, scores = self._read(self._searcher.search(terms, k + 1))
        if len(scores) > k and scores[k - 1] == scores[k]:
            docids, texts, scores = self._read(self._searcher.search(terms, k, self._by_score_then_docid, True))
        # Python sorts by code points, which is the same order as Lucene's UTF-8 bytes.
        best = sorted(zip(scores[:k], docids, texts, strict=False), reverse=True)
        return Hits([docid for _, docid, _ in best], [text for _, _, text in best], [score for score, _, _ in best])

    def texts(self, docids: list[str]) -> dict[str, str]:
        """Return docid -> text of those documents that the index has."""
        import jnius

        reference = jnius.autoclass("org.apache.lucene.util.BytesRef")
        wanted = jnius.autoclass("java.util.Arrays").asList(*(reference(docid.encode()) for docid in docids))
        query = jnius.autoclass("org.apache.lucene.search.TermInSetQuery")(ID, wanted)
        found, texts, _ = self._read(self._searcher.search(query, len(docids)))
        return dict(zip(found, texts, strict=True))


def _shards(index: Place) -> list[Place]:
    """Return the folders of an index's shards. Its manifest counts them: a store's listing may be late."""
    if count := (manifest_of(index) or {}).get("shards"):
        return [index / "shards" / f"{number:05}" for number in range(count)]
    return sorted((index / "shards").glob("[0-9]*"))


def _open_shard(shard: Place) -> Any:
    import jnius

    folder = fetch(shard) / "lucene"
    try:
        return jnius.autoclass("org.apache.lucene.index.DirectoryReader").open(open_directory(folder))
    except jnius.JavaException as error:
        raise BadInput(f"{folder}: Lucene cannot open it: {str(error).splitlines()[0]}; build it again") from None
