"""The same server as tools for language models: `rerank` and `explain`, over MCP's streamable HTTP at /mcp.

Owns the tools' names, fields and answers. Does not own ranking, keys or limits: a call goes the way of a request to
/v1/rerank, and is refused as one.

    add_tools(app, ranked)    # ranked: answers a `shapes.Request`, as the path /v1/rerank does
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from r2r import __version__
from r2r.llm import Died, Refused
from r2r.serving.limits import LARGEST_BODY
from r2r.serving.shapes import FAILED, Request, error_of, sentence_of

PATH = "/mcp"
# Name of a tool: what it does, and the fields of a request that it takes.
_TOOLS = {
    "rerank": (
        "Order documents by how well they answer a query. Returns the index of each document, best first.",
        ("query", "documents", "top_n"),
    ),
    "explain": (
        "Order documents by how well they answer a query, and say why: for each explained document the evidence in "
        "it, why it is relevant, and why it stands above or below others, which are named by index, as [1].",
        ("query", "documents", "top_n", "explain"),
    ),
}
# Reasons of `explain`, where a call does not say.
_REASONS = 3


def add_tools(app: FastAPI, ranked: Callable[[Request], Awaitable[Response]]) -> None:
    """Let the application answer MCP clients at PATH, without sessions: any replica may answer any call.

    `ranked` raises what `answer_errors` of `r2r.serving.app` answers. Clients get the same sentence.
    """
    from mcp.server import Server
    from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
    from mcp.types import CallToolResult, ListToolsResult, TextContent, Tool

    async def listed(_context: Any, _params: Any) -> ListToolsResult:
        return ListToolsResult(
            tools=[
                Tool(name=name, description=said, input_schema=_schema(*fields))
                for name, (said, fields) in _TOOLS.items()
            ]
        )

    async def called(_context: Any, params: Any) -> CallToolResult:
        try:
            found = json.loads(bytes((await ranked(_request(params.name, params.arguments or {}))).body))
        except Exception as error:
            return CallToolResult(content=[TextContent(type="text", text=_sentence(error))], is_error=True)
        told = {"results": found["results"]}
        text = TextContent(type="text", text=json.dumps(told, ensure_ascii=False))
        return CallToolResult(content=[text], structured_content=told)

    server: Any = Server("reason-to-rank", version=__version__, on_list_tools=listed, on_call_tool=called)
    sessions = StreamableHTTPSessionManager(
        server, json_response=True, stateless=True, max_request_body_size=LARGEST_BODY
    )

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        async with sessions.run():
            yield

    app.router.lifespan_context = lifespan
    # No GET: the server starts no conversation of its own.
    app.router.routes.append(Route(PATH, StreamableHTTPASGIApp(sessions), methods=["POST"]))


def _schema(*fields: str) -> dict[str, Any]:
    """Return the JSON schema of a request with these fields only."""
    whole = Request.model_json_schema()
    required = [name for name in whole["required"] if name in fields]
    return {"type": "object", "properties": {name: whole["properties"][name] for name in fields}, "required": required}


def _request(name: str, arguments: dict[str, Any]) -> Request:
    """Return a call as a request. Raises ValidationError as a request does, HTTPException for another tool."""
    if name not in _TOOLS:
        raise HTTPException(404, f"tool: not one of {', '.join(_TOOLS)}")
    given = {field: arguments[field] for field in _TOOLS[name][1] if arguments.get(field) is not None}
    if name == "explain":
        given.setdefault("explain", _REASONS)
    # The one who asks has the documents.
    return Request.model_validate(given | {"return_documents": False})


def _sentence(error: Exception) -> str:
    """Return the message for a call that failed: that of the same request by HTTP."""
    if isinstance(error, ValidationError):
        return sentence_of(error.errors()[0])
    if isinstance(error, HTTPException):
        return str(error.detail)
    if isinstance(error, Refused | Died | TimeoutError):
        return error_of(error).sentence
    logging.getLogger(__name__).error("a tool failed", exc_info=error)
    return FAILED.sentence
