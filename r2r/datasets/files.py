"""Files, local or on any file system that pyarrow opens; text files, plain or gzipped, whole or in parts.

Owns finding and opening files, cutting a text file into parts for workers, decoding, and the place (FILE:LINE) of a
mistake. Does not own what a line means: the caller passes a function that parses one.

    rows = [row for _, row in Lines("queries.jsonl", json_object).read()]
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

from r2r.datasets.documents import Part
from r2r.errors import BadInput
from r2r.places import Stored, fetch, listed, place, reader

# No reader can start in the middle of a gzipped file: each part reads all of it and keeps every n-th block.
_BLOCK = 64 * 2**10
_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
# How files begin that are no text in UTF-8, and what to do about it.
_OTHERS = {
    _GZIP: "is gzipped; end its name in .gz",
    b"BZh": "is a bzip2 file; unpack it, or gzip it (.gz)",
    b"\x28\xb5\x2f\xfd": "is a zstd file; unpack it, or gzip it (.gz)",
    b"\xfd7zXZ": "is an xz file; unpack it, or gzip it (.gz)",
    b"PK\x03\x04": "is a zip file; unpack it, or gzip what is in it (.gz)",
    b"\xff\xfe": "is text in UTF-16; write it in UTF-8",
    b"\xfe\xff": "is text in UTF-16; write it in UTF-8",
}


@dataclass(frozen=True)
class Lines:
    """A part of a text file: the lines that begin in bytes [start, stop).

    A part of a gzipped file: the lines that begin in every n-th block. `stripe` is (which, n).

    `parse` takes a line's bytes and raises ValueError with what is wrong and what would be right. `wanted` ends the
    message for a file that does not exist.
    """

    file: str
    parse: Callable[[bytes], Any]
    start: int = 0
    stop: int | None = None
    stripe: tuple[int, int] = (0, 1)
    wanted: str = "give the path of one that exists"
    unit: ClassVar[str] = "B"

    @property
    def size(self) -> int | None:
        """Bytes to read; None if not known before the end."""
        return None if self.stop is None else self.stop - self.start

    def read(self) -> Iterator[tuple[int, Any]]:
        """Yield each line that is not blank, parsed, with its position (in bytes, unzipped). Drops a byte order mark.

        Raises BadInput for a file that cannot be opened or read to its end, such as a truncated .gz; and, with the
        place, for a line that `parse` refuses.
        """
        index, count = self.stripe
        at = max(0, self.start - 1)
        with reading(self.file), open_text(self.file, at, self.wanted) as stream:
            if self.start:
                # A line belongs to the part that holds its first byte: the part before reads it to its end.
                at += len(stream.readline())
            for line in stream:
                if self.stop is not None and at >= self.stop:
                    return
                content = line if at else line.removeprefix(_BOM)
                if content.strip() and at // _BLOCK % count == index:
                    try:
                        row = self.parse(content)
                    except ValueError as error:
                        raise BadInput(f"{self.place(at)}: {error}") from None
                    yield at, row
                at += len(line)

    def place(self, at: int) -> str:
        """Return FILE:LINE of the line that begins at byte `at`. Reads the file up to there: only for messages."""
        number = 1
        with open_file(self.file) as stream:
            while at > 0:
                data = stream.read(min(at, 2**20))
                number += data.count(b"\n")
                at -= len(data)
        return f"{self.file}:{number}"


def split(file: str, parts: int, parse: Callable[[bytes], Any]) -> list[Part]:
    """Cut a file into `parts` that together hold each line once. Some parts of a small file may be empty."""
    if _zipped(file):
        return [Lines(file, parse, stripe=(index, parts)) for index in range(parts)]
    with open_file(file) as stream:
        size = stream.seek(0, io.SEEK_END)
    bounds = [size * index // parts for index in range(parts + 1)]
    return [Lines(file, parse, start, stop) for start, stop in itertools.pairwise(bounds)]


def read_text(file: str) -> str:
    """Return a whole text file, without its byte order mark. Raises BadInput if it cannot be opened or read."""
    with reading(file), open_text(file) as stream:
        return text_of(stream.read().removeprefix(_BOM))[0]


@contextmanager
def reading(file: str) -> Iterator[None]:
    """Turn an error in the middle of a file, while the block reads it, into BadInput."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{file}: cannot be read to its end: {_said(error)}; copy or download it again") from None


