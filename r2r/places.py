"""Where files lie: on a disk, or in an object store (s3://, gs://, abfs://). The same calls serve both.

Owns every way in which a stage's files are found, read, put in place and removed, and what of them has to be on this
disk. Does not own what the files hold, nor the cache that the copies lie in (`r2r.nodecache`).

    place("s3://bucket/runs/demo") / "annotate"       # a Stored; place("runs/demo") is a pathlib.Path
    with replacing(place(out) / "stats.json") as aside: aside.write_text("{}")
    fetch(place("s3://bucket/runs/demo/distill/adapter"))    # a local folder, from the cache

A store writes whole objects and renames nothing. So a file is made on the local disk, and uploaded once it is whole. A
folder is there once its marker is: `.files.json`, written last, names each file with its size and, where it was made as
one (`replacing_folder`), its sha256. A marker without files says that the folder is being replaced. A folder without
a marker of its own may be in the list of one above it, or in a manifest; else it was put there by someone else, and the
store's listing says what it holds. A listing may be late, so nothing of ours is believed by a listing alone.

Through pyarrow.fs, which the base install has, which reads datasets here anyway, and which Ray's Data and Train use
too; fsspec and a package a store would be new, cache listings, and commit what a failed block has left half-written.
Credentials come from where each store's own tools look: AWS_ACCESS_KEY_ID or an instance's profile, AWS_ENDPOINT_URL,
AWS_REGION; GOOGLE_APPLICATION_CREDENTIALS; Azure's default chain.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from io import RawIOBase
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol, TypeVar

from r2r import nodecache
from r2r.errors import BadInput

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")
MARKER = ".files.json"

# Attempts of a request, and the pause before the second one; each later pause is twice as long, up to the longest.
_TRIES, _PAUSE, _LONGEST = 8, 0.5, 30.0
# Attempts inside pyarrow, for each of ours: one bad part must not fail an object of many.
_INNER_TRIES = 2
# Attempts to reach a store while a job is planned: somebody waits for the answer.
_PLAN_TRIES = 3
_MOST_AT_ONCE = 8
# Files that are asked for one by one rather than by a listing.
_FEW = 8
# Bytes from which a transfer is announced.
_LARGE = 500_000_000
_CHUNK = 16 * 2**20
# Errors that a retry does not fix, in the words of the three stores.
_FINAL = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT|INVALID_SIGNATURE"
    r"|INVALID_CLIENT_TOKEN_ID|MISSING_AUTHENTICATION_TOKEN|OPTED_OUT|HTTP status 40[0134]|PERMISSION_DENIED"
    r"|UNAUTHENTICATED|Authentication\w+|OAuth2 access token|Authorization[A-Z]\w+|ContainerNotFound|AccountIsDisabled"
)
_Read = TypeVar("_Read")


class Place(Protocol):
    """A file or a folder: what `pathlib.Path` and `Stored` have in common, and the stages use."""

    @property
    def name(self) -> str: ...
    @property
    def suffix(self) -> str: ...
    @property
    def parent(self) -> Place: ...
    @property
    def parents(self) -> Sequence[Place]: ...
    def __truediv__(self, name: str, /) -> Place: ...
    def __lt__(self, other: Any, /) -> bool: ...
    def __hash__(self) -> int: ...
    def exists(self) -> bool: ...
    def is_dir(self) -> bool: ...
    def is_file(self) -> bool: ...
    def is_absolute(self) -> bool: ...
    def absolute(self) -> Place: ...
    def with_name(self, name: str, /) -> Place: ...
    def glob(self, pattern: str, /) -> Iterator[Place]: ...
    def read_text(self, encoding: str | None = None) -> str: ...
    def read_bytes(self) -> bytes: ...
    def unlink(self, missing_ok: bool = False) -> None: ...


def is_store(text: str) -> bool:
    """Return whether a text names a place in an object store."""
    scheme, mark, _ = text.partition("://")
    return bool(mark) and scheme in SCHEMES


def place(text: str | Place) -> Place:
    """Return the place that a text names: a `Stored` for a store's address, else a `pathlib.Path`."""
    if not isinstance(text, str):
        return text
    return Stored.of(text) if is_store(text) else Path(text)


