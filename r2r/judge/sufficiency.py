"""sufficiency: how many places higher a passage stands with its evidence alone than with random words alone.

The student ranks the query's first passages again, once with the evidence instead of its passage, and once with as
many random words of the same passage. Higher is better; 0 means that the evidence is worth no more than other words.
Source: DeYoung et al., "ERASER: A Benchmark to Evaluate Rationalized NLP Models" (ACL 2020), where lower is better,
here with places in the ranking instead of the model's probability, and against random words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def values(probe: Mapping[str, Any]) -> list[float]:
    """Return the difference in places for each passage of a row of the table probes."""
    return [float(other - one) for one, other in zip(probe["only"], probe["only_random"], strict=True)]


def most(probe: Mapping[str, Any]) -> list[float]:
    """Return the largest possible values: each passage stands first with its evidence alone."""
    return [float(other - 1) for other in probe["only_random"]]


def least(probe: Mapping[str, Any]) -> list[float]:
    """Return the values of evidence that is worth no more than random words."""
    return [0.0]
