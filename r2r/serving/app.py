"""The student behind HTTP: `POST /v1/rerank`, in the shape of Cohere, Jina and vLLM.

Owns the request, the answer and the deployment on Ray Serve. How passages are ranked is in `r2r.student.rank`.

    curl http://127.0.0.1:8000/v1/rerank -H 'Content-Type: application/json' \\
      -d '{"query": "what drives the Esker furnace", "documents": ["Merchants order buttons from it."]}'
"""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from r2r.config import ServeSettings
from r2r.errors import Terminated
from r2r.llm import Refused
from r2r.llm.engine import check_arguments
from r2r.student.rank import Ranker, check_student
from r2r.student.record import completed, warn_of_long_windows
from r2r.workers import start_ray, use_driver_folder

MOST_DOCUMENTS = 1000

api = FastAPI(title="Reason-to-Rank")


class DocumentBody(BaseModel):
    text: str


class Request(BaseModel):
    """`model` is accepted and ignored: a server serves one student."""

    model: str | None = None
    query: str = Field(min_length=1)
    documents: list[str | DocumentBody] = Field(min_length=1, max_length=MOST_DOCUMENTS)
    top_n: int | None = Field(None, ge=1)
    explain: bool = False


class Replica:
    """One replica of the deployment: a student in its engine, ranking as `r2r rerank` does."""

    def __init__(self, student: str, adapter: str | None, settings: ServeSettings, folder: str):
        use_driver_folder(folder)
        self.name = student
        self.ranker = Ranker(student, adapter, settings)

    @api.post("/v1/rerank")
    async def rerank(self, request: Request) -> dict[str, Any]:
        """Return the documents best first, `top_n` of them. `relevance_score` is 1 / rank: a listwise student orders
        documents and does not grade them. With `explain`, the first results, up to a window of 20, carry reasons."""
        texts = [document if isinstance(document, str) else document.text for document in request.documents]
        first = min(request.top_n or len(texts), len(texts))
        window = self.ranker.taught.window
        try:
            ranked = await self.ranker.rank(request.query, texts, min(first, window) if request.explain else 0)
        except Refused as refused:
            raise HTTPException(400, str(refused)) from None
        results = []
        for rank, index in enumerate(ranked.order[:first], start=1):
            result = {"index": index, "relevance_score": 1 / rank, "document": {"text": texts[index]}}
            if request.explain:
                result["reasons"] = ranked.reasons.get(index)
            results.append(result)
        tokens = {name: ranked.counts[name] for name in ("prompt_tokens", "completion_tokens")}
        return {
            "id": f"rerank-{uuid.uuid4().hex}",
            "model": self.name,
            "results": results,
            "usage": {**tokens, "total_tokens": sum(tokens.values())},
        }


def serve(student: str, adapter: str | None, settings: ServeSettings) -> None:
    """Serve until interrupted. A setting that is None is taken from the adapter's record.

    Raises BadInput if the adapter was made for another model, or was distilled otherwise than the settings say.
    """
    from ray import serve as ray_serve

    check_arguments(settings.engine)
    completed(settings, adapter, student)
    check_student(student, adapter)
    warn_of_long_windows(settings, adapter, student)
    start_ray()
    deployment = ray_serve.deployment(
        ray_serve.ingress(api)(Replica),
        name="rerank",
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        autoscaling_config={"min_replicas": 1, "max_replicas": settings.replicas, "target_ongoing_requests": 32},
        max_ongoing_requests=128,
    )
    ray_serve.start(http_options={"host": settings.host, "port": settings.port})
    ray_serve.run(deployment.bind(student, adapter, settings, os.getcwd()), name="rerank", route_prefix="/")
    print(f"serve: {student} answers POST http://{settings.host}:{settings.port}/v1/rerank; Ctrl-C ends it", flush=True)
    try:
        asyncio.run(asyncio.Event().wait())
    except Terminated:
        ray_serve.shutdown()
        raise
    except KeyboardInterrupt:
        ray_serve.shutdown()
