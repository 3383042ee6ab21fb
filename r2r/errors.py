"""The exceptions that end a command with one line and an exit status.

Owns their meaning. `cli.main` prints the line and returns the status.
"""

from __future__ import annotations


class BadInput(Exception):
    """A user error: one line that names the file, row or setting, what is wrong, and what would be right. Status 2."""


class Stopped(Exception):
    """A job that one of its own limits ended early, or whose output is not the recorded one. What it finished is kept.
    Status 3."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as `ray job stop`, Kubernetes and `timeout` send it. Unwinds like Ctrl-C. Status 143."""
