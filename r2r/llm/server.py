"""A model behind an OpenAI-compatible server: the address replaces the model's name.

Owns the HTTP calls and their retries. The address is the API's, `http://host:8000/v1`. To choose a model other than the
first that the server lists, add `#` and its name. The key comes from OPENAI_API_KEY and is never written anywhere.

    reply = await RemoteModel("http://127.0.0.1:8000/v1#qwen").complete("Hello", max_tokens=8)
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from r2r.errors import BadInput
from r2r.llm import Refused, Reply

# Together about ten minutes of pauses: a large model may take that long to restart. The pause is in seconds.
_MAX_TRIES, _MAX_PAUSE = 15, 60.0


class RemoteModel:
    """A model on a server: the Model of `r2r.llm`. Only vLLM's servers tell their `max_length`.

    Raises BadInput if the address names no model and the server lists none.
    """

    max_length: int | None

    def __init__(self, address: str) -> None:
        import httpx

        self.address, _, model = address.partition("#")
        key = os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        base = self.address.rstrip("/")
        self.max_length = None
        self._extra: dict[str, Any] = {}
        self._client = httpx.AsyncClient(headers=headers, timeout=600, limits=httpx.Limits(max_connections=None))
        self._url = f"{base}/chat/completions"
        try:
            answer = httpx.get(f"{base}/models", headers=headers, timeout=30).raise_for_status().json()
            listed = {one["id"]: one for one in answer["data"]}
            model = model or next(iter(listed))
        except (httpx.HTTPError, ValueError, KeyError, TypeError, StopIteration) as error:
            if not model:
                raise BadInput(f"{self.address}: lists no model ({error}); give the address that ends in /v1") from None
            listed = {}
        self.model = model
        if listed.get(model, {}).get("owned_by") == "vllm":
            # Other servers do not report the length, and some reject the extra argument.
            self.max_length = listed[model].get("max_model_len")
            self._extra = {"chat_template_kwargs": {"enable_thinking": False}}

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
        """Answer one user message; see `r2r.llm.Model`.

        Asks a busy or failing server (429, 5xx, no answer) again, after growing pauses. Raises Refused with the
        server's words on any other status, and BadInput for `grammar` and `start`, and after the last try.
        """
        import httpx

        for name, value in (("grammar", grammar), ("start", start)):
            if value:
                raise BadInput(f"{name}: a server cannot follow it; use a model's folder or hub name, or leave it out")
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": temperature,
            **self._extra,
        }
        if seed is not None:
            body["seed"] = seed
        if schema:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": schema, "strict": True},
            }
        for attempt in range(_MAX_TRIES):
            pause = min(_MAX_PAUSE, 2.0**attempt)
            try:
                answer = await self._client.post(self._url, json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                problem = f"{answer.status_code}: {answer.text[:500]}"
                if answer.is_success:
                    try:
                        return _reply(answer.json())
                    except (ValueError, LookupError, TypeError):
                        problem = f"an answer that is no chat completion: {answer.text[:500]}"
                elif answer.status_code != 429 and answer.status_code < 500:
                    raise Refused(problem)
                pause = _retry_pause(answer.headers.get("retry-after", ""), pause)
            if attempt + 1 < _MAX_TRIES:
                await asyncio.sleep(pause)
        last = " ".join(problem.split())
        remedy = "see to the server, and run the same command again"
        raise BadInput(f"{self.address}: gave up after {_MAX_TRIES} tries; the last: {last}; {remedy}")

    def close(self) -> None:
        """Do nothing: the server goes on, and connections end with the process."""


def _retry_pause(retry_after: str, default: float) -> float:
    """Return the seconds that a Retry-After header asks for, as a number or a date (RFC 9110), else the default."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return default


def _reply(answer: dict[str, Any]) -> Reply:
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    text = choice["message"]["content"] or ""
    complete = choice["finish_reason"] == "stop"
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Reply(text, complete, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0), cached)
