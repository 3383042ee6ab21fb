"""BEIR's layout: documents, splits, mistakes with their place, remote and gzipped folders.

.venv/bin/python -m pytest tests/datasets/test_beir.py
"""

import gzip

import pytest

from r2r.datasets import corpus_parts, read_excluded, read_qrels, read_queries
from r2r.errors import BadInput


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "d1", "title": "T", "text": "one", "metadata": {}}\n'
        '{"_id": "d2", "text": "two"}\n'
        '{"_id": 3, "title": null, "text": ""}\n'
    )
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "who"}\n{"_id": "q2", "text": "what"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td1\t1\n")
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n")
    return tmp_path


def _documents(folder, parts=1):
    return [document[:3] for part in corpus_parts(f"beir:{folder}", parts) for _, document in part.read()]


def test_documents(folder):
    expected = [("d1", "T", "one"), ("d2", "", "two"), ("3", "", "")]
    assert _documents(folder) == _documents(folder, parts=5) == expected
    plain = folder / "corpus.jsonl"
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert _documents(folder) == expected


def test_the_fragment_names_the_split_and_test_is_the_default(folder):
    assert read_queries(f"beir:{folder}").to_pylist() == [{"qid": "q2", "query": "what"}]
    assert read_queries(f"beir:{folder}#train").to_pylist() == [{"qid": "q1", "query": "who"}]
    assert read_qrels(f"beir:{folder}#train").to_pylist() == [
        {"qid": "q1", "docid": "d1", "relevance": 2},
        {"qid": "q1", "docid": "d2", "relevance": 0},
    ]
    with pytest.raises(BadInput, match=r"has no qrels/dev.tsv for the split #dev; it has #test, #train"):
        read_queries(f"beir:{folder}#dev")


def test_judgements_that_repeat_are_told_where_they_are_read_as_judgements(folder, capsys):
    with (folder / "qrels" / "test.tsv").open("a") as qrels:
        qrels.write("q2\td1\t1\n" * 2)
    read_queries(f"beir:{folder}")
    assert capsys.readouterr().err == ""
    read_qrels(f"beir:{folder}")
    assert capsys.readouterr().err == f"{folder}/qrels/test.tsv: 2 judgements repeat an earlier one; each counts once\n"


def test_all_queries_where_there_are_no_qrels(folder):
    for file in (folder / "qrels").iterdir():
        file.unlink()
    (folder / "qrels").rmdir()
    assert read_queries(f"beir:{folder}").num_rows == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"}', "the document has no id"),
        ('{"_id": "", "text": "x"}', "the document has the id ''"),
        ('{"_id": "x"}', 'has no "text"'),
        ('{"_id": "x", "text": 5}', "its text is int; text is needed"),
        ('{"_id": "x", "text": "y"', "is not JSON"),
    ],
)
def test_an_unsound_document_is_named_by_its_line(folder, line, message):
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write(line + "\n")
    with pytest.raises(BadInput) as error:
        _documents(folder, parts=2)
    assert str(error.value).startswith(f"{folder}/corpus.jsonl:4: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_broken_unicode_is_replaced_and_counted(folder):
    (folder / "corpus.jsonl").write_bytes(
        b'{"_id": "a", "text": "caf\xe9"}\n{"_id": "b", "text": "\\ud83d!"}\n{"_id": "c", "text": "\\ud83d\\ude00"}\n'
    )
    (part,) = corpus_parts(f"beir:{folder}", 1)
    found = [(document.text, document.repaired) for _, document in part.read()]
    assert found == [("caf\ufffd", True), ("\ufffd!", True), ("\U0001f600", False)]


def test_a_qid_that_comes_twice_names_both_places(folder):
    with (folder / "queries.jsonl").open("a") as queries:
        queries.write('\n{"_id": "q1", "text": "again"}\n')
    with pytest.raises(BadInput, match=r"queries.jsonl:4: qid q1 again, first in .*queries.jsonl:1; "):
        read_queries(f"beir:{folder}")


@pytest.mark.parametrize(
    ("line", "message"), [("q1 d1 1", "has 1 columns"), ("q1\td1\tyes", "relevance 'yes' is not a whole number")]
)
def test_an_unsound_judgement_is_named_by_its_line(folder, line, message):
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\nq2\td1\t1\n{line}\n")
    with pytest.raises(BadInput, match=rf"test.tsv:3: {message}"):
        read_qrels(f"beir:{folder}")


def test_queries_and_qrels_that_do_not_belong_together(folder):
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nother\td1\t1\n")
    with pytest.raises(BadInput, match=r"queries.jsonl: split test: none of its queries is judged"):
        read_queries(f"beir:{folder}")


def test_missing_folder_and_files(folder):
    with pytest.raises(BadInput, match="/nowhere: no such folder; expected"):
        corpus_parts("beir:/nowhere", 1)
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(BadInput, match=r"corpus.jsonl: no such file, nor .*corpus.jsonl.gz"):
        corpus_parts(f"beir:{folder}", 1)


def test_a_folder_on_any_file_system_and_gzipped(folder):
    queries = folder / "queries.jsonl"
    (folder / "queries.jsonl.gz").write_bytes(gzip.compress(queries.read_bytes()))
    queries.unlink()
    spec = f"beir:file://{folder}"
    assert _documents(f"file://{folder}", parts=2) == _documents(folder)
    assert read_queries(f"{spec}#train").to_pylist() == [{"qid": "q1", "query": "who"}]
    assert read_qrels(spec).to_pylist() == [{"qid": "q2", "docid": "d1", "relevance": 1}]
    assert read_excluded(spec) == {}
    with pytest.raises(BadInput, match=r"has no qrels/dev.tsv for the split #dev; it has #test, #train"):
        read_qrels(f"{spec}#dev")
    for address in ("file:///nowhere", "nosuch://bucket/folder"):
        with pytest.raises(BadInput, match=rf"^{address}: (no such folder|cannot be opened)"):
            read_queries(f"beir:{address}")


def test_scifact(data):
    assert len(_documents(data / "scifact", parts=3)) == 5183
    assert read_queries(f"beir:{data / 'scifact'}").num_rows == 300
    assert read_qrels(f"beir:{data / 'scifact'}").num_rows == 339
