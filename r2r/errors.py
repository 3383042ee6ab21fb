"""The exceptions that end a command with one line and an exit status.

Owns their meaning, and how one is found behind what others wrap around it. `cli.main` prints the line and returns the
status.
"""

from __future__ import annotations

from collections.abc import Iterator


class BadInput(Exception):
    """A user error: one line that names the file, row or setting, what is wrong, and what would be right. Status 2."""


class Stopped(Exception):
    """A job that one of its own limits ended early, or whose output is not the recorded one. What it finished is kept.
    Status 3."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as `ray job stop`, Kubernetes and `timeout` send it. Unwinds like Ctrl-C. Status 143."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all errors behind it: Ray wraps what a worker raises, in several ways."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        behind = [one.__cause__, one.__context__, getattr(one, "cause", None)]
        behind += getattr(one, "worker_failures", {}).values()
        waiting += [other for other in behind if isinstance(other, BaseException)]
