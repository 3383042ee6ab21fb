"""Reasons are checked by their words alone."""

import pytest

from r2r.reasons import check_reasons, is_verbatim, named, rename, says_none, sentences


@pytest.mark.parametrize(
    ("evidence", "found"),
    [
        ("A flea lives 100 days.", True),
        ("A  flea\nlives 100", True),
        ("a flea lives 100 days.", False),
        ("A flea lives 10 days.", False),
        ("", False),
        ("  \n", False),
    ],
)
def test_evidence_stands_word_for_word_in_its_passage(evidence, found):
    assert is_verbatim(evidence, "Dogs bark. A flea\tlives 100 days. Most do not.") is found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A flea lives  100 days. Most do not!\nWhy?", ["A flea lives 100 days.", "Most do not!", "Why?"]),
        ('It is called "what?" Few know. It has 3.5.', ['It is called "what?"', "Few know.", "It has 3.5."]),
        ("狗叫。跳蚤活一百天。", ["狗叫。", "跳蚤活一百天。"]),
        ("Yes. Yes. No.", ["Yes.", "No."]),
        (f"It {'never ' * 10}ends.", ["It never never never never never never"]),
        ("x" * 50, ["x" * 40]),
        (" \n", []),
    ],
)
def test_sentences_stand_word_for_word_in_their_text(text, found):
    assert sentences(text, 40) == found
    assert all(is_verbatim(one, text) for one in found)


def test_words_for_no_evidence():
    none = ["N/A", "n/a.", "NA", "None", "None.", "Not applicable", "'not available'", "null"]
    assert [text for text in none if not says_none(text)] == []
    some = ["", "None of them answers.", "Nothing", "It is not applicable to dogs.", "Nana"]
    assert [text for text in some if says_none(text)] == []


@pytest.mark.parametrize(
    ("comparison", "numbers"),
    [
        ("Better than [2] and [10].", {2, 10}),
        ("Passage 3 is longer; passages [1] are not.", {1, 3}),
        ("It names 7 dogs in 1999, and passage 2.5 does not exist.", set()),
        ("", set()),
    ],
)
def test_passages_that_a_comparison_names(comparison, numbers):
    assert named(comparison) == numbers


TEXTS = ["A flea lives 100 days. Most live less.", "Dogs bark."]


def test_evidence_that_is_not_in_its_passage_is_left_out():
    sound = ["A flea lives\n100 days.", ""]
    assert check_reasons(sound, ["Better than [2].", "Less than [1]."], TEXTS, 2) == (sound, 1, 1, "")
    assert check_reasons(["Dogs bark.", "Cats purr."], ["", ""], TEXTS, 2) == (["", ""], 2, 0, "")
    assert check_reasons(["N/A", " Dogs bark. "], ["", ""], TEXTS, 2) == (["", "Dogs bark."], 1, 1, "")


@pytest.mark.parametrize("comparison", ["Better than [3].", "Better than passage 0.", "As good as [1], [2] and [20]."])
def test_a_comparison_with_a_passage_that_was_not_shown(comparison):
    assert (
        check_reasons(["", ""], ["Fine.", comparison], TEXTS, 2).fault
        == "a comparison names a passage that is not shown"
    )


@pytest.mark.parametrize(
    ("said", "renamed"),
    [
        ("Better than [2].", "Better than [A]."),
        (
            "Passages 1, 2, and 5 lack it; passage 3 does not.",
            "Passages [C], [A], and 5 lack it; passage [B] does not.",
        ),
        ("more than passages 1 and 3 in 1998", "more than passages [C] and [B] in 1998"),
        ("the 2 others", "the 2 others"),
        ("see [9]", "see [9]"),
        ("unlike [1, 3], unlike [3, 9]", "unlike [C], [B], unlike [3, 9]"),
        ("above document 2 and Documents #1 & 3", "above document [A] and Documents [C] & [B]"),
        ("passage 2.5 km", "passage 2.5 km"),
    ],
)
def test_passage_numbers_become_other_names(said, renamed):
    assert rename(said, {1: "C", 2: "A", 3: "B"}) == renamed
