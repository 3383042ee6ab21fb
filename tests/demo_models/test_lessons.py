"""The lessons: weights and marks fit the tokens, reasons are true, and nothing is from the world that ships.

.venv/bin/python -m pytest tests/demo_models/test_lessons.py
"""

import random
import re

import pytest

from demo_models.lessons import JUDGE_WORDS, PHASES, lesson, shown_list, student_example, teacher_example, unseen_world
from demo_models.truth import ideal
from demo_models.untrained import make_tokenizer
from demo_models.world import world
from r2r.teacher.parse import parse_reply

KINDS = sorted({kind for phases in PHASES.values() for phase in phases for kind in phase.shares})


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def test_no_lesson_is_about_an_entity_that_ships():
    shipped = {entity.name for entity in world().world.entities}
    assert not shipped & {entity.name for entity in unseen_world(1).entities}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_marks_fit_the_tokens(tokenizer, kind):
    rng = random.Random(1)
    for _ in range(20):
        one = lesson(tokenizer, kind, rng, unseen_world(1))
        assert len(one.ids) == len(one.weights) and one.weights[0] == 0
        assert any(one.weights) and all(0 <= place < len(one.ids) for _, place, _ in one.marks)


@pytest.mark.parametrize("kind", ["same", "spot", "judge", "judge short"])
def test_a_mark_is_the_next_judgement(tokenizer, kind):
    words = {tokenizer.encode(word)[0] for word in JUDGE_WORDS}
    rng = random.Random(2)
    for _ in range(20):
        one = lesson(tokenizer, kind, rng, unseen_world(1))
        said = [(place - 1, one.ids[place]) for place, weight in enumerate(one.weights) if weight]
        assert {token for _, token in said} <= words
        assert [(place, token) for layer, place, token in one.marks if layer == 5] == said


@pytest.mark.parametrize("kind", sorted({kind for phase in PHASES["student"] for kind in phase.shares}))
def test_the_base_never_sees_what_the_student_is_distilled_on(tokenizer, kind):
    query, passages = shown_list(random.Random(5), unseen_world(1), 3)
    message, reply = student_example(query, passages)
    asked, order = message.rpartition("\n\n")[2], re.compile(r"\b[A-T] > [A-T]\b")
    assert asked.startswith("Name the labels in the order") and order.search(reply)
    rng = random.Random(6)
    for _ in range(50):
        said = tokenizer.decode(lesson(tokenizer, kind, rng, unseen_world(1)).ids)
        assert "Name the labels" not in said and "label of a passage" not in said and not order.search(said)


@pytest.mark.parametrize("reasoning", ["none", "direct", "comparison", "both"])
def test_the_teachers_ideal_reply_is_sound(tokenizer, reasoning):
    rng = random.Random(3)
    for n in (3, 8):
        query, passages = shown_list(rng, unseen_world(1), n)
        _, reply = teacher_example(query, passages, reasoning)
        parsed = parse_reply(reply, n, reasoning)
        assert parsed.status == "ok"
        assert [number - 1 for number in parsed.order] == ideal(query, passages).order


def test_reasons_are_true_in_any_order():
    query, passages = shown_list(random.Random(7), unseen_world(1), 4)
    _, reply = teacher_example(query, passages, "both", [2, 0, 3, 1])
    parsed = parse_reply(reply, 4, "both")
    assert parsed.order == [3, 1, 4, 2]
    assert parsed.direct == ideal(query, passages).direct
    named = [re.search(r"(above|below) \[(\d)\]", comparison).groups() for comparison in parsed.comparison]
    assert named == [("below", "3"), ("below", "4"), ("above", "1"), ("below", "1")]


def test_questions_are_often_repeated_where_they_are_not_answered():
    rng, repeated = random.Random(8), 0
    for _ in range(200):
        query, passages = shown_list(rng, unseen_world(1), 8)
        asks = [ask.format(e=query.entity.name) for ask in query.entity.attribute(query.attribute).asks]
        repeated += any(ask in passage.text for ask in asks for passage in passages)
    assert 60 < repeated < 160


def test_a_list_of_passages_has_none_twice():
    rng = random.Random(4)
    for _ in range(100):
        query, passages = shown_list(rng, unseen_world(1), 8)
        assert len({passage.docid for passage in passages}) == len(passages) == 8
        assert any(passage.subject == query.entity for passage in passages)
