"""What a server refuses, and that no answer repeats what was sent, a key, a path or a trace."""

import asyncio
import json
import re

import httpx
import pytest

from r2r.config import ServeSettings, validate
from r2r.errors import BadInput
from r2r.serving import limits
from r2r.serving.limits import is_loopback, read_keys
from tests.serving.served import DOCUMENTS, app_of, client

WITH = {"query": "q", "documents": DOCUMENTS}
MARK = "MARKED"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer second"}, 200),
        ({"authorization": "bearer first"}, 200),
        ({"authorization": "first"}, 200),
        ({"x-api-key": "first"}, 200),
        ({"x-api-key": "firs"}, 401),
        ({"x-api-key": ""}, 401),
        ({"authorization": "Bearer MARKED"}, 401),
        ({"authorization": b"Bearer \xff\xfe"}, 401),
    ],
)
@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/models", "/metrics", "/nothing"])
def test_a_key_opens_every_path(path, headers, status):
    asking, ranker = client("first", "second")
    answer = asking.post(path, json=WITH, headers=headers) if "rank" in path else asking.get(path, headers=headers)
    assert answer.status_code == (404 if (path, status) == ("/nothing", 200) else status)
    assert MARK not in answer.text and "first" not in answer.text
    assert (len(ranker.calls) == 1) == ("rank" in path and status == 200)


def test_probes_need_no_key():
    assert client("first")[0].get("/health").status_code == 200


def test_keys_are_read_from_a_file_and_from_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text("one\n\n two \n")
    assert read_keys(None) == []
    assert len(read_keys(str(file))) == 2
    monkeypatch.setenv("R2R_API_KEYS", "two, three")
    keys = read_keys(str(file))
    assert len(set(keys)) == 3 and {len(key) for key in keys} == {32}


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no such file"), (b"\n", "holds no key"), (b"\xff", "is not UTF-8")]
)
def test_a_file_without_keys_is_told(tmp_path, content, said):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadInput, match=f"^api_keys: {file}: {said}"):
        read_keys(str(file))


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("my.host", False)],
)
def test_addresses_that_others_reach_are_known(host, own):
    assert is_loopback(host) == own


BAD = [
    ({"documents": []}, "documents: list should have at least 1 item"),
    ({"documents": [MARK] * 1001}, "documents: list should have at most 1000 items"),
    ({"documents": [1]}, "documents.0"),
    ({"documents": MARK}, "documents: input should be a valid list"),
    ({"documents": ["x", MARK * 20_000]}, "documents.1"),
    ({"documents": [{"text": MARK * 20_000}]}, "documents: number 0, counted from 0, is longer than 100000 bytes"),
    ({"documents": [{"body": MARK}]}, "documents: number 0, counted from 0, has no text"),
    ({"documents": [{"body": MARK}], "rank_fields": ["text"]}, "documents: number 0, counted from 0, has none of the"),
    ({"rank_fields": []}, "rank_fields: list should have at least 1 item"),
    ({"query": ""}, "query: string should have at least 1 character"),
    ({"query": MARK * 2000}, "query: string should have at most 10000 characters"),
    ({"query": None}, "query: field required"),
    ({"query": {MARK: 1}}, "query: input should be a valid string"),
    ({"top_n": 0}, "top_n: input should be greater than or equal to 1"),
    ({"top_n": float("nan")}, "top_n: "),
    ({"explain": -1}, "explain"),
    ({"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
    ({"query": "\ud800"}, "query: "),
    ({"documents": ["\ud800"]}, "documents.0"),
    ({"documents": [{"text": "\udfff"}]}, "documents: number 0, counted from 0, holds NaN, an infinite"),
    ({"documents": [{"text": "x", "n": float("nan")}]}, "documents: number 0, counted from 0, holds NaN"),
    ({"model": "\ud800"}, "model: "),
]


@pytest.mark.parametrize(("wrong", "said"), BAD)
def test_what_is_wrong_is_told_in_a_short_sentence(wrong, said):
    asking, ranker = client()
    answer = asking.post("/v1/rerank", content=json.dumps(WITH | wrong), headers={"content-type": "application/json"})
    assert answer.status_code == 422 and answer.json()["message"].startswith(said), answer.text
    assert MARK not in answer.text and len(answer.text) < 800 and ranker.calls == []


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 422), (b"{", 422), (b"[1]", 422), (b"null", 422), (b"\xff", 400), (b"[" * 100_000, 400), (b'"MARKED"', 422)],
)
@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/v1/reranking"])
def test_a_body_that_is_no_request_is_told(path, body, status):
    answer = client()[0].post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status and answer.json()["message"] and MARK not in answer.text


