"""A server with OpenAI's batch API on this machine, and a job that asks it, as a process that can be killed.

Owns the protocol and its failures: batches that expire, lose requests, fail in part, and calls that are cut off. What
is answered is counted for each request (`paid`), as it would be billed.

    python tests/llm/batches.py http://127.0.0.1:PORT/v1 60 FILE     # asks 60 prompts, a line in FILE for each reply
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# What comes of a request, by its line in the file and how often it was sent: a result, or None if it is lost.
Answer = Callable[[dict[str, Any], int], dict[str, Any] | None]


def answered(request: dict[str, Any], content: str = "yes") -> dict[str, Any]:
    """Return the result of a request that the model has answered."""
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}], "usage": usage}
    response = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": "x", "custom_id": request["custom_id"], "response": response, "error": None}


def refused(request: dict[str, Any], status: int, said: str) -> dict[str, Any]:
    """Return the result of a request that was not answered."""
    response = {"status_code": status, "body": {"error": {"message": said}}}
    return {"id": "x", "custom_id": request["custom_id"], "response": response, "error": None}


class Batches:
    """The server. looks: after so many looks at a batch, it is over. answer: see `Answer`. end: the state of a batch
    that is over, by its number. before, after: called with each request's method and path, before and after it is
    handled; the answer is not sent if one of them returns True."""

    def __init__(self, answer: Answer = lambda request, sent: answered(request)) -> None:
        self.answer, self.looks = answer, 2
        self.end: Callable[[int], str] = lambda number: "completed"
        self.before: Callable[[str], Any] = lambda request: None
        self.after: Callable[[str], Any] = lambda request: None
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.paid, self.sent, self.calls = Counter[str](), Counter[str](), Counter[str]()
        self.lock = threading.RLock()
        batches = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.handle_call()

            def do_POST(self) -> None:
                self.handle_call()

            def handle_call(self) -> None:
                path, _, query = self.path.partition("?")
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                call = f"{self.command} {path}"
                with batches.lock:
                    batches.calls[call] += 1
                    if batches.before(call):
                        return
                    status, body = batches.respond(call, query, content, self.headers.get("Content-Type", ""))
                    if batches.after(call):
                        return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def respond(self, call: str, query: str, content: bytes, kind: str) -> tuple[int, bytes]:
        method, _, path = call.partition(" /v1/")
        what, *name = path.split("/")
        found: Any
        if what == "models":
            found = {"data": [{"id": "the-model"}]}
        elif path == "chat/completions":
            found = answered({"custom_id": ""}, '{"ranked_passages": []}')["response"]["body"]
        elif what == "files" and method == "POST":
            found = {"id": f"file-{len(self.files)}"}
            self.files[found["id"]] = uploaded(content, kind)
        elif what == "files":
            return 200, self.files[name[0]]
        elif what == "batches" and name[1:] == ["cancel"]:
            found = self.batches[name[0]]
            found["status"] = "cancelled"
        elif what == "batches" and method == "POST":
            found = self.begin(json.loads(content))
        elif what == "batches" and name:
            found = self.look(self.batches[name[0]])
        elif what == "batches":
            listed = list(self.batches.values())[::-1]
            after = dict(one.split("=") for one in query.split("&")).get("after")
            start = [one["id"] for one in listed].index(after) + 1 if after else 0
            # Pages of two: nobody may rely on one page.
            found = {"data": listed[start : start + 2], "has_more": start + 2 < len(listed)}
        else:
            return 404, b'{"error": {"message": "no such path"}}'
        return 200, json.dumps(found).encode()

    def begin(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = f"batch-{len(self.batches)}"
        counts = {"total": len(self.files[asked["input_file_id"]].splitlines()), "completed": 0, "failed": 0}
        self.batches[name] = asked | {
            **{"id": name, "status": "in_progress", "created_at": len(self.batches), "request_counts": counts},
            **{"looks": 0, "output_file_id": None, "error_file_id": None},
        }
        return self.batches[name]

    def look(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["looks"] += 1
        if batch["looks"] < self.looks or batch["status"] != "in_progress":
            return batch
        batch["status"] = self.end(batch["created_at"])
        if batch["status"] == "failed":
            batch["errors"] = {"data": [{"code": "invalid", "message": "line 3: no such model"}]}
            return batch
        good, bad = [], []
        # In another order than they were sent.
        for line in self.files[batch["input_file_id"]].splitlines()[::-1]:
            request = json.loads(line)
            self.sent[request["custom_id"]] += 1
            if result := self.answer(request, self.sent[request["custom_id"]]):
                answered_it = result["response"]["status_code"] == 200
                self.paid[request["custom_id"]] += answered_it
                (good if answered_it else bad).append(json.dumps(result))
        for kind, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                batch[kind] = f"file-{len(self.files)}"
                self.files[batch[kind]] = ("\n".join(lines) + "\n").encode()
        return batch


def uploaded(content: bytes, kind: str) -> bytes:
    """Return the file in a form's content."""
    form = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + content, policy=email.policy.HTTP)
    parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
    assert parts["purpose"].get_payload(decode=True).strip() == b"batch"
    return parts["file"].get_payload(decode=True)


def ask(address: str, prompts: int, file: Path) -> None:
    """Ask the prompts that have no line in the file yet, ten in a batch."""
    from r2r.llm import batch, open_model

    batch._MOST_REQUESTS, batch._QUIET, batch._SOON, batch._LATER = 10, 0.05, 0.01, 0.02
    lines = file.read_text().splitlines() if file.exists() else []
    done = {json.loads(line)["prompt"] for line in lines if line.endswith("}")}

    async def all_of_them() -> None:
        model = open_model(address, batch="a-tag")
        with file.open("a") as out:

            async def one(prompt: str) -> None:
                reply = await model.complete(prompt, max_tokens=4, seed=1)
                out.write(json.dumps({"reply": reply.text, "prompt": prompt}) + "\n")
                out.flush()

            await asyncio.gather(*(one(f"prompt {at}") for at in range(prompts) if f"prompt {at}" not in done))

    asyncio.run(all_of_them())


if __name__ == "__main__":
    ask(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
