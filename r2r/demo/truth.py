"""What a perfect annotator says: it knows the world, so its order and its reasons are true.

Owns the wording of reasons. Makes the training data of the demo's teacher and nothing else: it is no teacher itself.

    ideal(query, passages).order
"""

from __future__ import annotations

from typing import NamedTuple

from r2r.demo.world import Passage, Query, grade

# What is said of a neighbour in the order, by its grade.
NEIGHBOUR = {3: "tells it", 2: "hints at it", 1: "leaves it open", 0: "is about something else"}


class Ideal(NamedTuple):
    """`order` holds indices into the passages, best first; the three lists are aligned with the passages. Comparisons
    name passages by their numbers, from 1."""

    order: list[int]
    grades: list[int]
    direct: list[str]
    evidence: list[str]
    comparison: list[str]


def ideal(query: Query, passages: list[Passage], order: list[int] | None = None) -> Ideal:
    """Return the ideal annotation, or what is true of the passages in another `order`. Passages of one grade keep the
    order they came in."""
    grades = [grade(query, passage) for passage in passages]
    order = order or sorted(range(len(passages)), key=lambda at: -grades[at])
    comparison = [""] * len(passages)
    for rank, at in enumerate(order):
        # The one above; the first has none, and stands above the second.
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
    """Return the sentence that answers, in full or in part, word for word; "" where none does."""
    if grade(query, passage) < 2:
        return ""
    return (passage.told | passage.hinted)[query.attribute]


def direct(query: Query, passage: Passage) -> str:
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
