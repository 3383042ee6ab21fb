"""A server of scripted answers on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from r2r.llm import server


@pytest.fixture
def serving(monkeypatch):
    """Start a server that gives the answers, `(status, headers, body)`, one by one, and then repeats the last. One
    may be a function of the request.

    Returns its address and the list of requests that it received.
    """
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")
    started = []

    def start(*answers, listed=(200, {}, {"data": [{"id": "the-model"}]})):
        waiting, received = list(answers), []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(*listed)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                received.append((self.path, self.headers["Authorization"], body))
                answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                self.answer(*(answer(body) if callable(answer) else answer))

            def answer(self, status, headers, body):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

            def log_message(self, *args):
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        started.append(http)
        return f"http://127.0.0.1:{http.server_port}/v1", received

    yield start
    for http in started:
        http.shutdown()
        http.server_close()


@pytest.fixture
def pauses(monkeypatch):
    """Skip the pauses between tries, and return the list of their seconds."""
    made = []

    async def sleep(seconds):
        made.append(seconds)

    monkeypatch.setattr(server.asyncio, "sleep", sleep)
    return made
