"""A server's application around a student that ranks long texts first and starts no engine.

with client(max_requests=1) as asking: asking.post("/v1/rerank", json={...})
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from r2r.config import ServeSettings
from r2r.serving.app import application
from r2r.student.rank import Ranked
from r2r.student.record import completed
from r2r.student.scores import FirstStage, by_rank, fused
from tests.llm.dummy import DummyModel

DOCUMENTS = ["short", "the longest of them", "middle one"]
ORDER = [1, 2, 0]


class Ranker:
    """Ranks long texts first, and says so. `error`: what it raises. `pause`: what it waits for first. `later`: called
    after each reason but the last, with their number."""

    def __init__(self, settings: ServeSettings):
        self.model, self.taught, self.calls = DummyModel(), completed(settings, None), []
        self.tokenizer, self.error, self.pause = self.model.tokenizer, None, None
        self.begun: asyncio.Event | None = None
        self.later: Any = None
        self.cancelled = False

    @staticmethod
    def reasons_of(text: str) -> dict[str, str]:
        return {"direct": f"It is long: {len(text)}."}

    async def rank(self, query: str, texts: list[str]) -> Ranked:
        return [ranked async for ranked in self.steps(query, texts)][-1]

    async def steps(
        self,
        query: str,
        texts: list[str],
        explain: Any = 0,
        parts: bool = False,
        first_stage: FirstStage | None = None,
    ) -> Any:
        self.calls.append((query, texts, explain))
        if self.begun:
            self.begun.set()
        if self.pause:
            await self.pause.wait()
        if self.error:
            raise self.error
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        scores = by_rank(len(texts))
        if first_stage:
            order, scores = fused(order, scores, first_stage)
        counts = Counter(prompt_tokens=10 * len(texts), completion_tokens=1)
        yield Ranked(order, {}, counts, scores)
        explained = order[:explain] if isinstance(explain, int) else explain
        reasons = {index: self.reasons_of(texts[index]) for index in explained}
        try:
            for count in range(1, len(explained)) if parts else ():
                yield Ranked(order, {index: reasons[index] for index in explained[:count]}, counts, scores)
                if self.later:
                    await self.later(count)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if explained:
            yield Ranked(order, reasons, counts, scores)


def app_of(*keys: str, **settings: Any) -> tuple[FastAPI, Ranker]:
    given = ServeSettings(**settings)
    ranker = Ranker(given)
    hashes = [hashlib.sha256(key.encode()).digest() for key in keys]
    return application(ranker, given, "demo", hashes), ranker


def client(*keys: str, **settings: Any) -> tuple[TestClient, Ranker]:
    app, ranker = app_of(*keys, **settings)
    return TestClient(app, raise_server_exceptions=False), ranker


@contextmanager
def address(*keys: str, later: Any = None) -> Iterator[str]:
    """Serve on loopback, for clients that open their own connections. later: the Ranker's."""
    app, ranker = app_of(*keys)
    ranker.later = later
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    ready = threading.Event()
    begin = server.startup

    async def startup(sockets: Any = None) -> None:
        await begin(sockets)
        ready.set()

    server.startup = startup
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert ready.wait(20)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
