"""Recorded listwise replies become annotations of the candidates that they are about."""

import gzip
import json

import pytest

from r2r import tables
from r2r.datasets.replies import annotations
from r2r.errors import BadInput


def _row(qid, shown=3):
    docids, texts = [f"d{at}" for at in range(1, shown + 1)], [f"text {at}" for at in range(1, shown + 1)]
    return {"qid": qid, "query": f"who is {qid}", "docids": docids, "texts": texts, "scores": [1.0] * shown}


def _line(qid="q1", reply="[3] > [1] > [2]", **more):
    return {"qid": qid, "reply": reply} | more


def _read(tmp_path, records, rows, passages=20, name="replies.jsonl"):
    content = "\n".join(json.dumps(record) for record in records).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return annotations(str(tmp_path / name), iter(rows), passages)


@pytest.mark.parametrize("name", ["replies.jsonl", "replies.jsonl.gz"])
def test_a_reply_orders_the_candidates_of_its_query(tmp_path, name):
    records = [_line(2, "[2] > [1]"), _line(), _line(model="zephyr", reply="<think>?</think>2, 1, 3")]
    annotated, rejects = _read(tmp_path, records, [_row("q1"), _row("2", 2)], name=name)
    assert rejects == []
    assert [(row["qid"], row["teacher"], row["ranking"]) for row in annotated] == [
        ("q1", "recorded", [3, 1, 2]),
        ("q1", "zephyr", [2, 1, 3]),
        ("2", "recorded", [2, 1]),
    ]
    first = annotated[0]
    assert set(first) == set(tables.SCHEMAS["annotations"].names)
    assert (first["query"], first["docids"], first["texts"][2]) == ("who is q1", ["d1", "d2", "d3"], "text 3")
    assert first["direct"] == first["evidence"] == first["comparison"] == ["", "", ""]
    assert [first[name] for name in ("attempts", "prompt_tokens", "completion_tokens", "agreement")] == [1, 0, 0, None]
    tables.write(annotated, tmp_path, "annotations")
    assert tables.read(tmp_path, "annotations").to_pylist() == annotated


def test_the_passages_shown_are_the_first_candidates(tmp_path):
    records = [_line("a", passages=3), _line("b"), _line("c", passages="many"), _line("d", passages=None)]
    annotated, _ = _read(tmp_path, records, [_row(qid, 9) for qid in "abcd"], passages=4)
    assert [row["ranking"] for row in annotated] == [[3, 1, 2]] + [[3, 1, 2, 4]] * 3
    assert [len(row["docids"]) for row in annotated] == [len(row["texts"]) for row in annotated] == [3, 4, 4, 4]


def test_what_cannot_be_joined_or_read_is_rejected(tmp_path):
    records = [_line("q4"), _line("q2", "Sorry \ud83d", model="zephyr"), _line("q1")]
    annotated, rejects = _read(tmp_path, records, [_row("q1"), _row("q2"), _row("q3")])
    assert [row["qid"] for row in annotated] == ["q1"]
    assert [tuple(reject[name] for name in ("qid", "reason", "reply", "attempts")) for reject in rejects] == [
        ("q2", "holds no ranking", "Sorry \ufffd", 1),
        ("q3", "has no reply", "", 0),
        ("q4", "has no candidates", "[3] > [1] > [2]", 1),
    ]
    tables.write(rejects, tmp_path, "rejects")
    assert tables.read(tmp_path, "rejects").to_pylist() == rejects


def test_the_key_depends_on_the_passages_shown_and_the_reply(tmp_path):
    def key(*changes, passages=3, **more):
        (row,), _ = _read(tmp_path, [_line(**more)], [_row("q1", 5) | dict(changes)], passages)
        return row["key"]

    assert key() == key(model="zephyr") == key(passages=3) == key(("scores", [0.0] * 5))
    other = {key(passages=4), key(reply="[1] > [2] > [3]"), key(("query", "whom")), key(("texts", list("abcde")))}
    assert len(other | {key(), key(("docids", list("abcde")))}) == 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([1], "replies.jsonl:2: holds JSON that is no object"),
        ({"reply": "[1]"}, "replies.jsonl:2: the query has no id"),
        ({"qid": "q2", "reply": ["[1]"]}, 'replies.jsonl:2: has no "reply" that is text'),
        (_line("q2", model=" "), "replies.jsonl:2: has the model ' '"),
        (_line("q2", passages=0), "replies.jsonl:2: has 0 passages; a whole number"),
        (_line("q2", passages=2.5), "replies.jsonl:2: has 2.5 passages; a whole number"),
        (_line(model="recorded"), r"replies.jsonl:2: qid q1 of model recorded again, first in .*replies.jsonl:1;"),
    ],
)
def test_what_is_no_recorded_reply_is_bad_input(tmp_path, wrong, message):
    with pytest.raises(BadInput, match=message):
        _read(tmp_path, [_line(), wrong], [_row("q1")])


def test_a_file_without_replies(tmp_path):
    with pytest.raises(BadInput, match=r"replies.jsonl: holds no reply; expected"):
        _read(tmp_path, [], [_row("q1")])
