"""The demo's world: it never changes, questions and answers share no content word, and the grades are right.

.venv/bin/python -m pytest tests/demo/test_world.py
"""

import re
from collections import Counter

import pytest

from demo_models.grammar import KINDS
from demo_models.world import SPLITS, World, names, world

# Function words, which a question and its answer may share.
_PLAIN = {"a", "an", "and", "at", "by", "does", "for", "from", "how", "in", "is", "it", "its", "of", "on", "one", "out"}
_PLAIN |= {"the", "to", "what", "where", "which", "who", "whose", "why", "with", "was", "had", "do", "e", "v", "as"}


def words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text.lower())) - _PLAIN


def test_made_twice_it_is_the_same():
    again = World(names()[:650], 2410)
    assert [one.shown for one in again.passages] == [one.shown for one in world().world.passages]
    assert len(names()) == len(set(names())) > 3000


def test_no_entity_is_asked_about_in_two_splits():
    asked = [{query.entity.name for query in world().queries[split]} for split in SPLITS]
    assert sum(map(len, asked)) == len(set().union(*asked)) == 650
    assert [len(world().queries[split]) for split in SPLITS] == [2000, 100, 200]


def test_questions_share_no_content_word_with_their_answers():
    for kind in KINDS:
        for attribute in kind.attributes:
            asks = set().union(*map(words, attribute.asks))
            answers = set().union(*map(words, (*attribute.tells, *attribute.hints, *attribute.values)))
            assert not asks & answers, attribute.topic


def test_an_answer_is_told_once_and_grades_are_what_passages_say():
    for query in (one for split in SPLITS for one in world().queries[split]):
        judged = world().world.judged(query)
        grades = Counter(value for _, value in judged)
        assert grades[3] == 1 and grades[2] <= 1 and grades[3] + grades[2] + grades[1] == 4
        for passage, value in judged:
            assert (passage.subject == query.entity) == (value > 0)
            value_told = query.entity.values[query.attribute]
            if value == 3:
                assert value_told.lower() in passage.text.lower()


@pytest.mark.parametrize("split", SPLITS)
def test_others_repeat_questions_without_an_answer(split):
    queries = world().queries[split]
    fooling = sum(
        any(value < 3 and query.text in passage.text for passage, value in world().world.judged(query))
        for query in queries
    )
    assert fooling > 0.05 * len(queries)
