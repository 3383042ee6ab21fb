"""The wheel: it holds the package and nothing else, and works where no repository is; without an extra, it evaluates
and exports where there is no torch."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from r2r import __version__
from tests.hub.made import finished_run

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


LOADED = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"


def test_an_import_loads_no_library(python):
    """Nothing but the standard library, since a server, a notebook and each worker pay for it; the command line no
    model library, and nothing that talks to a network."""
    before = set(python("-c", LOADED).split())
    assert set(python("-c", f"import r2r; {LOADED}").split()) - before == {"r2r"}
    heavy = {
        "torch",
        "transformers",
        "ray",
        "vllm",
        "peft",
        "scipy",
        "huggingface_hub",
        "fastapi",
        "ir_datasets",
        "jinja2",
    }
    assert not heavy & set(python("-c", f"import r2r.cli; {LOADED}").split())


@pytest.mark.slow
def test_the_demo_is_planned_where_nothing_else_is(python, tmp_path):
    assert "stages would run; nothing was done" in python("-m", "r2r", "run", "demo", "--dry-run")
    assert not any((tmp_path / "empty").iterdir())


def needs(requirements: list[str], found: dict[str, importlib.metadata.Distribution]) -> None:
    """Add the distributions that these requirements bring, without any extra, and what those need."""
    for line in requirements:
        wanted = Requirement(line)
        if wanted.name not in found and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            found[wanted.name] = importlib.metadata.distribution(wanted.name)
            needs(found[wanted.name].requires or [], found)


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory) -> Path:
    """The `bin` of an environment with the wheel and what it needs without an extra, as links to what is installed."""
    folder = tmp_path_factory.mktemp("bare") / "env"
    venv.create(folder, with_pip=False)
    (site,) = (folder / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    about = (site / f"reason_to_rank-{__version__}.dist-info" / "METADATA").read_text()
    held: dict[str, importlib.metadata.Distribution] = {}
    needs(re.findall(r"^Requires-Dist: (.*)$", about, re.MULTILINE), held)
    for one in held.values():
        for name in {file.parts[0] for file in one.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / name).exists():
                (site / name).symlink_to(one.locate_file(name))
    return folder / "bin"


def asked(bare: Path, folder: Path, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(bare / "python"), "-P", *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done


@pytest.mark.slow
def test_without_an_extra_it_evaluates_and_exports(bare, tmp_path):
    """And a command that needs more says what to install."""
    run = finished_run(tmp_path / "run")
    words = [
        "evaluate",
        "--qrels",
        "qrels.txt",
        "--run",
        "bm25=bm25.txt",
        "--run",
        "student=rerank/run.txt",
        "--out",
        "new",
    ]
    assert "student" in asked(bare, run, "-m", "r2r", *words).stdout
    figures = [json.loads((run / name / "metrics.json").read_text())["systems"] for name in ("new", "evaluate")]
    assert figures[0] == figures[1]
    assert "nothing was uploaded" in asked(bare, run, "-m", "r2r", "export", ".", "--to", "export").stdout
    assert (run / "export" / "model" / "adapter_model.safetensors").exists()
    demo = asked(bare, run, "-m", "r2r", "run", "demo", "--out", "demo", status=2)
    assert re.fullmatch(
        r'r2r: \w+: not installed, and needed here; pip install "reason-to-rank\[cpu\]", .*\n', demo.stderr
    )
    irds = ["evaluate", "--qrels", "irds:beir/fiqa/test", "--run", "bm25=bm25.txt", "--out", "irds"]
    assert 'pip install "reason-to-rank[eval]"' in asked(bare, run, "-m", "r2r", *irds, status=2).stderr
