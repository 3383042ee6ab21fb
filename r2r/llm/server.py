"""A model behind an OpenAI-compatible server: the address replaces the model's name.

Owns the HTTP calls and their retries. The address is the API's, `http://host:8000/v1`. To choose a model other than the
first that the server lists, add `#` and its name. The key comes from OPENAI_API_KEY and is never written anywhere.
Does not own how a server's requests are spelled: `probe` finds it out.

The `openai` SDK (3.54, tried against a fake server) does not carry these calls, since it would take things away. It
raises at once on 425, and on a Retry-After of over two minutes. Its pauses end at 8 s: 15 tries last two minutes, not
ten. Its errors leave out a body that is not OpenAI's ("Error code: 425"). It wants a key, also where a server has none.
An answer that is no completion would still need tries of our own. A call costs 1.4 ms of CPU there and 1.8 ms here.

    reply = await RemoteModel("http://127.0.0.1:8000/v1#qwen").complete("Hello", max_tokens=8)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from r2r.config import Dialect
from r2r.errors import BadInput
from r2r.llm import Refused, Reply

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

# Together about ten minutes of pauses: a large model may take that long to restart. The pause is in seconds.
MAX_TRIES, _MAX_PAUSE = 15, 60.0

# Statuses that pass, and those that no row can help. Others below 500 are about the request, so about the row.
OF_THE_SERVER = (408, 409, 425, 429)
OF_THE_ACCOUNT = (401, 402, 403, 404)
# What OpenAI says in a 429 that no waiting helps: the account has run out of money.
NO_MONEY = "insufficient_quota"
# An answer that is JSON and no chat completion is the row's fault, since others are answered: after so many tries.
UNREAD_TRIES = 3
# Keywords of a JSON schema that some servers do not know: lengths and counts.
_LIMITS = ("minLength", "maxLength", "minItems", "maxItems")


class Silent(BadInput):
    """The server gave no answer, or none but failures, in all tries."""


class Again(Exception):
    """The server may answer a request if it is asked again, after the pause that its answer may name."""

    def __init__(self, problem: str, answer: httpx.Response) -> None:
        super().__init__(problem)
        self.retry_after = answer.headers.get("retry-after", "")


async def until_answered(ask: Callable[[int], Awaitable[T]], where: str, tries: int, remedy: str) -> T:
    """Return what `ask` returns. It is given the number of the try, from 1.

    Asks again after growing pauses while it raises Again or gets no answer. Raises Silent after the last try; where:
    the address in that line, remedy: what the user does about it.
    """
    import httpx

    problem = ""
    for attempt in range(tries):
        pause = min(_MAX_PAUSE, 2.0**attempt)
        try:
            return await ask(attempt + 1)
        except httpx.RequestError as error:
            problem = f"{type(error).__name__}: {error}"
        except Again as again:
            problem, pause = str(again), retry_pause(again.retry_after, pause)
        if attempt + 1 < tries:
            await asyncio.sleep(pause)
    raise Silent(f"{where}: gave up after {tries} tries; the last: {problem}; {remedy}")


class RemoteModel:
    """A model on a server: the Model of `r2r.llm`. Only vLLM's servers report their `max_length`.

    `dialect` is how its requests are spelled; what is None there is sent as OpenAI named it first. Raises BadInput if
    the address names no model and the server lists none.
    """

    max_length: int | None

    def __init__(self, address: str, dialect: Dialect | None = None) -> None:
        import httpx

        self.dialect, self.tries = dialect or Dialect(), MAX_TRIES

        self.address, _, model = address.partition("#")
        key = os.environ.get("OPENAI_API_KEY")
        self.headers = headers = {"Authorization": f"Bearer {key}"} if key else {}
        base = self.address.rstrip("/")
        self.max_length = None
        self._extra: dict[str, Any] = {}
        # One client for each call in flight: at every call, httpx looks at all connections of a client's pool.
        self._idle: list[httpx.AsyncClient] = []
        self._new_client = partial(
            httpx.AsyncClient, headers=headers, timeout=600, follow_redirects=True, verify=httpx.create_ssl_context()
        )
        try:
            answer = httpx.get(f"{base}/models", headers=headers, timeout=30, follow_redirects=True)
            said = f"{answer.status_code}: {' '.join(answer.text[:200].split())}"
            listed = {one["id"]: one for one in answer.json()["data"]} if answer.is_success else {}
            base = _moved(base, answer.url) if listed else base
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            listed, said = {}, " ".join(str(error).split())
        model = model or next(iter(listed), "")
        if not model:
            raise BadInput(
                f"{self.address}: lists no model ({said}); give the address that ends in /v1 and the key "
                f"(OPENAI_API_KEY), or name the model after a #"
            )
        self.base, self._url = base, f"{base}/chat/completions"
        self.model = model
        self.remedy = f"see to the key (OPENAI_API_KEY), the account, the address or the model's name, here {model}"
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

        Asks a busy or failing server (408, 409, 425, 429, 5xx, no answer) again, after growing pauses. Raises BadInput
        with the server's words if the account or the address is at fault (401, 402, 403, 404), and Refused on any other
        status, and if three answers are JSON and no chat completion. Raises BadInput for `grammar` and `start`, and
        after the last try.
        """
        refuse_local(grammar, start)
        asked = self.body(prompt, max_tokens, temperature, seed, schema)

        async def ask(attempt: int) -> Reply:
            return self._read(await self._post(asked), last_unread=attempt >= UNREAD_TRIES)

        return await until_answered(ask, self.address, self.tries, "see to the server, and run the same command again")

    async def _post(self, asked: dict[str, Any]) -> httpx.Response:
        client = self._idle.pop() if self._idle else self._new_client()
        try:
            return await client.post(self._url, json=asked)
        finally:
            self._idle.append(client)

    def _read(self, answer: httpx.Response, last_unread: bool) -> Reply:
        """Return the reply in an answer. Raises as `complete` says, and Again if another try may help.

        last_unread: whether an answer that is JSON and no chat completion is the row's fault by now.
        """
        if answer.request.method != "POST":
            raise BadInput(
                f"{self.address}: sends requests on to {answer.url} in a way that loses them "
                f"({answer.history[-1].status_code}); give the address that it sends on to"
            )
        status, problem = answer.status_code, said(answer)
        if answer.is_success:
            problem = f"an answer that is no chat completion: {problem.partition(': ')[2]}"
            try:
                content = answer.json()
            except ValueError:
                raise Again(problem, answer) from None
            if reply := read_reply(content):
                return reply
            if (named := status_of(content)) is None:
                raise Refused(problem) if last_unread else Again(problem, answer)
            status = named
        if status in OF_THE_ACCOUNT or (status == 429 and NO_MONEY in answer.text):
            raise BadInput(f"{self.address}: {problem}; {self.remedy}")
        if 300 <= status < 500 and status not in OF_THE_SERVER:
            raise Refused(problem)
        raise Again(problem, answer)

    def in_writing(self) -> int:
        """Return 0: a server reports a reply's tokens when it is finished."""
        return 0

    def close(self) -> None:
        """Do nothing: the server goes on, and connections end with the process."""

    def body(
        self, prompt: str, max_tokens: int, temperature: float, seed: int | None, schema: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Return a request's body, spelled as the server takes it."""
        return self._extra | body(self.model, self.dialect, prompt, max_tokens, temperature, seed, schema)


def said(answer: httpx.Response) -> str:
    """Return an answer's status and the beginning of its text, on one line."""
    return f"{answer.status_code}: {' '.join(answer.text[:500].split())}"


def refuse_local(grammar: str | None, start: str) -> None:
    """Raise BadInput for what only an engine in this process can follow."""
    for name, value in (("grammar", grammar), ("start", start)):
        if value:
            raise BadInput(f"{name}: a server cannot follow it; use a model's folder or hub name, or leave it out")


def body(
    model: str,
    dialect: Dialect,
    prompt: str,
    max_tokens: int,
    temperature: float,
    seed: int | None,
    schema: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the body of a chat completion's request, spelled in a dialect."""
    content = [{"type": "text", "text": prompt}] if dialect.content == "parts" else prompt
    written: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        dialect.max_tokens or "max_tokens": max_tokens,
    }
    if dialect.temperature != "none":
        written["temperature"] = 1.0 if dialect.temperature == "1" else temperature
    if seed is not None and dialect.seed is not False:
        written["seed"] = seed
    form = dialect.response_format or "json_schema"
    if schema and form == "json_object":
        written["response_format"] = {"type": "json_object"}
    elif schema and form != "none":
        forced = _without_limits(schema) if form == "bare_schema" else schema
        written["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "reply", "schema": forced, "strict": True},
        }
    return written


def _without_limits(schema: Any) -> Any:
    """Return a JSON schema without its lengths and counts."""
    if isinstance(schema, list):
        return [_without_limits(one) for one in schema]
    if isinstance(schema, dict):
        return {name: _without_limits(value) for name, value in schema.items() if name not in _LIMITS}
    return schema


def retry_pause(retry_after: str, default: float) -> float:
    """Return the seconds that a Retry-After header asks for, as a number or a date (RFC 9110), else the default."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return default


def _moved(base: str, models: httpx.URL) -> str:
    """Return the address of an API whose list of models was found at `models`, perhaps after redirects.

    A redirect may turn a POST into a GET, so requests go to where the same host sends them on to, such as its https.
    """
    import httpx

    here = models.host == httpx.URL(base).host and models.path.endswith("/models") and not models.query
    return str(models).removesuffix("/models") if here else base


def status_of(answer: Any) -> int | None:
    """Return the HTTP status that an answer with status 200 names in its error, as proxies do; None if it has none."""
    code = _object(_object(answer).get("error")).get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else None


def read_reply(answer: Any) -> Reply | None:
    """Return the reply in a chat completion, None if the answer is none.

    A field of an unexpected type costs this reply at most: its text is then empty, and `fault` says why.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
        return None
    choice, usage = _object(next(iter(answer["choices"]), None)), _object(answer.get("usage"))
    message, cached = _object(choice.get("message")), _object(usage.get("prompt_tokens_details"))
    content, finish = message.get("content"), choice.get("finish_reason")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in map(_object, content) if part.get("type") == "text")
    text = content if isinstance(content, str) else ""
    return Reply(
        text,
        finish != "length",
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(cached.get("cached_tokens")),
        "" if finish == "length" else _fault(answer, message, finish, text),
    )


def _fault(answer: dict[str, Any], message: dict[str, Any], finish: Any, text: str) -> str:
    """Return why a reply has no text, or only a part of it; "" for a whole one."""
    if finish == "content_filter" and text:
        return "the server's content filter ended the reply"
    if text:
        return ""
    if not answer["choices"]:
        return "the server's answer has no choices"
    if message.get("refusal"):
        return f"the model refused: {str(message['refusal'])[:200]}"
    if message.get("tool_calls") or message.get("function_call"):
        return "the model called tools in place of an answer"
    for name in ("reasoning_content", "reasoning"):
        if message.get(name):
            return f"content is empty: the model wrote to {name} only"
    if message.get("content"):
        return f"content is no text but {str(message['content'])[:50]}"
    return f"content is empty (finish_reason {finish})"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
