"""What these tests share: how hypothesis tries things (the same on every run, at whatever pace the machine has, and
leaving no files), and rows that are answered in this process."""

import pytest
from hypothesis import settings

from r2r.config import Dialect
from r2r.llm.probe import Probed
from r2r.teacher import calls

settings.register_profile("teacher", derandomize=True, deadline=None, database=None)
settings.load_profile("teacher")


@pytest.fixture
def rows_here(actors_here, monkeypatch):
    """Let the pool answer its rows in this process, with no Ray. No server is asked what it takes."""
    monkeypatch.setattr(calls, "probe", lambda *arguments: Probed(Dialect(), "", 1, 0, 0))
