"""Text files: cut into parts, plain or gzipped, with a byte order mark, damaged, on other file systems.

.venv/bin/python -m pytest tests/datasets/test_files.py
"""

import bz2
import gzip
import lzma
import os

import pytest

from r2r.datasets import corpus_parts, read_annotations, read_candidates, read_qrels, read_queries
from r2r.datasets.files import Lines, find, json_object, names, read_text, split, within
from r2r.datasets.runs import open_run
from r2r.errors import BadInput


def _texts(parts):
    return [line.rstrip(b"\r\n") for part in parts for _, line in part.read()]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("parts", [1, 2, 3, 7, 50])
def test_parts_hold_every_line_once_and_in_order(tmp_path, ending, last, parts):
    lines = [b"line %d %s" % (number, b"x" * (number * 7 % 23)) for number in range(20)]
    file = tmp_path / "lines"
    file.write_bytes(ending.join(lines) + (ending if last else b""))
    assert _texts(split(str(file), parts, bytes)) == lines


def test_parts_of_a_gzipped_file_hold_every_line_once(tmp_path):
    lines = [os.urandom(500).hex().encode() for _ in range(1000)]
    file = tmp_path / "lines.gz"
    file.write_bytes(gzip.compress(b"\n".join(lines)))
    parts = split(str(file), 3, bytes)
    assert sorted(_texts(parts)) == sorted(lines)
    assert all(_texts([part]) for part in parts)


@pytest.mark.parametrize("name", ["lines", "lines.gz"])
def test_a_mistake_is_named_by_file_and_line_in_whichever_part(tmp_path, name):
    content = b'{"a": 1}\n\n' * 40 + b'{"a": \n' + b'{"a": 1}\n' * 40
    file = tmp_path / name
    file.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    for parts in (1, 5):
        with pytest.raises(BadInput, match=rf"^{file}:81: is not JSON .*one JSON object$"):
            for part in split(str(file), parts, json_object):
                list(part.read())


def test_byte_order_mark_blank_lines_and_remote_addresses(tmp_path):
    file = tmp_path / "queries.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\n   \n{"a": 2}')
    for name in (str(file), f"file://{file}"):
        assert [row for _, row in Lines(name, json_object).read()] == [{"a": 1}, {"a": 2}]


def test_a_file_of_only_a_byte_order_mark_has_no_lines(tmp_path):
    (tmp_path / "lines").write_bytes(b"\xef\xbb\xbf\n")
    assert _texts([Lines(str(tmp_path / "lines"), bytes)]) == []


def test_a_whole_text_without_its_byte_order_mark(tmp_path):
    (tmp_path / "text.json").write_bytes(b"\xef\xbb\xbf[1]\n")
    assert read_text(str(tmp_path / "text.json")) == "[1]\n"


# Random ids, or gzip would make a file so small that one read takes all of it.
_IDS = [os.urandom(100).hex() for _ in range(10_000)]
_HITS = '{"query": "ID", "hits": [{"content": "", "qid": "ID", "docid": "d", "score": 1}]}'
_RECORDED = '{"qid": "ID", "query": "", "unsorted_docs": [], "sorted_docids": [], "re_rank_id": []}'


