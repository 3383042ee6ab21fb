"""What the teacher is asked, and the schema that its reply is forced into."""

import jsonschema
import pytest

from r2r.teacher.prompt import prompt, schema


def test_passages_are_numbered_and_text_is_left_as_it_is():
    message = prompt("why & how?", ["<b>one</b>", "{{ two }}"], "both")
    assert "Passage [1]: <b>one</b>\n" in message and "Passage [2]: {{ two }}\n" in message
    assert message.count("why & how?") == 2


@pytest.mark.parametrize(
    ("reasoning", "asked"),
    [
        ("none", set()),
        ("direct", {"direct_reason", "direct_answer_sentence"}),
        ("comparison", {"listwise_reason"}),
        ("both", {"direct_reason", "direct_answer_sentence", "listwise_reason"}),
    ],
)
def test_prompt_and_schema_ask_for_the_same(reasoning, asked):
    passage = schema(3, reasoning, 60)["properties"]["ranked_passages"]["items"]
    assert set(passage["required"]) == {"identifier"} | asked == set(passage["properties"])
    message = prompt("q", ["a", "b", "c"], reasoning)
    for name in ("direct_reason", "direct_answer_sentence", "listwise_reason"):
        assert (name in message) == (name in asked)


def test_the_language_of_the_reasons_is_asked_for_at_the_end():
    message = prompt("q", ["a", "b"], "both")
    assert prompt("q", ["a", "b"], "both", "German") == message + "\n\nWrite the reasons in German."


def test_the_schema_takes_a_sound_reply_only():
    sound = {"ranked_passages": [{"identifier": 2}, {"identifier": 1}]}
    jsonschema.validate(sound, schema(2, "none", 60))
    for broken in ({"ranked_passages": [{"identifier": 2}]}, {"ranked_passages": [{"identifier": 3}] * 2}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema(2, "none", 60))
