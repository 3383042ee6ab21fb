"""The journal: its rows survive kills and full disks, and other processes find them."""

import hashlib
import json
import resource

import pytest

from r2r.errors import BadInput
from r2r.rows.journal import Journal

KEYS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(5)]


def row(journal, key):
    entry = journal.get(key)
    assert entry is not None
    return entry["row"]


def test_another_process_finds_the_rows(tmp_path):
    journal = Journal(tmp_path / "rows")
    assert not (tmp_path / "rows").exists()
    journal.add(KEYS[0], "annotations", {"qid": "q\u20281", "text": "ä\n\x00"}, {"tokens": 3})
    journal.add(KEYS[1], "rejects", {"qid": "q2"}, {})
    journal.died(KEYS[2])
    journal.died(KEYS[2])
    for reader in (journal, Journal(tmp_path / "rows")):
        assert [reader.table(key) for key in KEYS[:3]] == ["annotations", "rejects", ""]
        assert row(reader, KEYS[0]) == {"qid": "q\u20281", "text": "ä\n\x00"}
        assert reader.get(KEYS[2]) is None
        assert [reader.deaths(key) for key in KEYS[:3]] == [0, 0, 2]
        assert [entry["counts"] for entry in reader] == [{"tokens": 3}, {}]


def test_each_process_has_its_own_file(tmp_path):
    for key in KEYS[:3]:
        Journal(tmp_path).add(key, "annotations", {"qid": key}, {})
    assert len(list(tmp_path.iterdir())) == 3
    assert all(row(Journal(tmp_path), key) == {"qid": key} for key in KEYS[:3])


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
def test_the_answer_of_the_latest_round_wins_whatever_its_file_is_called(tmp_path, names):
    for round, name in enumerate(names):
        one = tmp_path / name
        table = "annotations" if round == 2 else "rejects"
        Journal(one).add(KEYS[0], table, {"qid": f"round {round}"}, {"tokens": round}, round)
        Journal(one).add(KEYS[1], "rejects", {"qid": "other"}, {}, min(round, 1))
        for number, file in enumerate(one.glob("*.jsonl")):
            file.rename(tmp_path / f"{name}{number}.jsonl")
    journal = Journal(tmp_path)
    assert row(journal, KEYS[0]) == {"qid": "round 2"} and journal.table(KEYS[0]) == "annotations"
    assert journal.last_round("rejects") == 1 and journal.last_round("annotations") == 2
    assert sorted(entry["row"]["qid"] for entry in journal) == ["other", "round 2"]
    # An answer of this object wins at once, too.
    journal.add(KEYS[1], "annotations", {"qid": "answered"}, {}, 2)
    assert row(journal, KEYS[1]) == row(Journal(tmp_path), KEYS[1]) == {"qid": "answered"}
