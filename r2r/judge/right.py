"""right: the share of comparisons that the judge finds right, rather than wrong or empty.

Higher is better. Source: our own question; a language model as judge, asked twice with the passages the other way
round, since its verdict may depend on places, as in Zheng et al., "Judging LLM-as-a-Judge with MT-Bench and Chatbot
Arena" (NeurIPS 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from r2r.judge import verdict
from r2r.judge.question import COMPARISON


def figures(verdicts: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """Return the entry in measures.json, from rows of the table verdicts."""
    return verdict.figures(verdicts, "comparison", COMPARISON, seed)
