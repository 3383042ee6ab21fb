"""Annotations by files of requests: through a batch API, killed in the middle, and through a folder whose files vLLM's
own `run-batch` answers. Nothing is paid for twice, and every row has an outcome."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from demo_models.world import world
from r2r import tables
from tests.llm.batches import Batches, answered
from tests.tiny import VLLM_ENV, VLLM_FLAGS, tiny_model

pytestmark = pytest.mark.slow

R2R = str(Path(sys.executable).parent / "r2r")
# A unit test has twenty kills: of the same code, without the command and its Ray.
ROWS, KILLS = 24, 3
FLAGS = "--passages 2 --reasoning direct --reason-chars 8 --max-tokens 256 --temperature 0.7 --false-evidence drop"


@pytest.fixture(scope="module")
def candidates(tmp_path_factory):
    folder, texts = tmp_path_factory.mktemp("batch") / "candidates", [one.text for one in world().world.passages]
    rows = [
        {"qid": f"q{at}", "query": texts[at][:30], "docids": ["a", "b"], "texts": texts[at : at + 2], "scores": [2, 1]}
        for at in range(ROWS)
    ]
    tables.write(rows, folder, "candidates")
    return folder


def annotate(candidates, out, teacher, *flags):
    command = [R2R, "annotate", "--candidates", str(candidates), "--teacher", teacher, "--out", str(out)]
    env = os.environ | {"RAY_ADDRESS": "local"}
    started = subprocess.Popen(
        [*command, *FLAGS.split(), *flags], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return started


def outcomes(out):
    return {name: tables.read(out, name).to_pylist() for name in ("annotations", "rejects")}


def never(call):
    return False


def test_a_job_that_is_killed_again_and_again_finds_its_batches_and_pays_once(candidates, tmp_path):
    reason = {"direct_answer_sentence": "", "direct_reason": "It does."}
    ranked = json.dumps({"ranked_passages": [reason | {"identifier": 2}, reason | {"identifier": 1}]})

    def answer(request, sent):
        # The first reply to one in four cannot be read, so it is asked for again, in the next batch.
        unread = request["body"]["seed"] == 1 and int(request["custom_id"], 16) % 4 == 0
        return answered(request, "I would rather not." if unread else ranked)

    server, draw, kills = Batches(answer), random.Random(3), 0
    server.looks = 3
    try:
        while True:
            # Few rows in flight make several batches.
            flags = ("--batch", "--in-flight", "4")
            job = annotate(candidates, tmp_path / "out", f"{server.address}#the-model", *flags)
            left = draw.randrange(1, 4)

            def strike(call, job=job):
                nonlocal left, kills
                # Not those of each start: the probe, and the look for batches that are there.
                left -= "/files" in call or "/batches/" in call or call == "POST /v1/batches"
                if left == 0 and kills < KILLS:
                    kills, left = kills + 1, -1
                    job.kill()
                    job.wait()
                return left < 0 and job.poll() is not None

            # Some kills are before the server has done what it was asked for, some after it.
            server.before, server.after = (strike, never) if draw.random() < 0.5 else (never, strike)
            said, _ = job.communicate(timeout=600)
            if job.returncode == 0:
                break
            assert job.returncode == -9, said[-3000:]
    finally:
        server.close()
    assert kills == KILLS
    found = outcomes(tmp_path / "out")
    assert (len(found["annotations"]), found["rejects"]) == (ROWS, [])
    assert all(row["ranking"] == [2, 1] for row in found["annotations"])
    again = sum(row["attempts"] == 2 for row in found["annotations"])
    assert 0 < again < ROWS and len(server.paid) == ROWS + again and set(server.paid.values()) == {1}


def test_what_vllm_answers_in_files_is_taken(candidates, tmp_path):
    teacher = f"file:{tmp_path / 'files'}#{tiny_model()}"
    flags = ("--attempts", "1", "--max-reject-rate", "1")
    job = annotate(candidates, tmp_path / "out", teacher, *flags)
    said, _ = job.communicate(timeout=600)
    assert job.returncode == 2 and "then the same command goes on" in said, said[-3000:]
    requests, replies = tmp_path / "files" / "requests-00001.jsonl", tmp_path / "files" / "replies-00001.jsonl"
    assert f"vllm run-batch -i {requests} -o {replies} --model {tiny_model()}" in said

    # What the command `vllm run-batch` runs.
    run = [sys.executable, "-m", "vllm.entrypoints.openai.run_batch", "-i", requests, "-o", replies]
    run += ["--model", tiny_model(), *VLLM_FLAGS]
    done = subprocess.run(run, env=os.environ | VLLM_ENV, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]

    job = annotate(candidates, tmp_path / "out", teacher, *flags)
    said, _ = job.communicate(timeout=600)
    assert job.returncode == 0, said[-3000:]
    found = outcomes(tmp_path / "out")
    assert len(found["annotations"]) + len(found["rejects"]) == ROWS and found["annotations"]
    assert [file.name for file in (tmp_path / "files").glob("requests-*")] == [requests.name]
