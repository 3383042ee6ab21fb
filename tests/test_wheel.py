"""The wheel: it holds the package and nothing else, and works where no repository is."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from r2r import __version__

ROOT = Path(__file__).parents[1]
# Which of the package's files a user has no use for: pages for readers of the repository.
LEFT_OUT = {"r2r/demo/README.md"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built offline from a copy, since a build leaves files in its source."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".*", "runs", "build", "dist", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=left_out)
    flags = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", str(folder / "source"), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_the_package_and_nothing_else(wheel):
    package = {file.relative_to(ROOT).as_posix() for file in (ROOT / "r2r").rglob("*") if file.is_file()}
    expected = {name for name in package if "__pycache__" not in name} - LEFT_OUT
    about = f"reason_to_rank-{__version__}.dist-info/"
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in held if not name.startswith(about)} == expected
    assert f"{about}licenses/LICENSE" in held


@pytest.fixture
def python(wheel, tmp_path):
    """Run Python in an empty folder, with the unpacked wheel first on its path; returns what it printed."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site")}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-P", *arguments]
        done = subprocess.run(command, cwd=tmp_path / "empty", env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_it_runs_where_nothing_else_is(python, tmp_path):
    found = python("-c", "import r2r; print(r2r.__file__)").strip()
    assert found == str(tmp_path / "site" / "r2r" / "__init__.py")
    assert python("-m", "r2r", "--version") == f"r2r {__version__}\n"


@pytest.mark.slow
def test_the_demo_is_planned_where_nothing_else_is(python, tmp_path):
    assert "stages would run; nothing was done" in python("-m", "r2r", "run", "demo", "--dry-run")
    assert not any((tmp_path / "empty").iterdir())
