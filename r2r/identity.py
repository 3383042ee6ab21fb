"""What identifies an input or a setting: content hashes, for manifests and resume keys.

fingerprint("runs/demo/annotate")    # "sha256:5f0c..."
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

# Larger weight files count by size and time: to hash 140 GB of teacher can take longer than the job.
_HASH_WHOLE_UP_TO = 256 * 2**20


def digest(content: list) -> str:
    """Return the sha256 of a list that JSON can hold. Resume keys are such hashes."""
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def fingerprint(source: str) -> str:
    """Return a hash of a local input's content, wherever it lies; the name itself for any other input.

    `source` is a path or a dataset string; its #FRAGMENT counts too. A stage's folder counts by its manifest, which
    holds the fingerprints of its own inputs.
    """
    name, _, split = source.partition("#")
    found = next((at for at in (Path(name), Path(name.partition(":")[2] or name)) if at.exists()), None)
    if found is None:
        return source
    if (found / "manifest.json").exists():
        found = found / "manifest.json"
    hashed = hashlib.sha256(split.encode())
    for file in sorted(found.rglob("*")) if found.is_dir() else [found]:
        if not file.is_file():
            continue
        hashed.update(file.relative_to(found).as_posix().encode())
        status = file.stat()
        if status.st_size > _HASH_WHOLE_UP_TO and file.suffix in (".safetensors", ".bin"):
            hashed.update(f"{status.st_size} {status.st_mtime_ns}".encode())
        else:
            with file.open("rb") as content:
                hashed.update(hashlib.file_digest(content, "sha256").digest())
    return "sha256:" + hashed.hexdigest()
