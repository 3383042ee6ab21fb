"""A search over shards gives the same scores (bit for bit) and the same order as one index."""

import json
import math
import random
from collections import Counter

import pytest

from r2r.datasets import read_queries

# Number of shards -> the shares of the corpus at which they begin and end. Some shards are tiny, some are empty.
CUTS = {
    1: [0, 1],
    2: [0, 0.1, 1],
    4: [0, 0, 0.5, 0.55, 1],
    7: [0, 0.01, 0.2, 0.2, 0.6, 0.9, 1, 1],
}
SHARDS = [2, 4, 7]


@pytest.fixture(scope="module")
def scifact(lucene, data, tmp_path_factory):
    queries = read_queries(f"beir:{data / 'scifact'}")["query"].to_pylist()[:100]
    return _indexes(lucene, data / "scifact" / "corpus.jsonl", tmp_path_factory), queries


@pytest.fixture(scope="module")
def pool(lucene, data, tmp_path_factory):
    records = json.loads((data / "msmarco-dl19" / "bm25-top100.json").read_text())
    return _indexes(lucene, data / "msmarco-pool" / "corpus.jsonl", tmp_path_factory), [
        record["query"] for record in records
    ]


def _indexes(lucene, file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexes")
    for shards, cuts in CUTS.items():
        lucene("build", str(file), folder / str(shards), cuts)
    return folder


@pytest.mark.parametrize("collection", ["scifact", "pool"])
def test_every_number_of_shards_ranks_as_one_index(lucene, collection, request):
    folder, queries = request.getfixturevalue(collection)
    single = lucene("search", folder / "1", queries, 1000)
    assert sum(len(docids) for docids, _ in single) > 100 * len(queries)
    for docids, scores in single:
        pairs = list(zip(scores, docids, strict=True))
        assert pairs == sorted(pairs, reverse=True)
    for shards in SHARDS:
        assert lucene("search", folder / str(shards), queries, 1000) == single
    first = [(docids[:100], scores[:100]) for docids, scores in single]
    assert lucene("search", folder / str(SHARDS[-1]), queries, 100) == first


def test_scores_are_those_of_pyserini(lucene, scifact):
    folder, queries = scifact
    theirs = lucene("anserini", folder / "1" / "shards" / "00000" / "lucene", queries[:50], 100)
    for (docids, scores), expected in zip(lucene("search", folder / "7", queries[:50], 100), theirs, strict=True):
        common = [docid for docid in docids if docid in expected]
        # Pyserini orders equal scores in another way, so the ends of the two lists may differ.
        assert len(common) >= 95
        for docid, score in zip(docids, scores, strict=True):
            assert math.isclose(score, expected.get(docid, score), rel_tol=1e-4)


def test_merged_shards_score_the_same(lucene, scifact, tmp_path):
    folder, queries = scifact
    lucene("merge", folder / "7", tmp_path)
    assert lucene("search", tmp_path, queries, 100) == lucene("search", folder / "7", queries, 100)
    # Pyserini's searcher can open it too.
    merged = tmp_path / "shards" / "00000" / "lucene"
    single = folder / "1" / "shards" / "00000" / "lucene"
    assert lucene("anserini", merged, queries[:50], 100) == lucene("anserini", single, queries[:50], 100)


def _bm25(query: list[str], documents: dict[str, list[str]], k1: float, b: float) -> dict[str, float]:
    """Return docid -> BM25 by the formula, with exact document lengths."""
    average = sum(map(len, documents.values())) / len(documents)
    found = {}
    for docid, words in documents.items():
        counts = Counter(words)
        score = 0.0
        for word in query:
            df = sum(word in other for other in documents.values())
            idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
            tf = counts[word]
            if tf:
                score += idf * tf / (tf + k1 * (1 - b + b * len(words) / average))
        if score:
            found[docid] = score
    return found


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.75), (0.0, 0.4), (2.0, 1.0), (0.9, 0.0)])
def test_scores_follow_the_formula(lucene, corpus, tmp_path, k1, b):
    """Documents have at most 40 words, because Lucene stores such lengths exactly."""
    draw = random.Random(1)
    words = [f"w{number}" for number in range(30)]
    weights = [1 / rank for rank in range(1, 31)]
    documents = {f"d{number}": draw.choices(words, weights, k=draw.randint(1, 39)) for number in range(60)}
    # "alone" is in one shard only, "unknown" in none.
    documents["d59"].append("alone")
    queries = [["w0", "w3"], ["w29"], ["w5", "w5", "w5", "w1"], ["alone", "w2"], ["alone", "unknown"]]
    folder = corpus({docid: " ".join(text) for docid, text in documents.items()}).removeprefix("beir:")
    lucene("build", f"{folder}/corpus.jsonl", tmp_path / "index", [0, 0.3, 0.35, 0.35, 1])
    found = lucene("search", tmp_path / "index", [" ".join(query) for query in queries], 100, k1, b)
    for query, (docids, scores) in zip(queries, found, strict=True):
        expected = _bm25(query, documents, k1, b)
        assert dict(zip(docids, scores, strict=True)) == pytest.approx(expected, rel=1e-5)


