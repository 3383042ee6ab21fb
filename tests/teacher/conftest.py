"""What these tests share: how hypothesis tries things (the same on every run, at whatever pace the machine has, and
leaving no files), and rows that are answered in this process."""

import asyncio
from contextlib import contextmanager

import pytest
from hypothesis import settings

from r2r.config import Dialect
from r2r.llm.probe import Probed
from r2r.rows import pool
from r2r.teacher import calls

settings.register_profile("teacher", derandomize=True, deadline=None, database=None)
settings.load_profile("teacher")


@pytest.fixture
def rows_here(monkeypatch):
    """Let the pool answer its rows in this process, with no Ray. No server is asked what it takes."""

    @contextmanager
    def progress(*arguments):
        class Tell:
            @staticmethod
            async def remote(name, counts):
                return True

        yield Tell

    def on_workers(blocks, worker, arguments, *others, **options):
        async def answers():
            actor = worker(*arguments)
            return [await actor(block) for block in blocks]

        return asyncio.run(answers())

    monkeypatch.setattr(calls, "probe", lambda *arguments: Probed(Dialect(), "", 1, 0, 0))
    monkeypatch.setattr(pool, "progress", progress)
    monkeypatch.setattr(pool, "on_workers", on_workers)
