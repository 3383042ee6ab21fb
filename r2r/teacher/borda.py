"""Several orders of the same passages made one, and how far they agree.

Owns the two formulas. Does not own the asking.

    borda([[2, 0, 1], [2, 1, 0]])  # [2, 0, 1]
"""

from __future__ import annotations

from itertools import combinations


def borda(orders: list[list[int]]) -> list[int]:
    """Return the Borda order: by the sum of a passage's ranks over all orders, the smallest first (J.-C. de Borda,
    Mémoire sur les élections au scrutin, 1781). Where sums are equal, the first order decides."""
    ranks = [{item: rank for rank, item in enumerate(order)} for order in orders]
    return sorted(orders[0], key=lambda item: (sum(rank[item] for rank in ranks), ranks[0][item]))


def kendall_tau(first: list[int], second: list[int]) -> float:
    """Return (concordant - discordant) / all pairs of two orders of the same items, from -1 to 1 (M. G. Kendall, A New
    Measure of Rank Correlation, Biometrika 30, 1938). Orders of a single item agree: 1."""
    place = {item: rank for rank, item in enumerate(second)}
    pairs = [place[one] < place[other] for one, other in combinations(first, 2)]
    return 2 * sum(pairs) / len(pairs) - 1 if pairs else 1.0
