"""What is read from a comparison, and what is passed over."""

import pytest

from r2r.judge.claims import claims


@pytest.mark.parametrize(
    ("comparison", "said"),
    [
        ("It is less detailed than passages [1] and [2].", {(1, 3), (2, 3)}),
        ("It gives more than passages [4], and [5], but less than passage [1].", {(3, 4), (3, 5), (1, 3)}),
        ("It stands below [2], which tells it.", {(2, 3)}),
        ("It is ranked above document [4]; it is short.", {(3, 4)}),
        ("It is not as direct as passage [1].", {(1, 3)}),
        ("More specific information compared to passage [4].", {(3, 4)}),
        ("Compared to passages [1] and [2], this one gives less detail.", {(1, 3), (2, 3)}),
        ("It says nothing of fleas, making it less useful than [1].", {(1, 3)}),
        ("This is the most relevant passage.", {(3, 1), (3, 2), (3, 4), (3, 5)}),
        ("It is ranked last because it repeats [2].", {(1, 3), (2, 3), (4, 3), (5, 3)}),
        # It names its own passage: no ranking agrees.
        ("It is less relevant than passage [3].", {(3, 3)}),
    ],
)
def test_claims_that_are_read(comparison, said):
    assert claims(comparison, rank=3, of=5) == said


@pytest.mark.parametrize(
    "comparison",
    [
        "",
        "It is about fleas, as passage [1] is.",
        "Compared to other passages, this one is less detailed.",
        "While it has more detail than passage [1], it does not answer.",
        "It has more detail than passage [1], but does not answer.",
        "It does not give more detail than passage [1].",
        "It is less direct and more complex than passage [1].",
        "It is more general than passage [1].",
        "It is one of the most relevant passages.",
        "It is less detailed than passage [9].",
        "It is shorter. Passage [1] has more.",
    ],
)
def test_what_is_not_certain_is_passed_over(comparison):
    assert claims(comparison, rank=3, of=5) == set()
