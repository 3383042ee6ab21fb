"""The demo as a user runs it, smaller: as a job on a cluster of three nodes, whose run lies in an object store; then,
copied to a disk, on one machine with a setting changed, and served. What the student learns from its teacher is
measured: a loss, a prompt or windows that break show here.

Owns the nodes that it starts, on loopback, each with ports of its own, and ends them by process id: `ray stop` would
end every Ray of this machine. They are set up as cluster.yaml does it: the head does no work, and nobody gets in
without the token.
"""

import asyncio
import ipaddress
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import grpc
import httpx
import psutil
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from demo_models import truth
from demo_models.world import world
from r2r import builtin, datasets
from r2r.llm.prompt import chat_ids, load_tokenizer
from r2r.nodecache import CACHE_VARIABLE
from r2r.places import MARKER
from r2r.student.prompt import label_ids, prompt, rename_brackets
from tests import s3
from tests.test_stores import upload

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
R2R, RAY = str(BIN / "r2r"), str(BIN / "ray")
# Loopback addresses, one for each node. For 127.0.0.1 Ray would take the outer address of this machine.
HEAD, *WORKERS = "127.0.0.2", "127.0.0.3", "127.0.0.4"
STAGES = ["index", "retrieve", "retrieve-train", "annotate", "distill", "rerank", "rerank-zero-shot", "annotate-test"]
STAGES += ["evaluate"]
# What is smaller than in the run file: training queries and steps, and the queries that are ranked.
TRAIN, QUERIES = "demo#train200", 50
STEPS = 110


class Cluster(NamedTuple):
    dashboard: str
    env: dict[str, str]


def free_ports(count: int) -> list[int]:
    # All are held until the last one is known, so that no two are the same.
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def start_node(env: dict[str, str], address: str, temp: str, *flags: str) -> subprocess.Popen:
    names = ("node-manager", "object-manager", "runtime-env-agent", "dashboard-agent-listen", "metrics-export")
    ports = [f"--{name}-port={port}" for name, port in zip(names, free_ports(len(names)), strict=True)]
    # Worker ports of 0 are picked by the system; Ray's default is one range for all nodes of the machine.
    ports += ["--min-worker-port=0", "--max-worker-port=0"]
    # Folders of its own, as on a machine of its own: two nodes that unpack a job's code into one folder take it away
    # from under the running job.
    own = [f"--temp-dir={temp}/{address}", "--object-store-memory=200000000"]
    command = [RAY, "start", "--block", f"--node-ip-address={address}", *ports, *own, *flags]
    cache = {CACHE_VARIABLE: f"{temp}/{address}/cache"}
    return subprocess.Popen(command, env=env | cache, start_new_session=True)


def end(nodes: list[subprocess.Popen]) -> None:
    """End what `ray start --block` started, of which Ray puts some into sessions of their own."""
    processes = []
    for node in nodes:
        with suppress(psutil.NoSuchProcess):
            processes += [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    for node in nodes:
        node.terminate()
    _, alive = psutil.wait_procs(processes, timeout=20)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=20)


