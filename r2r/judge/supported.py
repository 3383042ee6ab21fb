"""supported: the share of direct reasons whose claims the judge all finds in the passage.

Higher is better. The judge splits a reason into claims; each is supported, contradicted or not in the passage, and the
worst decides. Source: claims first, then their support, as in Min et al., "FActScore: Fine-grained Atomic Evaluation of
Factual Precision in Long Form Text Generation" (EMNLP 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from r2r.judge import verdict
from r2r.judge.question import CLAIM


def figures(verdicts: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """Return the entry in measures.json, from rows of the table verdicts."""
    return verdict.figures(verdicts, "direct", CLAIM, seed)
