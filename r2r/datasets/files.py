"""Files of this disk or of any file system that pyarrow opens; text files in parts, plain or gzipped.

Owns finding and opening files, cutting a text file into parts that workers read apart, decoding, and the place
(FILE:LINE) of a mistake. Does not own what a line holds: the schemes do, and hand in a function that parses one.

    rows = [row for _, row in Lines("queries.jsonl", json_object).read()]
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

from r2r.errors import BadInput

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
    unit: ClassVar[str] = "B"

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
    if _zipped(file):
        return [Lines(file, parse, stripe=(index, parts)) for index in range(parts)]
    with open_file(file) as stream:
        size = stream.seek(0, io.SEEK_END)
    bounds = [size * index // parts for index in range(parts + 1)]
    return [Lines(file, parse, start, stop) for start, stop in itertools.pairwise(bounds)]


def open_file(file: str, start: int = 0) -> BinaryIO:
    """Open a file for reading bytes, unzipped where its name ends in .gz. Raises BadInput where that fails."""
    system, path = _locate(file)
    try:
        if _zipped(file):
            return io.BufferedReader(system.open_input_stream(path, compression="gzip"), 2**20)
        stream = io.BufferedReader(system.open_input_file(path), 2**20)
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file; give the path of one that exists") from None
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    stream.seek(start)
    return stream


def within(folder: str, name: str) -> str:
    """Return the address of a file in a folder; the options of `s3://bucket/data?region=...` stay last."""
    base, mark, options = folder.partition("?") if "://" in folder else (folder, "", "")
    return f"{base.rstrip('/')}/{name}{mark}{options}"


def names(folder: str) -> list[str] | None:
    """Return the names of the files in a folder, sorted; None where there is no such folder."""
    from pyarrow import fs

    system, path = _locate(folder)
    try:
        if system.get_file_info(path).type != fs.FileType.Directory:
            return None
        found = system.get_file_info(fs.FileSelector(path))
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from None
    return sorted(info.base_name for info in found if info.type == fs.FileType.File)


def find(folder: str, *wanted: str) -> str | None:
    """Return the address of the first of these files that the folder holds, plain or as .gz; None for none of them."""
    there = names(folder) or []
    held = (name for one in wanted for name in (one, f"{one}.gz") if name in there)
    return next((within(folder, name) for name in held), None)


def _locate(file: str):
    """Return the file system, and the path in it."""
    from pyarrow import fs

    try:
        return fs.FileSystem.from_uri(file) if "://" in file else (fs.LocalFileSystem(), file)
    except (OSError, ValueError, NotImplementedError, ImportError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: str, error: Exception) -> BadInput:
    return BadInput(f"{file}: cannot be opened: {(str(error).splitlines() or [type(error).__name__])[0]}")


def _zipped(file: str) -> bool:
    return (file.partition("?")[0] if "://" in file else file).endswith(".gz")


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
