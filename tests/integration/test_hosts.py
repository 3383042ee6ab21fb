"""Annotations on a cluster of hosts of their own (`tests/hosts.py`), with a network that fails: a link goes down for
half a minute, a worker is lost for good, the head is lost and comes back. Each ends in the right tables.

The whole pipeline, with more faults, is `benchmarks/hosts.py`.
"""

import json
import os
import sys
import time

import pyarrow.parquet as pq
import pytest

from demo_models.world import world
from r2r import tables
from tests.hosts import SHARED, lose, missing, restart, run, start
from tests.nodes import (
    ENV,
    HEAD,
    LAPTOP,
    STORE,
    cluster,
    having,
    runs_ray,
    start_head,
    start_worker,
    submit,
    wait_for_nodes,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"hosts of one machine: {missing()}"),
]

WORKERS = ["worker-1", "worker-2"]
ROWS, IN_FLIGHT, SECONDS = 160, 4, 1.0
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
    flags = "--passages 2 --reasoning direct --reason-chars 40 --actors 2 --cpus 1".split()
    command = ["python", "jobs/annotate.py", "--candidates", f"{SHARED}/candidates", "--out", f"{SHARED}/{name}"]
    teacher = ["--teacher", f"http://{hosts[STORE].address}:8000/v1", "--in-flight", str(IN_FLIGHT)]
    return submit(hosts, [*command, *teacher, *flags], folder / f"{name}.log")


def answered(out):
    return [line for file in out.glob("rows/*/*.jsonl") for line in file.read_bytes().splitlines()]


def wait_for(true, seconds=120):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.2)


def check(out):
    rows = pq.read_table(out / "annotations").to_pylist()
    assert sorted(row["qid"] for row in rows) == sorted(f"q{number}" for number in range(ROWS))
    # Each row was asked once, and again only if the host that asked it was lost.
    assert ROWS <= len(answered(out)) <= ROWS + IN_FLIGHT
    return sorted((row["qid"], row["ranking"]) for row in rows)


def test_links_workers_and_the_head_may_fail(tmp_path):
    texts, folder = [passage.text for passage in world().world.passages], tmp_path
    rows = [
        {"qid": f"q{at}", "query": texts[at][:30], "docids": ["a", "b"], "texts": texts[at : at + 2], "scores": [2, 1]}
        for at in range(ROWS)
    ]
    tables.write(rows, folder / "candidates", "candidates")
    begun = time.monotonic()
    def told(*words):
        print(f"{time.monotonic() - begun:.0f} s:", *words, flush=True)
    with cluster(*WORKERS, shared=folder) as hosts:
        told("up")
        start(hosts[STORE], ["python", "-c", TEACHER], {}, stderr=__import__("subprocess").DEVNULL)
        try:
            job, out = annotate(hosts, folder, "first"), folder / "first"
            wait_for(lambda: len(answered(out)) > 10)
            told("worker-1 is cut off")
            hosts["worker-1"].link.up = False
            lose(hosts["worker-2"])
            time.sleep(30)
            hosts["worker-1"].link.up = True
            told(len(answered(out)), "worker-1 is back")
            n = len(answered(out))
            wait_for(lambda: len(answered(out)) > n)
            told("and works")
            status = job.wait(240)
            told("status", status)
            assert status == 0, (folder / "first.log").read_text()[-3000:]
            first = check(out)

            job, out = annotate(hosts, folder, "second"), folder / "second"
            wait_for(lambda: len(answered(out)) > 10)
            told("the head is lost")
            restart(hosts, HEAD)
            start_head(hosts)
            told("head restarted")
            wait_for(lambda: not runs_ray(hosts["worker-1"]), 180)
            told("worker-1's node has ended")
            told("client", job.poll(), (folder/"second.log").read_text()[-1500:])
            for n in WORKERS:
                if n=="worker-2": restart(hosts, n)
                start_worker(hosts, n)
            wait_for_nodes(hosts, 3)
            told("again")
            status = annotate(hosts, folder, "second").wait(240)
            told("client first", job.poll(), "second", status)
            assert check(out) == first
        finally:
            for n, h in hosts.items():
                os.system(f"mkdir -p /tmp/x/{n}; cp -r /proc/{h.pid}/root/tmp/ray/session_latest/logs /tmp/x/{n} 2>/dev/null")
            os.system(f"cp {folder}/*.log /tmp/x")
