"""Index, queries from a server, and retrieve for the built-in world, all in an object store, each ended by SIGTERM in
the middle and run again: one line, status 143, no process left, and the same command goes on. No question is asked
twice, every drawn passage has an outcome, and retrieve takes the folder as its queries.

The other stages with models are terminated in the tests of their kills: annotate, distill, and rerank in a run
(test_dl19).
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from r2r import tables
from r2r.places import place
from r2r.teacher import queries
from tests.ending import terminate

pytestmark = pytest.mark.slow

R2R = str(Path(sys.executable).parent / "r2r")
PASSAGES, FIRST, SMALL = 30, 8, queries._SMALL_PASSAGE
# What the server was asked about, how often; and whether it may answer more than the first.
ASKED, LET_GO = Counter[str](), threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Writes the last words of a passage, or what says nothing about one in four. Holds back all after FIRST replies
    until it is let go."""

    def do_GET(self):
        self.answer({"data": [{"id": "the-model"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        passage = body["messages"][0]["content"].rpartition("Passage: ")[2].partition("\n\nAnswer in JSON")[0]
        # The first request of each job is a small one, by which it finds out what the server takes.
        if passage != SMALL:
            if len(ASKED) >= FIRST:
                LET_GO.wait(120)
            ASKED[passage] += 1
        vague = len(passage) % 4 == 0
        query = "what is the best one of all" if vague else f"{passage.splitlines()[0]}: {passage.split('. ')[-1]}"
        content = json.dumps({"query": query[:200]})
        usage = {"prompt_tokens": 9, "completion_tokens": 5}
        self.answer({"choices": [{"message": {"content": content}, "finish_reason": "stop"}], "usage": usage})

    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1"
    http.shutdown()
    http.server_close()


def test_queries_are_made_although_each_job_is_ended(server, store, tmp_path):
    log = tmp_path / "log"
    index, out, candidates = (f"s3://bucket/{name}" for name in ("index", "queries", "retrieve"))

    def goes_on(begun, *command):
        """Run a command, end it once `begun()` says so, and run it again."""

        def start():
            with log.open("ab") as both:
                env = os.environ | {"RAY_ADDRESS": "local"}
                return subprocess.Popen([R2R, *command], env=env, stdout=both, stderr=both, start_new_session=True)

        process = start()
        while not begun():
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.01)
        terminate(process, log)
        assert not store.keys(command[-1].removeprefix("s3://bucket/") + "/manifest.json")
        LET_GO.set()
        assert start().wait(timeout=300) == 0, log.read_text()[-3000:]

    def answered():
        return sum(store.objects[key].content.count(b"\n") for key in store.keys("queries/rows/")) >= FIRST

    goes_on(lambda: store.keys("index/shards/"), "index", "--corpus", "demo", "--shards", "2", "--out", index)
    LET_GO.clear()
    asks = ["--index", index, "--teacher", server, "--n", str(PASSAGES), "--in-flight", "4", "--out", out]
    goes_on(answered, "queries", "--corpus", "demo", *asks)
    retrieves = ["--index", index, "--queries", out, "--k", "20", "--out", candidates]
    goes_on(lambda: store.keys("retrieve/"), "retrieve", *retrieves)

    stats = json.loads((place(out) / "stats.json").read_text())
    found = {name: tables.read(out, name).to_pylist() for name in ("passages", "queries", "qrels", "rejects")}
    outcomes = [row["qid"] for name in ("queries", "rejects") for row in found[name]]
    assert sorted(outcomes) == sorted(row["qid"] for row in found["passages"]) and len(outcomes) == PASSAGES
    vague = {row["qid"] for row in found["passages"] if len(row["text"]) % 4 == 0}
    assert 0 < len(vague) <= len(found["rejects"]) and vague <= {row["qid"] for row in found["rejects"]}
    assert stats["corpus"]["documents"] == 2600 and stats["filtered"]["its passage is not found again"] >= len(vague)
    assert [row["qid"] for row in found["queries"]] == [row["qid"] for row in found["qrels"]]
    # Once each, but for those that were in flight.
    assert len(ASKED) == PASSAGES and sum(ASKED.values()) <= PASSAGES + 4
    docids = {row["qid"]: row["docids"] for row in tables.read(candidates, "candidates").to_pylist()}
    assert all(row["docid"] in docids[row["qid"]] for row in found["qrels"])
