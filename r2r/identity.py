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

from r2r import places
from r2r.places import Place, place

# Weight files beyond this size are identified by size and time, on a disk: hashing 140 GB of teacher takes longer than
# many jobs.
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
    """Return what identifies an input: a hash of its content if it lies on this disk or in a store, else its name.

    `source` is a path, a store's address, a dataset string `SCHEME:PATH`, or a model's name. The content of a stage's
    finished folder is in its manifest.
    """
    name, _, split = source.partition("#")
    where = (place(name), place(name.partition(":")[2] or name))
    found = next((one for one in where if one.exists()), None)
    if found is None:
        return source
    content = finished(found) or of_files(found)
    return f"sha256:{digest([content, split])}" if split else content


def finished(folder: Place) -> str | None:
    """Return the content hash in the manifest of a stage's folder; None if it has none, or its files have changed."""
    manifest = manifest_of(folder)
    return manifest["content"] if manifest and not changed_files(folder, manifest) else None


def manifest_of(folder: Place) -> dict[str, Any] | None:
    """Return the manifest of a stage's folder, None if there is none that this release wrote."""
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"identity", "content", "files"} <= found.keys() else None


def changed_files(folder: Place, manifest: dict[str, Any]) -> list[str]:
    """Return the output files that are missing or have another size than the manifest says."""
    return places.changed(folder, manifest["files"])


def sizes(folder: Place, names: Iterable[str]) -> dict[str, int]:
    """Return the size in bytes of each file, relative to the folder; those of a sub-folder are listed one by one."""
    found: dict[str, int] = {}
    for name in names:
        if (size := places.size(folder / name)) is not None:
            found[name] = size
        else:
            found |= {f"{name}/{file}": one.size for file, one in places.files(folder / name).items()}
    return found


def of_files(path: Place) -> str:
    """Return a hash of a file, or of all files of a folder with their names in it."""
    content = hashlib.sha256()
    if (size := places.size(path)) is not None:
        held = {"": places.Held(size)}
    else:
        held = {name: one for name, one in places.files(path).items() if "__pycache__" not in name.split("/")}
    for name, one in held.items():
        content.update(name.encode())
        content.update(_content_of(path / name if name else path, one))
    return f"sha256:{content.hexdigest()}"


def _content_of(file: Place, held: places.Held) -> bytes:
    """Return a file's hash, the same wherever the file lies, unless it is large (see `_HASH_WHOLE_UP_TO`)."""
    if not isinstance(file, places.Stored):
        status = places.local(file).stat()
        return _of_file(places.local(file), status.st_size, status.st_mtime_ns)
    found = places.sha256(file, held.sha256)
    return f"{held.size} {found.hex()}".encode() if _is_large(file, held.size) else found


def _is_large(file: Place, size: int) -> bool:
    return size > _HASH_WHOLE_UP_TO and file.suffix in (".safetensors", ".bin")


@lru_cache(maxsize=4096)
def _of_file(file: Path, size: int, changed: int) -> bytes:
    """Return a file's hash. The same file is asked for by each plan and each stage."""
    if _is_large(file, size):
        return f"{size} {changed}".encode()
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()