@dataclass(frozen=True, order=True)
class Stored:
    """A file or a folder in an object store. root: scheme and bucket. options: what follows a `?`, as pyarrow has it.

    Every call may raise BadInput: for a store that does not answer or refuses. Errors that pass are tried again.
    """

    root: str
    key: str
    options: str = ""

    @classmethod
    def of(cls, text: str) -> Stored:
        base, _, options = text.partition("?")
        scheme, _, rest = base.partition("://")
        bucket, _, key = rest.partition("/")
        if not bucket:
            raise BadInput(f"{text}: names no bucket; write {scheme}://BUCKET/FOLDER")
        return cls(f"{scheme}://{bucket}", "/".join(part for part in key.split("/") if part not in ("", ".")), options)

    def __str__(self) -> str:
        return self.root + f"/{self.key}" * bool(self.key) + f"?{self.options}" * bool(self.options)

    __repr__ = __str__

    def __truediv__(self, name: str) -> Stored:
        return Stored(self.root, f"{self.key}/{name}".strip("/"), self.options)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2] or self.root.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Stored:
        return Stored(self.root, self.key.rpartition("/")[0], self.options)

    @property
    def parents(self) -> Sequence[Stored]:
        parts = self.key.split("/") if self.key else []
        return [Stored(self.root, "/".join(parts[:count]), self.options) for count in range(len(parts) - 1, -1, -1)]

    def with_name(self, name: str) -> Stored:
        return self.parent / name

    def absolute(self) -> Stored:
        return self

    def is_absolute(self) -> bool:
        return True

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return _size(self) is not None

    def is_dir(self) -> bool:
        """Return whether there is a file in it. One that is being replaced is not there."""
        marked = _marked(self)
        if marked is not None:
            return marked.files is not None
        if _listing(self, False) or _listing(self, True):
            return True
        # Also where the listing is late.
        return _size(self / "manifest.json") is not None or bool(_by_list_above(self))

    def glob(self, pattern: str) -> Iterator[Stored]:
        """Yield what the store lists now, files and folders; a pattern with slashes goes down as many folders."""
        first, mark, rest = pattern.partition("/")
        for name in sorted(_children(self)):
            if fnmatchcase(name, first) and name != MARKER:
                if not mark:
                    yield self / name
                elif rest:
                    yield from (self / name).glob(rest)

    def read_bytes(self) -> bytes:
        """Return the object. Raises FileNotFoundError if there is none."""

        def read() -> bytes:
            system, path = _at(self)
            with system.open_input_stream(path) as stream:
                return stream.read()

        return _asked(self, "reading", read)

    def read_text(self, encoding: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8")

    def unlink(self, missing_ok: bool = False) -> None:
        def delete() -> None:
            system, path = _at(self)
            with suppress(FileNotFoundError):
                system.delete_file(path)

        if not missing_ok and not self.is_file():
            raise FileNotFoundError(f"{self}: no such object")
        _asked(self, "removing", delete)


class Held(NamedTuple):
    """A file of a folder: its size in bytes, and its sha256 in hex where it is known, else ""."""

    size: int
    sha256: str = ""


class _Marker(NamedTuple):
    """What a marker says; `files` is None while the folder is being replaced."""

    files: dict[str, Held] | None


# Requests -------------------------------------------------------------------------------------------------------------


@cache
def _system(root: str, options: str) -> tuple[Any, str]:
    """Return the file system of pyarrow for a bucket, and the bucket's path in it."""
    from pyarrow import fs

    scheme, _, bucket = root.partition("://")
    given = dict(urllib.parse.parse_qsl(options))
    if scheme != "s3" or "@" in bucket or given.keys() - {"region", "scheme", "endpoint_override"}:
        # Google's client would go on by itself for a quarter of an hour.
        limit = {"retry_limit_seconds": "15"} if scheme in ("gs", "gcs") and "retry_limit_seconds" not in given else {}
        more = "&".join(filter(None, (options, urllib.parse.urlencode(limit))))
        system, path = fs.FileSystem.from_uri(root + f"?{more}" * bool(more))
        return system, path.strip("/")
    # Given one by one, since an address can set no time limit, and without one pyarrow ignores AWS_ENDPOINT_URL.
    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    own_scheme, _, host = address.rpartition("://")
    endpoint = given.get("endpoint_override") or host.rstrip("/")
    region = given.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    system = fs.S3FileSystem(
        endpoint_override=endpoint or None,
        scheme=given.get("scheme") or own_scheme or "https",
        region=region or ("us-east-1" if endpoint else fs.resolve_s3_region(bucket)),
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_INNER_TRIES),
        connect_timeout=10,
        request_timeout=60,
        # A small object is one request then.
        allow_delayed_open=True,
    )
    return system, bucket


