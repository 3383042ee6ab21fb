"""simulatability: Kendall's tau between a ranking and the order that a model gives who sees its reasons only.

The model, any student, gets the direct reason and the comparison of each passage instead of the passage, shuffled.
From -1 to 1, higher is better. Floor: the same with nothing instead of the passages. Reasons from which nobody can
derive the order do not explain it. Source: Doshi-Velez and Kim, "Towards a Rigorous Science of Interpretable Machine
Learning" (2017), forward simulation; with a model instead of people as in Hase and Bansal, "Evaluating Explainable
AI" (ACL 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def values(probe: Mapping[str, Any]) -> list[float]:
    """Return the one value of a row of the table probes, none with less than two reasons."""
    return [] if probe["simulated"] is None else [float(probe["simulated"])]


def most(probe: Mapping[str, Any]) -> list[float]:
    """Return the largest possible value."""
    return [1.0]


def least(probe: Mapping[str, Any]) -> list[float]:
    """Return the value without reasons."""
    return [] if probe["unseen"] is None else [float(probe["unseen"])]
