"""The server's paths and answers, with a student that starts no engine."""

import asyncio
import json
import re
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from r2r import __version__
from r2r.config import ServeSettings
from r2r.llm import Died, Refused
from r2r.serving.app import Replica, public_name
from tests.serving.served import DOCUMENTS, app_of, client

WITH = {"query": "q", "documents": DOCUMENTS}


def test_documents_may_be_objects_and_come_back_as_they_were_given():
    asking, ranker = client()
    given = ["one", {"title": "On fleas", "text": "They jump.", "id": 7}, {"title": "", "text": "two 2"}]
    answer = asking.post("/v1/rerank", json={"query": "q", "documents": given}).json()
    assert ranker.calls == [("q", ["one", "On fleas\nThey jump.", "two 2"], 0)]
    assert [one["document"] for one in answer["results"]] == [given[1], given[2], {"text": "one"}]


def test_rank_fields_choose_what_is_ranked():
    asking, ranker = client()
    given = [{"a": "x", "b": 5, "c": "z"}, {"b": "y"}]
    answer = asking.post("/v1/rerank", json={"query": "q", "documents": given, "rank_fields": ["b", "a"]}).json()
    assert ranker.calls[0][1] == ["5\nx", "y"] and answer["results"][0]["document"] == given[0]


@pytest.mark.parametrize(("path", "repeats"), [("/v1/rerank", True), ("/rerank", True), ("/v2/rerank", False)])
@pytest.mark.parametrize("given", [None, True, False])
def test_documents_are_repeated_if_they_are_asked_for(path, repeats, given):
    answer = client()[0].post(path, json=WITH | {"return_documents": given}).json()
    expected = repeats if given is None else given
    assert ["document" in one for one in answer["results"]] == [expected] * 3


def test_top_n_cuts_what_is_returned_not_what_is_ranked():
    asking, ranker = client()
    assert [one["index"] for one in asking.post("/v1/rerank", json=WITH | {"top_n": 2}).json()["results"]] == [1, 2]
    assert len(ranker.calls[0][1]) == 3


def test_long_documents_are_cut_and_come_back_whole():
    asking, ranker = client()
    answer = asking.post("/v1/rerank", json=WITH | {"max_tokens_per_doc": 6}).json()
    assert ranker.calls[0][1] == ["short", "the lo", "middle"]
    assert {one["document"]["text"] for one in answer["results"]} == set(DOCUMENTS)


@pytest.mark.parametrize(
    ("explain", "top_n", "explained"),
    [(False, None, 0), (True, None, 3), (True, 2, 2), (2, None, 2), (0, None, 0), (9, None, 3), (2, 1, 1)],
)
def test_so_many_documents_are_explained(explain, top_n, explained):
    asking, ranker = client()
    answer = asking.post("/v1/rerank", json=WITH | {"explain": explain, "top_n": top_n}).json()
    assert ranker.calls[0][2] == explained
    assert [one.get("reasons") is not None for one in answer["results"]] == [
        place < explained for place in range(len(answer["results"]))
    ]


def test_no_more_than_a_window_is_explained():
    asking, ranker = client(window=2)
    asking.post("/v1/rerank", json=WITH | {"explain": True})
    assert ranker.calls[0][2] == 2


@pytest.mark.parametrize(("model", "status"), [("demo", 200), (None, 200), ("", 200), ("other", 404)])
def test_a_model_that_is_not_served_is_not_found(model, status):
    answer = client()[0].post("/v1/rerank", json=WITH | {"model": model})
    assert answer.status_code == status and "other" not in answer.text


def test_what_is_served_is_told():
    asking, _ = client()
    assert asking.get("/version").json() == {"version": __version__}
    assert asking.get("/info").json()["model_id"] == "demo"
    assert asking.get("/health").json() == {"status": "ok"}
    assert asking.get("/nothing").json()["message"] == "Not Found"


def test_the_students_name_shows_no_path(tmp_path):
    (tmp_path / "student").mkdir()
    assert public_name(str(tmp_path / "student"), ServeSettings()) == "student"
    assert public_name("Qwen/Qwen3-4B", ServeSettings()) == "Qwen/Qwen3-4B"
    assert public_name("demo", ServeSettings(name="rerank-v3.5")) == "rerank-v3.5"


