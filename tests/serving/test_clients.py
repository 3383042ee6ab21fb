"""Clients of other rerankers against the server: Cohere's and OpenAI's own packages, and the requests that others send.

The requests are as the clients sent them: langchain-cohere 0.6, llama-index's cohere-rerank 0.10 and jinaai-rerank 0.6,
cohere-haystack 11.0, litellm 1.110, rerankers 0.10, voyageai 0.5, mixedbread-ai 2.2. What each reads of the answer was
taken from its source.
"""

import cohere
import openai
import pytest

from tests.serving.served import DOCUMENTS, ORDER, address, client

ASKED = {"model": "demo", "query": "q"}
WITH = ASKED | {"documents": DOCUMENTS}
RETURN = WITH | {"return_documents": True}
AS_OBJECTS = [{"text": DOCUMENTS[index]} for index in ORDER]
AS_TEXTS = [DOCUMENTS[index] for index in ORDER]
TEI = {"query": "q", "texts": DOCUMENTS, "return_text": True}
INPUT = ASKED | {"input": DOCUMENTS, "top_k": 3, "return_input": True}

# Client, path, request; then where it reads the results, the score's name, the document's name, and the documents.
RECORDED = [
    (
        "langchain",
        "/v2/rerank",
        WITH | {"top_n": 3, "max_tokens_per_doc": None},
        "results",
        "relevance_score",
        "",
        None,
    ),
    ("llama-index cohere", "/v2/rerank", WITH | {"top_n": 3}, "results", "relevance_score", "", None),
    ("llama-index jina", "/v1/rerank", WITH | {"top_n": 3}, "results", "relevance_score", "", None),
    (
        "haystack",
        "/v2/rerank",
        WITH | {"top_n": 10, "max_tokens_per_doc": 4096},
        "results",
        "relevance_score",
        "",
        None,
    ),
    ("litellm cohere", "/v2/rerank", RETURN, "results", "relevance_score", "document", AS_OBJECTS),
    ("litellm jina_ai", "/v1/rerank", RETURN, "results", "relevance_score", "document", AS_OBJECTS),
    ("litellm hosted_vllm", "/rerank", RETURN, "results", "relevance_score", "document", AS_OBJECTS),
    ("litellm infinity", "/infinity/rerank", RETURN, "results", "relevance_score", "document", AS_TEXTS),
    (
        "litellm huggingface",
        "/rerank",
        TEI | {"raw_scores": False, "truncation_direction": "Right"},
        "",
        "score",
        "text",
        AS_TEXTS,
    ),
    ("litellm voyage", "/voyage/v1/rerank", RETURN, "data", "relevance_score", "document", AS_TEXTS),
    ("rerankers cohere", "/v1/rerank", RETURN | {"top_n": 3}, "results", "relevance_score", "document", AS_OBJECTS),
    ("rerankers voyage", "/v1/rerank", RETURN | {"top_k": 3}, "data", "relevance_score", "document", AS_TEXTS),
    ("rerankers mixedbread", "/v1/reranking", INPUT, "data", "score", "input", AS_TEXTS),
    ("rerankers TEI", "/rerank", ASKED | TEI | {"top_n": 3}, "", "score", "text", AS_TEXTS),
    ("voyageai", "/v1/rerank", WITH | {"top_k": None, "truncation": True}, "data", "relevance_score", "", None),
]


@pytest.mark.parametrize(
    ("path", "request_", "where", "score", "document", "documents"),
    [one[1:] for one in RECORDED],
    ids=[one[0] for one in RECORDED],
)
def test_a_client_reads_what_it_expects(path, request_, where, score, document, documents):
    answer = client()[0].post(path, json=request_).raise_for_status().json()
    results = answer[where] if where else answer
    assert [result["index"] for result in results] == ORDER
    assert [result[score] for result in results] == [1, 1 / 2, 1 / 3]
    if documents:
        assert [result[document] for result in results] == documents
    if where:
        assert answer["usage"]["total_tokens"] == 31


def test_mixedbreads_client_reads_back_what_it_asked_for():
    answer = client()[0].post("/v1/reranking", json=INPUT | {"top_k": 2}).json()
    assert answer["top_k"] == 2 and answer["return_input"] and answer["usage"]["prompt_tokens"] == 30


@pytest.fixture(scope="module")
def url():
    with address("secret") as served:
        yield served


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