def nodes_alive(cluster: Cluster) -> int:
    request = urllib.request.Request(
        f"{cluster.dashboard}/api/v0/nodes", headers={"Authorization": f"Bearer {cluster.env['RAY_AUTH_TOKEN']}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        nodes = json.load(answer)["data"]["result"]["result"]
    return sum(node["state"] == "ALIVE" for node in nodes)


def wait_for_nodes(cluster: Cluster, count: int, newest: subprocess.Popen) -> bool:
    """Return whether `count` nodes are alive, once they are or the newest has given up."""
    deadline = time.monotonic() + 120
    while newest.poll() is None and time.monotonic() < deadline:
        # The dashboard takes its time to come up, and may not know the nodes at first.
        with suppress(OSError):
            if nodes_alive(cluster) == count:
                return True
        time.sleep(1)
    return False


@contextmanager
def cluster(home: Path, store: dict[str, str]) -> Iterator[Cluster]:
    """Start three nodes, and end them again. store: what the environment says of the object store."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Another HOME keeps this cluster's token apart from the user's own; the caches stay, since what they hold is slow
    # to make.
    env.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    env |= {
        "HOME": str(home),
        "PATH": f"{BIN}{os.pathsep}{env['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        **store,
    }
    gcs, dashboard, client = free_ports(3)
    started = Cluster(f"http://127.0.0.1:{dashboard}", env)
    # Not under pytest's folder: a socket's path may not be longer than 107 characters.
    temp = tempfile.mkdtemp(prefix="r2r-")
    head = [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    nodes = [start_node(env, HEAD, temp, "--head", "--num-cpus=0", *head)]
    try:
        assert wait_for_nodes(started, 1, nodes[-1])
        for count, address in enumerate(WORKERS, start=2):
            # Ray gives a node 30 seconds to join, which a busy machine may need more than once.
            for _ in range(3):
                nodes.append(start_node(env, address, temp, f"--address={HEAD}:{gcs}", "--num-cpus=2"))
                if joined := wait_for_nodes(started, count, nodes[-1]):
                    break
            assert joined
        yield started
    finally:
        end(nodes)
        shutil.rmtree(temp, ignore_errors=True)


def r2r(*arguments):
    """Run one command in a Ray of its own, which ends with it."""
    return subprocess.run(
        [R2R, *arguments], env=os.environ | {"RAY_ADDRESS": "local"}, capture_output=True, text=True, timeout=2400
    )


def few(folder: Path, split: str, count: int) -> str:
    """Write the first queries of one of the world's splits, and their judgements. Return their dataset."""
    built = f"demo#{split}"
    queries = datasets.read_queries(built).to_pylist()[:count]
    judged = [row for row in datasets.read_qrels(built).to_pylist() if row["qid"] in {one["qid"] for one in queries}]
    (folder / split / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": row["qid"], "text": row["query"]}) for row in queries]
    (folder / split / "queries.jsonl").write_text("\n".join(lines) + "\n")
    lines = ["query-id\tcorpus-id\tscore", *(f"{row['qid']}\t{row['docid']}\t{row['relevance']}" for row in judged)]
    (folder / split / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return f"beir:{folder / split}"


def smaller(file: Path, queries: str, **changes) -> Path:
    settings = yaml.safe_load(Path("jobs/configs/demo.yaml").read_text())
    settings |= {"train_queries": TRAIN, "queries": queries, "qrels": queries}
    settings["distill"] |= {"steps": STEPS}
    # Another test runs beside this one: an engine with a thread for each CPU would wait for it at every step.
    settings["annotate"] |= {"cpus": 1}
    settings["rerank"] |= {"cpus": 1} | changes
    # Where none are written, there are none to judge.
    settings["judge_reasons"] = settings["rerank"]["explain"] > 0
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of one whole run, copied from the store that it was made in, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    file = smaller(out.parent / "smaller.yaml", few(out.parent / "few", "dev", QUERIES))
    with s3.serving() as store, cluster(tmp_path_factory.mktemp("home"), store.environment()) as started:
        submit = [RAY, "job", "submit", "--address", started.dashboard, "--working-dir", ".", "--"]
        pipeline = ["python", "jobs/pipeline.py", str(file), "--out", "s3://bucket/runs/demo"]
        job = subprocess.run(
            [*submit, *pipeline], cwd=ROOT, env=started.env, capture_output=True, text=True, timeout=2400
        )
        assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-3000:]
        assert nodes_alive(started) == 3
        # Nothing of the training's own is left, and the objects of the journals were put together.
        assert not store.keys("runs/demo/distill/checkpoints")
        assert all(0 < len(store.keys(f"runs/demo/{name}/rows/")) <= 8 for name in ("annotate", "rerank"))
    for key in store.keys("runs/demo/"):
        copy = out.parent / key.removeprefix("runs/")
        if copy.name != MARKER:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(store.objects[key].content)
    return out, job.stdout


def rows(folder, table):
    return pq.read_table(folder / table).to_pylist()


def test_every_stage_leaves_its_tables(demo):
    out, _ = demo
    for stage in STAGES:
        assert json.loads((out / stage / "manifest.json").read_text())["versions"]["ray"]
    assert json.loads((out / "index" / "manifest.json").read_text())["settings"]["shards"] == 2
    assert len(rows(out / "retrieve", "candidates")) == QUERIES
    assert len((out / "retrieve" / "run.txt").read_text().splitlines()) > QUERIES
    annotated, rejected = rows(out / "annotate", "annotations"), rows(out / "annotate", "rejects")
    assert len(annotated) + len(rejected) == 200 and len(rejected) <= 4
    for row in annotated:
        assert sorted(row["ranking"]) == [*range(1, 9)]
        assert all(len(row[column]) == 8 for column in ("docids", "texts", "direct", "evidence", "comparison"))
    assert all(row["reason"] and row["reply"] for row in rejected)


def test_rankings_reorder_the_candidates_and_explain_the_first(demo):
    out, _ = demo
    candidates = {row["qid"]: row["docids"] for row in rows(out / "retrieve", "candidates")}
    ranked = rows(out / "rerank", "rankings")
    assert {row["qid"]: sorted(row["docids"]) for row in ranked} == {q: sorted(d) for q, d in candidates.items()}
    assert any(row["docids"] != candidates[row["qid"]] for row in ranked)
    for row in ranked:
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert not any(row["direct"][3:])
    assert sum(map(bool, (text for row in ranked for text in row["direct"][:3]))) > 0.95 * 3 * len(ranked)
    first = (out / "rerank" / "run.txt").read_text().splitlines()[0].split()
    assert first[2] == next(row for row in ranked if row["qid"] == first[0])["docids"][0]


def test_the_table_and_the_report_hold_all_rows(demo):
    out, printed = demo
    metrics = json.loads((out / "evaluate" / "metrics.json").read_text())
    assert metrics["queries"] == QUERIES
    assert list(metrics["systems"]) == ["bm25", "zero-shot", "student", "teacher", "random", "oracle"]
    measured = {name: row["nDCG@10"] for name, row in metrics["systems"].items()}
    assert measured["random"] < measured["bm25"] < measured["oracle"]
    assert re.search(rf"^bm25 +{measured['bm25']:.4f} ", printed, re.MULTILINE)
    for line in ("made-up world", "evaluate/report.html", "distill/adapter"):
        assert line in printed
    page = (out / "evaluate" / "report.html").read_text()
    assert "made-up world" in page and "<svg" in page


def test_the_student_learns_to_rank_from_its_teacher(demo):
    out, _ = demo
    metrics = json.loads((out / "evaluate" / "metrics.json").read_text())
    measured = {name: row["nDCG@10"] for name, row in metrics["systems"].items()}
    bm25, base, student, teacher = (measured[name] for name in ("bm25", "zero-shot", "student", "teacher"))
    print(measured)
    assert 0.4 <= bm25 <= 0.75
    assert base <= bm25 + 0.05
    assert teacher >= bm25 + 0.12
    # It is at 1.08 of the way from bm25 to its teacher; with windows that do not overlap, at .62.
    assert student >= bm25 + 0.75 * (teacher - bm25) and student >= base + 0.12


def test_the_student_learns_to_explain_from_its_teacher(demo):
    out, _ = demo
    found = json.loads((out / "evaluate" / "manifest.json").read_text())["explanations"]
    assert found["explained"] > 0.95 * 3 * QUERIES
    assert found["evidence_verbatim"] > 0.95 and found["neighbours"] > 0.95
    # So much the form of the reply ensures; that it says what is true of a passage must be learned.
    made = world()
    queries, passages = {one.qid: one for one in made.queries["dev"]}, {one.docid: one for one in made.world.passages}
    explained = [
        (queries[row["qid"]], passages[docid], direct, evidence)
        for row in rows(out / "rerank", "rankings")
        for docid, direct, evidence in zip(row["docids"], row["direct"], row["evidence"], strict=True)
        if direct
    ]
    direct = sum(said == truth.direct(query, passage) for query, passage, said, _ in explained) / len(explained)
    evidence = sum(said == truth.evidence(query, passage) for query, passage, _, said in explained) / len(explained)
    print(found, direct, evidence)
    # With no evidence at all, .53 of it would be right.
    assert direct > 0.3 and evidence > 0.6


def test_the_reasons_are_measured_beside_the_teachers(demo):
    out, printed = demo
    found = json.loads((out / "judge" / "measures.json").read_text())
    assert found["measures"]["verbatim"]["value"] > 0.95 and found["measures"]["consistency"]["noticed"]
    assert found["against"]["teacher"]["verbatim"]["n"] > QUERIES
    page = (out / "judge" / "report.html").read_text()
    assert "Systems beside each other" in page and "<th>teacher</th>" in page
    assert "judge/report.html" in printed


def test_every_loss_falls(demo):
    # The order can be learned from the reply's tokens alone, so the table does not show whether each loss is at work.
    out, _ = demo
    steps = [json.loads(line) for line in (out / "distill" / "steps.jsonl").read_text().splitlines()]
    for loss in ("pairwise", "listwise", "generation"):
        values = [step[loss] for step in steps if loss in step]
        assert sum(values[-20:]) < 0.7 * sum(values[:20]), loss


def test_the_student_does_not_trust_the_first_labels(demo):
    # Candidates come best first, so a student that is taught in that order prefers the first of passages that are all
    # the same.
    out, _ = demo
    base = builtin.model("demo", "student")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out / "distill" / "adapter").eval()
    tokenizer = load_tokenizer(base)
    labels = label_ids(tokenizer, base)[:8]
    chances = torch.zeros(8)
    for row in rows(out / "retrieve", "candidates"):
        ids = chat_ids(tokenizer, prompt(row["query"], row["texts"][:1] * 8))
        with torch.no_grad():
            chances += model(torch.tensor([ids])).logits[0, -1, labels].softmax(-1) / QUERIES
    print(chances)
    assert chances[4:].sum() > 1 / 3


@pytest.fixture(scope="module")
def explained(demo):
    """The cluster's rankings by qid, with reasons; `elsewhere` makes them again without."""
    out, _ = demo
    return {row["qid"]: row for row in rows(out / "rerank", "rankings")}


@pytest.fixture(scope="module")
def elsewhere(demo, explained, tmp_path_factory):
    """The cluster's run, gone on in a Ray of this machine, without reasons and with two more collections, of which one
    is broken: what it printed, the time of each stage's manifest before it, and the folder of its run files and
    collections."""
    out, _ = demo
    folder = tmp_path_factory.mktemp("elsewhere")
    before = {stage: (out / stage / "manifest.json").stat().st_mtime_ns for stage in STAGES}
    passages = world().world.passages[:9]
    lines = [json.dumps({"_id": one.docid, "title": "", "text": one.shown}) for one in passages]
    for name, last in {"broken": ["hello"], "small": []}.items():
        (folder / name / "qrels").mkdir(parents=True)
        (folder / name / "corpus.jsonl").write_text("\n".join([*lines, *last]) + "\n")
        (folder / name / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": passages[0].shown[:40]}) + "\n")
        (folder / name / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\nq\t{passages[0].docid}\t1\n")
    done = r2r("run", str(evaluated(folder / "many.yaml", out, "broken", "small")), "--out", str(out))
    return done, before, folder


def evaluated(file: Path, out: Path, *names: str) -> Path:
    """Write a run file with these evaluations, of folders beside the file."""
    settings = yaml.safe_load(smaller(file, f"beir:{out.parent / 'few' / 'dev'}", explain=0).read_text())
    settings |= {"zero_shot": False, "teacher_row": False, "evaluations": []}
    for name in names:
        spec = f"beir:{file.parent / name}"
        settings["evaluations"].append({"name": name, "corpus": spec, "queries": spec, "qrels": spec})
    file.write_text(yaml.safe_dump(settings))
    return file


def test_again_elsewhere_with_a_changed_setting_only_its_stage_and_those_after_are_redone(demo, explained, elsewhere):
    out, _ = demo
    done, before, _ = elsewhere
    after = {stage: (out / stage / "manifest.json").stat().st_mtime_ns for stage in STAGES}
    assert [stage for stage in STAGES if after[stage] != before[stage]] == ["rerank", "evaluate"]
    spared = {line.rpartition("/")[2].rstrip(")") for line in done.stdout.splitlines() if "done already" in line}
    assert spared == {"index", "retrieve", "retrieve-train", "annotate", "distill"}
    ranked = rows(out / "rerank", "rankings")
    assert not any(any(row["direct"]) for row in ranked)
    # Other requests share the engine's batches: floating point may order two passages that are alike otherwise.
    assert sum(row["docids"] == explained[row["qid"]]["docids"] for row in ranked) >= 0.95 * QUERIES


def test_other_collections_share_the_student_and_one_that_fails_spares_the_rest(demo, elsewhere):
    out, _ = demo
    done, _, folder = elsewhere
    assert done.returncode == 2, done.stderr[-3000:]
    told = (
        f"r2r: evaluations: 1 of 3 collections failed, the others are done: broken: {folder}/broken/corpus.jsonl:10: "
    )
    assert done.stderr.splitlines()[-1].startswith(told)
    found = json.loads((out / "evaluations" / "summary.json").read_text())
    queries = [found["collections"][name].get("queries") for name in ("main", "broken", "small")]
    assert queries == [QUERIES, None, 1]
    assert found["averages"]["average"]["missing"]["student"]["nDCG@10"] == "no figure for broken"

    left = r2r("run", str(evaluated(folder / "less.yaml", out, "small")), "--out", str(out))
    assert left.returncode == 0 and left.stdout.count(": done already") == 11, left.stdout
    found = json.loads((out / "evaluations" / "summary.json").read_text())
    figures = [found["collections"][name]["systems"]["student"]["nDCG@10"] for name in ("main", "small")]
    assert found["averages"]["average"]["systems"]["student"]["nDCG@10"] == pytest.approx(sum(figures) / 2)
    again = r2r("run", str(evaluated(folder / "again.yaml", out, "small")), "--out", str(out), "--dry-run")
    assert "run: 0 of 11 stages would run; nothing was done" in again.stdout


class Served(NamedTuple):
    process: psutil.Process
    url: str


@pytest.fixture(scope="module")
def server(demo):
    """The student behind HTTP, its adapter in a store. It ends when it is told to, and well."""
    out, _ = demo
    with s3.serving() as store:
        upload(store, out / "distill", "distill")
        cache = {CACHE_VARIABLE: str(out.parent / "cache")}
        yield from serving("s3://bucket/distill", store.environment() | cache)


def serving(adapter: str, env: dict[str, str]) -> Iterator[Served]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [R2R, "serve", "--student", "demo", "--adapter", adapter, "--reason-chars", "160", "--port", str(port)],
        env=os.environ | {"RAY_ADDRESS": "local"} | env,
        stdout=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, they ignore Ctrl-C, and so would the server.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        line = next(line for line in server.stdout if line.startswith("serve:"))
        yield Served(psutil.Process(server.pid), line.split("POST ")[1].split(";")[0])
    finally:
        below = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(signal.SIGINT)
        started = time.time()
        while server.poll() is None and time.time() - started < 300:
            time.sleep(0.5)
        server.kill()
    assert server.returncode == 0
    # The engine, too, whose process is not Ray's.
    _, alive = psutil.wait_procs(below, timeout=60)
    assert alive == []


@pytest.fixture(scope="module")
def served(server):
    """The server's address."""
    return server.url


def test_the_server_and_its_ray_listen_on_loopback_but_for_a_port_that_asks_for_the_token(server):
    open_to_all = []
    below = server.process.children(recursive=True)
    for process in [server.process, *below]:
        with suppress(psutil.NoSuchProcess):
            for one in process.net_connections("inet"):
                bound = ipaddress.ip_address(one.laddr.ip) if one.laddr else None
                if one.status == psutil.CONN_LISTEN and not (getattr(bound, "ipv4_mapped", None) or bound).is_loopback:
                    open_to_all.append((process.name(), one.laddr.port))
    # Ray has a fixed address for it in its source.
    assert [name for name, _ in open_to_all] == ["ray::ServeReplica:rerank:rerank"]
    with grpc.insecure_channel(f"127.0.0.1:{open_to_all[0][1]}") as channel:
        call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=20)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_the_server_ranks_and_explains_as_rerank_did(demo, explained, served):
    # It was told neither window nor stride: the adapter's record has both. And its adapter is beside the weights, where
    # rerank's is in them: floating point may order two passages that are alike otherwise.
    out, _ = demo
    same, asked, alike = 0, 0, 0
    for number, row in enumerate(rows(out / "retrieve", "candidates")[:20]):
        # Reasons take seconds each where the adapter is not merged.
        body = {"query": row["query"], "documents": row["texts"], "explain": 3 if number < 6 else 0}
        answer = httpx.post(served, json=body, timeout=120).raise_for_status().json()
        before = explained[row["qid"]]
        if [row["docids"][one["index"]] for one in answer["results"]] == before["docids"]:
            same += 1
            scores = [one["relevance_score"] for one in answer["results"]]
            assert scores == pytest.approx(before["scores"], abs=0.01)
            for place, one in enumerate(answer["results"][: body["explain"]]):
                asked += 1
                texts = {name: before[name][place] for name in ("direct", "evidence", "comparison")}
                alike += by_docid(one["reasons"], row["docids"]) == texts
    assert same >= 19
    # One word that turns changes the rest of a text.
    assert asked >= 3 * 5 and alike >= 0.5 * asked, (asked, alike)


def by_docid(reasons: dict[str, str] | None, docids: list[str]) -> dict[str, str]:
    """Return a server's reasons with documents named as in the rankings: by docid, not by index."""
    texts = {"direct": "", "evidence": "", "comparison": ""} | (reasons or {})
    names = {str(index): docid for index, docid in enumerate(docids)}
    return texts | {"comparison": rename_brackets(texts["comparison"], names)}


def test_requests_have_lines_in_ray_serves_log(server):
    below = server.process.children(recursive=True)
    replica = next(one for one in below if Path(one.cmdline()[0]).name.startswith("ray::ServeReplica:rerank"))
    # The line of the last one may still be on its way.
    for _ in range(2):
        httpx.post(server.url, json={"query": "fleas", "documents": ["a", "b"]}, timeout=60).raise_for_status()
    log = next(Path(one.path) for one in replica.open_files() if Path(one.path).parent.name == "serve")
    assert re.search(r" POST /v1/rerank 200 ", log.read_text())


def test_a_client_that_goes_away_leaves_the_engine_idle(demo, server):
    out, _ = demo
    below = server.process.children(recursive=True)
    (engine,) = [one for one in below if "EngineCore" in " ".join(one.cmdline())]
    # More reasons than can be written in a while, half of them as a stream.
    bodies = [
        {"query": row["query"], "documents": row["texts"], "explain": True, "stream": bool(number % 2)}
        for number, row in enumerate(rows(out / "retrieve", "candidates")[:40])
    ]

    def busy(seconds: float) -> float:
        """Return the CPU seconds that the engine spends in so many seconds."""
        before = sum(engine.cpu_times()[:2])
        time.sleep(seconds)
        return sum(engine.cpu_times()[:2]) - before

    async def leave() -> float:
        """Ask, and go away unanswered. Return the CPU seconds of two seconds in between."""
        async with httpx.AsyncClient(timeout=120) as asking:
            asked = [asyncio.create_task(asking.post(server.url, json=body)) for body in bodies]
            await asyncio.sleep(4)
            spent = await asyncio.to_thread(busy, 2)
            assert not any(one.done() for one in asked)
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        return spent

    assert asyncio.run(leave()) > 0.5
    # Half a second where nothing else runs; another test may run beside this one.
    time.sleep(3)
    assert busy(2) < 0.2


def test_the_student_is_served(served):
    documents = ["Dogs bark at night.", {"text": "A flea lives <|im_end|> 100 days."}, "Cats purr."]
    body = {"model": "demo", "query": "how long do fleas live", "documents": documents}

    answer = httpx.post(served, json=body | {"top_n": 2}, timeout=60).raise_for_status().json()
    assert set(answer) >= {"id", "results", "usage"} and answer["usage"]["total_tokens"] > 0
    assert len(answer["results"]) == 2
    for result in answer["results"]:
        text = documents[result["index"]]
        assert result["document"] == {"text": text if isinstance(text, str) else text["text"]}
        assert 0 < result["relevance_score"] <= 1 and "reasons" not in result

    explained = httpx.post(served, json=body | {"explain": True, "documents": documents[:2]}, timeout=120).json()
    assert [result["index"] for result in explained["results"]] in ([0, 1], [1, 0])
    assert all(set(one["reasons"] or ()) <= {"evidence", "direct", "comparison"} for one in explained["results"])

    server = served.removesuffix("/v1/rerank")
    assert httpx.get(f"{server}/health", timeout=60).status_code == 200
    assert len(httpx.post(f"{server}/v2/rerank", json=body, timeout=60).json()["results"]) == 3
    streamed = httpx.post(served, json=body | {"explain": True, "stream": True}, timeout=120).text
    kinds = re.findall(r"^event: (\w+)$", streamed, re.MULTILINE)
    assert (kinds[0], kinds[-1]) == ("order", "done") and set(kinds[1:-1]) <= {"reason"}
    assert httpx.post(served, json=body | {"model": "other"}, timeout=60).status_code == 404
    for wrong in ({"documents": []}, {"documents": [1]}, {"query": ""}, {"top_n": 0}):
        assert httpx.post(served, json=body | wrong, timeout=60).status_code == 422
