"""Finished rows, kept as soon as their answers arrive, so that a killed job loses no answer.

Owns the files, `FOLDER/*.jsonl`, and their index. On a disk, each process appends to a file of its own. In a store,
each write is a small object of its own, at most one a second and process. A process puts those of about a minute
together, so that whoever reads a long job finds few; `compact` puts all together at its end. Readers index copies on
their own disk. Does not own what a row means: a key of 64 hexadecimal digits identifies it. Skips a line that a kill or
a full disk left unfinished.

    journal = Journal(Path("runs/demo/annotate/rows/5f0c…"))
    journal.add(key, "annotations", {"qid": "q1", ...}, {"completion_tokens": 112})
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from r2r import places
from r2r.errors import BadInput
from r2r.places import Place, Stored

# Version of the resume keys. The answers' folders begin with it.
KEYS = "v2"

# Seconds between two writes of a process to a store, which answers some thousands of writes a second and folder.
_BETWEEN = 1.0
# Objects that a process puts together while it writes.
_TOGETHER = 60
# Objects that are worth putting together at the end, and the bytes of one that is large enough.
_MANY, _LARGE = 8, 64 * 2**20
# The name of what was put together: the writer, and the numbers of its first and last object.
_RANGE = re.compile(r"([0-9a-f]{32})-([0-9]{6,})-([0-9]{6,})\.jsonl")

# Every line begins {"key": "64 digits", "table": "its name", so both can be read without parsing the whole line.
_KEY_SLICE, _TABLE_SLICE = slice(9, 73), slice(76, 140)
# Stands for a table in the lines that record an engine's death.
_DEATH_TABLE = "died"


class Entry(NamedTuple):
    """A row's answer, as `Journal.add` takes it."""

    key: str
    table: str
    row: dict[str, Any]
    counts: Mapping[str, Any]
    round: int = 0


class _Line(NamedTuple):
    file: Path
    offset: int
    table: str


