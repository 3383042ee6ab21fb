"""Ask a server through the packages of other rerankers' clients, in the environment that has them (`make clients`).

    .venv/clients/bin/python tests/serving/clients.py http://127.0.0.1:8000 KEY MODEL < asked.json

reads `{"query", "documents"}` and prints `{client: [[document, score], ...]}`, best first. A client that fails stands
there with its traceback, as a text. The documents are those that the client hands to its caller: where it repeats what
the server sent, the server's; else the caller's own, found by index.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

Found = list[tuple[str, float]]
CLIENTS: dict[str, Callable[[str, str, str, str, list[str]], Found]] = {}


def client(name: str) -> Callable:
    """Enter a function of (address, key, model, query, documents) under the client's name."""

    def enter(asking: Callable) -> Callable:
        CLIENTS[name] = asking
        return asking

    return enter


@client("cohere Client")
def cohere_first(url: str, key: str, model: str, query: str, documents: list[str]) -> Found:
    import cohere

    asking = cohere.Client(key, base_url=url)
    found = asking.rerank(model=model, query=query, documents=documents, return_documents=True)
    return [(one.document.text, one.relevance_score) for one in found.results]


@client("cohere ClientV2")
def cohere_second(url: str, key: str, model: str, query: str, documents: list[str]) -> Found:
    import cohere

    found = cohere.ClientV2(key, base_url=url).rerank(model=model, query=query, documents=documents)
    return [(documents[one.index], one.relevance_score) for one in found.results]


@client("LangChain CohereRerank")
def langchain(url: str, key: str, model: str, query: str, documents: list[str]) -> Found:
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document

    asking = CohereRerank(base_url=url, cohere_api_key=key, model=model, top_n=len(documents))
    found = asking.compress_documents([Document(page_content=text) for text in documents], query)
    return [(one.page_content, one.metadata["relevance_score"]) for one in found]


def llama_index(asking: Any, query: str, documents: list[str]) -> Found:
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text), score=0) for text in documents]
    return [(one.node.text, one.score) for one in asking.postprocess_nodes(nodes, query_str=query)]


@client("LlamaIndex CohereRerank")
def llama_index_cohere(url: str, key: str, model: str, query: str, documents: list[str]) -> Found:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    asking = CohereRerank(top_n=len(documents), model=model, api_key=key, base_url=url)
    return llama_index(asking, query, documents)


@client("LlamaIndex JinaRerank")
def llama_index_jina(url: str, key: str, model: str, query: str, documents: list[str]) -> Found:
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    asking = JinaRerank(top_n=len(documents), model=model, api_key=key, base_url=f"{url}/v1")
    return llama_index(asking, query, documents)


@client("Haystack CohereRanker")
def haystack(url: str, key: str, model: str, query: str, documents: list[str]) -> Found:
    from haystack import Document
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    asking = CohereRanker(model=model, api_key=Secret.from_token(key), api_base_url=url)
    found = asking.run(query=query, documents=[Document(content=text) for text in documents])["documents"]
    return [(one.content, one.score) for one in found]


def litellm(provider: str, path: str = "") -> None:
    """Enter LiteLLM's client of this provider. path: what its address ends with."""

    @client(f"LiteLLM {provider}")
    def asking(url: str, key: str, model: str, query: str, documents: list[str]) -> Found:
        import litellm

        litellm.telemetry = False
        found = litellm.rerank(
            model=f"{provider}/{model}",
            query=query,
            documents=documents,
            return_documents=True,
            api_base=url + path,
            api_key=key,
        )
        return [(one["document"]["text"], one["relevance_score"]) for one in found.results]


for provider in ("cohere", "jina_ai", "hosted_vllm", "huggingface"):
    litellm(provider)
litellm("together_ai", "/v1")
litellm("infinity", "/infinity")
litellm("voyage", "/voyage")


def rerankers(provider: str, path: str) -> None:
    """Enter the client of `rerankers` for this provider, whose address is a constant that its constructor replaces."""

    @client(f"rerankers {provider}")
    def asking(url: str, key: str, model: str, query: str, documents: list[str]) -> Found:
        from rerankers.models.api_rankers import APIRanker

        found = APIRanker(model, key, provider, verbose=0, url=url + path).rank(query, documents)
        return [(one.text, one.score) for one in found.results]


rerankers("cohere", "/v1/rerank")
rerankers("jina", "/v1/rerank")
rerankers("voyage", "/v1/rerank")
rerankers("mixedbread.ai", "/v1/reranking")
rerankers("text-embeddings-inference", "/rerank")


@client("voyageai")
def voyageai(url: str, key: str, model: str, query: str, documents: list[str]) -> Found:
    import voyageai

    found = voyageai.Client(api_key=key, base_url=f"{url}/v1").rerank(query, documents, model=model)
    return [(one.document, one.relevance_score) for one in found.results]


@client("mixedbread-ai")
def mixedbread(url: str, key: str, model: str, query: str, documents: list[str]) -> Found:
    from mixedbread_ai.client import MixedbreadAI

    asking = MixedbreadAI(api_key=key, base_url=url)
    found = asking.reranking(query=query, input=documents, model=model, return_input=True)
    return [(one.input, one.score) for one in found.data]


@client("openai models.list")
def openai(url: str, key: str, model: str, query: str, documents: list[str]) -> Found:
    import openai

    return [(one.id, 1) for one in openai.OpenAI(api_key=key, base_url=f"{url}/v1").models.list()]


if __name__ == "__main__":
    # The packages speak to their makers at import or after a call if they are not told otherwise.
    os.environ |= {"HAYSTACK_TELEMETRY_ENABLED": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    # Some packages print, too.
    printed, sys.stdout = sys.stdout, sys.stderr
    address, key, model = sys.argv[1:]
    asked = json.load(sys.stdin)
    answers: dict[str, Any] = {}
    for name, asking in CLIENTS.items():
        print(f"{name} asks")
        try:
            answers[name] = asking(address, key, model, asked["query"], asked["documents"])
        except Exception:
            answers[name] = traceback.format_exc()
    json.dump(answers, printed)
