"""What identifies inputs and settings: content hashes, of which manifests and resume keys are made.

Owns hashing of files, rows and settings. Knows no stage and no format. A place is never part of a hash: the same
content elsewhere is the same input.

    fingerprint("runs/demo/annotate")    # "sha256:5f0c..."
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

# Weight files beyond this size are identified by size and time: hashing 140 GB of teacher takes longer than many jobs.
_HASH_WHOLE_UP_TO = 256 * 2**20


def digest(content: Any) -> str:
    """Return the sha256, in hex, of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def row_digest(text: str) -> int:
    """Return a 16-byte hash of a text as an integer, for `add_digests`."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())


def add_digests(digests: Iterable[int]) -> int:
    """Return the sum modulo 2^128: the hash of a set of rows, whatever their order and whoever hashed which."""
    return sum(digests) % 2**128


def fingerprint(source: str) -> str:
    """Return what identifies an input: a hash of its content if it lies on this disk, else its name.

    `source` is a path, a dataset string `SCHEME:PATH`, or a model's name. The content of a stage's finished folder is
    in its manifest.
    """
    name, _, split = source.partition("#")
    places = (Path(name), Path(name.partition(":")[2] or name))
    found = next((place for place in places if place.exists()), None)
    if found is None:
        return source
    content = finished(found) or of_files(found)
    return f"sha256:{digest([content, split])}" if split else content


def finished(folder: Path) -> str | None:
    """Return the content hash in the manifest of a stage's folder; None if it has none, or its files have changed."""
    manifest = manifest_of(folder)
    return manifest["content"] if manifest and not changed_files(folder, manifest) else None


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a stage's folder, None if there is none that this release wrote."""
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"identity", "content", "files"} <= found.keys() else None


def changed_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Return the output files that are missing or have another size than the manifest says."""
    return [name for name, size in manifest["files"].items() if _size(folder / name) != size]


def sizes(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Return the size in bytes of each file, relative to the folder; those of a sub-folder are listed one by one."""
    found = {}
    for name in names:
        place = folder / name
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file():
                found[file.relative_to(folder).as_posix()] = file.stat().st_size
    return found


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


def of_files(path: Path) -> str:
    """Return a hash of a file, or of all files of a folder with their names in it."""
    listed = sorted(path.rglob("*")) if path.is_dir() else [path]
    held = [file for file in listed if file.is_file() and "__pycache__" not in file.parts]
    content = hashlib.sha256()
    for file in held:
        content.update((file.relative_to(path).as_posix() if file != path else "").encode())
        status = file.stat()
        content.update(_of_file(file, status.st_size, status.st_mtime_ns))
    return f"sha256:{content.hexdigest()}"


@lru_cache(maxsize=4096)
def _of_file(file: Path, size: int, changed: int) -> bytes:
    """Return a file's hash. The same file is asked for by each plan and each stage."""
    if size > _HASH_WHOLE_UP_TO and file.suffix in (".safetensors", ".bin"):
        return f"{size} {changed}".encode()
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()
