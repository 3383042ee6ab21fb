"""The tools at /mcp, asked by the MCP package's own client over HTTP."""

import asyncio
from types import SimpleNamespace

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from r2r.llm import Died
from tests.serving.served import DOCUMENTS, ORDER, Ranker, address, app_of, client

WITH = {"query": "q", "documents": DOCUMENTS}


async def ask(server, *calls, key=None, mode="auto"):
    """Return the tools and the answers to some calls."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx2.AsyncClient(headers=headers) as http:
        transport = streamable_http_client(f"{server}/mcp", http_client=http)
        async with Client(transport, mode=mode) as asking:
            tools = (await asking.list_tools()).tools
            return tools, [await asking.call_tool(name, given) for name, given in calls]


@pytest.fixture(scope="module")
def server():
    with address() as server:
        yield server


# The newest revision of the protocol, and the handshake of those before.
@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_finds_the_tools_and_calls_them(server, mode):
    calls = [("rerank", WITH | {"top_n": 2}), ("explain", WITH | {"explain": [0]}), ("explain", WITH)]
    tools, (ranked, explained, all_explained) = asyncio.run(ask(server, *calls, mode=mode))
    assert [(one.name, list(one.input_schema["properties"])) for one in tools] == [
        ("rerank", ["query", "documents", "top_n"]),
        ("explain", ["query", "documents", "top_n", "explain"]),
    ]
    assert all(one.input_schema["required"] == ["query", "documents"] and one.description for one in tools)
    assert not ranked.is_error
    assert ranked.structured_content == {
        "results": [{"index": 1, "relevance_score": 1.0}, {"index": 2, "relevance_score": 0.5}]
    }
    results = explained.structured_content["results"]
    assert [one["index"] for one in results] == ORDER
    assert [one["reasons"] for one in results] == [None, None, {"direct": "It is long: 5."}]
    # What a model reads is the same as what a program reads.
    assert '"It is long: 5."' in explained.content[0].text
    assert all(one["reasons"] for one in all_explained.structured_content["results"])


def test_a_wrong_call_is_a_sentence_that_repeats_nothing(server):
    wrong = [
        ("rerank", {"query": "q"}),
        ("rerank", WITH | {"documents": ["secret word"] * 1001}),
        ("rerank", WITH | {"query": ""}),
        ("explain", WITH | {"explain": [3]}),
        ("other", {}),
    ]
    _, answers = asyncio.run(ask(server, *wrong))
    assert all(one.is_error and len(one.content[0].text) < 200 for one in answers)
    assert [one.content[0].text.partition(":")[0] for one in answers] == [
        "documents",
        "documents",
        "query",
        "explain",
        "tool",
    ]
    assert "secret" not in str(answers)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Died("/home/me"), "engine: died, and is being replaced; try again later"),
        (RuntimeError("/home/me"), "server: failed on this request; its log says why"),
    ],
)
def test_what_goes_wrong_is_a_sentence(server, monkeypatch, error, said):
    async def steps(*_given, **_options):
        raise error
        yield

    monkeypatch.setattr(Ranker, "steps", steps)
    _, (answer,) = asyncio.run(ask(server, ("rerank", WITH)))
    assert answer.is_error and answer.content[0].text == said


def test_a_call_needs_a_key_and_is_bounded_as_a_request_does():
    with address("one") as server:
        _, (answer,) = asyncio.run(ask(server, ("rerank", WITH), key="one"))
        assert not answer.is_error
        with pytest.raises(ExceptionGroup):
            asyncio.run(ask(server, ("rerank", WITH), key="two"))
    assert client()[0].get("/mcp").status_code == 405
    assert client("one")[0].post("/mcp", json={}).json()["message"].startswith("api key: missing")
    too_long = client()[0].post("/mcp", content=b"", headers={"content-length": "9000000"})
    assert too_long.status_code == 413


def test_a_client_that_goes_away_ends_its_call():
    """Ray Serve cancels the request of a client that has gone."""
    app, ranker = app_of()
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "rerank", "arguments": WITH}}
    headers = {"accept": "application/json, text/event-stream"}

    async def ask():
        begun, ended = asyncio.Event(), asyncio.Event()

        async def wait():
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        ranker.pause = SimpleNamespace(wait=wait)
        http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://here", headers=headers)
        async with app.router.lifespan_context(app), http:
            asking = asyncio.create_task(http.post("/mcp", json=call))
            await begun.wait()
            assert not ended.is_set()
            asking.cancel()
            await ended.wait()

    asyncio.run(asyncio.wait_for(ask(), 30))
