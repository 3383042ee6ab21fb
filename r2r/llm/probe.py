"""What a server takes: found out with one small request at the start of a job, and more only if that is refused.

Owns which parameter a refusal is about, and what is tried in its place. Does not own the requests (`server`).

    found = probe("http://127.0.0.1:8000/v1", Dialect(), "Which is larger, 3 or 5? ...", schema, max_tokens=100)
    found.dialect.response_format    # "json_object"
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, NamedTuple

from r2r.config import Dialect
from r2r.errors import BadInput
from r2r.llm import Refused
from r2r.llm.server import RemoteModel, Silent

# The spellings of each parameter, the best one first.
_SPELLINGS: dict[str, tuple[Any, ...]] = {
    "response_format": ("json_schema", "bare_schema", "json_object", "none"),
    "seed": (True, False),
    "temperature": ("own", "none", "1"),
    "max_tokens": ("max_tokens", "max_completion_tokens"),
    "content": ("text", "parts"),
}
# What a refusal says of each parameter.
_NAMES = {
    "response_format": re.compile(r"response.?format|json.?(schema|mode|object)|structured|grammar|guided", re.I),
    "seed": re.compile(r"\bseed\b", re.I),
    "temperature": re.compile(r"\btemperature\b", re.I),
    "max_tokens": re.compile(r"max.?(completion.?)?tokens", re.I),
    "content": re.compile(r"\bcontent\b.*\b(list|array|sequence|parts?)\b|\b(list|array|sequence) of content", re.I),
}
# What servers say of a model that they do not have, where the status is not 404.
_NO_SUCH_MODEL = re.compile(
    r"model_not_found|\b(invalid|unknown|no such|not a valid) model\b|\bmodel\b.{0,80}\bnot (exist|found|a valid)", re.I
)
# How often a spelling that is only tried out is sent to a server that fails: it may fail because of the spelling.
_TRIES = 3
_SCHEMA_LIMIT = re.compile(r"(min|max)(Length|Items)")


class Probed(NamedTuple):
    """What a server takes: every field of `dialect` is known. `refusal` has the first refusal's words, "" for none.

    calls: requests made. prompt_tokens, completion_tokens: of the one that was answered.
    """

    dialect: Dialect
    refusal: str
    calls: int
    prompt_tokens: int
    completion_tokens: int


def probe(
    address: str, forced: Dialect, prompt: str, schema: dict[str, Any], max_tokens: int, temperature: float = 0.0
) -> Probed:
    """Find out what a server takes.

    Arguments:
        address: as of `RemoteModel`.
        forced: what is already decided; nothing else is tried for it.
        prompt, schema, max_tokens, temperature: a small request, with the parameters of those to come.

    The parameter that a refusal names is spelled in its next way. If a refusal names none, each is changed alone, then
    all. Raises BadInput with the server's words if it refuses all, and as `RemoteModel` does.
    """
    return asyncio.run(_probe(RemoteModel(address), forced, prompt, schema, max_tokens, temperature))


async def _probe(
    model: RemoteModel, forced: Dialect, prompt: str, schema: dict[str, Any], max_tokens: int, temperature: float
) -> Probed:
    free = [name for name in _SPELLINGS if getattr(forced, name) is None]
    waiting = [forced.model_copy(update={name: _SPELLINGS[name][0] for name in free})]
    refusals: list[str] = []
    tried: list[Dialect] = []
    spread = False
    while waiting:
        dialect = waiting.pop(0)
        if dialect in tried:
            continue
        tried.append(dialect)
        model.dialect = dialect
        try:
            reply = await model.complete(prompt, max_tokens=max_tokens, schema=schema, temperature=temperature, seed=0)
        except Silent as silent:
            if not refusals:
                raise
            refusals.append(str(silent))
        except Refused as refused:
            model.tries = _TRIES
            refusals.append(str(refused))
            if _NO_SUCH_MODEL.search(refusals[-1]):
                raise BadInput(f"{model.address}: {refused}; {model.remedy}") from None
        else:
            first = refusals[0] if refusals else ""
            return Probed(dialect, first, len(tried), reply.prompt_tokens, reply.completion_tokens)
        if named := _respelled(dialect, [name for name in free if _NAMES[name].search(refusals[-1])], refusals[-1]):
            waiting.insert(0, named)
        elif not spread:
            spread = True
            waiting += _others(dialect, free)
    raise BadInput(
        f"{model.address}: refuses the job's requests however they are spelled; the first refusal: {refusals[0]}; "
        f"the last: {refusals[-1]}; see to the model and the settings"
    )


def _respelled(dialect: Dialect, names: list[str], refusal: str) -> Dialect | None:
    """Return the dialect with the next spelling of what a refusal names, None if there is none."""
    changes: dict[str, Any] = {}
    for name in names:
        later = _after(name, getattr(dialect, name))
        if name == "response_format" and not _SCHEMA_LIMIT.search(refusal):
            # The limits of a schema are not at fault.
            later = tuple(one for one in later if one != "bare_schema")
        if later:
            changes[name] = later[0]
    return dialect.model_copy(update=changes) if changes else None


def _others(dialect: Dialect, free: list[str]) -> list[Dialect]:
    """Return the dialects with one other spelling, then the one that sends the least."""
    alone = [
        dialect.model_copy(update={name: other}) for name in free for other in _after(name, getattr(dialect, name))
    ]
    least = {"response_format": "none", "seed": False, "temperature": "none"}
    return [*alone, dialect.model_copy(update={name: least[name] for name in least if name in free})]


def _after(name: str, spelling: Any) -> tuple[Any, ...]:
    spellings = _SPELLINGS[name]
    return spellings[spellings.index(spelling) + 1 :]
