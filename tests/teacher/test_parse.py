"""The teacher's reply is read strictly: sound, or failed with a reason."""

import json

import pytest

from r2r.teacher.parse import parse_reply


def reply(*order, **more):
    passages = [
        {
            "identifier": number,
            "direct_answer_sentence": f"e{number}",
            "direct_reason": f"d{number}",
            "listwise_reason": f"c{number}",
        }
        | more
        for number in order
    ]
    return json.dumps({"ranked_passages": passages})


def test_a_sound_reply_gives_the_order_and_the_reasons_as_shown():
    parsed = parse_reply(reply(3, 1, 2), 3, "both")
    assert parsed.status == "ok"
    assert parsed.order == [3, 1, 2]
    assert parsed.direct == ["d1", "d2", "d3"]
    assert parsed.evidence == ["e1", "e2", "e3"]
    assert parsed.comparison == ["c1", "c2", "c3"]


def test_what_was_not_asked_for_stays_empty():
    parsed = parse_reply(reply(2, 1), 2, "direct")
    assert parsed.direct == ["d1", "d2"] and parsed.comparison == ["", ""]
    assert parse_reply('{"ranked_passages": [{"identifier": 1}, {"identifier": 2}]}', 2, "none").status == "ok"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("The best is [2] > [1].", "not JSON"),
        (reply(2, 1)[:-3], "not JSON"),
        ("[1, 2]", "ranked_passages"),
        ('{"ranked_passages": [2, 1]}', "ranked_passages"),
        ('{"ranked_passages": 2}', "ranked_passages"),
        (reply(1, 1), "permutation"),
        (reply(1), "permutation"),
        (reply(1, 2, 3), "permutation"),
        (reply(0, 1), "permutation"),
        (reply("1", "2"), "permutation"),
        (reply(1.0, 2.0), "permutation"),
        (reply(True, 2), "permutation"),
        (reply(None, 2), "permutation"),
        (reply(2, 1, direct_reason=" "), "direct_reason is empty"),
        (reply(2, 1, listwise_reason=5), "listwise_reason"),
    ],
)
def test_an_unsound_reply_fails_and_says_why(text, reason):
    parsed = parse_reply(text, 2, "both")
    assert parsed.status == "failed" and reason in parsed.reason
    assert parsed.order == []


def test_a_passage_without_an_answer_has_no_evidence():
    assert parse_reply(reply(2, 1, direct_answer_sentence=""), 2, "both").evidence == ["", ""]
