"""Who may ask, how much at once, and how large: API keys, the body's size, the requests in flight.

Owns the checks before a request is read, and the counting around it. Does not own the checks of its fields (shapes).

    app.add_middleware(Gate, keys=read_keys("keys.txt"), most=128, metrics=Metrics())
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import time
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from r2r.errors import BadInput
from r2r.places import place
from r2r.serving.metrics import Metrics
from r2r.serving.shapes import Error

KEYS_VARIABLE = "R2R_API_KEYS"
LARGEST_BODY = 8_000_000
# Probes of load balancers have no key. The page asks for one, and its examples are the package's own.
OPEN_PATHS = ("/health", "/", "/examples")
RETRY_AFTER = {"Retry-After": "1"}


def read_keys(file: str | None) -> list[bytes]:
    """Return the SHA-256 of each API key: those in the file, one a line, and those in R2R_API_KEYS, between commas.

    Only hashes go to the replicas, so that no log and no table of the cluster holds a key. Raises BadInput for a file
    that cannot be read or holds no key.
    """
    lines = os.environ.get(KEYS_VARIABLE, "").split(",")
    if file is not None:
        try:
            own = place(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            said = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "is not UTF-8"
            raise BadInput(f"api_keys: {file}: {said}; name a file with one key a line") from None
        if not any(line.strip() for line in own):
            raise BadInput(f"api_keys: {file}: holds no key; write one a line")
        lines += own
    return [hashlib.sha256(line.strip().encode()).digest() for line in lines if line.strip()]


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server at this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Gate:
    """ASGI middleware that refuses what has no key, is too large or too much, and counts the rest.

    keys: what `read_keys` returned; none lets everybody in. most: rankings in flight, those that wait included.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[bytes], most: int, metrics: Metrics):
        self.app, self.keys, self.most, self.metrics = app, keys, most, metrics
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, ranking = Headers(scope=scope), scope["method"] == "POST"
        told: list[Message] = []

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.append(message)
            await send(message)

        refused = self._refused(scope["path"], headers, ranking)
        started = time.monotonic()
        counted = ranking and refused is None
        self.in_flight += counted
        self.metrics.in_flight.set(self.in_flight)
        try:
            if refused:
                more = RETRY_AFTER if refused.status == 429 else None
                await JSONResponse(refused.shaped(), refused.status, more)(scope, receive, watched)
            else:
                await self.app(scope, _limited(receive), watched)
        finally:
            if counted:
                self.in_flight -= 1
                self.metrics.in_flight.set(self.in_flight)
                self.metrics.seconds.observe(time.monotonic() - started)
            # Set by the router, so that paths that do not exist are one.
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, told[0]["status"] if told else "none").inc()

    def _refused(self, path: str, headers: Headers, ranking: bool) -> Error | None:
        """Return why a request is not read, if it is not."""
        if self.keys and path not in OPEN_PATHS and not self._known(headers):
            return Error(401, "api key: missing or unknown; send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > LARGEST_BODY:
            return _TOO_LARGE
        if ranking and self.in_flight >= self.most:
            self.metrics.shed.inc()
            return Error(429, f"too many requests: {self.most} are in flight; try again later")
        return None

    def _known(self, headers: Headers) -> bool:
        # Mixedbread's client sends the key without a scheme.
        given = [headers.get("x-api-key", ""), headers.get("authorization", "").rpartition(" ")[2]]
        hashes = [hashlib.sha256(key.encode()).digest() for key in given if key]
        # All are compared: how long it takes does not depend on which one fits.
        return any([hmac.compare_digest(one, key) for one in hashes for key in self.keys])


_TOO_LARGE = Error(413, f"body: larger than {LARGEST_BODY} bytes; send fewer or shorter documents")


def _limited(receive: Receive) -> Receive:
    """Return `receive` for a body without a length, which is measured while it arrives."""
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > LARGEST_BODY:
            raise HTTPException(_TOO_LARGE.status, _TOO_LARGE.sentence)
        return message

    return limited
