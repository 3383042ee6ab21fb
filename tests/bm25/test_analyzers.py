"""Analyzers of an index: the right answer of each case differs by analyzer. Emoji and rare letters through the JVM."""

import json
import typing

import pytest

from r2r import tables
from r2r.bm25.index import build_index
from r2r.bm25.retrieve import retrieve
from r2r.bm25.search import facts
from r2r.config import Analyzer, IndexSettings, RetrieveSettings
from r2r.datasets.runs import RunSpec
from r2r.firststage import retrieve_runs

# Analyzer -> documents, query, and what it finds; the English one finds something else.
CASES = {
    "ar": ({"a": "قرأت الكتاب", "b": "x"}, "كتاب", ["a"]),
    "de": ({"a": "Die Häuser am Fluss", "b": "Das Gebäude"}, "Haus", ["a"]),
    "fr": ({"a": "les chevaux blancs", "b": "x"}, "cheval", ["a"]),
    "ja": ({"a": "東京都に住む", "b": "京都に住む"}, "京都", ["b"]),
    "none": ({"a": "getName() x", "b": "getname x"}, "getName()", ["a"]),
    "ru": ({"a": "книги", "b": "x"}, "книга", ["a"]),
    "zh": ({"a": "北京大学", "b": "大小学校"}, "大学", ["a"]),
}


@pytest.mark.parametrize("language", CASES)
def test_the_answer_differs_by_analyzer(lucene, corpus, tmp_path, language):
    documents, query, expected = CASES[language]
    file = corpus(documents).removeprefix("beir:") + "/corpus.jsonl"
    for name in (language, "en"):
        lucene("build", file, tmp_path / name, [0, 0.5, 1], name)
    assert lucene("find", tmp_path / language, language, query) == expected
    assert lucene("find", tmp_path / "en", "en", query) != expected


def test_every_analyzer_works(lucene, corpus, tmp_path):
    file = corpus({"d": "boats 😀"}).removeprefix("beir:") + "/corpus.jsonl"
    for language in typing.get_args(Analyzer):
        lucene("build", file, tmp_path / language, [0, 1], language)
        assert lucene("find", tmp_path / language, language, "boats") == ["d"]


@pytest.mark.parametrize("language", ["en", "none"])
def test_characters_beyond_16_bits(lucene, corpus, tmp_path, language):
    documents = {"😀": "party 😀 𐌷yz", "𐍈x": "party 😁 𐍈𐌰"}
    file = corpus(documents).removeprefix("beir:") + "/corpus.jsonl"
    lucene("build", file, tmp_path / "index", [0, 1], language)
    for query, docid in {"😀": "😀", "𐌷yz": "😀", "𐍈𐌰": "𐍈x"}.items():
        assert lucene("find", tmp_path / "index", language, query) == [docid]
    assert lucene("texts", tmp_path / "index", [*documents, "other"]) == documents


def test_an_index_and_its_queries_share_an_analyzer(ray_local, corpus, tmp_path, capsys):
    spec = corpus({"a b": "Die Häuser am Fluss", "c": "Das Gebäude", "d": ""}, {"q": "Haus"})
    index, settings = tmp_path / "index", IndexSettings(shards=1, workers=1, heap=256)
    searching = RetrieveSettings(workers=1, heap=256)
    build_index(spec, index, settings.model_copy(update={"analyzer": "de"}))
    assert facts(index).analyzer == "de"
    retrieve(str(index), spec, tmp_path / "out", searching)
    (row,) = tables.read(tmp_path / "out", "candidates").to_pylist()
    assert row["docids"] == ["a b"]

    # A run with docids as run files hold them finds the texts of the index.
    (tmp_path / "run").write_text("q Q0 a%20b 1 2 x\nq Q0 c 1 3 x\n")
    retrieve_runs(RunSpec([str(tmp_path / "run")], spec, index=str(index)), tmp_path / "given", searching)
    (row,) = tables.read(tmp_path / "given", "candidates").to_pylist()
    assert row["docids"] == ["c", "a b"]
    assert row["texts"] == ["Das Gebäude", "Die Häuser am Fluss"]

    # The same documents with another analyzer are another index.
    before = json.loads((index / "manifest.json").read_text())
    build_index(spec, index, settings)
    after = json.loads((index / "manifest.json").read_text())
    assert facts(index).analyzer == "en"
    assert "analyzer" not in after["what"]
    assert before["content"] == f"{after['content']}:de"
    capsys.readouterr()
    with pytest.raises(Exception, match="no query matches any document"):
        retrieve(str(index), spec, tmp_path / "out", searching)
    assert "done already" not in capsys.readouterr().out