@pytest.mark.parametrize(("levels", "status"), [(19, 200), (20, 422), (900, 422)])
def test_deep_objects_are_refused(levels, status):
    body = '{"query": "q", "documents": [{"text": "x", "more": ' + "[" * levels + "]" * levels + "}]}"
    answer = client()[0].post("/v1/rerank", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status and len(answer.text) < 800


def test_control_tokens_and_zero_characters_are_text():
    asking, ranker = client()
    answer = asking.post("/v1/rerank", json={"query": "q", "documents": ["a <|im_end|> b", "c\0d"]})
    assert answer.status_code == 200 and ranker.calls[0][1] == ["a <|im_end|> b", "c d"]


def test_a_body_that_is_too_large_is_not_read(monkeypatch):
    monkeypatch.setattr(limits, "LARGEST_BODY", 1000)
    asking, ranker = client()
    large = json.dumps(WITH | {"documents": [MARK * 200]}).encode()
    for content in (large, iter([large[:600], large[600:]])):
        answer = asking.post("/v1/rerank", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 413 and answer.json()["message"].startswith("body: larger than")
        assert MARK not in answer.text
    assert ranker.calls == []


def test_other_sites_are_not_let_in():
    answer = client()[0].post("/v1/rerank", json=WITH, headers={"origin": "https://other.example"})
    assert not any(name.startswith("access-control") for name in answer.headers)


SITE = "https://search.example.org"


def test_a_site_that_is_allowed_is_let_in_and_no_other():
    asking = client("secret", allowed_origins=[SITE])[0]
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key, content-type"}
    for site, status, allowed in ((SITE, 200, SITE), ("https://other.example", 400, None)):
        before = asking.options("/v1/rerank", headers={"origin": site} | wanted)
        answer = asking.post("/v1/rerank", json=WITH, headers={"origin": site, "x-api-key": "secret"})
        assert (before.status_code, answer.status_code) == (status, 200)
        assert [one.headers.get("access-control-allow-origin") for one in (before, answer)] == [allowed] * 2
    # What is refused is shown by the browser, too.
    refused = asking.post("/v1/rerank", json=WITH, headers={"origin": SITE})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, SITE)


@pytest.mark.parametrize("site", ["search.example.org", f"{SITE}/", f"{SITE}/search", "https://*.example.org", "null"])
def test_a_site_that_is_no_origin_is_told(site):
    with pytest.raises(BadInput, match=rf"allowed_origins: {re.escape(site)}: no origin; give scheme and host"):
        validate(ServeSettings, {"allowed_origins": [site]}, "")


def asking_at_once(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


def test_more_requests_than_the_most_are_refused_at_once():
    app, ranker = app_of(max_requests=1)

    async def ask():
        ranker.begun, ranker.pause = asyncio.Event(), asyncio.Event()
        async with asking_at_once(app) as asking:
            first = asyncio.create_task(asking.post("/v1/rerank", json=WITH))
            await ranker.begun.wait()
            second = await asking.post("/v1/rerank", json=WITH)
            assert (await asking.get("/health")).status_code == 200
            ranker.pause.set()
            assert (await first).status_code == (await asking.post("/v1/rerank", json=WITH)).status_code == 200
            return second, await asking.get("/metrics")

    refused, metrics = asyncio.run(ask())
    assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
    assert refused.json()["message"] == "too many requests: 1 are in flight; try again later"
    assert "r2r_requests_shed_total 1.0" in metrics.text


def test_a_ranking_that_takes_too_long_is_cancelled():
    app, ranker = app_of(request_timeout=0.01)

    async def ask():
        ranker.pause = asyncio.Event()
        async with asking_at_once(app) as asking:
            return await asking.post("/v1/rerank", json=WITH), await asking.get("/metrics")

    late, metrics = asyncio.run(ask())
    assert late.status_code == 504 and late.json()["message"].startswith("ranking: took too long")
    assert "r2r_requests_in_flight 0.0" in metrics.text
