"""The page at /: a query and documents, their order before and after, and the reasons as they are written.

Owns the page's answer and its examples. The page itself is `page.html`: one file with its style and its script, which
asks /v1/rerank as any client does. Does not own ranking.

    add_page(app)
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

# Queries of the built-in world that the page offers, each with the passages that were judged for it.
_EXAMPLES = 5


def add_page(app: FastAPI) -> None:
    """Let the application answer / with the page and /examples with what it offers to try."""
    page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": _policy(page),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    @app.get("/", include_in_schema=False)
    async def root() -> HTMLResponse:
        return HTMLResponse(page, headers=headers)

    @app.get("/examples", include_in_schema=False)
    def told() -> list[dict[str, Any]]:
        return examples()


def _policy(page: str) -> str:
    """Return a Content-Security-Policy under which only the page's own style and script run, and nothing is loaded from
    elsewhere. Texts cannot become markup: the browser refuses to parse any that a script hands it."""
    hashes = [
        "'sha256-" + base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode() + "'"
        for tag in ("style", "script")
        for inner in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    ]
    style, script = hashes
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


@functools.cache
def examples() -> list[dict[str, Any]]:
    """Return queries of the built-in world with documents, by docid: [{"query": ..., "documents": [...]}, ...]."""
    from r2r.datasets import corpus_parts, read_qrels, read_queries
    from r2r.datasets.documents import contents

    queries = {row["qid"]: row["query"] for row in read_queries("demo").to_pylist()}
    texts = {one.docid: contents(one) for part in corpus_parts("demo", 1) for _, one in part.read()}
    judged = sorted((row["qid"], row["docid"]) for row in read_qrels("demo").to_pylist())
    found = [
        {"query": queries[qid], "documents": [texts[docid] for _, docid in group]}
        for qid, group in groupby(judged, key=lambda one: one[0])
    ]
    return found[:_EXAMPLES]
