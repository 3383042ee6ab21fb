"""What tests share: a local Ray, and the real data beside the project."""

import os
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public research data that R2R_DATA_DIR names."""
    if "R2R_DATA_DIR" not in os.environ:
        pytest.skip("R2R_DATA_DIR is not set: it names the folder with the real data")
    return Path(os.environ["R2R_DATA_DIR"])
