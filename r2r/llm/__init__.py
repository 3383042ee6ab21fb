"""One interface to a language model: `Model`, and `LabelModel` for a model that also gives log-probabilities.

Owns the interface and the choice of its implementation: vLLM in this process (`engine`), an OpenAI-compatible server
(`server`), or files of requests (`batch`). Does not own prompts' wording or the reading of replies: stages do that.

    model = open_model("Qwen/Qwen2.5-7B-Instruct")
    reply = await model.complete("Which is larger, 3 or 5?", max_tokens=8)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, NamedTuple, Protocol, runtime_checkable

from r2r.config import Dialect
from r2r.errors import BadInput
from r2r.places import place


class Reply(NamedTuple):
    """A model's answer.

    `complete` is False if the reply was cut off at `max_tokens`. `cached_tokens` counts the prompt tokens that the
    model took from its prefix cache. `fault` says why there is no text, or only a part of it; "" for a whole text, or
    if it is not known.
    """

    text: str
    complete: bool
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    fault: str = ""


class Refused(Exception):
    """The model cannot take this request, and asking again does not help. The message says why."""


class Died(Exception):
    """The engine died during this request. Close the model and open another."""


@runtime_checkable
class Model(Protocol):
    """A language model that answers messages.

    The constructor loads or connects the model; it raises BadInput if there is no such model or an argument is wrong.
    Calls are asynchronous: many may run at once, and the model batches them itself.
    """

    @property
    def max_length(self) -> int | None:
        """The longest prompt plus reply, in tokens, chat format included. None: not known."""
        ...

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
        """Answer one user message.

        Arguments:
            prompt: the message as plain text; the model adds its chat format.
            max_tokens: the longest reply, in tokens.
            schema: a JSON schema; the reply is JSON that fits it. At most one of `schema` and `grammar`.
            grammar: a grammar in xgrammar's EBNF; the reply is a text that it allows.
            temperature: 0 takes the likeliest token each time.
            seed: the seed for sampling; None leaves it to the model.
            start: how the reply begins. `Reply.text` does not repeat it.

        Raises Refused if the model cannot take this request (for example, prompt and reply exceed `max_length`), Died
        if the engine died, and BadInput if this kind of model does not support an argument (the message names it) or
        its server stopped answering.
        """
        ...

    def in_writing(self) -> int:
        """Return the tokens so far of all replies that are not finished; 0 for a server, which does not say."""
        ...

    def close(self) -> None:
        """Free the model's processes and memory, also after Died. Call nothing after it."""
        ...


@runtime_checkable
class LabelModel(Model, Protocol):
    """A model that also compares single tokens, and gives its tokenizer to build prompts with."""

    @property
    def max_length(self) -> int:
        """The longest prompt plus reply, in tokens."""
        ...

    @property
    def tokenizer(self) -> Any:
        """The model's Hugging Face tokenizer, with a chat template."""
        ...

    async def label_logprobs(self, ids: list[int], labels: list[int]) -> tuple[list[float], int]:
        """Compare labels as the next token after a prompt.

        Arguments:
            ids: the prompt's token ids, chat format included (see `prompt.chat_ids`).
            labels: token ids, one per label.

        Returns the natural log-probability of each label, in the order of `labels`, and how many tokens of the prompt
        came from the prefix cache. Raises Refused and Died as `complete` does.
        """
        ...

    async def likelihood(self, ids: list[int], written: list[int]) -> float:
        """Return the natural log-probability of writing the tokens `written`, one or more, after the prompt `ids`.

        Raises Refused and Died as `complete` does.
        """
        ...

    def growing(self, prompt: str, *, max_tokens: int, grammar: str, start: str = "") -> AsyncGenerator[Reply, None]:
        """Answer as `complete` does, at temperature 0, and yield the reply each time it has grown.

        Closing the generator ends the request. Raises Refused and Died as `complete` does.
        """
        ...

    def check_alive(self) -> None:
        """Raise Died if the engine has died. Asks it nothing."""
        ...


def is_remote(model: str) -> bool:
    """Return whether a model runs elsewhere, so that its tokenizer is not at hand: behind a server's address, or behind
    a folder of requests, `file:DIR#MODEL`."""
    return is_server(model) or is_folder(model)


def is_server(model: str) -> bool:
    """Return whether a model's name is a server's address."""
    return model.startswith(("http://", "https://"))


def is_folder(model: str) -> bool:
    """Return whether a model's name is a folder of requests, `file:DIR#MODEL`."""
    return model.startswith("file:")


def open_model(
    model: str,
    engine: dict[str, Any] | None = None,
    adapter: str | None = None,
    server: Dialect | None = None,
    batch: str = "",
) -> Model:
    """Open a model by its name: the one place that knows which file implements which kind.

    Arguments:
        model: the http(s) address of a server, `file:DIR#MODEL` for files of requests that the user runs, or a folder
            or hub name for vLLM in this process.
        engine: vLLM's engine arguments; a server ignores them.
        adapter: the folder of a LoRA adapter; a server ignores it.
        server: how a server's requests are spelled; None sends all parameters, as OpenAI named them first.
        batch: what marks the batches of this job at the server (see `batch`); "" sends each request by itself.

    Raises BadInput if there is no such model or an engine argument is wrong.
    """
    if is_folder(model):
        from r2r.llm.batch import BatchModel, Folder

        folder, _, name = model.removeprefix("file:").partition("#")
        return BatchModel(Folder(place(folder), name, server or Dialect()))
    if is_server(model):
        from r2r.llm.server import RemoteModel

        remote = RemoteModel(model, server)
        if not batch:
            return remote
        from r2r.llm.batch import Api, BatchModel

        return BatchModel(Api(remote, batch), remote.max_length)
    from r2r.llm.engine import LocalModel

    return LocalModel(model, engine or {}, adapter)


def open_label_model(model: str, engine: dict[str, Any] | None = None, adapter: str | None = None) -> LabelModel:
    """Open a model as `open_model` does. Raises BadInput also if the model gives no log-probabilities."""
    opened = open_model(model, engine, adapter)
    if not isinstance(opened, LabelModel):
        raise BadInput(f"{model}: gives no log-probabilities of labels; name a model's folder or hub name")
    return opened