def test_the_api_is_described_with_examples():
    paths = client()[0].get("/openapi.json").json()["paths"]
    assert {"/rerank", "/v1/rerank", "/v2/rerank", "/v1/models", "/health", "/metrics", "/info"} <= set(paths)
    body = paths["/v1/rerank"]["post"]["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        assert client()[0].post("/v1/rerank", json=example["value"]).status_code == 200
    assert len(body["schema"]["oneOf"]) == 3
    answer = paths["/v1/rerank"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    assert set(answer) < set(client()[0].post("/v1/rerank", json=WITH).json())


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (Refused("prompt of 9 tokens exceeds 8"), 400, "prompt of 9 tokens exceeds 8"),
        (Died("/home/me/engine.py"), 503, "engine: died, and is being replaced; try again later"),
        (RuntimeError("/home/me/engine.py"), 500, "server: failed on this request; its log says why"),
    ],
)
def test_what_goes_wrong_is_a_sentence(error, status, said):
    asking, ranker = client()
    ranker.error = error
    answer = asking.post("/v1/rerank", json=WITH)
    assert answer.status_code == status and "/home" not in answer.text
    body = answer.json()
    assert body["message"] == body["detail"] == body["error"]["message"] == said and body["error"]["code"] == status
    assert ("retry-after" in answer.headers) == (status == 503)


def test_a_dead_engine_is_unhealthy():
    asking, ranker = client()
    ranker.model.close()
    assert asking.get("/health").status_code == 503


def samples(asking):
    found = text_string_to_metric_families(asking.get("/metrics").text)
    return {(one.name, *one.labels.values()): one.value for family in found for one in family.samples}


def test_a_replica_that_ends_closes_its_engine():
    closed = []
    replica = object.__new__(Replica)
    replica.ranker = SimpleNamespace(model=SimpleNamespace(close=lambda: closed.append(True)))
    del replica
    assert closed == [True]
    # One whose student could not be loaded has none.
    object.__new__(Replica).__del__()


def test_the_metrics_count():
    asking, _ = client()
    asking.post("/v1/rerank", json=WITH)
    asking.post("/v2/rerank", json=WITH | {"query": ""})
    asking.get("/a/path/of/mine")
    found = samples(asking)
    assert found["r2r_documents_total",] == 3
    assert found["r2r_tokens_total", "prompt"] == 30 and found["r2r_tokens_total", "completion"] == 1
    assert found["r2r_requests_total", "/v1/rerank", "200"] == found["r2r_requests_total", "/v2/rerank", "422"] == 1
    assert found["r2r_requests_total", "other", "404"] == 1
    assert found["r2r_request_seconds_count",] == 2 and found["r2r_requests_in_flight",] == 0
    assert found["r2r_requests_shed_total",] == 0
    assert json.dumps(DOCUMENTS[1]) not in asking.get("/metrics").text


@pytest.mark.parametrize(("least", "left"), [(0, 3), (1 / 3, 3), (0.34, 2), (1, 1), (2, 0)])
def test_low_scores_are_left_out(least, left):
    assert len(client()[0].post("/v1/rerank", json=WITH | {"min_score": least}).json()["results"]) == left


SCORED = [{"text": text, "score": score} for text, score in zip(DOCUMENTS, (9, 1.5, 0), strict=True)]


