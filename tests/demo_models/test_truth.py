"""The ideal annotation: its order follows the grades, and its reasons are true.

.venv/bin/python -m pytest tests/demo_models/test_truth.py
"""

from demo_models.truth import ideal
from demo_models.world import grade, world
from r2r.reasons import is_verbatim, named


def test_the_ideal_order_and_its_reasons_are_true():
    for query in world().queries["dev"]:
        passages = [passage for passage, _ in world().world.judged(query)]
        found = ideal(query, passages)
        assert [found.grades[at] for at in found.order] == sorted(found.grades, reverse=True)
        for rank, at in enumerate(found.order):
            assert found.grades[at] == grade(query, passages[at])
            assert bool(found.evidence[at]) == (found.grades[at] >= 2)
            assert not found.evidence[at] or is_verbatim(found.evidence[at], passages[at].shown)
            (neighbour,) = named(found.comparison[at])
            assert abs(found.order.index(neighbour - 1) - rank) == 1
