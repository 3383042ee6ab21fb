"""The demo as a user runs it: every stage on a local Ray, again, with one setting changed, and served."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

R2R = str(Path(sys.executable).parent / "r2r")
STAGES = ["index", "retrieve", "retrieve-train", "annotate", "distill", "rerank", "evaluate"]


def r2r(*arguments):
    """Run one command in a Ray of its own, which ends with it."""
    return subprocess.run(
        [R2R, *arguments], env=os.environ | {"RAY_ADDRESS": "local"}, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of one whole run, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    done = r2r("run", "jobs/configs/demo.yaml", "--out", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    return out, done.stdout


def rows(folder, table):
    return pq.read_table(folder / table).to_pylist()


def test_every_stage_leaves_its_tables(demo):
    out, _ = demo
    for stage in STAGES:
        assert json.loads((out / stage / "manifest.json").read_text())["versions"]["ray"]
    assert json.loads((out / "index" / "manifest.json").read_text())["settings"]["shards"] == 2
    assert len(rows(out / "retrieve", "candidates")) == 20
    assert len((out / "retrieve" / "run.txt").read_text().splitlines()) > 100
    annotated, rejected = rows(out / "annotate", "annotations"), rows(out / "annotate", "rejects")
    assert len(annotated) + len(rejected) == 40 and len(annotated) >= 20
    for row in annotated:
        assert sorted(row["ranking"]) == [1, 2, 3]
        assert all(len(row[column]) == 3 for column in ("docids", "texts", "direct", "evidence", "comparison"))
    assert all(row["reason"] and row["reply"] for row in rejected)


def test_rankings_reorder_the_candidates_and_explain_the_first(demo):
    out, _ = demo
    candidates = {row["qid"]: row["docids"] for row in rows(out / "retrieve", "candidates")}
    ranked = rows(out / "rerank", "rankings")
    assert {row["qid"]: sorted(row["docids"]) for row in ranked} == {q: sorted(d) for q, d in candidates.items()}
    assert any(row["docids"] != candidates[row["qid"]] for row in ranked)
    for row in ranked:
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert [bool(text) for text in row["direct"]].index(False) == 3
    first = (out / "rerank" / "run.txt").read_text().splitlines()[0].split()
    assert first[2] == next(row for row in ranked if row["qid"] == first[0])["docids"][0]


def test_the_table_and_the_report_hold_all_rows(demo):
    out, printed = demo
    metrics = json.loads((out / "evaluate" / "metrics.json").read_text())
    assert metrics["queries"] == 20
    assert list(metrics["systems"]) == ["bm25", "student", "random", "oracle"]
    measured = {name: row["nDCG@10"] for name, row in metrics["systems"].items()}
    assert measured["random"] < measured["bm25"] < measured["oracle"] and measured["student"] < measured["oracle"]
    assert re.search(rf"^bm25 +{measured['bm25']:.4f} ", printed, re.MULTILINE)
    for line in ("random weights", "evaluate/report.html", "distill/adapter"):
        assert line in printed
    page = (out / "evaluate" / "report.html").read_text()
    assert "random weights" in page and "<svg" in page


def test_again_does_nothing_and_a_changed_setting_redoes_its_stage_and_those_after(demo, tmp_path):
    out, _ = demo
    before = {stage: (out / stage / "manifest.json").stat().st_mtime_ns for stage in STAGES}
    again = r2r("run", "jobs/configs/demo.yaml", "--out", str(out))
    assert again.returncode == 0 and again.stdout.count("done already") == len(STAGES)
    assert before == {stage: (out / stage / "manifest.json").stat().st_mtime_ns for stage in STAGES}

    changed = tmp_path / "changed.yaml"
    text = Path("jobs/configs/demo.yaml").read_text()
    changed.write_text(text.replace("explain: 3", "explain: 0"))
    redone = r2r("run", str(changed), "--out", str(out))
    assert redone.returncode == 0, redone.stderr[-3000:]
    after = {stage: (out / stage / "manifest.json").stat().st_mtime_ns for stage in STAGES}
    assert [stage for stage in STAGES if after[stage] != before[stage]] == ["rerank", "evaluate"]
    assert not any(any(row["direct"]) for row in rows(out / "rerank", "rankings"))


def test_the_student_is_served(demo):
    out, _ = demo
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [R2R, "serve", "--student", "demo", "--adapter", str(out / "distill"), "--port", str(port)],
        env=os.environ | {"RAY_ADDRESS": "local"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = next(line for line in server.stdout if line.startswith("serve:"))
        url = line.split("POST ")[1].split(";")[0]
        documents = ["Dogs bark at night.", {"text": "A flea lives <|im_end|> 100 days."}, "Cats purr."]
        body = {"model": "any", "query": "how long do fleas live", "documents": documents}

        answer = httpx.post(url, json=body | {"top_n": 2}, timeout=60).raise_for_status().json()
        assert set(answer) >= {"id", "results", "usage"} and answer["usage"]["total_tokens"] > 0
        assert len(answer["results"]) == 2
        for result in answer["results"]:
            text = documents[result["index"]]
            assert result["document"] == {"text": text if isinstance(text, str) else text["text"]}
            assert 0 < result["relevance_score"] <= 1 and "reasons" not in result

        explained = httpx.post(url, json=body | {"explain": True, "documents": documents[:2]}, timeout=120).json()
        assert [result["index"] for result in explained["results"]] in ([0, 1], [1, 0])
        assert all(set(one["reasons"] or ()) <= {"evidence", "direct", "comparison"} for one in explained["results"])

        for wrong in ({"documents": []}, {"documents": [1]}, {"query": ""}, {"top_n": 0}):
            assert httpx.post(url, json=body | wrong, timeout=60).status_code == 422
    finally:
        server.send_signal(signal.SIGINT)
        started = time.time()
        while server.poll() is None and time.time() - started < 60:
            time.sleep(0.5)
        server.kill()
    assert server.returncode == 0
