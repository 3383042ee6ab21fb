"""Tables on disk: columns, atomic writing, run files, and manifests that know whether a stage is done."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r2r import tables
from r2r.errors import BadInput

ROW = {"qid": "1", "query": "q", "docids": ["a", "b"], "texts": ["x", "y"], "scores": [2.0, 1.0]}


def test_a_table_is_read_as_it_was_written(tmp_path):
    tables.write([ROW], tmp_path, "candidates")
    assert tables.read(tmp_path, "candidates").to_pylist() == [ROW]


def test_writing_again_replaces_all_parts(tmp_path):
    tables.write_part([ROW], tmp_path, "candidates", "part-7")
    tables.write([ROW | {"qid": "2"}], tmp_path, "candidates")
    assert tables.read(tmp_path, "candidates")["qid"].to_pylist() == ["2"]


def test_an_empty_table_keeps_its_columns(tmp_path):
    tables.write([], tmp_path, "rejects")
    assert tables.read(tmp_path, "rejects").schema == tables.SCHEMAS["rejects"]


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(BadInput, match="holds no candidates table"):
        tables.read(tmp_path, "candidates")


def test_a_missing_column_and_a_wrong_type_are_named(tmp_path):
    (tmp_path / "queries").mkdir()
    file = tmp_path / "queries" / "a.parquet"
    pq.write_table(pa.table({"qid": ["1"]}), file)
    with pytest.raises(BadInput, match="column query is missing"):
        tables.read(tmp_path, "queries")
    pq.write_table(pa.table({"qid": ["1"], "query": [["not", "text"]]}), file)
    with pytest.raises(BadInput, match=r"a\.parquet") as error:
        tables.read(tmp_path, "queries")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_parquet_is_named(tmp_path):
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries" / "a.parquet").write_text("hello")
    with pytest.raises(BadInput, match=r"a\.parquet: not a Parquet file"):
        tables.read(tmp_path, "queries")


def test_a_failed_write_leaves_what_was_there(tmp_path):
    file = tmp_path / "out.txt"
    tables.write_text("old", file)
    with pytest.raises(RuntimeError), tables.replacing(file) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old"


def test_a_run_file_has_ranks_from_1_and_scores_that_stay_apart(tmp_path):
    row = ROW | {"docids": ["a", "b"], "scores": [1 / 1000, 1 / 1001]}
    tables.write_run([row], tmp_path / "run.txt", "tag")
    first, second = (line.split() for line in (tmp_path / "run.txt").read_text().splitlines())
    assert first[:4] + first[5:] == ["1", "Q0", "a", "1", "tag"] and second[2:4] == ["b", "2"]
    assert float(first[4]) > float(second[4])


def test_white_space_in_ids_does_not_break_a_run_file(tmp_path):
    row = ROW | {"qid": "1 a", "docids": ["a b/c", "tab\tand\nline"]}
    tables.write_run([row], tmp_path / "run.txt", "tag")
    lines = [line.split() for line in (tmp_path / "run.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == ["1%20a"] * 2 and [line[2] for line in lines] == [
        "a%20b/c",
        "tab%09and%0Aline",
    ]
