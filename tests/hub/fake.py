"""A Hugging Face hub on loopback: what the real huggingface_hub needs to make a repository, upload and commit files,
list them, and read them in ranges. Everything in memory.

    with FakeHub() as hub: monkeypatch.setenv("HF_ENDPOINT", hub.address)
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "x" * 34


class FakeHub:
    """`repositories`: (type, name) -> file name -> bytes. `private`: repositories that were made private. `asked`: a
    line per request. `fail`: a status that every request gets."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.asked: list[str] = []
        self.stored: dict[str, bytes] = {}
        self.fail = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def revision(self, key: tuple[str, str]) -> str:
        """Return the commit of a repository: a hash of its files."""
        held = self.repositories[key]
        return hashlib.sha1(b"".join(name.encode() + held[name] for name in sorted(held))).hexdigest()

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.fail:
            return self._json({"error": "no"}, self.hub.fail)
        writes = self.command in ("POST", "PUT") and not re.search("paths-info|validate-yaml|^/lfs/", path)
        if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid username or password."}, 401)
        for pattern, name in _ROUTES:
            if found := re.fullmatch(pattern, path):
                return getattr(self, name)(*found.groups())
        self._json({"error": f"not here: {path}"}, 404)

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        key = (f"{asked.get('type', 'model')}s", name)
        if key in self.hub.repositories:
            return self._json({"error": "exists", "url": f"{self.hub.address}/{name}"}, 409)
        self.hub.repositories[key] = {}
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(name)
        self._json({"url": f"{self.hub.address}/{name}", "name": name, "id": name})

    def _yaml(self) -> None:
        self._json({"errors": [], "warnings": []})

    def _preupload(self, kind: str, name: str) -> None:
        files = [one["path"] for one in json.loads(self.body)["files"]]
        modes = [{"path": one, "uploadMode": "lfs" if one.endswith("tensors") else "regular"} for one in files]
        self._json({"files": [one | {"shouldIgnore": False, "oid": None} for one in modes]})

    def _lfs_batch(self, name: str) -> None:
        objects = [
            one | {"actions": {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}}}
            for one in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _store(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.stored[oid] = self.body
        self._json({})

    def _commit(self, kind: str, name: str) -> None:
        held = self.hub.repositories[kind, name]
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                held[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                held[value["path"]] = self.hub.stored[value["oid"]]
        url = f"{self.hub.address}/{name}/commit/{self.hub.revision((kind, name))}"
        self._json({"success": True, "commitUrl": url, "commitOid": self.hub.revision((kind, name))})

    def _info(self, kind: str, name: str, revision: str | None = None) -> None:
        held = self.hub.repositories.get((kind, name))
        if held is None:
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        siblings = [{"rfilename": one} for one in sorted(held)]
        self._json({"id": name, "sha": self.hub.revision((kind, name)), "siblings": siblings})

    def _paths(self, kind: str, name: str, revision: str) -> None:
        held = self.hub.repositories[kind, name]
        asked = (
            json.loads(self.body)["paths"] if self.body.startswith(b"{") else re.findall(rb"paths=([^&]+)", self.body)
        )
        self._json([self._entry(one, held[one]) for one in asked if one in held])

    def _tree(self, kind: str, name: str, revision: str, folder: str | None) -> None:
        held = self.hub.repositories[kind, name]
        self._json([self._entry(one, held[one]) for one in sorted(held) if one.startswith(folder or "")])

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _file(self, kind: str | None, name: str, revision: str, path: str) -> None:
        content = self.hub.repositories.get((kind or "models", name), {}).get(path)
        if content is None:
            return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": revision,
            "Accept-Ranges": "bytes",
        }
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop = int(found[1]), min(int(found[2] or len(content)) + 1, len(content))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            return self._send(content[start:stop], 206, headers)
        self._send(content, 200, headers)


_ROUTES = (
    (r"/api/repos/create", "_create"),
    (r"/api/validate-yaml", "_yaml"),
    (r"/api/(\w+)/([^/]+/[^/]+)/preupload/[^/]+", "_preupload"),
    (r"/(?:datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", "_lfs_batch"),
    (r"/lfs/(\w+)", "_store"),
    (r"/api/(\w+)/([^/]+/[^/]+)/commit/[^/]+", "_commit"),
    (r"/api/(\w+)/([^/]+/[^/]+)", "_info"),
    (r"/api/(\w+)/([^/]+/[^/]+)/revision/([^/]+)", "_info"),
    (r"/api/(\w+)/([^/]+/[^/]+)/paths-info/([^/]+)", "_paths"),
    (r"/api/(\w+)/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", "_tree"),
    (r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "_file"),
)
