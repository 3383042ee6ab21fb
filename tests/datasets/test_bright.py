"""BRIGHT's tasks, from BRIGHT_DIR or the cache of the Hugging Face hub.

.venv/bin/python -m pytest tests/datasets/test_bright.py
"""

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r2r.datasets import corpus_parts, read_excluded, read_qrels, read_queries
from r2r.errors import BadInput


@pytest.fixture
def copy(tmp_path):
    """A task in the layout and with the columns of the hub's data set, where N/A means no document."""
    documents = {"id": ["leetcode/1.txt", "two words", "x"], "content": ["one", "two", "three"]}
    examples = {
        "query": ["who", "what"],
        "reasoning": ["because", ""],
        "id": ["0", "1"],
        "excluded_ids": [["two words", "two words"], ["N/A"]],
        "gold_ids_long": [["N/A"], ["N/A"]],
        "gold_ids": [["leetcode/1.txt"], ["x", "two words"]],
        "gold_answer": ["N/A", "N/A"],
    }
    for kind, columns in {"documents": documents, "examples": examples}.items():
        (tmp_path / kind).mkdir()
        rows = pa.table(columns)
        pq.write_table(rows.slice(0, 1), tmp_path / kind / "leetcode-00000-of-00002.parquet")
        pq.write_table(rows.slice(1), tmp_path / kind / "leetcode-00001-of-00002.parquet")
    return tmp_path


@pytest.fixture(params=["BRIGHT_DIR", "the hub's cache"])
def task(request, copy, monkeypatch):
    monkeypatch.delenv("BRIGHT_DIR", raising=False)
    if request.param == "BRIGHT_DIR":
        monkeypatch.setenv("BRIGHT_DIR", str(copy))
        monkeypatch.setattr(huggingface_hub, "snapshot_download", _no_network)
    else:
        monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(copy))
    return "bright:leetcode"


def _no_network(*_, **__):
    raise ConnectionError("no network\nat all")


def test_a_task(task):
    for parts in (1, 2, 5):
        found = [document[:3] for part in corpus_parts(task, parts) for _, document in part.read()]
        assert found == [("leetcode/1.txt", "", "one"), ("two words", "", "two"), ("x", "", "three")]
    assert read_queries(task).to_pylist() == [{"qid": "0", "query": "who"}, {"qid": "1", "query": "what"}]
    assert [tuple(row.values()) for row in read_qrels(task).to_pylist()] == [
        ("0", "leetcode/1.txt", 1),
        ("1", "x", 1),
        ("1", "two words", 1),
    ]
    assert read_excluded(task) == {"0": {"two words"}}


def test_mistakes(monkeypatch, copy):
    monkeypatch.setenv("BRIGHT_DIR", str(copy))
    with pytest.raises(BadInput, match=r"^bright:leet: no task of BRIGHT; its tasks are biology, .* leetcode"):
        read_queries("bright:leet")
    with pytest.raises(BadInput, match="BRIGHT has no splits; leave out #test"):
        read_queries("bright:leetcode#test")
    with pytest.raises(BadInput, match=rf"no documents/pony-\*.parquet in {copy}; get xlangai/BRIGHT .* BRIGHT_DIR"):
        corpus_parts("bright:pony", 1)
    monkeypatch.delenv("BRIGHT_DIR")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", _no_network)
    with pytest.raises(BadInput, match=r"\(the hub cannot be read: no network\); get xlangai/BRIGHT .* BRIGHT_DIR"):
        corpus_parts("bright:pony", 1)