def test_equal_scores_are_ordered_by_docid_also_where_the_list_is_cut(lucene, corpus, tmp_path):
    docids = ["d10", "d9", "d1", "z", "Z", "é", "日本", "d2", "a b"]
    folder = corpus(dict.fromkeys(docids, "the same words")).removeprefix("beir:")
    lucene("build", f"{folder}/corpus.jsonl", tmp_path / "index", [0, 0.2, 0.6, 1])
    for k in (3, 9, 20):
        ((found, scores),) = lucene("search", tmp_path / "index", ["same words"], k)
        assert found == sorted(docids, reverse=True)[:k]
        assert len(set(scores)) == 1


def test_very_many_equal_scores(lucene, corpus, tmp_path):
    """With few distinct scores, spread over all shards, the list for each k is the beginning of the whole list."""
    draw = random.Random(2)
    docids = [str(number) for number in range(400)]
    draw.shuffle(docids)
    texts = ["boat", "boat harbour", "boat harbour mast", "mast"]
    folder = corpus({docid: draw.choice(texts) for docid in docids}).removeprefix("beir:")
    lucene("build", f"{folder}/corpus.jsonl", tmp_path / "index", [0, 0.1, 0.5, 1])
    queries = ["boat", "harbour", "mast boat", "boat boat harbour"]
    whole = lucene("search", tmp_path / "index", queries, 400)
    for docids, scores in whole:
        pairs = list(zip(scores, docids, strict=True))
        assert pairs == sorted(pairs, reverse=True)
        assert len(set(scores)) <= len(texts)
    for k in range(1, 400, 13):
        cut = [(docids[:k], scores[:k]) for docids, scores in whole]
        assert lucene("search", tmp_path / "index", queries, k) == cut


def test_long_queries(lucene, corpus, tmp_path):
    documents = {f"d{number}": f"word{number} common" for number in range(50)}
    folder = corpus(documents).removeprefix("beir:")
    lucene("build", f"{folder}/corpus.jsonl", tmp_path / "index", [0, 0.5, 1])
    query = " ".join(f"word{number}" for number in range(5000)) + " word7" * 3
    ((docids, _),) = lucene("search", tmp_path / "index", [query], 100)
    assert len(docids) == 50
    assert docids[0] == "d7"


def test_queries_without_a_term_match_nothing(lucene, corpus, tmp_path):
    folder = corpus({"d1": "some words"}).removeprefix("beir:")
    lucene("build", f"{folder}/corpus.jsonl", tmp_path / "index", [0, 1, 1])
    queries = ["", "the of and", "?!", "unknown", "\0", "(a AND b) title:x~2 [* TO *]"]
    assert lucene("search", tmp_path / "index", queries, 10) == [([], [])] * len(queries)
