"""What identifies an input and a setting: content hashes, from which manifests and resume keys are made.

fingerprint("runs/demo/annotate")    # "sha256:5f0c..."
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

# A weight file is told by its size and time alone: hashing 140 GB of teacher would take longer than many a job.
_HASH_WHOLE_UP_TO = 256 * 2**20


def digest(content: list) -> str:
    """Return the sha256 of what JSON can hold, as resume keys are made of."""
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def row_digest(text: str) -> int:
    """Return the 16-byte blake2b hash of one row or document, as a big-endian integer. Lone surrogates are allowed."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest(), "big")


def add_digests(digests: Iterable[int]) -> int:
    """Return the sum of digests modulo 2**128: a digest of many rows that depends neither on order nor on grouping."""
    return sum(digests) % 2**128


def fingerprint(source: str) -> str:
    """Return what identifies an input: a hash of its contents where it lies on this disk, else its name.

    A stage's folder is known by its manifest, which holds the hashes of what it was made from; `demo` by the files of
    `r2r/demo`.
    """
    name, _, split = source.partition("#")
    if name == "demo":
        found = Path(__file__).parent / "demo"
    else:
        found = next((at for at in (Path(name), Path(name.partition(":")[2] or name)) if at.exists()), None)
        if found is None:
            return source
    if (found / "manifest.json").exists():
        found = found / "manifest.json"
    digest = hashlib.sha256(split.encode())
    for file in sorted(found.rglob("*")) if found.is_dir() else [found]:
        if not file.is_file() or "__pycache__" in file.parts:
            continue
        digest.update(file.relative_to(found.parent).as_posix().encode())
        status = file.stat()
        if status.st_size > _HASH_WHOLE_UP_TO and file.suffix in (".safetensors", ".bin"):
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
        else:
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return "sha256:" + digest.hexdigest()
