"""Candidates from RankGPT's JSON and a stage's folder, TREC qrels, and dataset strings that are refused.

.venv/bin/python -m pytest tests/datasets/test_candidates.py
"""

import gzip
import json

import pytest

from r2r import tables
from r2r.datasets import read_candidates, read_qrels, read_queries
from r2r.errors import BadInput


def _record(qid="q1", docids=("d1", "d2")):
    hits = [{"content": f"text {docid}", "qid": qid, "docid": docid, "rank": 1, "score": 2.5} for docid in docids]
    return {"query": "who", "hits": hits}


def _write(file, records):
    file.write_text(
        json.dumps(records, indent=1) if file.suffix == ".json" else "\n".join(json.dumps(record) for record in records)
    )
    return f"rankgpt:{file}"


@pytest.mark.parametrize("name", ["list.json", "list.jsonl"])
def test_rankgpt(tmp_path, name):
    record = _record(qid=7, docids=("d2", 1))
    record["hits"][0]["rank"], record["hits"][1]["rank"] = 2, 1
    row = read_candidates(_write(tmp_path / name, [record])).to_pylist()
    assert row == [
        {"qid": "7", "query": "who", "docids": ["1", "d2"], "texts": ["text 1", "text d2"], "scores": [2.5, 2.5]}
    ]


@pytest.mark.parametrize(("name", "place"), [("list.json", "list.json: record 2"), ("list.jsonl", "list.jsonl:2")])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"query": "who", "hits": []}, "query 'who' has no hits"),
        ({"hits": [1]}, "has no query"),
        ({"query": "who", "hits": [{"content": "x", "qid": "q", "docid": "d"}]}, 'hit 1 has no "score"'),
        (_record("q2", ("d1", "d1")), "document d1 stands twice"),
        (_record("q1"), "qid q1 again, first in"),
    ],
)
def test_an_unsound_record_is_named(tmp_path, name, place, wrong, message):
    with pytest.raises(BadInput) as error:
        read_candidates(_write(tmp_path / name, [_record(), wrong]))
    assert f"{place}: {message}" in str(error.value)


def test_what_is_no_list_of_records(tmp_path):
    for text, message in {
        "[{]": "list.json:1: is not JSON",
        "{}": "list.json: holds no list",
        "[]": "no query",
    }.items():
        (tmp_path / "list.json").write_text(text)
        with pytest.raises(BadInput, match=message):
            read_candidates(f"rankgpt:{tmp_path / 'list.json'}")


def test_a_stage_folder(tmp_path):
    row = {"qid": "q1", "query": "who", "docids": ["d1"], "texts": ["t"], "scores": [1.0]}
    tables.write([row], tmp_path, "candidates")
    assert read_candidates(str(tmp_path)).to_pylist() == [row]
    for wrong, message in (
        ({"docids": [], "texts": [], "scores": []}, "row 2: qid q2: has no candidates"),
        ({"docids": None, "texts": None, "scores": None}, "row 2: qid q2: has no candidates"),
        ({"texts": []}, "row 2: qid q2: docids, texts and scores differ in length"),
        ({"qid": "q1"}, "row 2, qid q1: comes twice"),
    ):
        tables.write([row, row | {"qid": "q2"} | wrong], tmp_path, "candidates")
        with pytest.raises(BadInput, match=message):
            read_candidates(str(tmp_path))


def test_trec_qrels(tmp_path):
    file = tmp_path / "qrels.txt"
    file.write_text("q1 0 d1 2\nq1\tQ0\td2\t-1\n")
    assert [row["relevance"] for row in read_qrels(str(file)).to_pylist()] == [2, -1]
    for line, message in {"q1 0 d1": "has 3 columns", "q1 0 d1 x": "relevance 'x'"}.items():
        file.write_text(f"q1 0 d1 2\n{line}\n")
        with pytest.raises(BadInput, match=rf"qrels.txt:2: {message}"):
            read_qrels(str(file))


@pytest.mark.parametrize("name", ["qrels.txt", "qrels.txt.gz"])
def test_trec_qrels_as_other_programs_write_them(tmp_path, name):
    file = tmp_path / name
    content = b"\xef\xbb\xbfq1 0 d1 2.0\r\nq1 0 1.0 0\r\nq1 0 d1 2\r\n"
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert [tuple(row.values()) for row in read_qrels(str(file)).to_pylist()] == [("q1", "d1", 2), ("q1", "1.0", 0)]
    file.write_bytes((gzip.compress(content) if name.endswith(".gz") else b"q1 0 d1 2\nq1 0 d1 0\n")[:-8])
    with pytest.raises(BadInput, match=r"qrels.txt(.gz: cannot be read to its end|:2: has 1 columns)"):
        read_qrels(str(file))


def test_trec_and_beir_judgements_that_contradict(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels.txt").write_text("q1 0 d1 1\nq1 0 d2 1\nq1 0 d1 0\n")
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1.0\nq1\td1\t0\n")
    with pytest.raises(BadInput, match=r"qrels.txt:3: document d1 of query q1 has relevance 0, but 1 in .*txt:1;"):
        read_qrels(str(tmp_path / "qrels.txt"))
    with pytest.raises(BadInput, match=r"test.tsv:3: document d1 of query q1 has relevance 0, but 1 in .*tsv:2;"):
        read_qrels(f"beir:{tmp_path}")


def test_an_unknown_scheme_and_a_plain_path_where_none_is_known():
    with pytest.raises(
        BadInput, match=r"^bier:x: unknown scheme bier: for qrels; known here: .*beir:.*TREC qrels file"
    ):
        read_qrels("bier:x")
    with pytest.raises(BadInput, match=r"a plain path for queries; known here: .*beir:"):
        read_queries("some/folder")


def test_dl19(data):
    found = read_candidates(f"rankgpt:{data / 'msmarco-dl19' / 'bm25-top100.json'}").to_pylist()
    assert len(found) == 43
    assert {len(row["docids"]) for row in found} == {100}
    assert all(row["scores"] == sorted(row["scores"], reverse=True) for row in found)
    judged = {row["qid"] for row in read_qrels(str(data / "msmarco-dl19" / "qrels.txt")).to_pylist()}
    assert {row["qid"] for row in found} == judged
