"""comprehensiveness: how many places further a passage falls without its evidence than without random words.

The student ranks the query's first passages again, once without the evidence and once without as many random words of
the same passage. Higher is better; 0 means that the evidence decides no more than other words do. Source: DeYoung et
al., "ERASER: A Benchmark to Evaluate Rationalized NLP Models" (ACL 2020), here with places in the ranking in the place
of the model's probability, and random words as the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def values(probe: Mapping[str, Any]) -> list[float]:
    """Return the difference in places for each passage of a row of the table probes."""
    return [float(one - other) for one, other in zip(probe["without"], probe["without_random"], strict=True)]


def most(probe: Mapping[str, Any]) -> list[float]:
    """Return the largest possible values: each passage falls to the last place without its evidence."""
    return [float(probe["passages"] - other) for other in probe["without_random"]]


def least(probe: Mapping[str, Any]) -> list[float]:
    """Return the values of evidence that is worth no more than random words."""
    return [0.0]