@pytest.mark.parametrize(
    "given",
    [
        {"first_stage_scores": [9, 1.5, 0]},
        {"documents": SCORED},
        # The list wins.
        {"documents": [one | {"score": "x"} for one in SCORED], "first_stage_scores": [9, 1.5, 0]},
    ],
)
@pytest.mark.parametrize(("weight", "order"), [(0.1, [1, 2, 0]), (0.9, [0, 1, 2])])
def test_a_first_stages_scores_are_fused_in(given, weight, order):
    answer = client()[0].post("/v1/rerank", json=WITH | given | {"first_stage_weight": weight}).json()
    # By rank the student gives 1/3, 1 and 1/2; normalised 0, 1 and 1/4. The first stage's are 1, 1/6 and 0.
    normalised = zip((0, 1, 1 / 4), (1, 1 / 6, 0), strict=True)
    wanted = [(1 - weight) * second + weight * first for second, first in normalised]
    assert [one["index"] for one in answer["results"]] == order
    assert [one["relevance_score"] for one in answer["results"]] == pytest.approx([wanted[at] for at in order])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"first_stage_weight": 0.5}, "documents: number 0, .* has no first-stage score"),
        ({"first_stage_weight": 0.5, "documents": SCORED[:1] + DOCUMENTS[1:]}, "documents: number 1, "),
        ({"first_stage_weight": 0.5, "documents": [{"text": "x", "score": True}]}, "documents: number 0, "),
        ({"first_stage_weight": 0.5, "documents": [{"text": "x", "score": 10**400}]}, "documents: number 0, "),
        ({"first_stage_weight": 0.5, "first_stage_scores": [1, 2]}, "first_stage_scores: 2 of 3 documents"),
        ({"first_stage_scores": [1, 2, 3]}, "first_stage_scores: have no weight"),
        ({"first_stage_weight": 0.5, "first_stage_scores": [1, 2, "3"]}, "first_stage_scores.2: "),
        ({"first_stage_weight": 0.5, "first_stage_scores": [1, 2, 1e200]}, "first_stage_scores.2: "),
        ({"first_stage_weight": 1.5, "first_stage_scores": [1, 2, 3]}, "first_stage_weight: "),
        ({"first_stage_weight": -0.1, "first_stage_scores": [1, 2, 3]}, "first_stage_weight: "),
    ],
)
def test_a_first_stage_that_cannot_be_fused_is_told(given, said):
    answer = client()[0].post("/v1/rerank", json=WITH | given)
    assert answer.status_code == 422 and re.match(said, answer.json()["message"])


def test_documents_to_explain_may_be_named():
    asking, ranker = client()
    answer = asking.post("/v1/rerank", json=WITH | {"explain": [0, 2]}).json()
    assert ranker.calls[0][2] == [0, 2]
    assert [one["reasons"] is not None for one in answer["results"]] == [False, True, True]
    wrong = asking.post("/v1/rerank", json=WITH | {"explain": [3]})
    assert wrong.status_code == 422 and wrong.json()["message"].startswith("explain: names a document")


def events(text):
    return [(kind, json.loads(data)) for kind, data in re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)]


@pytest.mark.parametrize("explain", [False, True])
def test_the_order_comes_first_and_then_a_reason_at_a_time(explain):
    answer = client()[0].post("/v1/rerank", json=WITH | {"explain": explain, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.text)
    assert [kind for kind, _ in found] == ["order", *["reason"] * 3 * explain, "done"]
    assert [one["index"] for one in found[0][1]["results"]] == [1, 2, 0]
    assert [one["index"] for kind, one in found if kind == "reason"] == [1, 2, 0] * explain
    assert found[-1][1] == {"prompt_tokens": 30, "completion_tokens": 1}


def test_what_goes_wrong_before_the_order_is_a_status_and_after_it_an_event():
    asking, ranker = client()
    ranker.error = Refused("too long")
    assert asking.post("/v1/rerank", json=WITH | {"stream": True}).status_code == 400
    ranker.error = None

    async def later(count):
        raise Died("/home/me")

    ranker.later = later
    found = events(asking.post("/v1/rerank", json=WITH | {"explain": True, "stream": True}).text)
    assert [kind for kind, _ in found] == ["order", "reason", "error"]
    assert found[-1][1]["message"] == "engine: died, and is being replaced; try again later"


def test_a_client_that_goes_away_ends_the_reasons():
    app, ranker = app_of()
    body = json.dumps(WITH | {"explain": True, "stream": True}).encode()
    headers = [(b"content-type", b"application/json")]
    # The version is uvicorn's, which is in front. From 2.4 on, Starlette notices only when it can send no more.
    scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "method": "POST", "path": "/v1/rerank"}
    scope |= {"headers": headers, "query_string": b"", "raw_path": b"/v1/rerank", "root_path": ""}
    sent = []

    async def ask():
        gone, received = asyncio.Event(), iter([{"type": "http.request", "body": body}])

        async def later(count):
            gone.set()
            await asyncio.Event().wait()

        async def receive():
            if first := next(received, None):
                return first
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        ranker.later = later
        await app(scope, receive, send)

    asyncio.run(asyncio.wait_for(ask(), 30))
    assert ranker.cancelled and b"event: done" not in b"".join(one.get("body", b"") for one in sent)
