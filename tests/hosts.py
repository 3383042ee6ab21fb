"""Hosts on one machine, each with an address, a name, processes and a disk of its own, and links that can be slow or
go down.

Owns the namespaces and the switch between them. Does not own what runs on a host (`tests/nodes.py`).

A host is a set of Linux namespaces. It sees this machine's files, but cannot write them; /tmp, /dev/shm, /run and the
home folder are its own, empty at first, and in memory. Its first process reads a pipe of ours: once that ends, however
we end, the kernel ends the host with all its processes, mounts and devices. The links of all hosts meet in a switch, a
thread of this process, which takes frames from one host's device and gives them to another's, later or not at all.
Linux could do so by itself (tc netem), where its kernel has that.

    with network("head", "worker") as hosts:
        run(hosts["worker"], ["python", "-c", "..."], env={})
        hosts["worker"].link.delay = 0.1
        lose(hosts["worker"])
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
# What a host keeps of this machine where a folder of its own would cover it: the code and the environment.
_KEPT = {str(ROOT), sys.prefix, sys.base_prefix, sysconfig.get_path("purelib")}
_OWN = ("/tmp", "/var/tmp", "/dev/shm", "/home", "/root", "/mnt")
_TUN, _TUNSETIFF, _TAP_WITHOUT_HEADER = "/dev/net/tun", 0x400454CA, 0x1002
_PR_SET_PDEATHSIG, _CLONE_NEWNET = 1, 0x40000000
_TOOLS = ("ip", "unshare", "nsenter", "mount", "hostname")
_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Link:
    """A host's cable. delay: seconds, each way. loss: the share of frames that are lost, each way. up: whether frames
    pass; the host does not notice if they do not. frames: those that came from the host."""

    delay: float = 0.0
    loss: float = 0.0
    up: bool = True
    frames: int = 0


@dataclass
class Host:
    """name: also its hostname. pid: of its first process, as this machine counts."""

    name: str
    address: str
    pid: int
    space: str
    keeper: subprocess.Popen
    tap: int
    without: Sequence[Path]
    link: Link = field(default_factory=Link)
    alive: bool = True


def missing() -> str:
    """Return why this machine cannot make hosts, "" if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux and root, for namespaces"
    if absent := [tool for tool in _TOOLS if not shutil.which(tool, path=_SEARCH)]:
        return f"needs {', '.join(absent)}"
    if not os.path.exists(_TUN):
        return f"needs {_TUN}"
    if (tried := subprocess.run(["unshare", *_UNSHARED, "true"], capture_output=True, text=True)).returncode:
        return f"may not make namespaces: {tried.stderr.strip()}"
    return ""


_UNSHARED = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


@contextmanager
def network(*names: str, without: Mapping[str, Sequence[Path]] | None = None) -> Iterator[dict[str, Host]]:
    """Start hosts, at 10.77.0.1 and so on, and end them.

    without: folders that a host does not have, by its name.
    """
    hosts: dict[str, Host] = {}
    over = threading.Event()
    switch = threading.Thread(target=_switch, args=(hosts, over), daemon=True)
    try:
        for number, name in enumerate(names, start=1):
            hosts[name] = _start(name, f"10.77.0.{number}", names, (without or {}).get(name, ()))
        switch.start()
        yield hosts
    finally:
        over.set()
        if switch.ident:
            switch.join()
        for host in hosts.values():
            lose(host)
            os.close(host.tap)


def restart(hosts: dict[str, Host], name: str) -> None:
    """Lose a host and start it again under its address, with nothing on its disk."""
    lost = hosts[name]
    lose(lost)
    found = _start(name, lost.address, list(hosts), lost.without)
    # The switch may be looking at this descriptor: its number stays.
    os.dup2(found.tap, lost.tap, inheritable=False)
    os.close(found.tap)
    found.tap = lost.tap
    hosts[name] = found


@contextmanager
def inside(host: Host) -> Iterator[None]:
    """Let the sockets and threads that this thread makes in the block be on the host's network, and stay there."""
    with open("/proc/thread-self/ns/net") as own, open(f"/proc/{host.pid}/ns/net") as its:
        _enter(its.fileno())
        try:
            yield
        finally:
            _enter(own.fileno())


