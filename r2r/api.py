"""The Python interface for notebooks and programs: a reranker in this process, with no Ray and no server.

with Reranker("Qwen/Qwen2.5-7B-Instruct", adapter="runs/x/distill") as reranker:
    for found in reranker.rank("how long do fleas live", ["Dogs bark.", "A flea lives 100 days."], explain=True):
        print(found.rank, found.score, found.text, found.reasons)
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from r2r.config import RerankSettings, validate
from r2r.errors import BadInput

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Reasons:
    """Why a document is relevant (`direct`), its sentence that answers (`evidence`, empty if none does), and why it
    stands above or below its neighbours (`comparison`, which names documents by their index, as `[2]`)."""

    direct: str
    evidence: str
    comparison: str


@dataclass(frozen=True)
class RankedDocument:
    """One document of a ranking.

    rank: from 1. score: from 0 to 1, the share of the other documents that the teacher is expected to put below it,
    comparable within a query only; with the setting score="rank", 1 / rank. index: place in the list that was given,
    from 0. reasons: None if none were asked for, or the student gave none that can be read.
    """

    rank: int
    score: float
    index: int
    text: str
    reasons: Reasons | None


class Reranker:
    """A student in a vLLM engine of this process.

    model: folder or hub name of an instruction-tuned model, or `demo`. adapter: a PEFT folder, or one that distill
    wrote; None ranks with the model as it is. settings: those of `r2r rerank`, such as window=10, merge=True or
    engine={"max_model_len": 8192}; what is left out is taken from the adapter's record. Starting takes 10 s to minutes.
    Raises BadInput for a wrong setting, a model that cannot rank, and an adapter that was made for another one.
    """

    def __init__(self, model: str, adapter: str | None = None, **settings: Any):
        from r2r.student.rank import Ranker, check_student

        given = validate(RerankSettings, settings, "Reranker")
        check_student(model, adapter, given)
        # A loop of its own: a notebook's is taken, and the engine lives in the loop that first asks it.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="r2r", daemon=True)
        self._thread.start()
        self._ranker: Ranker | None = None

        async def start() -> None:
            self._ranker = Ranker(model, adapter, given)
            await self._ranker.check_adapter()

        # An engine that is open when Python ends prints an error.
        atexit.register(self.close)
        try:
            self._wait(start())
        except BaseException:
            self.close()
            raise

    def rank(
        self,
        query: str,
        documents: Sequence[str | Mapping[str, Any]],
        top_n: int | None = None,
        explain: bool | int = False,
    ) -> list[RankedDocument]:
        """Return the documents best first, the first `top_n` of them (default: all).

        documents: texts, or mappings with `text` and optionally `title`. explain: give reasons for the first so many
        documents; True for all that are returned, up to a window. Raises BadInput for a document without text, or a
        text in place of a list, and `r2r.llm.Refused` for a query and documents that the engine will not take.
        """
        ranker = self._ranker
        if ranker is None:
            raise BadInput("Reranker: is closed; make another")
        if isinstance(documents, str | Mapping):
            raise BadInput("documents: one document; give a list of them")
        texts = [_text(document, place) for place, document in enumerate(documents)]
        if not texts:
            return []
        first = len(texts) if top_n is None else min(max(top_n, 0), len(texts))
        wanted = first if explain is True else min(max(explain, 0), first)
        found = self._wait(ranker.rank(query, texts, min(wanted, ranker.taught.window)))
        return [
            RankedDocument(place + 1, found.scores[place], index, texts[index], _reasons(found.reasons.get(index)))
            for place, index in enumerate(found.order[:first])
        ]

    def close(self) -> None:
        """End the engine, its processes and this object's thread. A second call does nothing."""
        atexit.unregister(self.close)
        if not self._loop.is_closed():
            if self._ranker:
                self._ranker.model.close()
            self._ranker = None
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Reranker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _text(document: str | Mapping[str, Any], place: int) -> str:
    if isinstance(document, str):
        return document
    text = document.get("text")
    if not isinstance(text, str):
        raise BadInput(f"documents: number {place}, counted from 0, has no text; give a text, or a mapping with 'text'")
    return f"{document['title']}\n{text}" if document.get("title") else text


def _reasons(written: Mapping[str, str] | None) -> Reasons | None:
    if not written:
        return None
    return Reasons(*(written.get(name, "") for name in ("direct", "evidence", "comparison")))
