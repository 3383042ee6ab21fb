"""Collections whose fields the user names: jsonl: and parquet:.

.venv/bin/python -m pytest tests/datasets/test_columns.py
"""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r2r.datasets import corpus_parts, read_qrels, read_queries
from r2r.errors import BadInput

ROWS = [{"id": f"d{number}", "contents": f"text {number}", "other": number} for number in range(25)]
NAMES = "#docid=id,text=contents"


def _documents(spec, parts=1):
    return [document for part in corpus_parts(spec, parts) for _, document in part.read()]


@pytest.fixture(params=["jsonl", "jsonl.gz", "parquet", "folder"])
def write(request, tmp_path):
    """Write rows in one of the formats and return the dataset string."""

    def written(rows):
        if request.param == "folder":
            folder = tmp_path / "rows"
            folder.mkdir()
            (folder / "_SUCCESS").touch()
            for name, some in (("a.parquet", rows[:7]), ("b.parquet", rows[7:7]), ("c.parquet", rows[7:])):
                pq.write_table(pa.Table.from_pylist(some, schema=pa.Table.from_pylist(rows).schema), folder / name)
            return f"parquet:{folder}"
        file = tmp_path / f"rows.{request.param}"
        if request.param == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=4)
            return f"parquet:{file}"
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
        return f"jsonl:{file}"

    return written


@pytest.mark.parametrize("parts", [1, 2, 7, 40])
def test_a_corpus_with_names_of_its_own(write, parts):
    spec = write(ROWS)
    expected = [(row["id"], "", row["contents"], False) for row in ROWS]
    assert sorted(_documents(spec + NAMES, parts)) == sorted(expected)
    assert _documents(spec.replace(":", ":file://") + NAMES) == expected
    titled = _documents(f"{spec}{NAMES},title=id", parts)
    assert sorted(titled) == sorted((docid, docid, text, False) for docid, _, text, _ in expected)


def test_our_own_names_are_the_default(write):
    spec = write([{"docid": "d1", "title": "T", "text": "x"}, {"docid": "2", "title": None, "text": None}])
    assert _documents(spec) == [("d1", "T", "x", False), ("2", "", "", False)]


def test_queries_and_qrels(write):
    spec = write([{"qid": 1, "query": "who", "docid": "a b", "relevance": 2}])
    assert read_queries(spec).to_pylist() == [{"qid": "1", "query": "who"}]
    assert read_qrels(spec).to_pylist() == [{"qid": "1", "docid": "a b", "relevance": 2}]
    assert read_queries(f"{spec}#query=docid").to_pylist() == [{"qid": "1", "query": "a b"}]


def test_relevance_is_a_whole_number(write):
    row = {"qid": "q", "docid": "d", "relevance": 1.0}
    assert read_qrels(write([row])).to_pylist() == [row | {"relevance": 1}]


def test_ids_that_are_numbers(write):
    spec = write([{"qid": 1.0, "docid": 7.0, "relevance": "2.0"}, {"qid": 2.0, "docid": 8.0, "relevance": "1"}])
    assert [tuple(row.values()) for row in read_qrels(spec).to_pylist()] == [("1", "7", 2), ("2", "8", 1)]


@pytest.mark.parametrize("qid", [1.5, True, [1]])
def test_an_id_that_is_neither_text_nor_a_whole_number(write, qid):
    spec = write([{"qid": qid, "docid": "d", "relevance": 1}])
    with pytest.raises(BadInput, match=r"(:|row )1: the query has the id .*; write it as text, such as \"17\""):
        read_qrels(spec)


def test_judgements_that_repeat_count_once(write, capsys):
    row = {"qid": "q", "docid": "d", "relevance": 1}
    other = row | {"docid": "e"}
    spec = write([row, other, row])
    assert read_qrels(spec).to_pylist() == [row, other]
    assert "1 judgements repeat an earlier one" in capsys.readouterr().err


def test_judgements_that_contradict_name_both_places(write):
    row = {"qid": "q", "docid": "d", "relevance": 1}
    spec = write([row, row | {"docid": "e"}, row | {"relevance": 0}])
    with pytest.raises(BadInput, match=r"(:|row )3: document d of query q has relevance 0, but 1 in .*(:|row )1; keep"):
        read_qrels(spec)


