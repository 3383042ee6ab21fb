"""A model without an engine, for tests of what surrounds a model.

The same calls get the same answers, in any process.

    model = DummyModel(lambda prompt: "[2] > [1]")
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

from r2r.llm import Died, Refused, Reply
from r2r.llm.prompt import ByteTokenizer, chat_ids


class DummyModel:
    """A LabelModel that replies `answer(prompt)`, by default a hash of the prompt, and counts tokens in bytes."""

    tokenizer: Any
    max_length: int

    def __init__(self, answer: Callable[[str], str] = lambda prompt: _hash(prompt.encode()), max_length: int = 4096):
        self.answer, self.max_length, self.tokenizer, self.closed = answer, max_length, ByteTokenizer(), False

    async def complete(
        self,
        prompt: str,
        *,
        max_tokens: int,
        schema: dict[str, Any] | None = None,
        grammar: str | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
        start: str = "",
    ) -> Reply:
        ids = chat_ids(self.tokenizer, prompt, start)
        self._check(len(ids) + max_tokens)
        written = self.answer(prompt)
        text = written.encode()[:max_tokens].decode(errors="ignore")
        return Reply(text, text == written, len(ids), len(text.encode()))

    async def growing(
        self, prompt: str, *, max_tokens: int, grammar: str, start: str = ""
    ) -> AsyncGenerator[Reply, None]:
        whole = await self.complete(prompt, max_tokens=max_tokens, grammar=grammar, start=start)
        for end in range(1, len(whole.text) + 1):
            yield whole._replace(text=whole.text[:end])

    async def label_logprobs(self, ids: list[int], labels: list[int]) -> tuple[list[float], int]:
        self._check(len(ids) + 1)
        return [-int(_hash(bytes([*ids, label])), 16) / 2**256 for label in labels], 0

    async def likelihood(self, ids: list[int], written: list[int]) -> float:
        self._check(len(ids) + len(written) + 1)
        return -int(_hash(bytes(ids + written)), 16) / 2**256

    def in_writing(self) -> int:
        return 0

    def check_alive(self) -> None:
        self._check(0)

    def close(self) -> None:
        self.closed = True

    def _check(self, tokens: int) -> None:
        if self.closed:
            raise Died("the dummy is closed")
        if tokens > self.max_length:
            raise Refused(f"{tokens} tokens exceed {self.max_length}")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
