"""Text files, read in parts: from this disk or any file system that pyarrow opens, plain or gzipped.

Owns opening, cutting a file into parts that workers read apart, decoding, and the place (FILE:LINE) of a mistake.
Does not own what a line holds: the schemes do, and hand in a function that parses one.

    rows = [row for _, row in Lines("queries.jsonl", json_object).read()]
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from r2r.config import BadInput

# A gzipped file cannot be entered in the middle: each part reads all of it and keeps every n-th block of this size.
_BLOCK = 64 * 2**10


@dataclass(frozen=True)
class Lines:
    """A part of a text file: the lines that begin in bytes [start, stop).

    Of a gzipped one, which cannot be cut, the lines that begin in every n-th block: `stripe` is (which, n).

    `parse` takes a line's bytes and raises ValueError with what is wrong and what would be right.
    """

    file: str
    parse: Callable[[bytes], Any]
    start: int = 0
    stop: int | None = None
    stripe: tuple[int, int] = (0, 1)

    @property
    def size(self) -> int | None:
        """Bytes to read; None where that is not known before the end."""
        return None if self.stop is None else self.stop - self.start

    def read(self) -> Iterator[tuple[int, Any]]:
        """Yield each line that is not blank, parsed, with the position (in bytes, unzipped) where it begins.

        Raises BadInput, with the place, for a line that `parse` refuses.
        """
        index, count = self.stripe
        at = max(0, self.start - 1)
        with open_file(self.file, at) as stream:
            if self.start:
                # A line belongs to the part that holds its first byte: the one before reads on to this line's end.
                at += len(stream.readline())
            for line in stream:
                if self.stop is not None and at >= self.stop:
                    return
                if line.strip() and at // _BLOCK % count == index:
                    try:
                        row = self.parse(line if at else line.removeprefix(b"\xef\xbb\xbf"))
                    except ValueError as error:
                        raise BadInput(f"{self.place(at)}: {error}") from None
                    yield at, row
                at += len(line)

    def place(self, at: int) -> str:
        """Return FILE:LINE of the line that begins at byte `at`. Counts lines, so only for messages."""
        number = 1
        with open_file(self.file) as stream:
            while at > 0:
                data = stream.read(min(at, 2**20))
                number += data.count(b"\n")
                at -= len(data)
        return f"{self.file}:{number}"


def split(file: str, parts: int, parse: Callable[[bytes], Any]) -> list[Lines]:
    """Cut a file into `parts` that together hold every line once; in a small file some may hold none."""
    if file.endswith(".gz"):
        return [Lines(file, parse, stripe=(index, parts)) for index in range(parts)]
    with open_file(file) as stream:
        size = stream.seek(0, io.SEEK_END)
    bounds = [size * index // parts for index in range(parts + 1)]
    return [Lines(file, parse, start, stop) for start, stop in itertools.pairwise(bounds)]


def open_file(file: str, start: int = 0) -> BinaryIO:
    """Open a file for reading bytes, unzipped where its name ends in .gz. Raises BadInput where that fails."""
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(file) if "://" in file else (fs.LocalFileSystem(), file)
        if file.endswith(".gz"):
            return io.BufferedReader(system.open_input_stream(path, compression="gzip"), 2**20)
        stream = io.BufferedReader(system.open_input_file(path), 2**20)
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file; give the path of one that exists") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: cannot be opened: {error}") from None
    stream.seek(start)
    return stream


def text_of(line: bytes) -> tuple[str, bool]:
    """Return a line as text, and whether broken UTF-8 in it had to be replaced by U+FFFD."""
    try:
        return line.decode(), False
    except UnicodeDecodeError:
        return line.decode(errors="replace"), True


def json_object(line: bytes) -> dict:
    """Parse one JSON object, in UTF-8. Raises ValueError."""
    return parse_json(text_of(line)[0], "each line should be one JSON object")


def parse_json(text: str, wanted: str) -> dict:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg}, column {error.colno}); {wanted}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error}); {wanted}") from None
    if not isinstance(value, dict):
        raise ValueError(f"holds JSON that is no object but {text.strip()[:30]!r}; {wanted}")
    return value
