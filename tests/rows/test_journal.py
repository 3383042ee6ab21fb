"""The journal: its rows survive kills and full disks, and other processes find them."""

import hashlib
import json
import os
import resource

import pytest

from r2r import nodecache
from r2r.errors import BadInput
from r2r.places import place, put
from r2r.rows import journal as journals
from r2r.rows.journal import Entry, Journal

KEYS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(5)]


def row(journal, key):
    entry = journal.get(key)
    assert entry is not None
    return entry["row"]


def test_another_process_finds_the_rows(out):
    journal = Journal(out / "rows")
    assert not (out / "rows").exists()
    journal.add(KEYS[0], "annotations", {"qid": "q\u20281", "text": "ä\n\x00"}, {"tokens": 3})
    journal.add(KEYS[1], "rejects", {"qid": "q2"}, {})
    journal.died(KEYS[2])
    journal.died(KEYS[2])
    for reader in (journal, Journal(out / "rows")):
        assert [reader.table(key) for key in KEYS[:3]] == ["annotations", "rejects", ""]
        assert row(reader, KEYS[0]) == {"qid": "q\u20281", "text": "ä\n\x00"}
        assert reader.get(KEYS[2]) is None
        assert [reader.deaths(key) for key in KEYS[:3]] == [0, 0, 2]
        assert [entry["counts"] for entry in reader] == [{"tokens": 3}, {}]


def test_each_process_has_its_own_file(out):
    for key in KEYS[:3]:
        Journal(out).add(key, "annotations", {"qid": key}, {})
    assert len(list(out.glob("*"))) == 3
    assert all(row(Journal(out), key) == {"qid": key} for key in KEYS[:3])


@pytest.mark.parametrize("lost", [1, 30, 120, 170])
def test_an_unfinished_line_is_skipped(tmp_path, lost):
    journal = Journal(tmp_path)
    for key in KEYS[:2]:
        journal.add(key, "annotations", {"qid": key}, {})
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-lost])
    journal = Journal(tmp_path)
    assert row(journal, KEYS[0]) == {"qid": KEYS[0]} and journal.table(KEYS[1]) == ""
    # The row is answered again, in another file.
    journal.add(KEYS[1], "annotations", {"qid": "again"}, {})
    assert row(Journal(tmp_path), KEYS[1]) == {"qid": "again"}


