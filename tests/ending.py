"""SIGTERM to a command, as `ray job stop`, Kubernetes and `timeout` send it, and what must follow.

terminate(process, Path("log"))
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

LINE = "r2r: terminated; finished work is kept, and the same command goes on"


def terminate(process: subprocess.Popen, log: Path) -> None:
    """Send SIGTERM to a command that leads a session. It ends with one line, status 143 and no process left.

    `log` gets all that it prints.
    """
    before = log.stat().st_size
    below = _session(process.pid)
    process.terminate()
    status = process.wait(timeout=300)
    with log.open("rb") as lines:
        lines.seek(before)
        said = lines.read().decode(errors="replace")
    # Before the handler is in place, Python ends at once and says nothing.
    assert (status, said.count(LINE)) == (143, 1) or (status, said.strip()) == (-15, ""), (status, said)
    assert "Traceback" not in said and "*** SIG" not in said, said
    _, alive = psutil.wait_procs(below, timeout=120)
    assert alive == [], [one.cmdline() for one in alive]


def _session(leader: int) -> list[psutil.Process]:
    """Return the processes that a command has started, also those that Ray put into sessions of their own."""
    found = psutil.Process(leader).children(recursive=True)
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == leader and process.pid != leader:
                found.append(process)
    return list(dict.fromkeys(found))
