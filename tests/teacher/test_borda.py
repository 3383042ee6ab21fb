from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2r.teacher.borda import borda, kendall_tau


@pytest.mark.parametrize(
    ("orders", "merged"),
    [
        ([[2, 0, 1]], [2, 0, 1]),
        ([[2, 0, 1], [2, 1, 0]], [2, 0, 1]),
        ([[0, 1, 2], [1, 2, 0], [1, 0, 2]], [1, 0, 2]),
        # All sums are equal: the first decides.
        ([[0, 1], [1, 0]], [0, 1]),
        ([[1, 0], [0, 1]], [1, 0]),
    ],
)
def test_borda(orders, merged):
    assert borda(orders) == merged


def test_kendall_tau_as_scipy_has_it():
    from scipy.stats import kendalltau

    for order in permutations(range(4)):
        ranks = [order.index(item) for item in range(4)]
        assert kendall_tau(list(order), [0, 1, 2, 3]) == pytest.approx(kendalltau(ranks, range(4)).statistic)
    assert kendall_tau([0], [0]) == 1


@given(st.lists(st.permutations(range(6)), min_size=1, max_size=5))
def test_a_merged_order_holds_every_passage_once_and_agrees_with_orders_that_agree(orders):
    assert sorted(borda(orders)) == list(range(6))
    assert borda([orders[0]] * 3) == orders[0]
    # No order by positions alone is better than Borda's on the sum of the ranks' squared distances.
    mean = [sum(order.index(item) for order in orders) for item in range(6)]
    assert [mean[item] for item in borda(orders)] == sorted(mean)
