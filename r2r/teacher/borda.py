"""Several orders of the same passages: merged into one, and their agreement.

Owns the two formulas.

    borda([[2, 0, 1], [2, 1, 0]])  # [2, 0, 1]
"""

from __future__ import annotations

from itertools import combinations


def borda(orders: list[list[int]]) -> list[int]:
    """Return the items by the sum of their ranks over all orders, the smallest sum first. The first order breaks ties.

    Source: J.-C. de Borda, Mémoire sur les élections au scrutin, 1781.
    """
    ranks = [{item: rank for rank, item in enumerate(order)} for order in orders]
    return sorted(orders[0], key=lambda item: (sum(rank[item] for rank in ranks), ranks[0][item]))


def kendall_tau(first: list[int], second: list[int]) -> float:
    """Return (concordant - discordant) / all pairs of two orders of the same items, from -1 to 1; 1 for a single item.

    Source: M. G. Kendall, A New Measure of Rank Correlation, Biometrika 30, 1938.
    """
    place = {item: rank for rank, item in enumerate(second)}
    pairs = [place[one] < place[other] for one, other in combinations(first, 2)]
    return 2 * sum(pairs) / len(pairs) - 1 if pairs else 1.0
