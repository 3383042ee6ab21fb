"""Runs as TREC files and as JSON, their mistakes, and what a `run:` string says."""

import gzip
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r2r.datasets import runs
from r2r.datasets.runs import RunSpec, fused, open_run, parse_spec
from r2r.errors import BadInput


def hits(file) -> list[tuple]:
    return [hit for _, hit in open_run(str(file)).read()]


def test_text_and_json_hold_the_same_run(tmp_path):
    expected = [("q1", "d1", 2.5), ("q1", "d\u00a02", -1.0), ("q2", "d1", 3.0)]
    text = "\ufeffq1 Q0 d1 7 2.5 x\n\nq1\tQ0\td\u00a02 7 -1e0 x\r\nq2 Q0 d1 1 3 x"
    nested = {"q1": {"d1": 2.5, "d\u00a02": -1}, "q3": {}, "q2": {"d1": 3.0}}
    (tmp_path / "run.txt").write_text(text)
    (tmp_path / "run.gz").write_bytes(gzip.compress(text.encode()))
    # By its content, not by its name.
    (tmp_path / "run.trec").write_text(json.dumps(nested, indent=1))
    (tmp_path / "run.json.gz").write_bytes(gzip.compress(json.dumps(nested, ensure_ascii=False).encode()))
    ids, docids, scores = zip(*expected, strict=True)
    pq.write_table(pa.table({"q_id": ids, "doc_id": docids, "score": scores}), tmp_path / "run.parquet")
    for name in ("run.txt", "run.gz", "run.trec", "run.json.gz", "run.parquet"):
        assert hits(tmp_path / name) == expected


def test_ids_of_json_are_as_run_files_hold_them(tmp_path):
    (tmp_path / "run.json").write_text('{"a query": {"a\\tdocument": 1, "\\ud800": 2}}')
    assert hits(tmp_path / "run.json") == [("a%20query", "a%09document", 1.0), ("a%20query", "\ufffd", 2.0)]


@pytest.mark.parametrize("piece", [1, 7, 64])
def test_json_is_read_in_pieces(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(runs, "_PIECE", piece)
    nested = {f'q{number} "}}{{': {f"d{one}": one / 7 for one in range(number)} for number in range(1, 30)}
    (tmp_path / "run.json").write_text(json.dumps(nested))
    found: dict = {}
    for qid, docid, score in hits(tmp_path / "run.json"):
        found.setdefault(qid.replace("%20", " "), {})[docid] = score
    assert found == nested


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; a run is a text file with lines of 'qid Q0 docid rank score tag', or JSON"),
        ("q1 Q0 d1 1 2.5 x\nq1 d2 1\n", ":2: has 3 columns; a TREC run has lines of"),
        ("q1 Q0 d1 1 nan x\n", ":1: score 'nan' is not a number"),
        ("{}", "is empty"),
        ('{"q": {}}', "is empty"),
        ('{"q": {"d": 1}, "r": {"e": NaN}}', ": at query r: document e has the score nan; a number is needed"),
        ('{"q": {"d": "high"}}', ": at query q: document d has the score 'high'"),
        ('{"q": {"d": true}}', "has the score True"),
        ('{"q": {"d": ' + "9" * 400 + "}}", "document d has a score beyond 64-bit floats"),
        ('{"q": ' + "[" * 100_000, "is not JSON (nested too deeply)"),
        ("q1 Q0 d1 1 1_0 x\n", ":1: score '1_0' is not a number"),
        ("q1 Q0 d1 1 \u0661 x\n", ":1: score '\u0661' is not a number"),
        ('{"q": [["d", 1]]}', "at query q: its hits are no object"),
        ('{"q": {"": 1}}', "the document has the id ''"),
        ('{"q": {"d": 1}, "q": {"e": 1}}', "comes twice; a run has each query once"),
        ('{"q": {"d": 1}, "r": {"e"', "at query q: is not JSON"),
        ('{"q": {"d": 1}} {', "more follows the object"),
        ('{"q": {"d": 1} "r": {"e": 1}}', "is not JSON (expected ',')"),
        ('[{"query": "x", "hits": []}]', "holds a JSON list; candidates in RankGPT's JSON are rankgpt:"),
        (pickle.dumps({"q": {"d": 1.0}}), "is not text, perhaps a pickled run"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path, content, message):
    file = tmp_path / "run"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput) as error:
        hits(file)
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"q_id": ["1"], "doc_id": ["a"]}, "score"),
        ({"q_id": ["1"], "doc_id": ["a"], "score": ["high"]}, "row 1: score 'high': is no number"),
        ({"q_id": [None], "doc_id": ["a"], "score": [1.0]}, "row 1: the query has no id"),
        ({"q_id": [], "doc_id": [], "score": []}, "is empty"),
    ],
)
def test_mistakes_in_parquet_are_told_with_their_row(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "run.parquet")
    with pytest.raises(BadInput) as told:
        hits(tmp_path / "run.parquet")
    assert message in str(told.value)


@pytest.mark.parametrize("name", ["run.pkl", "run.pickle.gz", "run.lz4"])
def test_pickled_runs_are_refused_by_name(tmp_path, name):
    (tmp_path / name).write_text("q1 Q0 d1 1 2.5 x\n")
    with pytest.raises(BadInput, match=f"{name}: holds objects of a program, not text"):
        runs.check(str(tmp_path / name))


def test_what_a_string_says(tmp_path):
    said = "corpus=jsonl:c.jsonl#docid=id,text=contents,queries=jsonl:q.jsonl#qid=id,query=text,k=20"
    expected = RunSpec(["a.run"], "jsonl:q.jsonl#qid=id,query=text", "jsonl:c.jsonl#docid=id,text=contents", None, 20)
    assert parse_spec("a.run", said) == expected
    assert parse_spec("a+b", "queries=beir:q,index=runs/x") == RunSpec(["a", "b"], "beir:q", None, "runs/x")
    plus = tmp_path / "bm25+rm3.run"
    plus.touch()
    assert parse_spec(str(plus), "queries=beir:q,corpus=demo").files == [str(plus)]


@pytest.mark.parametrize(
    ("fragment", "message"),
    [
        ("", "cannot be read; write run:a.run#corpus=DATASET,queries=DATASET"),
        ("corpus=demo", "needs queries, and a corpus or an index"),
        ("queries=demo", "needs queries, and a corpus or an index"),
        ("queries=demo,corpus=demo,index=x", "needs queries, and a corpus or an index"),
        ("queries=demo,corpus=demo,corpus=demo", "cannot be read"),
        ("queries=demo,corpus=", "cannot be read"),
        ("queries=demo,corpus=demo,k=0", "k=0: a whole number from 1"),
        ("depth=3,queries=demo,corpus=demo", "cannot be read"),
    ],
)
def test_a_string_that_cannot_be_read(fragment, message):
    with pytest.raises(BadInput) as error:
        parse_spec("a.run", fragment)
    assert message in str(error.value)


def test_reciprocal_rank_fusion():
    one = [(9.0, "a"), (8.0, "b"), (7.0, "c")]
    two = [(0.3, "b"), (0.2, "d"), (0.1, "a")]
    best = fused([one, two])
    assert [docid for _, docid in best] == ["b", "a", "d", "c"]
    assert [score for score, _ in best] == pytest.approx([1 / 62 + 1 / 61, 1 / 61 + 1 / 63, 1 / 62, 1 / 63], rel=1e-6)
    # The same ranks in another order of runs are the same score, and the last docid is the first.
    orders = [[(1.0, name) for name in names] for names in ("abc", "bca", "cab")]
    assert [docid for _, docid in fused(orders)] == ["c", "b", "a"]
