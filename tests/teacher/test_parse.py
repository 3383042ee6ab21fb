"""The teacher's JSON reply is read strictly: ok, repaired where that leaves no doubt, or failed with a reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2r.teacher.parse import parse_reply


def reply(*order, **more):
    letters = {"direct_answer_sentence": "e", "direct_reason": "d", "listwise_reason": "c"}
    passages = [
        {"identifier": number} | {name: f"{letter}{number}" for name, letter in letters.items()} | more
        for number in order
    ]
    return json.dumps({"ranked_passages": passages})


def test_a_sound_reply_gives_the_order_and_the_reasons_as_shown():
    parsed = parse_reply(reply(3, 1, 2), 3, "both")
    assert (parsed.status, parsed.order) == ("ok", [3, 1, 2])
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
        (reply("1", "two"), "permutation"),
        (reply("1.0", "2"), "permutation"),
        (reply(1, 2, 2.0), "permutation"),
        (reply([1], {}), "permutation"),
        (reply(10**30, 2), "permutation"),
        (reply(1, float("nan")), "not JSON"),
        (reply(1, 2).replace("1", "9" * 5000, 1), "not JSON"),
        (reply(1, 2).replace('"identifier"', '"identifier": 2, "identifier"', 1), "twice"),
        ("[" * 10**5, "not JSON"),
        ('{"a":' * 10**5, "nested too deep"),
        (json.dumps(reply(2, 1)), "ranked_passages"),
        (f"[{reply(2, 1)}]", "ranked_passages"),
        (f'{{"draft": {reply(2, 1)}}}', "ranked_passages"),
        ('{"error": {"code": 429}}', "ranked_passages"),
        (reply(2, 1) + reply(1, 2), "several"),
        ('{"a": 1}' + reply(1, 2), "several"),
        ("{draft} " + reply(1, 2), "not JSON"),
        ("<think>" + reply(2, 1), "never ends"),
        ("<think>" + reply(2, 1) + "</think>", "not JSON"),
        (reply(), "permutation"),
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


@pytest.mark.parametrize(
    ("text", "repairs"),
    [
        (f"```json\n{reply(3, 1, 2)}\n```", ["fences removed"]),
        (f"Here it is: {reply(3, 1, 2)}\nI hope that it helps [1].", ["prose removed"]),
        (reply(3, 1, 2) * 2, ["prose removed"]),
        (f"<think>Is {{1}} best?</think>\n{reply(3, 1, 2)}", ["thinking removed"]),
        (f"So it is.</think>```\n{reply(3, 1, 2)}\n```", ["fences removed", "thinking removed"]),
        (reply(3, 1, 3, 2, 1), ["duplicate dropped"]),
        (reply("3", "[1]", "Passage 2").replace("d[1]", "d1").replace("dPassage 2", "d2"), ["identifier was text"]),
    ],
)
def test_what_leaves_the_order_beyond_doubt_is_repaired(text, repairs):
    parsed = parse_reply(text, 3, "direct")
    assert (parsed.status, parsed.order, parsed.repairs) == ("repaired", [3, 1, 2], repairs)
    assert parsed.direct == ["d1", "d2", "d3"]


def test_of_a_passage_named_twice_the_first_reasons_stay():
    passages = [{"identifier": number, "listwise_reason": text} for number, text in ((2, "a"), (1, "b"), (2, "c"))]
    assert parse_reply(json.dumps({"ranked_passages": passages}), 2, "comparison").comparison == ["b", "a"]


def test_a_missing_passage_is_appended_only_where_it_needs_no_reasons():
    assert parse_reply(reply(3, 1), 3, "none")[:3] == ("repaired", "", [3, 1, 2])
    assert parse_reply(reply(3, 1, 1), 3, "none").repairs == ["duplicate dropped", "missing appended"]
    for reasoning in ("direct", "comparison", "both"):
        assert parse_reply(reply(3, 1), 3, reasoning).status == "failed"
    assert "names 2 of 5" in parse_reply(reply(3, 1), 5, "none").reason


@pytest.mark.parametrize(
    ("field", "values", "status"),
    [
        ("rank", [1, 2, 3], "ok"),
        ("rank", [3, 1, 2], "failed"),
        ("relevance_score", [9.5, 9, 9], "ok"),
        ("relevance_score", [3, 9, 1], "failed"),
        ("score", ["low", "high", "low"], "ok"),
        ("words", [3, 9, 1], "ok"),
    ],
)
def test_a_list_in_another_order_than_its_own_scores_is_no_ranking(field, values, status):
    passages = [{"identifier": number, field: value} for number, value in enumerate(values, 1)]
    assert parse_reply(json.dumps({"ranked_passages": passages}), 3, "none").status == status


def test_half_a_character_can_be_stored():
    parsed = parse_reply(reply(2, 1, direct_reason="\ud83d"), 2, "direct")
    assert parsed.direct == ["\ufffd"] * 2 and parsed.repairs == ["broken character replaced"]


def test_a_passage_without_an_answer_has_no_evidence():
    assert parse_reply(reply(2, 1, direct_answer_sentence=""), 2, "both").evidence == ["", ""]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 4) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["ranked_passages", "identifier", "listwise_reason", "score"]), inner)
    ),
)


@given(st.text() | VALUES.map(json.dumps) | VALUES.map(lambda value: json.dumps({"ranked_passages": value})))
def test_whatever_the_text_the_order_is_a_permutation_or_none(text):
    for reasoning in ("none", "comparison"):
        parsed = parse_reply(text, 3, reasoning)
        assert (parsed.status == "failed") == bool(parsed.reason) == (parsed.order == [])
        assert parsed.status == "failed" or sorted(parsed.order) == [1, 2, 3]


@given(st.integers(1, 20).flatmap(lambda n: st.permutations(range(1, n + 1))), st.data())
def test_a_whole_reply_is_read_back_and_a_cut_one_never(order, data):
    text = reply(*order)
    assert parse_reply(text, len(order), "both")[:3] == ("ok", "", order)
    assert parse_reply(text[: data.draw(st.integers(0, len(text) - 1))], len(order), "none").status == "failed"
