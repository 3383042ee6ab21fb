"""MS MARCO's passage files, with the splits of TREC's Deep Learning tracks.

.venv/bin/python -m pytest tests/datasets/test_msmarco.py
"""

import gzip

import pytest

from r2r.datasets import corpus_parts, read_qrels, read_queries
from r2r.errors import BadInput


@pytest.fixture
def folder(tmp_path):
    """A folder with the file names and formats of MS MARCO and TREC."""
    files = {
        "collection.tsv": "0\tThe presence of communication\n1\tThe Manhattan Project \n2\t\n",
        "queries.train.tsv": "121352\tdefine extreme\n634306\twhat does chattel mean\n",
        "queries.dev.small.tsv": "1048585\twhat is paula deen's brother\n",
        "queries.eval.tsv": "9\tnobody judged this\n",
        "qrels.train.tsv": "634306\t0\t1\t1\n",
        "qrels.dev.small.tsv": "1048585\t0\t2\t1\n",
        "msmarco-test2019-queries.tsv": "1108939\twhat slows the flow of blood\n1112389\twhat is the county\n",
        "2019qrels-pass.txt": "1108939 Q0 1 3\n1108939 Q0 0 0\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def _documents(folder, parts):
    return [document[:3] for part in corpus_parts(f"msmarco:{folder}", parts) for _, document in part.read()]


def test_passages(folder):
    expected = [("0", "", "The presence of communication"), ("1", "", "The Manhattan Project "), ("2", "", "")]
    assert _documents(folder, 1) == _documents(folder, 3) == _documents(f"file://{folder}", 2) == expected
    plain = folder / "collection.tsv"
    (folder / "collection.tsv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert sorted(_documents(folder, 2)) == expected


def test_splits(folder):
    def qids(split):
        return read_queries(f"msmarco:{folder}#{split}")["qid"].to_pylist()

    assert qids("train") == ["634306"]
    assert qids("dev.small") == ["1048585"]
    assert qids("eval") == ["9"]
    assert qids("dl19") == ["1108939"]
    assert read_qrels(f"msmarco:{folder}#dl19")["relevance"].to_pylist() == [3, 0]
    assert read_qrels(f"msmarco:{folder}#train").to_pylist() == [{"qid": "634306", "docid": "1", "relevance": 1}]


def test_judgements_that_repeat_are_told_where_they_are_read_as_judgements(folder, capsys):
    (folder / "qrels.train.tsv").write_text("634306\t0\t1\t1\n" * 2)
    read_queries(f"msmarco:{folder}#train")
    assert capsys.readouterr().err == ""
    read_qrels(f"msmarco:{folder}#train")
    assert "qrels.train.tsv: 1 judgements repeat an earlier one; each counts once" in capsys.readouterr().err


def test_without_a_split(folder):
    with pytest.raises(BadInput, match=r"/queries.tsv: no such file, .*; it has #dev.small, #eval, #train, #dl19$"):
        read_queries(f"msmarco:{folder}")
    (folder / "queries.tsv").write_text("1\twho\n2\twhat\n")
    assert read_queries(f"msmarco:{folder}").num_rows == 2
    (folder / "qrels.txt").write_text("2 0 1 1\n")
    assert read_queries(f"msmarco:{folder}").to_pylist() == [{"qid": "2", "query": "what"}]


def test_mistakes(folder):
    with (folder / "collection.tsv").open("a") as lines:
        lines.write("3\ta\ttab\n")
    with pytest.raises(BadInput, match=r"collection.tsv:4: has 3 columns; expected pid and passage"):
        _documents(folder, 2)
    (folder / "queries.train.tsv").write_text("634306\twho\n634306\twhat\n")
    with pytest.raises(BadInput, match=r"train.tsv:2: qid 634306 again, first in .*train.tsv:1;"):
        read_queries(f"msmarco:{folder}#train")
    (folder / "qrels.train.tsv").write_text("634306\t1\n")
    with pytest.raises(BadInput, match=r"qrels.train.tsv:1: has 2 columns"):
        read_qrels(f"msmarco:{folder}#train")
    (folder / "collection.tsv").unlink()
    with pytest.raises(BadInput, match=r"/collection.tsv: no such file, nor collection.tsv.gz$"):
        _documents(folder, 1)
    with pytest.raises(BadInput, match=r"^/nowhere: no such folder"):
        _documents("/nowhere", 1)