def _enter(space: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(space, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def processes(host: Host) -> list[psutil.Process]:
    """Return all processes of a host that have a command line."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.readlink(f"/proc/{process.pid}/ns/pid") == host.space and process.cmdline():
                found.append(process)
    return found


def titles(host: Host) -> list[str]:
    """Return the command lines of all processes of a host."""
    found = []
    for process in processes(host):
        with suppress(psutil.Error):
            found.append(" ".join(process.cmdline()))
    return found


def lose(host: Host) -> None:
    """End a host at once, without a word to the others."""
    host.alive = False
    if host.keeper.stdin:
        host.keeper.kill()
        host.keeper.stdin.close()
    host.keeper.wait()
    with suppress(psutil.NoSuchProcess):
        psutil.Process(host.pid).wait(30)


def start(host: Host, command: Sequence[str], env: Mapping[str, str], **options) -> subprocess.Popen:
    """Start a command on a host, in its home folder. It ends with the host."""
    enter = ["nsenter", f"--target={host.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--wd=/root"]
    plain = {"PATH": f"{Path(sys.executable).parent}:{_SEARCH}", "HOME": "/root", "LANG": "C.UTF-8"}
    return subprocess.Popen([*enter, *command], env=plain | dict(env), stdin=subprocess.DEVNULL, **options)


def run(
    host: Host, command: Sequence[str], env: Mapping[str, str], timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run a command on a host and return what it printed, both streams together. After `timeout` seconds, its status is
    124 and it is ended."""
    with start(host, command, env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            printed, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            printed, _ = process.communicate()
            return subprocess.CompletedProcess(list(command), 124, printed)
    return subprocess.CompletedProcess(list(command), process.returncode, printed)


def _end(process: subprocess.Popen) -> None:
    for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        with suppress(psutil.NoSuchProcess):
            one.kill()


def _start(name: str, address: str, names: Sequence[str], without: Sequence[Path]) -> Host:
    known = "\n".join(["127.0.0.1 localhost", *(f"10.77.0.{at} {one}" for at, one in enumerate(names, start=1))])
    script = ["set -e", "trap '' CHLD", f"hostname {name}", "mount -t tmpfs tmpfs /run", "mkdir /run/kept"]
    for at, place in enumerate(sorted(_KEPT)):
        script += [f"mkdir /run/kept/{at}", f"mount --rbind {shlex.quote(place)} /run/kept/{at}"]
    script += ["mount -o remount,bind,ro /"]
    script += [f"mount -t tmpfs tmpfs {folder}" for folder in _OWN if os.path.isdir(folder)]
    for at, place in enumerate(sorted(_KEPT)):
        quoted = shlex.quote(place)
        back = f"mkdir -p {quoted}; mount --rbind /run/kept/{at} {quoted}; mount -o remount,bind,ro {quoted}"
        script.append(f"test -e {quoted} || {{ {back}; }}")
    script += [f"mount -t tmpfs -o ro tmpfs {shlex.quote(str(folder))}" for folder in without]
    script += [f"printf '%s\\n' {shlex.quote(known)} > /run/hosts", "mount --bind /run/hosts /etc/hosts"]
    script += ["ip link set lo up", "echo ready", "exec cat"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    keeper = subprocess.Popen(
        ["unshare", *_UNSHARED, "sh", "-c", "\n".join(script)],
        preexec_fn=_die_with_us,
        env={"PATH": _SEARCH},
        **pipes,
    )
    assert keeper.stdout
    if keeper.stdout.readline() != b"ready\n":
        raise RuntimeError(f"{name}: the host did not start; its status is {keeper.wait()}")
    (first,) = psutil.Process(keeper.pid).children()
    tap, device = _tap()
    host = Host(name, address, first.pid, os.readlink(f"/proc/{first.pid}/ns/pid"), keeper, tap, without)
    number = int(address.rpartition(".")[2])
    _ip("link", "set", device, "netns", str(first.pid), "name", "eth0")
    for words in (
        # The same after a restart: the others remember it.
        f"link set eth0 address 02:00:00:00:00:{number:02x} up",
        f"addr add {address}/24 dev eth0",
        "route add default dev eth0",
    ):
        _ip(*words.split(), inside=first.pid)
    return host


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _ip(*words: str, inside: int | None = None) -> None:
    enter = ["nsenter", f"--target={inside}", "--net"] if inside else []
    subprocess.run([*enter, "ip", *words], check=True, env={"PATH": _SEARCH})


def _tap() -> tuple[int, str]:
    """Return a new network device: the descriptor to its frames, and its name. It goes when that is closed."""
    descriptor = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
    made = fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH14x", b"r2r%d", _TAP_WITHOUT_HEADER))
    return descriptor, made[:16].rstrip(b"\0").decode()


def _switch(hosts: Mapping[str, Host], over: threading.Event) -> None:
    """Take frames from each host to that for which they are, as the links allow."""
    known: dict[bytes, str] = {}
    waiting: list[tuple[float, int, Host, bytes]] = []
    count, draw = 0, random.Random(0)
    while not over.is_set():
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, target, frame = heapq.heappop(waiting)
            # A host that is gone, or whose queue is full, takes none.
            with suppress(OSError):
                os.write(target.tap, frame)
        by_tap = {host.tap: host for host in list(hosts.values()) if host.alive}
        patience = min(0.05, waiting[0][0] - now) if waiting else 0.05
        try:
            ready, _, _ = select.select(list(by_tap), [], [], max(0, patience))
        except (OSError, ValueError):
            continue
        for tap in ready:
            source = by_tap[tap]
            for frame in _frames(tap):
                count += 1
                source.link.frames += 1
                known[frame[6:12]] = source.name
                to = known.get(frame[:6])
                targets = [hosts[to]] if to else [host for host in list(hosts.values()) if host is not source]
                for target in targets:
                    loss = 1 - (1 - source.link.loss) * (1 - target.link.loss)
                    if source.link.up and target.link.up and draw.random() >= loss and target.alive:
                        due = time.monotonic() + source.link.delay + target.link.delay
                        heapq.heappush(waiting, (due, count, target, frame))


def _frames(tap: int) -> Iterator[bytes]:
    """Yield the frames that wait at a device, at most 64, so that all hosts have their turn."""
    with suppress(OSError):
        for _ in range(64):
            yield os.read(tap, 65536)
