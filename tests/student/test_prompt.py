"""The student's prompt and reply: labels, reasons and their grammar, and the names in comparisons."""

import pytest

from r2r.errors import BadInput
from r2r.llm.prompt import load_tokenizer
from r2r.reasons import sentences
from r2r.replies import Unsound
from r2r.student.prompt import (
    LABELS,
    finished,
    grammar,
    label_ids,
    neighbours,
    numbered,
    order_grammar,
    prompt,
    read_order,
    read_reasons,
    rename_brackets,
    reply,
)
from tests.student.grammars import allows
from tests.tiny import tiny_model

TEXTS = ['On fleas\nA flea lives  100 days. It "jumps" in C:\\far/é. \x07', "Dogs bark."]
REASONS = [
    {"evidence": "A flea lives 100 days.", "direct": "It says how long.", "comparison": "Above [A]."},
    {"evidence": "", "direct": "It is about dogs.", "comparison": "Below [B]."},
]


def test_labels_stand_behind_their_passages():
    message = prompt("how long?", ["Dogs bark.", "Fleas live."])
    assert "Dogs bark. [A]\n" in message and "Fleas live. [B]\n" in message
    assert message.index("[B]") < message.rindex("how long?")
    drawn = prompt("how long?", ["Dogs bark.", "Fleas live."], ["D", "T"])
    assert drawn == message.replace("[A]", "[D]").replace("[B]", "[T]")


def test_the_language_of_the_reasons_is_asked_for_at_the_end():
    message = prompt("how long?", ["Dogs bark.", "Fleas live."])
    assert prompt("how long?", ["Dogs bark.", "Fleas live."], language="German") == message[:-1] + " in German."


@pytest.mark.parametrize("reasoning", ["direct", "comparison", "both"])
def test_a_reply_is_read_as_it_was_written(reasoning):
    first, _, rest = reply(["B", "A"], REASONS, reasoning).partition("\n")
    assert first == "B > A"
    read = read_reasons(rest, ["B", "A"], reasoning)
    assert read == [{name: one[name] for name in read[0]} for one in REASONS]
    assert allows(grammar(["B", "A"], TEXTS, [["A"], ["B"]], reasoning, 100), rest)


@pytest.mark.parametrize(
    ("changed", "allowed"),
    [
        *(({"evidence": sentence}, True) for sentence in sentences(TEXTS[0], 100)),
        ({"evidence": ""}, True),
        ({"evidence": "A flea lives"}, False),
        ({"evidence": "Dogs bark."}, False),
        ({"direct": "é" * 100}, True),
        ({"direct": "é" * 101}, False),
        ({"direct": ""}, False),
        ({"comparison": "Below [C], above [A]."}, True),
        ({"comparison": "Like no other."}, True),
        ({"comparison": "Above [B]."}, False),
        ({"comparison": "Above [D]."}, False),
        ({"comparison": "Above [A"}, False),
        ({"comparison": "x" * 101}, False),
    ],
)
def test_a_student_can_only_quote_what_is_there_and_name_its_neighbours(changed, allowed):
    names = neighbours(["B", "A"], ["C", "B", "A", "D"])
    assert names == [["C", "A"], ["B", "D"]]
    text = reply(["B", "A"], [REASONS[0] | changed, REASONS[1]], "both").partition("\n")[2]
    assert allows(grammar(["B", "A"], TEXTS, names, "both", 100), text) == allowed


def test_the_only_passage_has_nothing_to_name():
    assert neighbours(["A"], ["A"]) == [[]]
    text = reply(["A"], [REASONS[0] | {"comparison": "Alone."}], "both").partition("\n")[2]
    assert allows(grammar(["A"], TEXTS[:1], [[]], "both", 100), text)
    assert not allows(grammar(["A"], TEXTS[:1], [[]], "both", 100), text.replace("Alone", "Above [A]"))


def test_a_reply_without_reasons_is_the_order():
    assert reply(["B", "A"], [], "none") == "B > A"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100000,
        "[NaN]",
        '["B", "A"]',
        '[{"passage":"A","evidence":"","direct":"x","comparison":"y"}]',
    ],
)
def test_reasons_that_are_not_for_the_labels_are_refused(text):
    with pytest.raises(Unsound):
        read_reasons(text, ["B"], "both")


def test_an_empty_reason_is_refused():
    text = reply(["B"], [REASONS[0] | {"direct": " "}], "both").partition("\n")[2]
    with pytest.raises(Unsound, match="direct is empty"):
        read_reasons(text, ["B"], "both")


def test_labels_become_docids():
    assert rename_brackets("Above [A] and [Z].", {"A": "D 7/x"}) == "Above [D 7/x] and [Z]."


def test_a_students_labels_become_numbers_and_all_else_in_brackets_0():
    assert numbered("Above [B] and [T], below [Z] and [2]; see [citation].") == (
        "Above [2] and [20], below [0] and [0]; see [citation]."
    )


def test_a_written_order_is_read_as_strictly_as_a_teachers():
    labels = list(LABELS[:4])
    assert read_order("C > A > D > B", labels)[:3] == ("ok", "", [3, 1, 4, 2])
    assert read_order("C > A > C > B", labels).repairs == ["duplicate dropped", "missing appended"]
    assert read_order("C > C > C > C", labels).status == "failed"
    assert allows(order_grammar(labels), "C > A > D > B")
    assert not allows(order_grammar(labels), "C > A > E > B")
    assert allows(order_grammar(["A", "B"]), "B > A")


def test_each_label_is_one_token():
    tokenizer = load_tokenizer(tiny_model())
    found = label_ids(tokenizer, "demo")
    assert [tokenizer.decode([number]) for number in found] == list(LABELS)


def test_labels_in_a_real_vocabulary(data):
    from transformers import PreTrainedTokenizerFast

    qwen = PreTrainedTokenizerFast(tokenizer_file=str(data / "tokenizers/qwen2.5/tokenizer.json"))
    assert label_ids(qwen, "qwen") == list(range(32, 52))


def test_a_tokenizer_that_splits_a_label_is_refused():
    class Splits:
        def encode(self, text, add_special_tokens):
            return [1, 2] if text.startswith("B") else [3]

    with pytest.raises(BadInput, match="label B"):
        label_ids(Splits(), "odd-model")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", (0, "[]")),
        ("[", (0, "[]")),
        ('[{"a":"}', (0, "[]")),
        ('[{"a":"}"}', (1, '[{"a":"}"}]')),
        ('[{"a":1},{"b"', (1, '[{"a":1}]')),
        ('[{"a":1},{"b":2}]', (2, '[{"a":1},{"b":2}]')),
    ],
)
def test_the_whole_objects_of_a_list_that_is_being_written_are_found(text, found):
    assert finished(text) == found
