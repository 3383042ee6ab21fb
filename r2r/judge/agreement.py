"""agreement: Kendall's tau between two orders of the same passages, which the student saw in two shuffled orders.

From -1 to 1, higher is better; 0 is chance. It is about the ranking that the reasons explain: where the order depends
on how the passages were shown, no reason can be faithful to it. Source: M. G. Kendall, A New Measure of Rank
Correlation, Biometrika 30, 1938; shuffles as in Tang et al., "Found in the Middle: Permutation Self-Consistency
Improves Listwise Ranking in Large Language Models" (NAACL 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def values(probe: Mapping[str, Any]) -> list[float]:
    """Return the one value of a row of the table probes, which `probe.py` counted."""
    return [float(probe["agreement"])]


def most(probe: Mapping[str, Any]) -> list[float]:
    """Return the largest possible value."""
    return [1.0]


def least(probe: Mapping[str, Any]) -> list[float]:
    """Return the values of a random order."""
    return [0.0]
