import pytest

from r2r.reasons import is_verbatim, named, says_none


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


@pytest.mark.parametrize("text", ["N/A", "n/a.", "NA", "None", "None.", "Not applicable", "'not available'", "null"])
def test_words_for_no_evidence(text):
    assert says_none(text)


@pytest.mark.parametrize("text", ["", "None of them answers.", "Nothing", "It is not applicable to dogs.", "Nana"])
def test_what_is_not_such_words(text):
    assert not says_none(text)


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
