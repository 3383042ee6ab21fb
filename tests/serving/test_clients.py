"""Clients of other rerankers against the server, with their own packages: Cohere's and OpenAI's newest here, all of
them as `clients.py` asks, in an environment of their own, since some need older packages than the engine."""

import json
import subprocess
from pathlib import Path

import cohere
import openai
import pytest

from tests.serving import clients
from tests.serving.served import DOCUMENTS, ORDER, address, client

ENVIRONMENT = Path(__file__).parents[2] / ".venv" / "clients"


@pytest.fixture(scope="module")
def url():
    with address("secret") as served:
        yield served


@pytest.fixture(scope="module")
def answers(url) -> dict:
    assert ENVIRONMENT.exists(), "the clients' packages are not there; run make clients"
    command = [ENVIRONMENT / "bin" / "python", clients.__file__, url, "secret", "demo"]
    asked = json.dumps({"query": "q", "documents": DOCUMENTS})
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", clients.CLIENTS)
def test_a_client_unchanged_gets_the_order_the_scores_and_the_documents(answers, name):
    ranked = [[DOCUMENTS[index], 1 / rank] for rank, index in enumerate(ORDER, 1)]
    assert answers[name] == ([["demo", 1]] if name == "openai models.list" else ranked)


@pytest.mark.parametrize(
    "path", ["/rerank", "/v1/rerank", "/v2/rerank", "/infinity/rerank", "/voyage/v1/rerank", "/v1/reranking"]
)
def test_every_shape_tells_the_tokens(path):
    documents = "input" if path == "/v1/reranking" else "documents"
    answer = client()[0].post(path, json={"query": "q", documents: DOCUMENTS}).raise_for_status().json()
    assert answer["usage"]["total_tokens"] == 31


def test_mixedbreads_shape_tells_what_was_asked_for():
    asked = {"model": "demo", "query": "q", "input": DOCUMENTS, "top_k": 2, "return_input": True}
    answer = client()[0].post("/v1/reranking", json=asked).json()
    assert answer["top_k"] == 2 and answer["return_input"] and answer["usage"]["prompt_tokens"] == 30


def test_coheres_first_client(url):
    asking = cohere.Client("secret", base_url=url)
    found = asking.rerank(model="demo", query="q", documents=DOCUMENTS, top_n=2, return_documents=True)
    assert [(one.index, one.document.text) for one in found.results] == [(1, DOCUMENTS[1]), (2, DOCUMENTS[2])]
    assert found.meta.billed_units.search_units == 1 and found.meta.tokens.input_tokens == 30
    given = [{"name": "a", "about": "x"}, {"name": "bbb", "about": "y"}]
    found = asking.rerank(query="q", documents=given, rank_fields=["name", "about"])
    assert [one.index for one in found.results] == [1, 0]


def test_coheres_second_client(url):
    asking = cohere.ClientV2("secret", base_url=url)
    found = asking.rerank(model="demo", query="q", documents=DOCUMENTS, max_tokens_per_doc=100)
    assert [(one.index, one.relevance_score) for one in found.results] == [(1, 1), (2, 1 / 2), (0, 1 / 3)]
    with pytest.raises(cohere.NotFoundError, match="model: not the one that is served; leave it out, or name demo"):
        asking.rerank(model="other", query="q", documents=DOCUMENTS)
    with pytest.raises(cohere.UnauthorizedError, match="api key: missing or unknown"):
        cohere.ClientV2("other", base_url=url).rerank(model="demo", query="q", documents=DOCUMENTS)


def test_openais_client(url):
    asking = openai.OpenAI(api_key="secret", base_url=f"{url}/v1")
    assert [one.id for one in asking.models.list()] == ["demo"]
    assert asking.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError) as missing:
        asking.models.retrieve("other")
    assert str(missing.value) == "Error code: 404 - model: not the one that is served; name demo"