def test_a_full_disk_loses_no_finished_row(tmp_path):
    journal = Journal(tmp_path)
    journal.add(KEYS[0], "annotations", {"qid": "first"}, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, limits[1]))
    try:
        with pytest.raises(BadInput, match=rf"^{tmp_path}: file too large; all finished rows are kept: make room"):
            journal.add(KEYS[1], "annotations", {"qid": "x" * 1000}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    journal.add(KEYS[2], "annotations", {"qid": "third"}, {})
    again = Journal(tmp_path)
    assert [again.table(key) for key in KEYS[:3]] == ["annotations", "", "annotations"]
    assert [json.loads(json.dumps(entry))["row"]["qid"] for entry in again] in (["first", "third"], ["third", "first"])


@pytest.mark.parametrize("names", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")])
def test_the_answer_of_the_latest_round_wins_whatever_its_file_is_called(out, names):
    for round, name in enumerate(names):
        one = out / name
        table = "annotations" if round == 2 else "rejects"
        Journal(one).add(KEYS[0], table, {"qid": f"round {round}"}, {"tokens": round}, round)
        Journal(one).add(KEYS[1], "rejects", {"qid": "other"}, {}, min(round, 1))
        for number, file in enumerate(one.glob("*.jsonl")):
            put(file.read_bytes(), out / f"{name}{number}.jsonl")
            file.unlink()
    journal = Journal(out)
    assert row(journal, KEYS[0]) == {"qid": "round 2"} and journal.table(KEYS[0]) == "annotations"
    assert journal.last_round("rejects") == 1 and journal.last_round("annotations") == 2
    assert sorted(entry["row"]["qid"] for entry in journal) == ["other", "round 2"]
    # An answer of this object wins at once, too.
    journal.add(KEYS[1], "annotations", {"qid": "answered"}, {}, 2)
    assert row(journal, KEYS[1]) == row(Journal(out), KEYS[1]) == {"qid": "answered"}


def test_compacting_keeps_every_row_round_and_death(out, monkeypatch):
    monkeypatch.setattr(journals, "_LARGE", 2000)
    for number in range(3):
        journal = Journal(out)
        for key in KEYS:
            journal.add(
                key, "rejects" if number < 2 else "annotations", {"qid": f"{number}", "x": "x" * 100}, {}, number
            )
        journal.died(KEYS[0])
    before = len(list(out.glob("*")))
    Journal(out).compact()
    after = Journal(out)
    assert [row(after, key)["qid"] for key in KEYS] == ["2"] * 5 and after.deaths(KEYS[0]) == 3
    assert after.last_round("annotations") == 2
    # A disk has a file a process; the store had an object a write.
    assert (before, len(list(out.glob("*")))) == ((3, 3) if out.is_dir() and hasattr(out, "iterdir") else (18, 2))


def test_a_process_leaves_few_objects_behind_and_readers_read_each_row_once(store, monkeypatch):
    monkeypatch.setattr(journals, "_TOGETHER", 5)
    folder, told = place("s3://bucket/rows"), []
    journal = Journal(folder)
    for number in range(22):
        if number % 4 == 0:
            journal.died(KEYS[0])
        else:
            journal.add(KEYS[number % 4], "annotations", {"qid": f"{number}"}, {}, number)
        told += journal.names()
    # Four times five together, the last five of them beside it, and the two after them.
    assert len(store.keys("rows/")) == 4 + 5 + 2 and len(told) == 22 + 4
    before = store.asked["GET"]
    monkeypatch.setenv(nodecache.CACHE_VARIABLE, os.environ[nodecache.CACHE_VARIABLE] + "-of-another-node")
    for reader in (Journal(folder), Journal(folder, told)):
        assert [row(reader, key)["qid"] for key in KEYS[1:4]] == ["21", "18", "19"]
        assert reader.deaths(KEYS[0]) == 6
    # Neither asks for what was put together; and the second finds copies of what the first has read.
    assert store.asked["GET"] - before <= 4 + 2 + 2
    Journal(folder).compact()
    assert len(store.keys("rows/")) == 4 + 5 + 2, "too few to be worth it"
    monkeypatch.setattr(journals, "_MANY", 2)
    Journal(folder).compact()
    (one,) = store.keys("rows/")
    assert one.startswith("rows/all-") and Journal(folder).deaths(KEYS[0]) == 6


def test_a_kill_while_compacting_loses_nothing(store, monkeypatch):
    folder = place("s3://bucket/rows")
    journal = Journal(folder)
    for number in range(3):
        for key in KEYS:
            journal.add(key, "annotations", {"qid": f"{number}"}, {}, number)
        journal.died(KEYS[0])
    # As if killed after the first objects were removed, or before any was.
    kept = dict(store.objects)
    Journal(folder).compact()
    for removed in (5, 0):
        store.objects = {**store.objects, **dict(list(kept.items())[removed:])}
        again = Journal(folder)
        assert [row(again, key)["qid"] for key in KEYS] == ["2"] * 5
        assert again.deaths(KEYS[0]) == 3
        again.compact()


def test_a_late_listing_costs_no_row_that_was_told(store):
    folder = place("s3://bucket/rows")
    early = Journal(folder)
    store.faults.late = 60
    early.add_all([Entry(key, "annotations", {"qid": key}, {}) for key in KEYS[:2]])
    other = Journal(folder)
    other.add(KEYS[2], "annotations", {"qid": "other"}, {})
    assert Journal(folder).table(KEYS[0]) == ""
    told = [*early.names(), *other.names()]
    assert early.names() == []
    late = Journal(folder, told)
    assert [late.table(key) for key in KEYS[:3]] == ["annotations"] * 3
    # An object that another job has put together with others meanwhile.
    assert Journal(folder, [*told, "gone.jsonl"]).table(KEYS[2]) == "annotations"


def test_a_store_is_written_to_once_a_second(store):
    journal = Journal(place("s3://bucket/rows"))
    assert journal.pause() == 0
    journal.add(KEYS[0], "annotations", {"qid": "a"}, {})
    assert 0 < journal.pause() <= 1


def test_a_disk_is_never_waited_for(tmp_path):
    journal = Journal(tmp_path)
    journal.add(KEYS[0], "annotations", {"qid": "a"}, {})
    assert journal.pause() == 0


def test_a_write_that_the_store_refuses_leaves_what_was_there(store):
    journal = Journal(place("s3://bucket/rows"))
    journal.add(KEYS[0], "annotations", {"qid": "first"}, {})
    store.faults.denied = frozenset(["PUT"])
    with pytest.raises(BadInput, match=r"s3://bucket/rows/\w+-000002.jsonl: writing: AWS Error ACCESS_DENIED"):
        journal.add(KEYS[1], "annotations", {"qid": "second"}, {})
    store.faults.denied = frozenset()
    journal.add(KEYS[2], "annotations", {"qid": "third"}, {})
    again = Journal(place("s3://bucket/rows"))
    assert [again.table(key) for key in KEYS[:3]] == ["annotations", "", "annotations"]


def test_readers_of_a_node_download_an_object_once(store):
    folder = place("s3://bucket/rows")
    Journal(folder).add(KEYS[0], "annotations", {"qid": "a"}, {})
    name = store.keys("rows/")[0]
    for _ in range(3):
        assert Journal(folder).table(KEYS[0]) == "annotations"
    # The one that wrote it has it already.
    assert store.asked[f"GET {name}"] == 0
