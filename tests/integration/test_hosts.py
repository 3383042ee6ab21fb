"""Annotations on a cluster whose nodes are hosts of their own (`tests/hosts.py`): a worker is lost for good, and the
head is lost and comes back. Both end in the right tables.

The whole pipeline, and links that are down or slow, are in `benchmarks/hosts.py`.
"""

import io
import subprocess
import time

import pyarrow.parquet as pq
import pytest

from demo_models.world import world
from r2r import tables
from tests.hosts import lose, missing, restart, start
from tests.nodes import (
    HEAD,
    STORE,
    cluster,
    having,
    runs_ray,
    start_head,
    start_worker,
    submit,
    wait_for_nodes,
)
from tests.test_stores import upload

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"hosts of one machine: {missing()}"),
]

WORKERS = ["worker-1", "worker-2"]
ROWS, IN_FLIGHT, SECONDS = 60, 4, 0.8
# A teacher on the host of the store. It puts the longest passage first, and takes its time.
TEACHER = f"""
import json, re, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer({{"data": [{{"id": "the-model"}}]}})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        first = 1 + len(asked["messages"][0]["content"]) % 2
        reason = {{"direct_answer_sentence": "", "direct_reason": "It does."}}
        ranked = [reason | {{"identifier": first}}, reason | {{"identifier": 3 - first}}]
        time.sleep({SECONDS})
        usage = {{"prompt_tokens": 9, "completion_tokens": 5}}
        message = {{"content": json.dumps({{"ranked_passages": ranked}})}}
        self.answer({{"choices": [{{"message": message, "finish_reason": "stop"}}], "usage": usage}})
    def answer(self, body):
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    def log_message(self, *args):
        pass

ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


def annotate(hosts, folder, name):
    flags = "--passages 2 --reasoning direct --reason-chars 40 --actors 2 --cpus 1"
    command = ["python", "jobs/annotate.py", "--candidates", "s3://bucket/candidates", "--out", f"s3://bucket/{name}"]
    teacher = ["--teacher", f"http://{hosts[STORE].address}:8000/v1", "--in-flight", str(IN_FLIGHT)]
    return submit(hosts, [*command, *teacher, *flags.split()], folder / f"{name}.log")


def answered(store, name):
    return [line for key in store.keys(f"{name}/rows/") for line in store.objects[key].content.splitlines()]


def wait_for(true, seconds=120):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.2)


def check(store, name):
    files = [key for key in store.keys(f"{name}/annotations/") if key.endswith(".parquet")]
    rows = [row for key in files for row in pq.read_table(io.BytesIO(store.objects[key].content)).to_pylist()]
    assert sorted(row["qid"] for row in rows) == sorted(f"q{number}" for number in range(ROWS))
    # Each row was asked once, and again only if the host that asked it was lost.
    assert ROWS <= len(answered(store, name)) <= ROWS + IN_FLIGHT
    return sorted((row["qid"], row["ranking"]) for row in rows)


def test_a_lost_worker_and_a_lost_head_cost_no_row(tmp_path):
    texts, folder = [passage.text for passage in world().world.passages], tmp_path
    rows = [
        {"qid": f"q{at}", "query": texts[at][:30], "docids": ["a", "b"], "texts": texts[at : at + 2], "scores": [2, 1]}
        for at in range(ROWS)
    ]
    tables.write(rows, folder / "candidates", "candidates")
    with cluster(*WORKERS, checks=3) as (hosts, store):
        upload(store, folder / "candidates", "candidates")
        start(hosts[STORE], ["python", "-c", TEACHER], {}, stderr=subprocess.DEVNULL)
        job = annotate(hosts, folder, "first")
        wait_for(lambda: len(answered(store, "first")) > 10)
        # A worker's host would take the counts of all others with it.
        assert having(hosts, "ray::_Board") is hosts[HEAD]
        lose(hosts["worker-2"])
        assert job.wait(240) == 0, (folder / "first.log").read_text()[-3000:]
        first = check(store, "first")

        annotate(hosts, folder, "second")
        wait_for(lambda: len(answered(store, "second")) > 10)
        restart(hosts, HEAD)
        start_head(hosts)
        # A node knows a head that started again from the one that it joined, and ends.
        wait_for(lambda: not runs_ray(hosts["worker-1"]))
        start_worker(hosts, "worker-1")
        wait_for_nodes(hosts, 2)
        assert annotate(hosts, folder, "second").wait(240) == 0
        assert check(store, "second") == first
