import hashlib
import json
import resource

import pytest

from r2r.errors import BadInput
from r2r.rows.journal import Journal

KEYS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(5)]


def test_what_was_added_is_found_by_another_process(tmp_path):
    journal = Journal(tmp_path / "rows")
    assert not (tmp_path / "rows").exists()
    journal.add(KEYS[0], "annotations", {"qid": "q\u20281", "text": "ä\n\x00"}, {"tokens": 3})
    journal.add(KEYS[1], "rejects", {"qid": "q2"}, {})
    journal.died(KEYS[2])
    journal.died(KEYS[2])
    for known in (journal, Journal(tmp_path / "rows")):
        assert [known.table(key) for key in KEYS[:3]] == ["annotations", "rejects", ""]
        assert known.get(KEYS[0])["row"] == {"qid": "q\u20281", "text": "ä\n\x00"}
        assert known.get(KEYS[2]) is None
        assert [known.deaths(key) for key in KEYS[:3]] == [0, 0, 2]
        assert [entry["counts"] for entry in known] == [{"tokens": 3}, {}]


def test_each_process_appends_to_a_file_of_its_own(tmp_path):
    for key in KEYS[:3]:
        Journal(tmp_path).add(key, "annotations", {"qid": key}, {})
    assert len(list(tmp_path.iterdir())) == 3
    assert all(Journal(tmp_path).get(key)["row"] == {"qid": key} for key in KEYS[:3])


@pytest.mark.parametrize("lost", [1, 30, 120, 170])
def test_a_line_that_a_kill_left_unfinished_is_passed_over(tmp_path, lost):
    journal = Journal(tmp_path)
    for key in KEYS[:2]:
        journal.add(key, "annotations", {"qid": key}, {})
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-lost])
    journal = Journal(tmp_path)
    assert journal.get(KEYS[0])["row"] == {"qid": KEYS[0]} and journal.table(KEYS[1]) == ""
    # It is asked again, and goes to a file of its own.
    journal.add(KEYS[1], "annotations", {"qid": "again"}, {})
    assert Journal(tmp_path).get(KEYS[1])["row"] == {"qid": "again"}


def test_a_disk_that_is_full_loses_nothing_that_was_kept(tmp_path):
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