def _at(file: Stored) -> tuple[Any, str]:
    """Return the file system of pyarrow, and the path in it."""
    system, bucket = _system(file.root, file.options)
    return system, f"{bucket}/{file.key}".strip("/")


_pauses = 0


def pauses() -> int:
    """Return how often this process had to wait for a store that was busy or did not answer."""
    return _pauses


def _asked(file: Stored, doing: str, call: Callable[[], _Read], tries: int = _TRIES) -> _Read:
    """Return `call()`, tried again after growing pauses while the store is busy or cut off; each pause is printed.

    Raises FileNotFoundError as `call` does; BadInput if the store refuses, or after the last try.
    """
    global _pauses
    import pyarrow as pa

    for attempt in range(1, tries + 1):
        try:
            return call()
        except (FileNotFoundError, BadInput):
            raise
        except (OSError, pa.ArrowException) as error:
            said = _said(error)
            if isinstance(error, pa.ArrowInvalid | pa.ArrowNotImplementedError) or _FINAL.search(said):
                raise BadInput(
                    f"{file}: {doing}: {said}; see to the address, the account and its permissions"
                ) from None
            if attempt == tries:
                raise BadInput(
                    f"{file}: {doing}: gave up after {tries} tries: {said}; finished work is kept: run the same "
                    f"command again when the store answers"
                ) from None
            pause = min(_LONGEST, _PAUSE * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25)
            _pauses += 1
            print(
                f"{file}: {doing}: {said}; try {attempt + 1} of {tries} in {pause:.1f} s", file=sys.stderr, flush=True
            )
            time.sleep(pause)
    raise AssertionError


def _said(error: Exception) -> str:
    """Return the store's own words, on one line."""
    line = " ".join((str(error) or type(error).__name__).split())
    line = re.sub(r"^When .*?: (?=AWS Error)", "", line)
    return re.sub(r" \(Request ID: [^)]*\)", "", line)[:300]


def _size(file: Stored, tries: int = _TRIES) -> int | None:
    """Return the size of an object, None if there is none."""

    def look() -> int | None:
        from pyarrow import fs

        system, path = _at(file)
        info = system.get_file_info(path)
        return info.size if info.type == fs.FileType.File else None

    return _asked(file, "looking", look, tries) if file.key else None


def _listing(folder: Stored, deep: bool, tries: int = _TRIES) -> dict[str, int]:
    """Return name -> size of the objects that the store lists in a folder; deep: and below."""

    return {name: size for name, size in _children(folder, deep, tries).items() if size is not None}


def _children(folder: Stored, deep: bool = False, tries: int = _TRIES) -> dict[str, int | None]:
    """Return name -> size of what the store lists in a folder; the size of a folder is None."""

    def look() -> dict[str, int | None]:
        from pyarrow import fs

        system, path = _at(folder)
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=deep))
        return {info.path[len(path) + 1 :]: info.size if info.type == fs.FileType.File else None for info in found}

    return _asked(folder, "listing", look, tries)


