"""The hosts that tests and benchmarks run clusters on: what one has of its own, its link, and its end."""

import subprocess
import sys

import psutil
import pytest

from tests.hosts import ROOT, lose, missing, network, processes, restart, run, start

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=f"hosts: {missing()}")]

# Returns how many bytes it got to each who sends some.
SERVER = """
import socket
server = socket.create_server(("", 99))
while True:
    caller, _ = server.accept()
    count = 0
    while said := caller.recv(65536):
        count += len(said)
    caller.sendall(str(count).encode())
    caller.close()
"""
CLIENT = """
import socket, sys, time
begun = time.monotonic()
server = socket.create_connection(("one", 99), 60)
connected = time.monotonic()
server.sendall(bytes(int(sys.argv[1])))
server.shutdown(socket.SHUT_WR)
print(server.recv(99).decode(), connected - begun)
"""


def sent(host, count, timeout=60):
    """Send bytes to the host `one`. Return how many it got, and the seconds of one way there and back."""
    done = run(host, ["python", "-c", CLIENT, str(count)], {}, timeout)
    if done.returncode:
        raise ConnectionError(done.stdout)
    got, seconds = done.stdout.split()
    return int(got), float(seconds)


def serve(host):
    started = start(host, ["python", "-c", SERVER], {})
    while run(host, ["python", "-c", CLIENT, "1"], {}).returncode:
        assert started.poll() is None


def test_a_host_has_a_disk_a_name_processes_and_a_link_of_its_own():
    with network("one", "two", without={"two": [ROOT / "r2r"]}) as hosts:
        for name, host in hosts.items():
            look = "hostname; ls /tmp /root/x; ls -d " + str(ROOT / "r2r/cli.py")
            seen = run(host, ["sh", "-c", f"mkdir -p /root/x; {look} 2>&1"], {}).stdout.splitlines()
            assert seen[0] == name
            assert (str(ROOT / "r2r/cli.py") in seen) == (name == "one")
            # What is there of this machine, none can change.
            assert run(host, ["touch", str(ROOT / "README.md")], {}).returncode
            assert run(host, ["touch", "/tmp/mine"], {}).returncode == 0
        assert run(hosts["one"], ["sh", "-c", "ls /tmp; hostname"], {}).stdout.split() == ["mine", "one"]

        serve(hosts["one"])
        count, seconds = sent(hosts["two"], 5_000_000)
        assert count == 5_000_000 and seconds < 0.2
        hosts["two"].link.delay, hosts["two"].link.loss = 0.1, 0.01
        count, seconds = sent(hosts["two"], 200_000)
        assert count == 200_000 and seconds > 0.2
        hosts["two"].link.delay = hosts["two"].link.loss = 0
        hosts["one"].link.up = False
        with pytest.raises(ConnectionError):
            sent(hosts["two"], 1, timeout=3)
        hosts["one"].link.up = True
        assert sent(hosts["two"], 1)[0] == 1

        restart(hosts, "one")
        with pytest.raises(ConnectionError, match="refused"):
            sent(hosts["two"], 1)
        assert run(hosts["one"], ["ls", "/tmp"], {}).stdout == ""
        serve(hosts["one"])
        assert sent(hosts["two"], 1)[0] == 1
        lose(hosts["one"])
        assert processes(hosts["one"]) == []
        with pytest.raises(ConnectionError):
            sent(hosts["two"], 1, timeout=3)


def test_hosts_end_with_whoever_made_them_even_if_that_is_killed():
    script = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from tests.hosts import network, processes, start
with network("one") as hosts:
    start(hosts["one"], ["sleep", "1000"], {{}})
    time.sleep(1)
    print(*(process.pid for process in processes(hosts["one"])), flush=True)
    time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as maker:
        inside = [psutil.Process(int(pid)) for pid in maker.stdout.readline().split()]
        assert sorted(process.name() for process in inside) == ["cat", "sleep"]
        maker.kill()
    assert psutil.wait_procs(inside, timeout=10)[1] == []