@pytest.mark.parametrize("relevance", [1001, -1001, 10**12, "9" * 5000])
def test_a_relevance_that_is_no_grade(write, relevance):
    with pytest.raises(BadInput, match=r"(:|row )1: relevance -?[0-9]{4,20} is beyond 1,000: an id") as told:
        read_qrels(write([{"qid": "q", "docid": "d", "relevance": relevance}]))
    assert "\n" not in str(told.value)


def test_the_largest_grades(write):
    rows = [{"qid": "q", "docid": "d", "relevance": -1000}, {"qid": "q", "docid": "e", "relevance": 1000}]
    assert read_qrels(write(rows)).to_pylist() == rows


@pytest.mark.parametrize("relevance", [0.5, None, True, "high"])
def test_a_relevance_that_is_none(write, relevance):
    spec = write([{"qid": "q", "docid": "d", "relevance": relevance}])
    with pytest.raises(BadInput, match=rf"(:|row )1: relevance {relevance!r} is not a whole number"):
        read_qrels(spec)


def test_names_that_are_not_there(write):
    spec = write(ROWS)
    with pytest.raises(BadInput) as error:
        _documents(spec)
    assert 'has no "docid"; it has id, contents, other: say which of them is the docid, as in #docid=FIELD' in str(
        error.value
    )
    with pytest.raises(BadInput, match='has no "headline"'):
        _documents(f"{spec}{NAMES},title=headline")
    for wrong in ("#train", "#id=docid", "#docid="):
        with pytest.raises(
            BadInput, match=rf"^{wrong}: '{wrong[1:]}' names no column of corpus; .* #docid=FIELD,title="
        ):
            corpus_parts(spec + wrong, 1)


@pytest.mark.parametrize("parts", [1, 3])
def test_an_unsound_row_is_named_by_its_place(write, parts):
    spec = write([*ROWS[:20], {"id": "", "contents": "x", "other": 0}, *ROWS[20:]])
    with pytest.raises(BadInput) as error:
        _documents(spec + NAMES, parts)
    place = {"jsonl": ".jsonl:21: ", "jsonl.gz": ".jsonl.gz:21: ", "parquet": ".parquet: row 21: "}
    assert any(one in str(error.value) for one in [*place.values(), "c.parquet: row 14: "])
    assert "the document has the id ''" in str(error.value)


def test_a_qid_that_comes_twice_names_both_places(write):
    spec = write([{"qid": "q", "query": "who"}, {"qid": "p", "query": "x"}, {"qid": "q", "query": "what"}])
    with pytest.raises(BadInput, match=r"(:|row )3: qid q again, first in .*(:|row )1;"):
        read_queries(spec)


def test_broken_utf8_in_parquet_is_replaced_and_counted(tmp_path):
    broken = pa.array([b"caf\xe9", b"sound", None], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"docid": ["a", "b", "c"], "text": broken}), tmp_path / "x.parquet")
    found = _documents(f"parquet:{tmp_path / 'x.parquet'}")
    assert [(one.text, one.repaired) for one in found] == [("caf\ufffd", True), ("sound", False), ("", False)]


def test_parts_of_parquet_have_as_many_rows_each(tmp_path):
    table = pa.table({"docid": [str(number) for number in range(1000)], "text": ["x"] * 1000})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=300)
    parts = corpus_parts(f"parquet:{tmp_path}", 3)
    assert [part.size for part in parts] == [333, 333, 334]
    assert [at for part in parts for at, _ in part.read()] == list(range(1000))
    assert parts[1].place(500) == f"{tmp_path}/x.parquet: row 501"


def test_what_is_no_parquet(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(BadInput, match=r"x.parquet: is not a Parquet file, or a damaged one"):
        corpus_parts(f"parquet:{tmp_path}", 1)
    (tmp_path / "x.parquet").unlink()
    with pytest.raises(BadInput, match=r"holds no .parquet file"):
        corpus_parts(f"parquet:{tmp_path}", 1)
    with pytest.raises(BadInput, match=r"nowhere: no such file"):
        corpus_parts(f"parquet:{tmp_path}/nowhere", 1)