def _at_once(call: Callable[[str], _Read], names: Iterable[str]) -> list[_Read]:
    """Return `call` of each name, some at a time. Raises the first error."""
    with ThreadPoolExecutor(_MOST_AT_ONCE) as threads:
        return list(threads.map(call, names))


@cache
def _uploads() -> ThreadPoolExecutor:
    # Not in the main thread: what interrupts that would close the stream, and pyarrow commits what is in it so far.
    return ThreadPoolExecutor(_MOST_AT_ONCE, "r2r-upload")


def _put(content: bytes | Path, file: Stored) -> None:
    """Write an object from bytes or from a local file."""

    def upload() -> None:
        system, path = _at(file)
        stream = system.open_output_stream(path)
        if isinstance(content, bytes):
            stream.write(content)
        else:
            with content.open("rb") as local:
                while chunk := local.read(_CHUNK):
                    stream.write(chunk)
        stream.close()

    _uploads().submit(_asked, file, "writing", upload).result()


class _Reader(RawIOBase):
    """The bytes of an object, each read tried again as all requests are."""

    def __init__(self, file: Stored) -> None:
        def look() -> tuple[Any, int]:
            system, path = _at(file)
            opened = system.open_input_file(path)
            return opened, opened.size()

        self.file, self.at = file, 0
        self.opened, self.length = _asked(file, "reading", look)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.length}[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any, /) -> int:
        size = min(len(buffer), max(0, self.length - self.at))
        found = _asked(self.file, "reading", lambda: self.opened.read_at(size, self.at)) if size else b""
        buffer[: len(found)] = found
        self.at += len(found)
        return len(found)

    def etag(self) -> str:
        about = _asked(self.file, "reading", lambda: self.opened.metadata()) or {}
        return str({key: about[key] for key in sorted(about) if key.lower() in (b"etag", "etag")} or about)

    def close(self) -> None:
        if not self.closed:
            self.opened.close()
        super().close()


def reader(file: Stored) -> RawIOBase:
    """Open an object to read its bytes where it lies. Raises FileNotFoundError if there is none."""
    return _Reader(file)


def check(out: Stored) -> None:
    """Raise BadInput if a store cannot be reached, has no such bucket, or does not let us look into the folder."""

    def look() -> bool:
        from pyarrow import fs

        system, bucket = _system(out.root, out.options)
        # First, since Azure's client ends the whole process where a container is asked for without any credentials.
        system.get_file_info(f"{bucket}/{out.key}".rstrip("/"))
        return system.get_file_info(bucket).type == fs.FileType.NotFound

    if _asked(out, "looking", look, _PLAN_TRIES):
        raise BadInput(f"{out.root}: no such bucket, or none that this account may see; make it first")
    _listing(out, False, _PLAN_TRIES)


# Whole files and folders ----------------------------------------------------------------------------------------------


def make(folder: Place) -> None:
    """Make a folder, with those above it. In a store, which has none, see whether an object may be written."""
    if isinstance(folder, Stored):
        _put(b"", folder / ".writable")
        (folder / ".writable").unlink(missing_ok=True)
    else:
        local(folder).mkdir(parents=True, exist_ok=True)


@contextmanager
def working(folder: Place) -> Iterator[Path]:
    """Yield a local folder for the temporary files of work on `folder`: itself on a disk."""
    if isinstance(folder, Stored):
        with nodecache.scratch() as aside:
            yield aside
    else:
        make(folder)
        yield local(folder)


def bring(made: Path, folder: Place, *names: str) -> None:
    """Upload what was made in the folder that `working` yielded, or these files of it. Nothing to do on a disk."""
    if isinstance(folder, Stored):
        for name in names or _names(made):
            _put(made / name, folder / name)


