"""Documents that a collection excludes from a ranking do not reach the tables."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from r2r import tables
from r2r.bm25.index import build_index
from r2r.bm25.retrieve import retrieve
from r2r.config import IndexSettings, RetrieveSettings


def test_a_query_is_cut_to_k_after_its_exclusions(ray_local, tmp_path, monkeypatch):
    documents = {f"d{number}": "boat " * (9 - number) + "harbour " * number for number in range(9)}
    documents["odd"] = "lighthouse\x00 \U0001f600 \u2028 "
    examples = {
        "id": ["0", "1", "2", "3"],
        "query": ["boat", "boat", "lighthouse", "zeppelin"],
        "excluded_ids": [["d0", "d2", "elsewhere"], ["N/A"], ["N/A"], ["N/A"]],
        "gold_ids": [["d1"], ["d0"], ["odd"], ["d0"]],
    }
    for kind, columns in {
        "documents": {"id": list(documents), "content": list(documents.values())},
        "examples": examples,
    }.items():
        (tmp_path / kind).mkdir()
        pq.write_table(pa.table(columns), tmp_path / kind / "pony-00000-of-00001.parquet")
    monkeypatch.setenv("BRIGHT_DIR", str(tmp_path))

    build_index("bright:pony", str(tmp_path / "index"), IndexSettings(shards=2, workers=1, heap=256))
    retrieve(str(tmp_path / "index"), "bright:pony", str(tmp_path / "out"), RetrieveSettings(k=3, workers=1, heap=256))
    rows = {row["qid"]: row for row in tables.read(tmp_path / "out", "candidates").to_pylist()}
    assert rows["0"]["docids"] == ["d1", "d3", "d4"]
    assert rows["1"]["docids"] == ["d0", "d1", "d2"]
    assert [len(rows["0"][column]) for column in ("texts", "scores")] == [3, 3]
    assert rows["0"]["scores"][0] == rows["1"]["scores"][1]
    assert rows["0"]["texts"][0] == documents["d1"]
    assert rows["2"]["texts"] == [documents["odd"]]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    # The documents' ids, asked for as if they were queries of the same name.
    (tmp_path / "own.jsonl").write_text('{"qid": "d0", "query": "boat"}\n{"qid": "0", "query": "boat"}\n')
    settings = RetrieveSettings(k=2, workers=1, heap=256, remove_query=True)
    retrieve(str(tmp_path / "index"), f"jsonl:{tmp_path / 'own.jsonl'}", str(tmp_path / "own"), settings)
    own = {row["qid"]: row["docids"] for row in tables.read(tmp_path / "own", "candidates").to_pylist()}
    assert own == {"d0": ["d1", "d2"], "0": ["d0", "d1"]}
    assert (manifest["excluded"], manifest["rows"]) == (2, {"candidates": 3, "rejects": 1})
