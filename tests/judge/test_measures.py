"""Each measure on reasons whose worth is plain, and on the demo's world, whose truth is known."""

import pytest

from demo_models.world import world
from r2r import tables
from r2r.judge import boilerplate, consistency, explained, specificity, stage, transitivity, verbatim
from r2r.judge.figures import figures, plant
from tests.judge.rows import row, true_annotation

FLEAS = ["A flea lives 100 days.\nIt jumps.", "Dogs bark at night.", "Cats sleep all day."]


def test_evidence_is_verbatim_or_not():
    found = row(texts=FLEAS, evidence=["A flea lives  100 days. It", "Dogs meow.", "N/A"])
    assert verbatim.MEASURE.values(found) == [1, 0, None]


def test_claims_agree_with_the_ranking_or_not():
    said = ["It is better than [2].", "It is better than [1].", "Less clear than [1], but more than [2].", "Fleas."]
    assert consistency.MEASURE.values(row(said)) == [1, 0, 0, None]


def test_claims_in_a_circle_contradict_each_other():
    circle = ["It is better than [2].", "It is better than [3].", "It is better than [1].", "It is worse than [1]."]
    assert transitivity.MEASURE.values(row(circle)) == [0, 0, 0, 1]
    assert transitivity.MEASURE.values(row([*circle[:2], "", ""])) == [1, 1, None, None]
    # Nobody else speaks of its passages.
    assert transitivity.MEASURE.values(row(["It is better than [2].", "", "", ""])) == [None] * 4
    assert transitivity.MEASURE.values(row(["It is worse than [1].", "It is worse than [1].", "", ""])) == [
        0,
        1,
        None,
        None,
    ]


def test_boilerplate_fits_another_passage_as_well():
    said = ["It says that fleas live 100 days.", "This passage does not answer.", "It tells that dogs bark."]
    found = row(texts=FLEAS, direct=said)
    assert boilerplate.MEASURE.values(found) == [0, 1, 1]
    # "says" is in no passage; "live", "100" and "days" are in the first, "day" in the third.
    assert specificity.MEASURE.values(found) == [2 / 4, 0, 0]
    assert boilerplate.MEASURE.values(row(texts=FLEAS)) == [None] * 3


def test_without_another_passage_there_is_nothing_to_fit():
    for said in ("Fleas live 100 days.", "Fleas."):
        found = row(texts=[FLEAS[0], FLEAS[0]], direct=[said] * 2)
        assert boilerplate.MEASURE.values(found) == specificity.MEASURE.values(found) == [None, None]
    # A reason of the query's words alone fits all passages.
    found = row(texts=FLEAS, direct=["Fleas.", "", ""])
    assert boilerplate.MEASURE.values(found) == [1, None, None]
    assert specificity.MEASURE.values(found) == [0, None, None]


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """True annotations of the demo's world, with the errors that are planted in them."""
    folder = tmp_path_factory.mktemp("truth")
    tables.write([true_annotation(query) for query in world().queries["dev"]], folder, "annotations")
    return plant(explained.read(str(folder), None), rate=0.5, seed=0)


@pytest.mark.parametrize("measure", [verbatim, consistency, transitivity])
def test_true_reasons_of_the_world_have_no_fault(truth, measure):
    values = [value for one in truth.rows for value in measure.MEASURE.values(one) if value is not None]
    assert values and set(values) == {1.0}


@pytest.mark.parametrize("measure", stage.MEASURES, ids=lambda measure: measure.name)
def test_each_measure_tells_true_reasons_of_the_world_from_wrong_ones(truth, measure):
    found = figures(measure, truth, seed=0)
    assert found["noticed"] and found["detected"] > found["false_alarms"] + 0.1
    worse = found["floor"] < found["value"] if measure.better == "higher" else found["floor"] > found["value"]
    assert worse