class Journal:
    """The finished rows by key: those of this object, and those that other processes had written when it was made.

    Threads may share it. A process that only reads creates no file. also: names of files that are known to be there: a
    store's listing may be late.
    """

    def __init__(self, folder: Place, also: Iterable[str] = ()) -> None:
        self.folder = folder
        self._lines: dict[bytes, _Line] = {}
        # By key, the deaths' own names: a kill while objects are put together leaves their lines twice.
        self._deaths = defaultdict[bytes, set[str]](set)
        self._write_lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._writer, self._written, self._last = uuid.uuid4().hex, 0, -_BETWEEN
        there = {file.name for file in folder.glob("*.jsonl")}
        self._names = without_parts(there | set(also))
        # Put together already, and not removed yet.
        self._left = sorted(there.difference(self._names))
        self._told: set[str] = set()
        self._local = places.copies(folder, self._names)
        self._path = self._local
        for name in self._names:
            # Others may have put it together with more, and removed it.
            if (self._local / name).exists():
                self._index(self._local / name)

    def table(self, key: str) -> str:
        """Return the table that a row's answer belongs to, "" if the row is not finished."""
        line = self._lines.get(bytes.fromhex(key))
        return line.table if line else ""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the entry of each finished row, as `get` does."""
        return map(_load, self._lines.values())

    def last_round(self, table: str) -> int:
        """Return the highest round in which a row of `table` was answered, 0 if there is none."""
        entries = (_load(line) for line in self._lines.values() if line.table == table)
        return max((entry.get("round", 0) for entry in entries), default=0)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a row's entry, None if the row is not finished.

        It has `key`, `table`, `row`, `counts` and, if the row was asked again, `round`.
        """
        line = self._lines.get(bytes.fromhex(key))
        return _load(line) if line else None

    def deaths(self, key: str) -> int:
        """Return how many engines died while they worked on the row."""
        return len(self._deaths.get(bytes.fromhex(key), ()))

    def add(self, key: str, table: str, row: dict[str, Any], counts: Mapping[str, Any], round: int = 0) -> None:
        """Record a row's answer. It is kept when this returns. Raises BadInput if the disk or the store takes no more.

        An answer of a later round takes the place of an earlier one.
        """
        self.add_all([Entry(key, table, row, counts, round)])

    def add_all(self, entries: list[Entry]) -> None:
        """Record answers as `add` does, all with one wait for the disk or the store."""
        lines = [_answer_line(entry) for entry in entries]
        with self._write_lock:
            file, offset = self._write(b"".join(lines))
            for entry, line in zip(entries, lines, strict=True):
                self._lines[bytes.fromhex(entry.key)] = _Line(file, offset, entry.table)
                offset += len(line)

    def died(self, key: str) -> None:
        """Record that an engine died while it worked on the row. Raises BadInput as `add`."""
        with self._write_lock:
            name = uuid.uuid4().hex
            self._write(_line({"key": key, "table": _DEATH_TABLE, "death": name}))
            self._deaths[bytes.fromhex(key)].add(name)

    def _index(self, file: Path) -> None:
        with file.open("rb") as lines:
            offset = 0
            for line in lines:
                if line.endswith(b"\n"):
                    key = bytes.fromhex(line[_KEY_SLICE].decode())
                    table = sys.intern(line[_TABLE_SLICE].decode().split('"')[3])
                    if table == _DEATH_TABLE:
                        self._deaths[key].add(json.loads(line).get("death", f"{file.name} {offset}"))
                    else:
                        self._keep_latest(key, _Line(file, offset, table))
                offset += len(line)

    def _keep_latest(self, key: bytes, line: _Line) -> None:
        before = self._lines.get(key)
        if before is None or _load(before).get("round", 0) <= _load(line).get("round", 0):
            self._lines[key] = line

    def pause(self) -> float:
        """Return the seconds after which the next write is due: a store is written to once in a while."""
        return max(0.0, self._last + _BETWEEN - time.monotonic()) if isinstance(self.folder, Stored) else 0.0

    def names(self) -> list[str]:
        """Return the objects in a store that this one knows and has not returned before, for whoever reads them all."""
        if not isinstance(self.folder, Stored):
            return []
        with self._write_lock:
            new = [name for name in self._names if name not in self._told]
            self._told.update(new)
        return new

    def compact(self) -> None:
        """Put the small objects of a store together into few large ones; a disk has few files anyway.

        The small ones are removed once the large ones are there. A kill in between leaves lines twice, and they count
        once.
        """
        if not isinstance(self.folder, Stored) or len(self._names) < _MANY:
            return
        old, new, waiting = list(self._names), list[str](), b""
        for name in [*old, ""]:
            if name and (self._local / name).exists():
                waiting += (self._local / name).read_bytes()
            if waiting and (len(waiting) > _LARGE or not name):
                new.append(f"all-{self._writer}-{len(new):06}.jsonl")
                places.put(waiting, self.folder / new[-1])
                waiting = b""
        for name in [*old, *self._left]:
            (self.folder / name).unlink(missing_ok=True)
        self._names, self._left = new, []

    def _put_together(self) -> None:
        """Put this process's last objects into one. They are removed when the next ones are put together: by then,
        whoever got their names has got the new one's."""
        first = self._written - _TOGETHER + 1
        name = f"{self._writer}-{first:06}-{self._written:06}.jsonl"
        parts = (self._local / part for part in _parts(self._writer, first, self._written))
        # One that the store refused is not there.
        places.put(b"".join(part.read_bytes() for part in parts if part.exists()), self.folder / name)
        self._names.append(name)
        for part in _parts(self._writer, max(1, first - _TOGETHER), first - 1):
            (self.folder / part).unlink(missing_ok=True)

    def _write(self, lines: bytes) -> tuple[Path, int]:
        """Append lines and return where they begin."""
        if isinstance(self.folder, Stored):
            # An object is never written to again: each write is one of its own.
            self._written += 1
            (name,), self._last = _parts(self._writer, self._written, self._written), time.monotonic()
            places.put(lines, self.folder / name)
            places.put(lines, self._local / name)
            self._names.append(name)
            if self._written % _TOGETHER == 0:
                self._put_together()
            return self._local / name, 0
        try:
            if self._file is None:
                self._local.mkdir(parents=True, exist_ok=True)
                self._path = self._local / f"{uuid.uuid4().hex}.jsonl"
                self._file = self._path.open("ab", buffering=0)
            file, offset = self._path, self._file.tell()
            written = 0
            while written < len(lines):
                written += self._file.write(lines[written:]) or 0
            os.fsync(self._file.fileno())
        except OSError as error:
            # The file may end with a part of a line; the next line goes to a new file.
            self._file = None
            wrong = f"{self.folder}: {(error.strerror or str(error)).lower()}"
            raise BadInput(f"{wrong}; all finished rows are kept: make room and run the same command again") from None
        return file, offset


def without_parts(names: set[str]) -> list[str]:
    """Return the names without those of objects of which another one was put together, sorted."""
    parts = set[str]()
    for name in names:
        if found := _RANGE.fullmatch(name):
            parts.update(_parts(found[1], int(found[2]), int(found[3])))
    return sorted(names - parts)


def _parts(writer: str, first: int, last: int) -> list[str]:
    """Return the names of a process's objects, from one number to another."""
    return [f"{writer}-{number:06}.jsonl" for number in range(first, last + 1)]


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _answer_line(entry: Entry) -> bytes:
    written = entry._asdict()
    if not entry.round:
        del written["round"]
    return _line(written)


def _load(line: _Line) -> dict[str, Any]:
    with line.file.open("rb") as lines:
        lines.seek(line.offset)
        return json.loads(lines.readline())