@pytest.mark.parametrize(
    ("file", "line", "read"),
    [
        ("corpus.jsonl.gz", '{"_id": "ID", "text": ""}', lambda folder: corpus_parts(f"beir:{folder}", 2)),
        ("queries.jsonl.gz", '{"_id": "ID", "text": ""}', lambda folder: read_queries(f"beir:{folder}")),
        ("collection.tsv.gz", "ID\t", lambda folder: corpus_parts(f"msmarco:{folder}", 2)),
        ("x.gz", '{"docid": "ID", "text": ""}', lambda folder: corpus_parts(f"jsonl:{folder}/x.gz", 1)),
        ("x.gz", "ID 0 ID 1", lambda folder: read_qrels(f"{folder}/x.gz")),
        ("x.jsonl.gz", _HITS, lambda folder: read_candidates(f"rankgpt:{folder}/x.jsonl.gz")),
        ("x.json.gz", "ID", lambda folder: read_candidates(f"rankgpt:{folder}/x.json.gz")),
        ("x.jsonl.gz", _RECORDED, lambda folder: read_annotations(f"teacher:{folder}/x.jsonl.gz")),
    ],
)
def test_a_gzipped_file_that_is_cut_off_is_named(tmp_path, file, line, read):
    whole = gzip.compress("".join(line.replace("ID", one) + "\n" for one in _IDS).encode())
    for content in (whole[: len(whole) // 2], whole[:-4]):
        (tmp_path / file).write_bytes(content)
        with pytest.raises(BadInput, match=rf"^{tmp_path}/{file}: cannot be read to its end: .*; copy or download it"):
            for part in read(tmp_path):
                list(part.read())


@pytest.mark.parametrize("line", [b"[1]", b'"text"', b"nonsense", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_a_line_that_holds_no_object(tmp_path, line):
    with pytest.raises(ValueError, match="one JSON object"):
        json_object(line)


def test_no_such_file(tmp_path):
    with pytest.raises(BadInput, match=r"nowhere: no such file"):
        split(str(tmp_path / "nowhere"), 2, bytes)


def test_files_of_a_folder_here_or_behind_an_address(tmp_path):
    (tmp_path / "a.tsv.gz").write_bytes(b"")
    (tmp_path / "b.tsv").write_bytes(b"")
    (tmp_path / "c").mkdir()
    for folder in (str(tmp_path), f"file://{tmp_path}", f"{tmp_path}/"):
        assert names(folder) == ["a.tsv.gz", "b.tsv"]
        assert find(folder, "a.tsv", "b.tsv") == within(folder, "a.tsv.gz")
        assert find(folder, "c.tsv") is None
    assert names(str(tmp_path / "b.tsv")) is names(str(tmp_path / "nowhere")) is None
    assert within("s3://bucket/data/?region=x", "a.tsv") == "s3://bucket/data/a.tsv?region=x"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(b"q1 0 d1 1"), r"is gzipped; end its name in \.gz"),
        (bz2.compress(b"q1 0 d1 1"), "is a bzip2 file; unpack it"),
        (lzma.compress(b"q1 0 d1 1"), "is an xz file; unpack it"),
        (b"\x28\xb5\x2f\xfd\x04", "is a zstd file; unpack it"),
        ("q1 0 d1 1".encode("utf-16"), "is text in UTF-16; write it in UTF-8"),
    ],
    # A gzip file holds the time: the tests' names would differ between processes.
    ids=["gzip", "bzip2", "xz", "zstd", "utf-16"],
)
def test_what_is_no_text_in_utf8_is_told_as_what_it_is(tmp_path, content, said):
    file = tmp_path / "file.json"
    file.write_bytes(content)
    for read in (read_text, lambda name: read_qrels(name), lambda name: read_annotations(f"teacher:{name}")):
        with pytest.raises(BadInput, match=f"^{file}: {said}"):
            read(str(file))
    with pytest.raises(BadInput, match=f"^{file}: {said}"):
        open_run(str(file))


def test_an_address_is_a_path_wherever_a_path_is(tmp_path):
    file = tmp_path / "qrels.gz"
    file.write_bytes(gzip.compress(b"\xef\xbb\xbfq1 0 d1 1.0\r\n"))
    assert read_qrels(f"file://{file}").to_pylist() == [{"qid": "q1", "docid": "d1", "relevance": 1}]


@pytest.mark.parametrize("name", ["q.jsonl", "candidates.jsonl", "candidates.json"])
def test_a_field_that_comes_twice_is_never_swallowed(tmp_path, name):
    line = '{"qid": "q1", "query": "one", "query": "two", "hits": []}'
    (tmp_path / name).write_text(f"[{line}]" if name.endswith(".json") else line)
    with pytest.raises(BadInput, match=rf"^{tmp_path / name}.* is not JSON \('query' stands twice in one object\)"):
        if name == "q.jsonl":
            read_queries(f"jsonl:{tmp_path / name}")
        else:
            read_candidates(f"rankgpt:{tmp_path / name}")


def test_a_file_that_is_gzipped_twice_is_named(tmp_path):
    file = tmp_path / "qrels.gz"
    file.write_bytes(gzip.compress(gzip.compress(b"q1 0 d1 1")))
    with pytest.raises(BadInput, match=rf"^{file}: is gzipped twice; unpack it once"):
        read_qrels(str(file))


def test_a_run_that_is_cut_off_is_named_as_it_is_opened(tmp_path):
    (tmp_path / "run.gz").write_bytes(gzip.compress(b"q1 Q0 d1 1 3.0 t\n")[:-9])
    with pytest.raises(BadInput, match=r"run\.gz: cannot be read to its end: .*; copy or download it again"):
        open_run(str(tmp_path / "run.gz"))
