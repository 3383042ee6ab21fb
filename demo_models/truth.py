"""The ideal annotation: it is made from the world's facts, so its order and its reasons are true.

Owns the wording of reasons. It is the training data of the demo's teacher, and no teacher itself.

    ideal(query, passages).order
"""

from __future__ import annotations

from typing import NamedTuple

from demo_models.world import Passage, Query, grade

# How a comparison describes a neighbour, by the neighbour's grade.
NEIGHBOUR = {3: "tells it", 2: "hints at it", 1: "leaves it open", 0: "is about something else"}


class Ideal(NamedTuple):
    """`order` holds indices into the passages, best first. The other lists are aligned with the passages. Comparisons
    name passages by number, from 1."""

    order: list[int]
    grades: list[int]
    direct: list[str]
    evidence: list[str]
    comparison: list[str]


def ideal(query: Query, passages: list[Passage], order: list[int] | None = None) -> Ideal:
    """Return the ideal annotation, or the one for another `order`, whose comparisons fit that order. Passages of one
    grade keep their order."""
    grades = [grade(query, passage) for passage in passages]
    order = order or sorted(range(len(passages)), key=lambda at: -grades[at])
    comparison = [""] * len(passages)
    for rank, at in enumerate(order):
        # The first passage has none above it, so its comparison names the second.
        neighbour = order[rank - 1] if rank else order[min(1, len(order) - 1)]
        word = "below" if rank else "above"
        comparison[at] = f"It stands {word} [{neighbour + 1}], which {NEIGHBOUR[grades[neighbour]]}."
    return Ideal(
        order,
        grades,
        [direct(query, passage) for passage in passages],
        [evidence(query, passage) for passage in passages],
        comparison,
    )


def evidence(query: Query, passage: Passage) -> str:
    """Return the sentence that answers in full or in part, word for word, or "" if none does."""
    if grade(query, passage) < 2:
        return ""
    return (passage.told | passage.hinted)[query.attribute]


def direct(query: Query, passage: Passage) -> str:
    """Return the reason for a passage's grade."""
    name = query.entity.name
    topic = query.entity.attribute(query.attribute).topic.format(e=name)
    found = grade(query, passage)
    if found == 3:
        return f"It tells {topic}: {query.entity.values[query.attribute]}."
    if found == 2:
        return f"It only hints at {topic}."
    if found == 1:
        return f"It is about the {name} but leaves open {topic}."
    return f"It is about the {passage.subject.name}, not the {name}."
