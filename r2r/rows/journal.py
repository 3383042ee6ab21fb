"""What models have answered, row by row, on disk as soon as it is known: nothing that was paid for is asked again.

Owns the files, `FOLDER/*.jsonl`, to which each process appends its own, and their index. Does not own what a row is:
it is known by its key, 64 hexadecimal digits. A line that a kill or a full disk left unfinished is passed over.

    journal = Journal(Path("runs/demo/annotate/rows/5f0c…"))
    journal.add(key, "annotations", {"qid": "q1", ...}, {"completion_tokens": 112})
"""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from r2r.errors import BadInput

# Every line begins {"key": "64 digits", "table": "its name", so it is found without reading the rest of it.
_KEY, _TABLE = slice(9, 73), slice(76, 140)
_DIED = "died"


class Journal:
    """Finished rows by key, with those of other processes as they were when this was made. Threads may share it.

    A process that only reads creates nothing.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._rows: dict[bytes, tuple[Path, int, str]] = {}
        self._deaths: Counter[bytes] = Counter()
        self._writing = threading.Lock()
        self._file: BinaryIO | None = None
        for file in sorted(folder.glob("*.jsonl")):
            self._read(file)

    def table(self, key: str) -> str:
        """Return the table of what was added for a key, "" where nothing was."""
        return self._rows.get(bytes.fromhex(key), ("", 0, ""))[2]

    def __iter__(self) -> Iterator[dict]:
        """Yield all that was added."""
        return (self._load(*found[:2]) for found in self._rows.values())

    def get(self, key: str) -> dict | None:
        """Return what was added for a key, None where nothing was."""
        found = self._rows.get(bytes.fromhex(key))
        return self._load(*found[:2]) if found else None

    def deaths(self, key: str) -> int:
        """Return how many engines have died while they worked on the row."""
        return self._deaths[bytes.fromhex(key)]

    def add(self, key: str, table: str, row: dict, counts: dict) -> None:
        """Keep the answer to a row. When this returns it is on disk, and a kill cannot take it."""
        with self._writing:
            place = self._write({"key": key, "table": table, "row": row, "counts": counts})
            self._rows[bytes.fromhex(key)] = (*place, table)

    def died(self, key: str) -> None:
        """Keep that an engine died while it worked on the row."""
        with self._writing:
            self._write({"key": key, "table": _DIED})
            self._deaths[bytes.fromhex(key)] += 1

    def _read(self, file: Path) -> None:
        with file.open("rb") as lines:
            at = 0
            for line in lines:
                if line.endswith(b"\n"):
                    key, table = bytes.fromhex(line[_KEY].decode()), sys.intern(line[_TABLE].decode().split('"')[3])
                    if table == _DIED:
                        self._deaths[key] += 1
                    else:
                        self._rows[key] = (file, at, table)
                at += len(line)

    def _load(self, file: Path, at: int) -> dict:
        with file.open("rb") as lines:
            lines.seek(at)
            return json.loads(lines.readline())

    def _write(self, entry: dict) -> tuple[Path, int]:
        line = json.dumps(entry).encode() + b"\n"
        try:
            if self._file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._file = (self.folder / f"{uuid.uuid4().hex}.jsonl").open("ab", buffering=0)
            file, at = Path(self._file.name), self._file.tell()
            written = 0
            while written < len(line):
                written += self._file.write(line[written:]) or 0
            os.fsync(self._file.fileno())
        except OSError as error:
            # A part of the line may stand there, and nothing may follow it.
            self._file = None
            wrong = f"{self.folder}: {(error.strerror or str(error)).lower()}"
            raise BadInput(f"{wrong}; all finished rows are kept: make room and run the same command again") from None
        return file, at
