"""The server's paths and answers, with a student that starts no engine."""

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from r2r import __version__
from r2r.config import ServeSettings
from r2r.llm import Died, Refused
from r2r.serving.app import public_name
from tests.serving.served import DOCUMENTS, client

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
