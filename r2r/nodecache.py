"""This node's cache: folders that all its processes use, within a bound.

Owns the cache's place, its locks, and what is evicted. Does not own what is in an entry, nor where that comes from
(`r2r.places`).

    entry("5f0c...", download, size=10**9)    # the folder, filled by `download` where it is not there yet

CACHE/held/NAME is a folder that is whole. Those who make it or use it lock CACHE/held/NAME.lock, whose time is that of
the last use. CACHE/scratch holds what is being made, each with a lock, too.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from r2r.errors import BadInput

# Where the cache lies, and its size in GB; without them see `home` and `_bound`.
CACHE_VARIABLE, BOUND_VARIABLE = "R2R_CACHE_DIR", "R2R_CACHE_GB"

_locks: dict[str, int] = {}
_in_this_process = threading.RLock()


def home() -> Path:
    """Return the cache's folder: R2R_CACHE_DIR, by default ~/.cache/reason-to-rank/store."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reason-to-rank" / "store"


def _bound(folder: Path) -> float:
    """Return the most bytes that the cache may hold: half of its disk if R2R_CACHE_GB does not say."""
    said = os.environ.get(BOUND_VARIABLE)
    try:
        return float(said) * 1e9 if said else shutil.disk_usage(folder).total / 2
    except ValueError:
        raise BadInput(f"{BOUND_VARIABLE}: {said}: is no number of gigabytes") from None


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a new folder on the local disk, which is removed at the end; after a kill, by another process."""
    scratches = home() / "scratch"
    scratches.mkdir(parents=True, exist_ok=True)
    folder = scratches / uuid.uuid4().hex
    # Before the folder: what nobody has locked is removed.
    lock = _open_lock(_lock_of(folder))
    assert lock is not None
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _lock_of(folder).unlink(missing_ok=True)
        os.close(lock)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _open_lock(file: Path, wait: bool = True, shared: bool = False) -> int | None:
    """Lock a file, made if it is not there, and return its descriptor; None if it is taken and must not be waited for.
    Closing it unlocks it."""
    while True:
        opened = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(opened, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            # Whoever held it before may have removed the file.
            if file.exists() and os.stat(file).st_ino == os.fstat(opened).st_ino:
                return opened
        except BlockingIOError:
            os.close(opened)
            return None
        os.close(opened)


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Let one process of this node at a time run the block."""
    lock = _open_lock(file)
    assert lock is not None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(lock)


def entry(name: str, make: Callable[[Path], None], size: int) -> Path:
    """Return the folder of an entry, which `make` fills if it is not there. It stays while this process lives.

    size: of what will be in it, in bytes. Raises BadInput if the disk has no room.
    """
    held = home() / "held"
    held.mkdir(parents=True, exist_ok=True)
    folder, file = held / name, held / f"{name}.lock"
    with _in_this_process:
        if name in _locks and folder.is_dir():
            os.utime(file)
            return folder
        # Shared by all that use it; whoever evicts it needs it alone.
        lock = _open_lock(file, shared=True)
        assert lock is not None
        try:
            if not folder.is_dir():
                with alone(held / f"{name}.making"):
                    if not folder.is_dir():
                        _make_room(size)
                        with scratch() as aside:
                            make(aside)
                            os.rename(aside, folder)
            os.utime(file)
        except OSError as error:
            os.close(lock)
            said = (error.strerror or str(error)).lower()
            raise BadInput(
                f"{held}: {said}; {size:,} bytes are needed: make room, or name a folder in {CACHE_VARIABLE}"
            ) from None
        except BaseException:
            os.close(lock)
            raise
        if (before := _locks.pop(name, None)) is not None:
            os.close(before)
        _locks[name] = lock
    return folder


def keep(made: Path, name: str) -> None:
    """Put a folder that was made here into the cache as an entry, unless there is no room for it."""
    held = home() / "held"
    held.mkdir(parents=True, exist_ok=True)
    if (held / name).exists() or not _make_room(_disk(made), tell=False):
        return
    with alone(held / f"{name}.making"), suppress(OSError):
        os.rename(made, held / name)


def _disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _make_room(size: int, tell: bool = True) -> bool:
    """Evict what was not used for longest, and what killed processes left, until there is room. Return whether there
    is."""
    cache = home()
    for lock in (cache / "scratch").glob("*.lock"):
        if (taken := _open_lock(lock, wait=False)) is not None:
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
            os.close(taken)
    bound, held = _bound(cache), cache / "held"
    entries = {folder: _disk(folder) for folder in held.glob("*") if folder.is_dir()}

    def used(folder: Path) -> float:
        try:
            return _lock_of(folder).stat().st_mtime
        except OSError:
            return 0.0

    total = sum(entries.values())
    for folder in sorted(entries, key=used):
        if total + size <= bound:
            break
        lock = _lock_of(folder)
        if folder.name not in _locks and (taken := _open_lock(lock, wait=False)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
            os.close(taken)
            total -= entries[folder]
    if total + size > bound and tell:
        print(
            f"{cache}: warning: {(total + size) / 1e9:,.1f} GB are in use, more than the {bound / 1e9:,.1f} GB that "
            f"{BOUND_VARIABLE} allows",
            file=sys.stderr,
            flush=True,
        )
    return total + size <= bound
