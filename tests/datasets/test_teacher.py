"""The recorded annotations of Reason-to-Rank's authors are read, or refused with the place."""

import json

import pytest

from r2r import tables
from r2r.datasets import read_annotations
from r2r.errors import BadInput


def _line(qid="q1"):
    """Passages A, B, C as shown; the teacher's order is B, C, A."""
    order = [2, 3, 1]
    passages = [
        {"identifier": at, "direct_reason": f"direct {at}", "listwise_reason": f"comparison {at}"}
        | {"direct_answer_sentence": "" if at == 3 else f"evidence {at}"}
        for at in order
    ]
    return {
        "query": "who",
        "qid": qid,
        "unsorted_docs": ["text A", "text B", "text C"],
        "sorted_docids": ["B", "C", "A"],
        "re_rank_id": order,
        "reason": {"ranked_passages": passages},
        "scores": ["0", "1", "0"],
    }


def _read(tmp_path, *records):
    file = tmp_path / "teacher.jsonl"
    file.write_text("\n".join(json.dumps(record) for record in records) + "\n")
    return read_annotations(f"teacher:{file}")


def test_columns_are_aligned_with_the_passages_as_shown(tmp_path):
    (row,), rejects = _read(tmp_path, _line())
    assert rejects == []
    assert set(row) == set(tables.SCHEMAS["annotations"].names)
    assert (row["docids"], row["texts"]) == (["A", "B", "C"], ["text A", "text B", "text C"])
    assert row["ranking"] == [2, 3, 1]
    assert row["direct"] == ["direct 1", "direct 2", "direct 3"]
    assert row["comparison"] == ["comparison 1", "comparison 2", "comparison 3"]
    assert row["evidence"] == ["evidence 1", "evidence 2", ""]
    assert (row["teacher"], row["attempts"], row["prompt_tokens"]) == ("recorded", 1, 0)


def test_the_key_depends_on_what_was_annotated(tmp_path):
    other = _line("q2")
    changed = _line("q3") | {"query": "whom"}
    rows, _ = _read(tmp_path, _line(), other, changed)
    assert rows[0]["key"] == rows[1]["key"] != rows[2]["key"]


def _mutations():
    for name, order in {"repeat": [2, 2, 1], "gap": [2, 4, 1], "short": [2, 1], "text": [2, "x", 1]}.items():
        yield name, {"re_rank_id": order}, "no permutation of 1 to 3"
    yield "docids", {"sorted_docids": ["B", "B", "A"]}, "not 3 different documents"
    yield "no reasons", {"reason": "sorry"}, "holds no ranked_passages"
    passages = _line()["reason"]["ranked_passages"]
    yield "other order", {"reason": {"ranked_passages": passages[::-1]}}, "the reasons are in the order"
    yield "missing", {"reason": {"ranked_passages": passages[:2]}}, "the reasons are in the order"
    empty = [passages[0] | {"direct_reason": " "}, *passages[1:]]
    yield "empty", {"reason": {"ranked_passages": empty}}, "passage 2 has an empty reason"
    none = [passages[0] | {"listwise_reason": None}, *passages[1:]]
    yield "none", {"reason": {"ranked_passages": none}}, "passage 2 has no listwise_reason"


@pytest.mark.parametrize(("change", "reason"), [pytest.param(*rest, id=name) for name, *rest in _mutations()])
def test_what_contradicts_itself_is_rejected_with_the_raw_line(tmp_path, change, reason):
    wrong = _line("q2") | change
    rows, (reject,) = _read(tmp_path, _line(), wrong)
    assert len(rows) == 1
    assert set(reject) == set(tables.SCHEMAS["rejects"].names)
    assert reject["qid"] == "q2"
    assert reason in reject["reason"]
    assert json.loads(reject["reply"]) == wrong


def test_what_is_no_annotation_is_bad_input(tmp_path):
    for wrong, message in (
        ({"query": "who"}, 'teacher.jsonl:2: has no "unsorted_docs"'),
        (_line(None), "teacher.jsonl:2: the query has no id"),
        (_line("q1"), r"teacher.jsonl:2: qid q1 again, first in .*teacher.jsonl:1;"),
    ):
        with pytest.raises(BadInput, match=message):
            _read(tmp_path, _line(), wrong)


def test_a_stage_folder(tmp_path):
    rows, _ = _read(tmp_path, _line())
    tables.write(rows, tmp_path, "annotations")
    assert read_annotations(str(tmp_path)) == (rows, [])
    reject = {"qid": "q2", "key": "k", "reason": "r", "reply": "x", "attempts": 3}
    tables.write([reject], tmp_path, "rejects")
    assert read_annotations(str(tmp_path)) == (rows, [reject])


def test_the_authors_recordings(data):
    rows, rejects = read_annotations(f"teacher:{data / 'teacher-gpt4' / 'msmarco_500.jsonl'}")
    assert (len(rows), rejects) == (500, [])
    first = rows[0]
    assert first["docids"] == ["5117688", "2968771", "7306165", "2", "0"]
    assert first["texts"][3].startswith("Essay on The Manhattan Project")
    assert first["ranking"] == [2, 4, 3, 5, 1]
    assert first["direct"][0].startswith("This passage provides background information")
    # Docids belong to their passages: those that are in the pool of MS MARCO passages have its text.
    pool = {}
    with (data / "msmarco-pool" / "corpus.jsonl").open() as lines:
        for line in lines:
            passage = json.loads(line)
            pool[passage["id"]] = passage["contents"].split()[:5]
    shown = [pair for row in rows for pair in zip(row["docids"], row["texts"], strict=True) if pair[0] in pool]
    assert len(shown) == 11
    assert all(pool[docid] == text.split()[:5] for docid, text in shown)
