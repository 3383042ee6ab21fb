"""Headless Chromium, driven through the pipe of its own debugging protocol.

with browser() as page:
    page.open("http://127.0.0.1:8000/")
    page.run("document.title")
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Seconds that the slowest answer may take.
_PATIENCE = 60
_KEYS = {"Tab": 9, "Enter": 13}


class Page:
    """One tab. `requests`: the addresses that it asked for. `faults`: what it complained about, such as a script that
    its policy stopped."""

    def __init__(self, to: int, back: int):
        self._to, self._back, self._rest, self._number, self._session = to, back, b"", 0, None
        self.requests: list[str] = []
        self.faults: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + _PATIENCE
        while True:
            told = self._read(until)
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]

    def _read(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready = select.select([self._back], [], [], max(0, until - time.monotonic()))[0]
            assert ready, "Chromium does not answer"
            got = os.read(self._back, 1 << 20)
            assert got, "Chromium has ended"
            self._rest += got
        line, _, self._rest = self._rest.partition(b"\0")
        told = json.loads(line)
        self._note(told.get("method"), told.get("params", {}))
        return told

    def _note(self, method: str | None, given: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.faults.append(str(given["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.faults.append(given["entry"]["text"])

    def open(self, address: str, width: int = 1280, height: int = 900, phone: bool = False) -> None:
        self.requests.clear()
        self.faults.clear()
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **sizes)
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && document.querySelectorAll('option').length > 1")

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, condition: str) -> None:
        end = time.monotonic() + _PATIENCE
        while not self.run(condition):
            assert time.monotonic() < end, f"never came: {condition}; {self.run('document.body.innerText')}"
            time.sleep(0.05)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, control: bool = False) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        given = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key], "modifiers": 2 * control}
        self.call("Input.dispatchKeyEvent", type="keyDown", **given, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def picture(self, file: Path) -> None:
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(taken))


@contextmanager
def browser() -> Iterator[Page]:
    """Start the browser and end it. It reads commands from descriptor 3 and answers on descriptor 4."""
    assert PROGRAM
    flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking "
    flags += "--no-first-run --remote-debugging-pipe"
    read, to = os.pipe()
    back, write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = f'exec "{PROGRAM}" {flags} --user-data-dir="{profile}" 3<&{read} 4>&{write}'
        process = subprocess.Popen(["bash", "-c", command], pass_fds=(read, write), stderr=subprocess.DEVNULL)
        os.close(read)
        os.close(write)
        try:
            page = Page(to, back)
            yield page
            page._session = None
            page.call("Browser.close")
        finally:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(to)
            os.close(back)
