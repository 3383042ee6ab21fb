"""A batch API over real HTTP: what comes of each request, and a job that is killed twenty times and pays for nothing
twice."""

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from r2r.config import Dialect
from r2r.errors import BadInput
from r2r.llm import Refused, batch, open_model
from tests.llm import batches
from tests.llm.batches import Batches, answered, refused

SCRIPT = Path(batches.__file__)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, seconds in (("_QUIET", 0.05), ("_SOON", 0.01), ("_LATER", 0.02), ("_LAST_FILES", 0.1)):
        monkeypatch.setattr(batch, name, seconds)


@pytest.fixture
def serving():
    started = []

    def start(answer=lambda request, sent: answered(request)):
        started.append(Batches(answer))
        return started[-1]

    yield start
    for server in started:
        server.close()


def ask(model, *prompts, **options):
    """Return what comes of each prompt: a reply, or what was raised."""

    async def all_of_them():
        asked = (model.complete(prompt, **{"max_tokens": 4, "seed": 1} | options) for prompt in prompts)
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(all_of_them())


def prompt_of(request):
    return request["body"]["messages"][0]["content"]


def test_requests_that_come_together_go_together(serving):
    server = serving(lambda request, sent: answered(request, prompt_of(request).upper()))
    model = open_model(server.address, server=Dialect(max_tokens="max_completion_tokens"), batch="a-tag")
    found = ask(model, "one", "two", "three", "one", schema={"type": "object"})
    assert [reply.text for reply in found] == ["ONE", "TWO", "THREE", "ONE"]
    assert found[0].complete and (found[0].prompt_tokens, found[0].completion_tokens) == (7, 2)
    (sent,) = (file for name, file in server.files.items() if name == "file-0")
    lines = [json.loads(line) for line in sent.splitlines()]
    # The same question goes out once.
    assert [prompt_of(line) for line in lines] == ["one", "two", "three"]
    assert {(line["method"], line["url"]) for line in lines} == {("POST", "/v1/chat/completions")}
    assert lines[0]["body"]["max_completion_tokens"] == 4 and lines[0]["body"]["seed"] == 1
    assert lines[0]["body"]["response_format"]["type"] == "json_schema"
    (made,) = server.batches.values()
    assert (made["endpoint"], made["completion_window"]) == ("/v1/chat/completions", "24h")
    assert made["metadata"] == {"r2r": "a-tag"}
    assert model.so_far == {"begun": 3, "steps": 3}


def test_a_full_file_is_sent_at_once(serving, monkeypatch):
    monkeypatch.setattr(batch, "_MOST_REQUESTS", 2)
    server = serving()
    ask(open_model(server.address, batch="a-tag"), *"abcde")
    assert sorted(one["request_counts"]["total"] for one in server.batches.values()) == [1, 2, 2]
    monkeypatch.setattr(batch, "_MOST_REQUESTS", 100)
    monkeypatch.setattr(batch, "_MOST_BYTES", 500)
    server = serving()
    ask(open_model(server.address, batch="a-tag"), *(letter * 200 for letter in "abc"))
    assert len(server.batches) == 3


@pytest.mark.parametrize("first", [None, {"status": 500}, {"status": 429}, {"status": 408}, {"content": None}], ids=str)
def test_what_a_batch_does_not_answer_goes_into_another(serving, first):
    def answer(request, sent):
        if prompt_of(request) == "two" and sent == 1:
            if first is None:
                return None
            if "status" in first:
                return refused(request, first["status"], "busy")
            return answered(request) | {"response": {"status_code": 200, "body": "no completion"}}
        return answered(request, prompt_of(request))

    server = serving(answer)
    server.end = lambda number: "completed" if number else "expired"
    assert [reply.text for reply in ask(open_model(server.address, batch="a-tag"), "one", "two")] == ["one", "two"]
    assert len(server.batches) == 2 and server.batches["batch-1"]["request_counts"]["total"] == 1


def test_a_request_that_every_batch_loses_ends_the_job(serving):
    server = serving(lambda request, sent: refused(request, 503, "busy"))
    (found,) = ask(open_model(server.address, batch="a-tag"), "one")
    assert isinstance(found, BadInput) and "5 batches" in str(found) and len(server.batches) == 5


@pytest.mark.parametrize(
    "status, said, kind",
    [
        *((400, "too long", Refused), (422, "no", Refused)),
        *((401, "bad key", BadInput), (404, "no model", BadInput), (429, "insufficient_quota", BadInput)),
    ],
)
def test_the_fault_of_a_request_or_of_the_account_is_told_in_the_servers_words(serving, status, said, kind):
    server = serving(
        lambda request, sent: refused(request, status, said) if prompt_of(request) == "bad" else answered(request)
    )
    bad, good = ask(open_model(server.address, batch="a-tag"), "bad", "good")
    assert type(bad) is kind and said in str(bad) and str(status) in str(bad)
    assert good.text == "yes" and len(server.batches) == 1


