import pytest

from r2r.teacher.check import check

TEXTS = ["A flea lives 100 days. Most live less.", "Dogs bark."]


def test_sound_reasons_stay_as_they_are():
    evidence = ["A flea lives\n100 days.", ""]
    assert check(evidence, ["Better than [2].", "Less than [1]."], TEXTS) == (evidence, 1, 1, "")


def test_evidence_that_is_in_another_passage_or_in_none_is_left_out():
    checked = check(["Dogs bark.", "Cats purr."], ["", ""], TEXTS)
    assert checked == (["", ""], 2, 0, "")


def test_words_for_no_evidence_are_none():
    assert check(["N/A", " Dogs bark. "], ["", ""], TEXTS) == (["", "Dogs bark."], 1, 1, "")


@pytest.mark.parametrize("comparison", ["Better than [3].", "Better than passage 0.", "As good as [1], [2] and [20]."])
def test_a_comparison_with_a_passage_that_was_not_shown(comparison):
    assert check(["", ""], ["Fine.", comparison], TEXTS).fault == "a comparison names a passage that is not shown"