def relative(where: Place, start: Place) -> str:
    """Return a place as seen from a folder, as links and lists have it; in full if they have no folder in common."""
    if isinstance(where, Stored) and isinstance(start, Stored) and where.root == start.root:
        return os.path.relpath(f"/{where.key}", f"/{start.key}")
    if isinstance(where, Stored) or isinstance(start, Stored):
        return str(where)
    return Path(os.path.relpath(local(where), local(start))).as_posix()


def local(where: Place) -> Path:
    """Return a place that is on a disk as a path. For what is never in a store."""
    assert isinstance(where, Path), f"{where}: is not on a disk"
    return where


def readable(file: Place) -> Any:
    """Return a file as pyarrow reads it: a path, or the object's bytes. Raises FileNotFoundError as `read_bytes`."""
    if not isinstance(file, Stored):
        return file
    import pyarrow as pa

    return pa.BufferReader(file.read_bytes())


def write_text(text: str, file: Place) -> None:
    put(text.encode(), file)


@contextmanager
def replacing(file: Place) -> Iterator[Path]:
    """Yield a local path to write to, which takes the place of `file` once the block ends without an error."""
    if isinstance(file, Stored):
        with nodecache.scratch() as folder:
            yield folder / file.name
            _put(folder / file.name, file)
        return
    path = local(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    yield aside
    os.replace(aside, path)


@contextmanager
def replacing_folder(folder: Place) -> Iterator[Path]:
    """Yield a new local folder to write to. It takes the place of `folder`, whole, once the block ends without an
    error."""
    if isinstance(folder, Stored):
        with nodecache.scratch() as parent:
            aside = parent / "folder"
            aside.mkdir()
            yield aside
            _put_folder(aside, folder)
        return
    path = local(folder)
    aside = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    shutil.rmtree(path, ignore_errors=True)
    os.replace(aside, path)


def _put_folder(made: Path, folder: Stored) -> None:
    """Upload a folder that is whole: a marker that it is being replaced, the files, and last the marker with them."""
    names = sorted(_names(made))
    hashes = dict(zip(names, _at_once(lambda name: _sha256(made / name), names), strict=True))
    files = {name: Held((made / name).stat().st_size, hashes[name]) for name in names}
    _tell_of_bytes(folder, "uploads", files)
    _mark(folder, None)
    for name in _listing(folder, True):
        if name not in files and name != MARKER:
            (folder / name).unlink(missing_ok=True)
    _at_once(lambda name: _put(made / name, folder / name), names)
    _mark(folder, files)
    # Whoever needs it on this node has it already.
    nodecache.keep(made, _entry_of(folder, files))


def _tell_of_bytes(folder: Stored, doing: str, files: Mapping[str, Held]) -> None:
    """Say what will take a while."""
    total = sum(held.size for held in files.values())
    if total > _LARGE:
        print(f"{folder}: {doing} {total / 1e9:,.1f} GB", file=sys.stderr, flush=True)


def _mark(folder: Stored, files: Mapping[str, Held] | None) -> None:
    said = None if files is None else {name: list(held) for name, held in files.items()}
    _put(json.dumps({"files": said}).encode(), folder / MARKER)


def _marked(folder: Stored) -> _Marker | None:
    """Return what the marker of a folder says; None without one."""
    try:
        found = json.loads((folder / MARKER).read_bytes())["files"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{folder / MARKER}: is no list of files; remove the folder, and run the stage again") from None
    return _Marker(None if found is None else {name: Held(*held) for name, held in found.items()})


def seal(folder: Place, names: Iterable[str]) -> None:
    """Say that a folder holds these files and no others: what readers of a store go by. Nothing to do on a disk."""
    if isinstance(folder, Stored):
        held = _sizes(folder, names)
        lost = [name for name, size in held.items() if size is None]
        if lost:
            raise BadInput(f"{folder / lost[0]}: was written, and is gone; run the same command again")
        _mark(folder, {name: Held(size or 0) for name, size in held.items()})


def _sizes(folder: Stored, names: Iterable[str]) -> dict[str, int | None]:
    """Return the size of each of these objects, asked for by its name."""
    wanted = list(names)
    return dict(zip(wanted, _at_once(lambda name: _size(folder / name), wanted), strict=True))


def remove(where: Place) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if not isinstance(where, Stored):
        path = local(where)
        if path.is_file():
            path.unlink()
        shutil.rmtree(path, ignore_errors=True)
        return
    # First of all, so that nobody takes half of it for the whole.
    (where / MARKER).unlink(missing_ok=True)
    where.unlink(missing_ok=True)

    def delete() -> None:
        system, path = _at(where)
        with suppress(FileNotFoundError):
            system.delete_dir(path)

    if _children(where):
        _asked(where, "removing", delete)


def files(folder: Place) -> dict[str, Held]:
    """Return the files in a folder and below it, by their names relative to it; {} if it is not there.

    The order is that of paths. In a store: what the marker says; without one, what a manifest above says, or else what
    the store lists.
    """
    if not isinstance(folder, Stored):
        path = local(folder)
        return {name: Held((path / name).stat().st_size) for name in _names(path)}
    marked = _marked(folder)
    if marked is not None:
        return dict(marked.files or {})
    found = _by_list_above(folder) or {name: Held(size) for name, size in _listing(folder, True).items()}
    return {name: found[name] for name in sorted(found, key=PurePosixPath) if PurePosixPath(name).name != MARKER}


def _by_list_above(folder: Stored) -> dict[str, Held]:
    """Return what the nearest marker or manifest above a folder says of its files; {} if none knows them."""
    for above in folder.parents[:3]:
        below = f"{folder.key[len(above.key) :].strip('/')}/"
        known = ((marked := _marked(above)) and marked.files) or {}
        if not known:
            with suppress(FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
                listed = json.loads((above / "manifest.json").read_bytes())["files"]
                known = {name: Held(int(size)) for name, size in listed.items()}
        if found := {name[len(below) :]: held for name, held in known.items() if name.startswith(below)}:
            return found
    return {}


def _names(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()]


def listed(folder: Stored) -> list[str] | None:
    """Return the names of the files right in a folder, as the store lists them now; None if there is no such folder."""
    found = _children(folder)
    return sorted(name for name, size in found.items() if size is not None and name != MARKER) if found else None


def has(folder: Place, name: str) -> bool:
    """Return whether a folder that is whole has a file of this name."""
    return name in files(folder) if isinstance(folder, Stored) else (folder / name).exists()


def size(file: Place) -> int | None:
    """Return the size of a file in bytes, None if there is no such file."""
    if isinstance(file, Stored):
        return _size(file)
    path = local(file)
    return path.stat().st_size if path.is_file() else None


def changed(folder: Place, known: Mapping[str, int]) -> list[str]:
    """Return those of these files, name -> size, that are missing or have another size now."""
    if not isinstance(folder, Stored):
        path = local(folder)
        return [name for name, size in known.items() if not _has(path / name, size)]
    # One request for a thousand of them. What the listing has otherwise is asked for by its name.
    listed = _listing(folder, True) if len(known) > _FEW else {}
    found = _sizes(folder, (name for name, size in known.items() if listed.get(name) != size))
    return [name for name, size in found.items() if size != known[name]]


def _has(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False


def sha256(file: Place, known: str = "") -> bytes:
    """Return the sha256 of a file. known: it in hex, if a marker says so. In a store, each content is read once."""
    if known:
        return bytes.fromhex(known)
    if not isinstance(file, Stored):
        return bytes.fromhex(_sha256(local(file)))
    with _Reader(file) as opened:
        remembered = nodecache.home() / "hashes" / _digest([str(file), opened.length, opened.etag()])
        with suppress(OSError, ValueError):
            return bytes.fromhex(remembered.read_text())
        found = _hash(opened)
    with replacing(remembered) as aside:
        aside.write_text(found)
    return bytes.fromhex(found)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _hash(opened: RawIOBase) -> str:
    content = hashlib.sha256()
    while chunk := opened.read(_CHUNK):
        content.update(chunk)
    return content.hexdigest()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


# The cache of this node -----------------------------------------------------------------------------------------------


def _entry_of(where: Stored, held: Mapping[str, Held], tag: str = "") -> str:
    """Return the name of a folder's entry in the cache: by its content where that is known, else by its address."""
    known = all(one.sha256 for one in held.values())
    return _digest(["" if known else str(where), tag, {name: list(one) for name, one in sorted(held.items())}])


def fetch(where: Place, leave: Callable[[str], bool] = lambda name: False) -> Path:
    """Return the local path of a file or a folder: itself on a disk, else a copy in this node's cache.

    The copy is made once a node, checked against the marker's hashes and sizes, and stays while this process lives.
    leave: of names in a folder that are not needed. Raises BadInput if there is no such file or folder, or if it
    arrives changed.
    """
    if not isinstance(where, Stored):
        return local(where)
    if _size(where) is not None:
        with _opened(where) as opened:
            name, size = _digest([str(where), opened.length, opened.etag()]), opened.length
        folder = nodecache.entry(name, lambda aside: _download(where.parent, {where.name: Held(size)}, aside), size)
        return folder / where.name
    held = {name: one for name, one in files(where).items() if not leave(name)}
    if not held:
        raise _missing(where)
    tag = "" if all(one.sha256 for one in held.values()) else _tag(where, held)
    size = sum(one.size for one in held.values())
    return nodecache.entry(_entry_of(where, held, tag), lambda aside: _download(where, held, aside), size)


def _opened(file: Stored) -> _Reader:
    try:
        return _Reader(file)
    except FileNotFoundError:
        raise _missing(file) from None


def _missing(where: Stored) -> BadInput:
    return BadInput(f"{where}: no such file or folder; a folder that a stage is writing is there once it is whole")


def copies(folder: Place, names: Iterable[str]) -> Path:
    """Return a local folder with copies of these files, which are never written again: the folder itself on a disk.

    A file that is gone is left out. The copies are made once a node; more names may be asked for later.
    """
    if not isinstance(folder, Stored):
        return local(folder)
    held = nodecache.entry(_digest([str(folder), "copies"]), lambda aside: None, 0)
    lacking = [name for name in names if not (held / name).exists()]

    def one(name: str) -> None:
        if not (held / name).exists():
            with suppress(FileNotFoundError):
                content = (folder / name).read_bytes()
                with replacing(held / name) as aside:
                    aside.write_bytes(content)

    if lacking:
        with nodecache.alone(held.with_name(f"{held.name}.making")):
            _at_once(one, lacking)
    return held


def put(content: bytes, file: Place) -> None:
    """Write a file from bytes, whole or not at all."""
    if isinstance(file, Stored):
        _put(content, file)
        return
    with replacing(file) as aside:
        aside.write_bytes(content)


def _tag(where: Stored, held: Mapping[str, Held]) -> str:
    """Return the etags of files whose hashes are not known: they differ where contents differ."""

    def tag(name: str) -> str:
        with _opened(where / name) as opened:
            return opened.etag()

    return _digest(_at_once(tag, held))


def _download(folder: Stored, held: Mapping[str, Held], aside: Path) -> None:
    _tell_of_bytes(folder, "downloads", held)

    def one(name: str) -> None:
        content, target = hashlib.sha256(), aside / name
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise BadInput(f"{folder / MARKER}: names {name}, which is not in its folder; remove the folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        with _opened(folder / name) as opened, target.open("wb") as out:
            while chunk := opened.read(_CHUNK):
                content.update(chunk)
                out.write(chunk)
        size, known = target.stat().st_size, held[name]
        if size != known.size or (known.sha256 and content.hexdigest() != known.sha256):
            raise BadInput(f"{folder / name}: arrives as other bytes than its folder's list says; run its stage again")

    _at_once(one, held)