def open_text(file: str, start: int = 0, wanted: str = Lines.wanted) -> BinaryIO:
    """Open a text file as `open_file` does. Raises BadInput for one that does not begin as text in UTF-8 does."""
    stream = open_file(file, start, wanted)
    first = b"" if start else stream.peek(8)  # type: ignore[attr-defined] # open_file buffers
    if other := next((said for magic, said in _OTHERS.items() if first.startswith(magic)), None):
        stream.close()
        twice = first.startswith(_GZIP) and _zipped(file)
        raise BadInput(f"{file}: {'is gzipped twice; unpack it once' if twice else other}")
    return stream


def open_file(file: str, start: int = 0, wanted: str = Lines.wanted) -> BinaryIO:
    """Open a file to read its bytes, unzipped if its name ends in .gz. Raises BadInput if it cannot be opened."""
    held = place(file)
    if isinstance(held, Stored) and not _zipped(file):
        # Where it lies: each worker reads its own part.
        try:
            found = io.BufferedReader(reader(held), 2**20)
        except FileNotFoundError:
            raise BadInput(f"{file}: no such file or directory; {wanted}") from None
        found.seek(start)
        return found
    # Whoever unzips reads all of it.
    system, path = _locate(str(fetch(held)) if isinstance(held, Stored) else file)
    try:
        if _zipped(file):
            return io.BufferedReader(system.open_input_stream(path, compression="gzip"), 2**20)
        stream = io.BufferedReader(system.open_input_file(path), 2**20)
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file or directory; {wanted}") from None
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    stream.seek(start)
    return stream


def within(folder: str, name: str) -> str:
    """Return the address of a file in a folder. The options of s3://bucket/data?region=... stay at the end."""
    base, mark, options = folder.partition("?") if "://" in folder else (folder, "", "")
    return f"{base.rstrip('/')}/{name}{mark}{options}"


def names(folder: str) -> list[str] | None:
    """Return the names of the files in a folder, sorted; None if there is no such folder."""
    from pyarrow import fs

    if isinstance(held := place(folder), Stored):
        return listed(held)
    system, path = _locate(folder)
    try:
        if system.get_file_info(path).type != fs.FileType.Directory:
            return None
        found = system.get_file_info(fs.FileSelector(path))
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from None
    return sorted(info.base_name for info in found if info.type == fs.FileType.File)


def find(folder: str, *wanted: str) -> str | None:
    """Return the address of the first of these files in the folder, plain or as .gz; None if it has none of them."""
    there = names(folder) or []
    held = (name for one in wanted for name in (one, f"{one}.gz") if name in there)
    return next((within(folder, name) for name in held), None)


def _locate(file: str) -> tuple[Any, str]:
    """Return the file system of pyarrow, and the path in it."""
    from pyarrow import fs

    try:
        return fs.FileSystem.from_uri(file) if "://" in file else (fs.LocalFileSystem(), file)
    except (OSError, ValueError, NotImplementedError, ImportError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: str, error: Exception) -> BadInput:
    return BadInput(f"{file}: cannot be opened: {_said(error)}")


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _zipped(file: str) -> bool:
    return (file.partition("?")[0] if "://" in file else file).endswith(".gz")


def text_of(line: bytes) -> tuple[str, bool]:
    """Return a line as text, and whether U+FFFD replaced broken UTF-8 in it."""
    try:
        return line.decode(), False
    except UnicodeDecodeError:
        return line.decode(errors="replace"), True


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict. Raises ValueError for a name that stands in it twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return found


JSON = json.JSONDecoder(object_pairs_hook=unique)


def json_object(line: bytes) -> dict:
    """Parse one JSON object in UTF-8. Raises ValueError with what is wrong."""
    return parse_json(text_of(line)[0], "each line should be one JSON object")


def parse_json(text: str, wanted: str) -> dict:
    """Parse one JSON object. Raises ValueError with what is wrong; the message ends with `wanted`."""
    try:
        value = JSON.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg}, column {error.colno}); {wanted}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error}); {wanted}") from None
    if not isinstance(value, dict):
        raise ValueError(f"holds JSON that is no object but {text.strip()[:30]!r}; {wanted}")
    return value
