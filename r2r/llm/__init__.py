"""One small interface to a model: vLLM in this process (`engine`), or an OpenAI-compatible server (`server`).

Both offer `await model.complete(prompt, ...) -> Reply`. What a prompt says and what a reply means belongs to the
stages; `prompt` turns text into tokens that fit, `pool` sends the rows of a table through models on many workers.

    model = open_model("Qwen/Qwen2.5-7B-Instruct")
    reply = await model.complete("Which is larger, 3 or 5?", max_tokens=8)
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Reply(NamedTuple):
    """What a model answered. `complete` is False where the reply was cut off at its longest length; `cached_tokens` are
    those of the prompt that the model had read before, as the beginning of another."""

    text: str
    complete: bool
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class Refused(Exception):
    """The model, or its server, will not take this request, however often it is asked; the message says why."""


class Died(Exception):
    """The engine has died with this request in it; another one has to be made."""


def is_server(model: str) -> bool:
    return model.startswith(("http://", "https://"))


def open_model(model: str, engine: dict[str, Any] | None = None, adapter: str | None = None):
    """Return a `Server` for an http(s) address, else an `Engine` that has loaded the model."""
    if is_server(model):
        from r2r.llm.server import Server

        return Server(model)
    from r2r.llm.engine import Engine

    return Engine(model, engine or {}, adapter)