@pytest.mark.parametrize("state, said", [("failed", "line 3: no such model"), ("cancelled", "1 of 2 requests")])
def test_a_batch_that_failed_or_was_cancelled_ends_the_job(serving, state, said):
    server = serving(lambda request, sent: answered(request) if prompt_of(request) == "one" else None)
    server.end = lambda number: state if number == 0 else "completed"
    found = ask(open_model(server.address, batch="a-tag"), "one", "two")
    assert isinstance(found[1], BadInput) and said in str(found[1]) and "batch-0" in str(found[1])
    # The same job goes on: with what there was, and a new batch for the rest.
    server.answer = lambda request, sent: answered(request)
    again = ask(open_model(server.address, batch="a-tag"), "one", "two")
    assert [reply.text for reply in again] == ["yes", "yes"]
    assert set(server.paid.values()) == {1}


def test_a_server_without_batches_is_told_in_one_line(serving):
    server = serving()
    server.respond = lambda call, *_: (200, b'{"data": [{"id": "m"}]}') if "models" in call else (404, b"no such path")
    (found,) = ask(open_model(server.address, batch="a-tag"), "one")
    assert isinstance(found, BadInput) and "no such path" in str(found) and "leave --batch out" in str(found)


def test_a_batch_whose_making_was_not_confirmed_is_found(serving):
    server, cut = serving(), []

    def after(call):
        if call == "POST /v1/batches" and not cut:
            cut.append(call)
            return True
        return False

    server.after = after
    assert ask(open_model(server.address, batch="a-tag"), "one")[0].text == "yes"
    assert cut and len(server.batches) == 1


def test_a_server_that_keeps_no_metadata_is_told_and_the_batch_cancelled(serving):
    server, plain = serving(), Batches.begin
    server.begin = lambda asked: plain(server, {**asked, "metadata": None})
    (found,) = ask(open_model(server.address, batch="a-tag"), "one")
    assert isinstance(found, BadInput) and "batch batch-0 is cancelled; leave --batch out" in str(found)
    assert server.batches["batch-0"]["status"] == "cancelled" and not server.paid


def test_batches_of_other_jobs_are_left_alone(serving):
    server = serving()
    ask(open_model(server.address, batch="another"), "one")
    ask(open_model(server.address, batch="a-tag"), "one")
    assert len(server.batches) == 2
    # Other attempts have another seed, and are other requests.
    ask(open_model(server.address, server=Dialect(seed=False), batch="a-tag"), "one", seed=2)
    assert len(server.batches) == 3


@pytest.mark.slow
def test_twenty_kills_pay_for_nothing_twice(serving, tmp_path):
    # One in seven is lost the first time it is sent, one in seven is answered by a failure.
    def answer(request, sent):
        kind = int(request["custom_id"], 16) % 7
        if sent == 1 and kind < 2:
            return refused(request, 500, "busy") if kind else None
        return answered(request, prompt_of(request))

    server, draw, file = serving(answer), random.Random(5), tmp_path / "replies"
    server.looks = 3
    server.end = lambda number: "completed" if number % 3 else "expired"
    command = [sys.executable, SCRIPT, server.address, "60", file]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    kills = 0
    while True:
        process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        left = draw.randrange(1, 14)

        def strike(call, process=process):
            nonlocal left, kills
            left -= 1
            if left == 0 and kills < 20:
                process.kill()
                process.wait()
                kills += 1
                return True
            return left < 0 and process.poll() is not None

        # Half of the kills are before the server has done what it was asked for, half after it.
        server.before, server.after = (
            (strike, lambda call: None) if draw.random() < 0.5 else (lambda call: None, strike)
        )
        _, said = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -9, said
    assert kills == 20
    lines = file.read_text().splitlines()
    replies = [json.loads(line) for line in lines if line.endswith("}")]
    assert {reply["prompt"] for reply in replies} == {f"prompt {at}" for at in range(60)}
    assert all(reply["reply"] == reply["prompt"] for reply in replies)
    assert set(server.paid.values()) == {1} and len(server.paid) == 60


def test_a_folder_of_requests_says_what_to_run_and_takes_the_replies(tmp_path):
    def open_folder():
        return open_model(f"file:{tmp_path / 'batches'}#the-model", server=Dialect())

    found = ask(open_folder(), "one", "two")
    requests, replies = tmp_path / "batches" / "requests-00001.jsonl", tmp_path / "batches" / "replies-00001.jsonl"
    assert {str(one) for one in found} == {
        f"{requests}: 2 requests wait for their replies; run `vllm run-batch -i {requests} -o {replies} --model "
        "the-model`; then the same command goes on"
    }
    lines = [json.loads(line) for line in requests.read_text().splitlines()]
    assert [line["body"]["model"] for line in lines] == ["the-model"] * 2
    # Nothing is written twice.
    ask(open_folder(), "one", "two")
    assert [file.name for file in (tmp_path / "batches").iterdir()] == [requests.name]

    # One of them has no reply: it goes into a file of its own. The last line is cut off.
    replies.write_text(json.dumps(answered(lines[0], "first")) + "\n" + json.dumps(answered(lines[1]))[:40])
    first, second = ask(open_folder(), "one", "two")
    assert first.text == "first" and "requests-00002.jsonl: 1 requests" in str(second)
