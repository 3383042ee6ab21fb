"""Exact BM25 over the shards of an index, in one worker.

Owns the query, the scores, and the order of equal scores. Does not own how queries are spread over workers, nor how
hits come out of Java (`hits.py`). All shards are searched as one reader, Lucene's MultiReader, so every score is
computed from the statistics of the whole corpus: a term's document frequency is summed over the shards when it is
looked up, which a search does in any case, and N and the average length come with the index. Scores are therefore
those of a single index to the last bit, not only nearly: were shards scored apart and merged, rounding would break
ties at random.

    Searcher("runs/demo/index", k1=0.9, b=0.4, heap=512).search("who mends the boats", k=10)
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from r2r.bm25 import java
from r2r.bm25.hits import reader
from r2r.bm25.shard import CONTENTS, ID, analyzer, open_directory
from r2r.errors import BadInput


class Hits(NamedTuple):
    """The documents found for a query, best first; texts as they were indexed, title and text in one."""

    docids: list[str]
    texts: list[str]
    scores: list[float]


class Searcher:
    """Opens every shard of the index in the folder `index`; one a process, with a JVM of `heap` MiB."""

    def __init__(self, index: str | Path, k1: float, b: float, heap: int):
        autoclass = java.start(heap)
        readers = [_open(shard / "lucene") for shard in sorted(Path(index, "shards").glob("[0-9]*"))]
        self._reader = autoclass("org.apache.lucene.index.MultiReader")(readers, True)
        # A query holds as many clauses as it has different terms, and some run to thousands of words.
        autoclass("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(2**31 - 1)
        self._searcher = autoclass("org.apache.lucene.search.IndexSearcher")(self._reader.getContext())
        self._searcher.setSimilarity(autoclass("org.apache.lucene.search.similarities.BM25Similarity")(k1, b))
        # Queries do not come twice, so a cache would only cost.
        self._searcher.setQueryCache(None)
        self._analyzer = analyzer()
        self._queries = autoclass("io.anserini.search.query.BagOfWordsQueryGenerator")()
        field = autoclass("org.apache.lucene.search.SortField")
        by_docid = field(ID, autoclass("org.apache.lucene.search.SortField$Type").STRING_VAL, True)
        self._order = autoclass("org.apache.lucene.search.Sort")(field.FIELD_SCORE, by_docid)
        self._read = reader(self._searcher)

    def statistics(self) -> tuple[int, int]:
        """Return the number of documents and of tokens over all shards."""
        return self._reader.numDocs(), max(0, self._reader.getSumTotalTermFreq(CONTENTS))

    def search(self, query: str, k: int) -> Hits:
        """Return the `k` best documents, or as many as match at least one term of the query.

        The score is BM25 as Lucene computes it, with lengths kept in one byte: the sum over the query's terms t of
        count(t) * idf(t) * tf / (tf + k1 * (1 - b + b * length / average length)), with
        idf = ln(1 + (N - df + 0.5) / (df + 0.5)). Equal scores are ordered by docid, the last in code points first:
        trec_eval's order, so that a run file is read back in the order of the candidates.
        """
        terms = self._queries.buildQuery(CONTENTS, self._analyzer, query)
        # In the order of equal scores a search takes three times as long, and only where the list is cut does it matter
        # which of them Lucene finds: one hit more shows whether it does.
        docids, texts, scores = self._read(self._searcher.search(terms, k + 1))
        if len(scores) > k and scores[k - 1] == scores[k]:
            docids, texts, scores = self._read(self._searcher.search(terms, k, self._order, True))
        # Code points sort as Lucene's UTF-8 does.
        best_first = sorted(zip(scores[:k], docids, texts, strict=False), reverse=True)
        return Hits(*([hit[column] for hit in best_first] for column in (1, 2, 0)))


def _open(folder: Path):
    import jnius

    try:
        return jnius.autoclass("org.apache.lucene.index.DirectoryReader").open(open_directory(folder))
    except jnius.JavaException as error:
        raise BadInput(f"{folder}: Lucene cannot open it: {str(error).splitlines()[0]}; build it again") from None
