"""counterfactual: how often the order of two compared passages turns with their evidence, less with random words.

A comparison says that one passage stands above another; their evidence is what should decide it. The student ranks the
query's first passages again after the two have swapped their evidence, and after they have swapped random words. A
second passage without evidence gives random words in exchange. From -1 to 1, higher is better; 0 means that the
evidence decides no more than other words. Source: counterfactual tests of faithfulness, as in Atanasova et al.,
"Faithfulness Tests for Natural Language Explanations" (ACL 2023), with a swap instead of an insertion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def values(probe: Mapping[str, Any]) -> list[float]:
    """Return the difference for each pair of a row of the table probes."""
    return [float(one) - float(other) for one, other in zip(probe["turned"], probe["turned_random"], strict=True)]


def most(probe: Mapping[str, Any]) -> list[float]:
    """Return the largest possible values: each pair turns with its evidence."""
    return [1 - float(other) for other in probe["turned_random"]]


def least(probe: Mapping[str, Any]) -> list[float]:
    """Return the values of evidence that is worth no more than random words."""
    return [0.0]
