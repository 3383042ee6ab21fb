"""An S3 server for tests, on loopback, that can misbehave: it throttles, cuts connections, lists late and refuses.

Knows what pyarrow asks for, in the forms of S3's own API: objects, ranges, listings, uploads in parts. Checks no
signature.

    with serving() as store:
        store.faults.throttle = 0.2
        ... s3://bucket/... with store.environment() in os.environ
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

BUCKET = "bucket"


class Object(NamedTuple):
    content: bytes
    etag: str
    made: float


@dataclass
class Faults:
    """What goes wrong. throttle, cut: share of requests that get 503 SlowDown, or no whole answer. late: seconds until
    an object that is new stands in a listing. slow: seconds that a PUT takes. denied: methods that get 403, LIST one of
    them."""

    throttle: float = 0.0
    cut: float = 0.0
    late: float = 0.0
    slow: float = 0.0
    denied: frozenset[str] = frozenset()
    rng: random.Random = field(default_factory=lambda: random.Random(0))


class Store:
    """The objects of the one bucket, by key, and what was asked: `asked` counts requests by what they are."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.faults, self.asked = Faults(), Counter[str]()
        self.puts: list[tuple[float, str]] = []
        self.lock = threading.Lock()
        self.port = 0

    def environment(self) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
        return keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", "AWS_EC2_METADATA_DISABLED": "true"}

    def put(self, key: str, content: bytes) -> Object:
        # As on S3, the same bytes have the same tag.
        made = Object(content, f'"{hashlib.md5(content).hexdigest()}"', time.time())
        with self.lock:
            self.objects[key] = made
            self.puts.append((made.made, key))
        return made

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys of all objects, without the empty ones that stand for folders."""
        return sorted(key for key in self.objects if key.startswith(prefix) and not key.endswith("/"))


@contextmanager
def serving(address: str = "127.0.0.1", port: int = 0) -> Iterator[Store]:
    store = Store()
    server = ThreadingHTTPServer((address, port), type("Handler", (_Handler,), {"store": store}))
    server.daemon_threads = True
    store.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    store: Store
    protocol_version = "HTTP/1.1"
    # Small answers would wait for the client's acknowledgement otherwise.
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None: ...

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _answer(self) -> None:
        body, faults = self._body(), self.store.faults
        split = urlsplit(self.path)
        bucket, _, key = unquote(split.path).lstrip("/").partition("/")
        given = {name: values[0] for name, values in parse_qs(split.query, keep_blank_values=True).items()}
        kind = "LIST" if self.command == "GET" and not key else self.command
        self.store.asked.update((kind, f"{kind} {key}"))
        time.sleep(faults.slow if kind == "PUT" else 0)
        if faults.rng.random() < faults.throttle:
            self.store.asked["503"] += 1
            return self._fail(503, "SlowDown", "Please reduce your request rate.")
        self.cut = faults.rng.random() < faults.cut
        if self.cut and self.command in ("PUT", "POST", "HEAD"):
            self.store.asked["cut"] += 1
            self.close_connection = True
            return None
        if kind in faults.denied:
            return self._fail(403, "AccessDenied", "Access Denied")
        if bucket != BUCKET:
            return self._fail(404, "NoSuchBucket", "The specified bucket does not exist")
        if not key:
            if "delete" in given:
                return self._delete_all(body)
            return self._list(given) if self.command == "GET" else self._send(200)
        return getattr(self, f"_{self.command.lower()}")(key, given, body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "x-amz-decoded-content-length" not in self.headers:
            return body
        # S3's own chunks, which end with a checksum.
        content, at = b"", 0
        while size := int(body[at : (end := body.index(b"\r\n", at))].split(b";")[0], 16):
            content += body[end + 2 : end + 2 + size]
            at = end + 4 + size
        return content

    def _put(self, key: str, given: dict[str, str], body: bytes) -> None:
        if "uploadId" in given:
            self.store.parts[given["uploadId"]][int(given["partNumber"])] = body
            return self._send(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')
        return self._send(200, ETag=self.store.put(key, body).etag)

    def _post(self, key: str, given: dict[str, str], body: bytes) -> None:
        if "uploads" in given:
            upload = uuid.uuid4().hex
            self.store.parts[upload] = {}
            return self._xml(
                f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            )
        # Asked again after an answer that was cut off.
        parts = self.store.parts.get(given["uploadId"], {})
        made = self.store.put(key, b"".join(parts[number] for number in sorted(parts)))
        return self._xml(
            f"<CompleteMultipartUploadResult><ETag>{escape(made.etag)}</ETag></CompleteMultipartUploadResult>"
        )

    def _get(self, key: str, given: dict[str, str], body: bytes) -> None:
        found = self.store.objects.get(key)
        if found is None:
            return self._fail(404, "NoSuchKey", "The specified key does not exist.")
        content, status, more = found.content, 200, {}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2] or 2**62), len(content) - 1)
            status, more = 206, {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            content = content[first : last + 1]
        made = formatdate(found.made, usegmt=True)
        return self._send(status, content, ETag=found.etag, **{"Last-Modified": made, **more})

    _head = _get

    def _delete(self, key: str, given: dict[str, str], body: bytes) -> None:
        with self.store.lock:
            self.store.objects.pop(key, None)
        self._send(204)

    def _delete_all(self, body: bytes) -> None:
        with self.store.lock:
            for key in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                self.store.objects.pop(unescape(key, {"&quot;": '"'}), None)
        self._xml("DeleteResult", "")

    def _list(self, given: dict[str, str]) -> None:
        prefix, mark, most = given.get("prefix", ""), given.get("delimiter", ""), int(given.get("max-keys", 1000))
        shown: dict[str, Object | None] = {}
        with self.store.lock:
            held = sorted(self.store.objects.items())
        for key, one in held:
            if key.startswith(prefix) and one.made <= time.time() - self.store.faults.late:
                inner, found, _ = key[len(prefix) :].partition(mark) if mark else (key, "", "")
                shown[prefix + inner + mark if found else key] = None if found else one
        names = [name for name in shown if name > given.get("continuation-token", "")]
        page, more = names[:most], len(names) > most
        rows = "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            if (one := shown[name]) is None
            else f"<Contents><Key>{escape(name)}</Key><Size>{len(one.content)}</Size><ETag>{escape(one.etag)}</ETag>"
            f"<LastModified>{time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(one.made))}</LastModified></Contents>"
            for name in page
        )
        after = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        count = f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
        self._xml("ListBucketResult", count + after + rows)

    def _xml(self, name: str, inner: str) -> None:
        content = f'<?xml version="1.0" encoding="UTF-8"?><{name}>{inner}</{name}>'
        self._send(200, content.encode(), **{"Content-Type": "application/xml"})

    def _fail(self, status: int, code: str, said: str) -> None:
        self._send(status, f"<Error><Code>{code}</Code><Message>{said}</Message></Error>".encode())

    def _send(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if getattr(self, "cut", False) and content:
            self.store.asked["cut"] += 1
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)
