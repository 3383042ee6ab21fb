"""A model behind an OpenAI-compatible server: its address takes the place of the model's name.

Owns the HTTP calls and their retries. The address is that of the API, `http://host:8000/v1`; a model other than the
first that the server lists is named after a `#`. The key is read from OPENAI_API_KEY and never written anywhere.

    reply = await Server("http://127.0.0.1:8000/v1#qwen").complete("Hello", max_tokens=8)
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from r2r.errors import BadInput
from r2r.llm import Refused, Reply

# Some ten minutes: as long as a large model takes to start again.
_TRIES, _LONGEST = 15, 60.0


class Server:
    """Calls to one server. `max_length` is that of prompt and reply in tokens, None where the server does not tell it.

    Raises BadInput where it does not answer at all.
    """

    def __init__(self, address: str):
        import httpx

        self.address, _, model = address.partition("#")
        key = os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        base = self.address.rstrip("/")
        self.max_length: int | None = None
        self._more: dict = {}
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
            # What others do not tell, and do not take.
            self.max_length = listed[model].get("max_model_len")
            self._more = {"chat_template_kwargs": {"enable_thinking": False}}

    async def complete(
        self,
        prompt: str,
        *,
        max_tokens: int,
        schema: dict | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Reply:
        """Answer one user message; `schema` forces the reply into JSON of that schema.

        A busy or failing server (429, 5xx, no answer) is asked again after a growing pause. Raises Refused on any
        other 4xx, with the server's words, and BadInput when the tries are used up.
        """
        import httpx

        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": temperature,
            **self._more,
        }
        if seed is not None:
            body["seed"] = seed
        if schema:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": schema, "strict": True},
            }
        for attempt in range(_TRIES):
            pause = min(_LONGEST, 2.0**attempt)
            try:
                answer = await self._client.post(self._url, json=body)
            except httpx.TransportError as error:
                trouble = f"{type(error).__name__}: {error}"
            else:
                trouble = f"{answer.status_code}: {answer.text[:500]}"
                if answer.is_success:
                    try:
                        return _reply(answer.json())
                    except (ValueError, LookupError, TypeError):
                        trouble = f"an answer that is no chat completion: {answer.text[:500]}"
                elif answer.status_code != 429 and answer.status_code < 500:
                    raise Refused(trouble)
                pause = _asked_for(answer.headers.get("retry-after", ""), pause)
            if attempt + 1 < _TRIES:
                await asyncio.sleep(pause)
        right = "see to the server, and run the same command again"
        raise BadInput(f"{self.address}: gave up after {_TRIES} tries; the last: {' '.join(trouble.split())}; {right}")


def _asked_for(retry_after: str, usual: float) -> float:
    """Return the seconds that a Retry-After header asks for, as a number or as a date (RFC 9110); else the usual."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return usual


def _reply(answer: dict) -> Reply:
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    text = choice["message"]["content"] or ""
    complete = choice["finish_reason"] == "stop"
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Reply(text, complete, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0), cached)
