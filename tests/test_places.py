"""Places: the same calls on a disk and in a store, the cache of a node, and stores that fail."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest

from r2r import nodecache, places
from r2r.errors import BadInput
from r2r.places import MARKER, Stored, copies, fetch, files, place, replacing, replacing_folder

FOLDER = "s3://bucket/runs/x"


def write(file, text):
    with replacing(file) as aside:
        aside.write_text(text)


def write_folder(folder, **texts):
    with replacing_folder(folder) as aside:
        for name, text in texts.items():
            (aside / "deep").mkdir(exist_ok=True)
            (aside / "deep" / name).write_text(text)


@pytest.mark.parametrize(
    "text", [FOLDER, "s3://bucket", "gs://bucket/a", "abfs://files@account.dfs.core.windows.net/a"]
)
def test_an_address_stays_as_it_was_written(text):
    found = place(text)
    assert isinstance(found, Stored) and str(found) == str(pickle.loads(pickle.dumps(found))) == text


def test_the_parts_of_an_address():
    found = place("s3://bucket/runs//x/run.txt?region=eu-north-1")
    assert found == place("s3://bucket/runs/x?region=eu-north-1") / "run.txt"
    assert (found.name, found.suffix, found.parent.name) == ("run.txt", ".txt", "x")
    assert [str(one) for one in place("s3://b/a/c").parents] == ["s3://b/a", "s3://b"]
    assert str(place("runs/x")) == "runs/x"
    with pytest.raises(BadInput, match="names no bucket"):
        place("s3:///x")


def test_a_file_is_there_whole_or_not_at_all(out):
    file = out / "a" / "b.txt"
    assert not file.exists() and not (out / "a").is_dir()
    write(file, "old")
    with pytest.raises(RuntimeError), replacing(file) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old" and file.is_file() and (out / "a").is_dir() and out.exists()
    write(file, "new")
    assert file.read_bytes() == b"new" and list((out / "a").glob("*")) == [file]
    file.unlink()
    assert (not file.exists() and not (out / "a").exists()) or (out / "a").is_dir()
    with pytest.raises(FileNotFoundError):
        file.unlink()
    file.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        file.read_text()


def test_a_folder_is_there_whole_or_not_at_all(out):
    folder = out / "adapter"
    write_folder(folder, one="1", two="2")
    assert set(files(folder)) == {"deep/one", "deep/two"}
    with pytest.raises(RuntimeError), replacing_folder(folder) as aside:
        (aside / "three").write_text("3")
        raise RuntimeError
    assert (fetch(folder) / "deep" / "one").read_text() == "1"
    write_folder(folder, two="22")
    assert {name: held.size for name, held in files(folder).items()} == {"deep/two": 2}
    assert (fetch(folder) / "deep" / "two").read_text() == "22" and not (fetch(folder) / "deep" / "one").exists()
    assert [one.name for one in folder.glob("*")] == ["deep"]
    places.remove(folder)
    assert not folder.exists() and files(folder) == {}


def test_names_have_the_order_of_paths(out):
    names = ["a.b", "a/c", "a-b", "a/b/c"]
    for name in names:
        write(out / name, name)
    assert list(files(out)) == ["a/b/c", "a/c", "a-b", "a.b"]


def test_changed_files_are_found(out):
    for name in "abcdefghijk":
        write(out / name, name)
    known = {name: 1 for name in "abcdefghijk"}
    assert places.changed(out, known) == []
    write(out / "b", "longer")
    (out / "c").unlink()
    assert places.changed(out, known) == ["b", "c"] and places.changed(out, {"c": 1, "d": 1}) == ["c"]


def test_a_late_listing_hides_nothing_that_was_sealed(store):
    folder = place(FOLDER)
    for number in range(12):
        write(folder / f"part-{number}", "x" * number)
    store.faults.late = 60
    assert places._listing(folder, True) == {}
    places.seal(folder, [f"part-{number}" for number in range(12)])
    assert {name: held.size for name, held in files(folder).items()} == {f"part-{n}": n for n in range(12)}
    assert places.changed(folder, {f"part-{number}": number for number in range(12)}) == []
    assert folder.is_dir()
    with pytest.raises(BadInput, match="part-99: was written, and is gone"):
        places.seal(folder, ["part-99"])


def test_a_late_listing_revives_nothing_that_was_replaced(store):
    folder = place(FOLDER)
    write_folder(folder, old="old", both="1")
    store.faults.late = 60
    write_folder(folder, both="2")
    assert set(files(folder)) == {"deep/both"} and (fetch(folder) / "deep" / "both").read_text() == "2"


def test_a_folder_that_is_being_replaced_is_not_there(store):
    folder = place(FOLDER)
    write_folder(folder, one="1")
    places._mark(folder, None)
    assert not folder.is_dir() and files(folder) == {}
    with pytest.raises(BadInput, match="no such file or folder"):
        fetch(folder)


def test_the_marker_comes_last(store):
    write_folder(place(FOLDER), one="1", two="2")
    keys = [key for _, key in store.puts]
    assert keys[0].endswith(MARKER) and keys[-1].endswith(MARKER) and len(keys) == 4


def test_folders_that_others_put_there_are_read(store):
    folder = place(FOLDER) / "adapter"
    store.put("runs/x/adapter/weights", b"12")
    assert (fetch(folder) / "weights").read_bytes() == b"12"
    # A manifest above knows better than the listing.
    store.put("runs/x/manifest.json", b'{"files": {"adapter/weights": 2, "adapter/more": 1}}')
    store.put("runs/x/adapter/more", b"1")
    store.put("runs/x/adapter/other", b"1")
    assert set(files(folder)) == {"weights", "more"}


def test_what_was_made_here_is_not_downloaded(store):
    write_folder(place(FOLDER), one="1")
    before = store.asked["GET"]
    assert (fetch(place(FOLDER)) / "deep" / "one").read_text() == "1"
    # The marker alone.
    assert store.asked["GET"] - before == 1


def test_other_bytes_than_the_marker_says_are_refused(store, monkeypatch, tmp_path):
    write_folder(place(FOLDER), one="1")
    store.put("runs/x/deep/one", b"2")
    monkeypatch.setenv(nodecache.CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(BadInput, match=r"deep/one: arrives as other bytes"):
        fetch(place(FOLDER))
    # Nothing of it stays.
    store.put("runs/x/deep/one", b"1")
    assert (fetch(place(FOLDER)) / "deep" / "one").read_text() == "1"


def test_a_file_that_changes_is_fetched_again(store):
    file = place(FOLDER) / "qrels.txt"
    write(file, "a")
    assert fetch(file).read_text() == "a" and fetch(file).name == "qrels.txt"
    write(file, "b")
    assert fetch(file).read_text() == "b"


def test_hashes_are_those_of_a_disk_and_read_once(store, tmp_path):
    file = place(FOLDER) / "x"
    write(file, "content")
    write(tmp_path / "x", "content")
    assert places.sha256(file) == places.sha256(tmp_path / "x")
    before = store.asked["GET"]
    places.sha256(file)
    assert store.asked["GET"] == before


def used_elsewhere(folder):
    """Lock an entry of the cache as another process does."""
    code = (
        "import fcntl, sys, time; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_SH); print(flush=True); "
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, f"{folder}.lock"], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def forget():
    for lock in nodecache._locks.values():
        os.close(lock)
    nodecache._locks.clear()


def test_the_least_recently_used_is_evicted_and_never_what_is_in_use(store, monkeypatch):
    monkeypatch.setenv(nodecache.BOUND_VARIABLE, "0.000003")
    found = []
    for number in range(4):
        write(place(FOLDER) / f"{number}", "x" * 1000)
    for number in range(3):
        found.append(fetch(place(FOLDER) / f"{number}"))
        os.utime(f"{found[-1].parent}.lock", (number, number))
    forget()
    other = used_elsewhere(found[0].parent)
    fetch(place(FOLDER) / "3")
    assert [one.exists() for one in found] == [True, False, True]
    other.kill()
    other.wait()


def test_more_than_the_bound_in_use_is_told(store, monkeypatch, capsys):
    monkeypatch.setenv(nodecache.BOUND_VARIABLE, "0.0000015")
    for number in range(3):
        write(place(FOLDER) / f"{number}", "x" * 1000)
    for number in range(2):
        fetch(place(FOLDER) / f"{number}")
    assert "are in use, more than the 0.0 GB that R2R_CACHE_GB allows" in capsys.readouterr().err
    monkeypatch.setenv(nodecache.BOUND_VARIABLE, "much")
    with pytest.raises(BadInput, match="R2R_CACHE_GB: much"):
        fetch(place(FOLDER) / "2")


def test_what_a_killed_process_left_is_removed(store):
    left = nodecache.home() / "scratch" / "0123"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    left.with_name("0123.lock").write_text("")
    with nodecache.scratch() as mine:
        write(place(FOLDER) / "x", "x")
        fetch(place(FOLDER) / "x")
        assert not left.exists() and mine.exists()


def test_processes_and_threads_of_a_node_download_once(store):
    store.put("runs/x/big", os.urandom(2**20))
    store.put("runs/x/small", b"1")

    code = f"from r2r.places import fetch, place; print(fetch(place('{FOLDER}')))"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    threads = [threading.Thread(target=fetch, args=(place(FOLDER),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    told = {process.communicate()[0] for process in processes}
    for thread in threads:
        thread.join()
    assert len(told) == 1 and len(list((nodecache.home() / "held").glob("*.lock"))) == 1
    # pyarrow reads an object of this size in one request.
    assert store.asked["GET runs/x/big"] == 1


def test_copies_are_made_once_and_grow(out, store):
    for name in ("a", "b"):
        write(out / name, name)
    folder = copies(out, ["a", "b", "gone"])
    assert (folder / "a").read_text() == "a" and not (folder / "gone").exists()
    write(out / "c", "c")
    before = store.asked["GET"]
    assert (copies(out, ["a", "b", "c"]) / "c").read_text() == "c"
    assert store.asked["GET"] - before <= 1


@pytest.mark.parametrize("fault", ["throttle", "cut"])
def test_a_store_that_throttles_or_cuts_is_asked_again_and_told(store, fault, capfd):
    setattr(store.faults, fault, {"throttle": 0.35, "cut": 0.3}[fault])
    before = places.pauses()
    for number in range(10):
        write(place(FOLDER) / f"{number}", str(number) * 1000)
    assert [(place(FOLDER) / f"{number}").read_text() for number in range(10)] == [str(n) * 1000 for n in range(10)]
    assert store.asked["503" if fault == "throttle" else "cut"] > 5
    told = capfd.readouterr().err
    assert places.pauses() > before and "try 2 of 8 in" in told


def test_a_long_read_goes_on_where_it_was_cut(store):
    store.put("runs/x/big", content := os.urandom(3 * 2**20))
    with places.reader(place(FOLDER) / "big") as opened:
        store.faults.cut = 0.5
        assert b"".join(iter(lambda: opened.read(2**18), b"")) == content
    assert store.asked["cut"] > 2


def test_a_store_that_stays_away_ends_with_one_line(store):
    store.faults.throttle = 1.0
    with pytest.raises(BadInput, match=r"^s3://bucket/runs/x/y: writing: gave up after 8 tries: .*SLOW_DOWN[^\n]*$"):
        write(place(FOLDER) / "y", "y")


def test_what_cannot_be_reached_or_is_not_allowed_is_told_before_the_work(store, monkeypatch):
    places.check(place(FOLDER))
    with pytest.raises(BadInput, match="s3://others: no such bucket"):
        places.check(place("s3://others/x"))
    store.faults.denied = frozenset(["LIST"])
    with pytest.raises(BadInput, match=r"s3://bucket/runs/x: looking: AWS Error ACCESS_DENIED"):
        places.check(place(FOLDER))
    store.faults.denied = frozenset(["PUT"])
    with pytest.raises(BadInput, match=r"writing: AWS Error ACCESS_DENIED"):
        places.make(place(FOLDER))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    places._system.cache_clear()
    began = time.monotonic()
    with pytest.raises(BadInput, match="gave up after 3 tries"):
        places.check(place(FOLDER))
    assert time.monotonic() - began < 10
    for address in ("abfs://files/x", "abfs://files@account.dfs.core.windows.net/x"):
        with pytest.raises(BadInput, match=f"{address}: looking: "):
            places.check(place(address))
    with pytest.raises(BadInput, match="looking: gave up after 3 tries: google::cloud"):
        places.check(place("gs://anonymous@bucket/x?endpoint_override=127.0.0.1:9&scheme=http&retry_limit_seconds=1"))


def test_an_upload_that_is_interrupted_is_not_there(store):
    """A kill in the middle of an object leaves the one before."""

    write(place(FOLDER) / "big", "old")
    code = (
        "import os, sys; from r2r import places\n"
        f"with places.replacing(places.place('{FOLDER}') / 'big') as aside:\n"
        "    aside.write_bytes(os.urandom(60_000_000)); print(flush=True)\n"
    )
    store.faults.slow = 0.2
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (place(FOLDER) / "big").read_text() == "old"


def test_a_list_that_names_files_outside_of_its_folder_is_refused(store):
    store.put("runs/x/.files.json", b'{"files": {"../secret": [1, ""]}}')
    store.put("runs/secret", b"1")
    with pytest.raises(BadInput, match=r"names \.\./secret, which is not in its folder"):
        fetch(place(FOLDER))


def test_a_marker_that_cannot_be_read_is_told(store):
    store.put("runs/x/.files.json", b"[1]")
    with pytest.raises(BadInput, match=r"s3://bucket/runs/x/.files.json: is no list of files"):
        files(place(FOLDER))
