"""What tests share: a local Ray, the actors of the row pool without Ray, and the real data beside the project."""

import asyncio
import os
from contextlib import contextmanager
from pathlib import Path

import pytest

# Two tests run beside each other. Threads that wait for one another spin, and take the CPU from the other test:
# beside a busy program, an engine with two threads is four times slower. OpenMP reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Fixtures that start Ray and a training; what uses them is slow.
SLOW = {"ray_local", "trained"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    # Before pytest's own hook, which leaves out what -m says.
    for item in items:
        if SLOW.intersection(item.fixturenames):
            item.add_marker("slow")
    # The long ones first: processes that share out the tests then end at about the same time.
    items.sort(key=lambda item: "integration" not in item.path.parts)


@pytest.fixture(scope="session")
def ray_local():
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False)
    yield ray
    ray.shutdown()


@pytest.fixture
def actors_here(monkeypatch):
    """Let the actors of the row pool be in this process, with no Ray. They work at the same time, and ask the driver
    whether to go on at each report."""
    from r2r.rows import pool
    from r2r.workers import _Board

    def on_workers(blocks, worker, arguments, count, ahead, *, batch_size, **resources):
        actors = [worker(*arguments) for _ in range(count)]
        batches = [block.slice(at, batch_size) for block in blocks for at in range(0, len(block), batch_size)]

        async def answers():
            return await asyncio.gather(*(actors[at % count](batch) for at, batch in enumerate(batches)))

        return asyncio.run(answers())

    @contextmanager
    def progress(title, total, unit, postfix, go_on):
        board = _Board()

        class Tell:
            @staticmethod
            async def remote(source, counts):
                goes_on = board.tell(source, counts)
                if not go_on(board.sums()):
                    board.stop()
                return goes_on

        yield Tell

    monkeypatch.setattr(pool, "on_workers", on_workers)
    monkeypatch.setattr(pool, "progress", progress)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public research data that R2R_DATA_DIR names."""
    if "R2R_DATA_DIR" not in os.environ:
        pytest.skip("R2R_DATA_DIR is not set: it names the folder with the real data")
    return Path(os.environ["R2R_DATA_DIR"])


@pytest.fixture
def store(tmp_path_factory, monkeypatch):
    """An S3 server of this test's own, with the bucket s3://bucket, and a cache of this node."""
    from r2r import nodecache, places
    from tests import s3

    with s3.serving() as served:
        for name, value in served.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(nodecache.CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        monkeypatch.setattr(places, "_PAUSE", 0.01)
        # Set back at the end, too.
        monkeypatch.setattr(places, "_pauses", 0)
        monkeypatch.setattr(places, "_INNER_TRIES", 1)
        places._system.cache_clear()
        yield served
    places._system.cache_clear()


@pytest.fixture(params=["disk", "store"])
def out(request, tmp_path):
    """A folder to write to, once on a disk and once in a store."""
    from r2r.places import place

    if request.param == "disk":
        return tmp_path / "out"
    request.getfixturevalue("store")
    return place("s3://bucket/out")
