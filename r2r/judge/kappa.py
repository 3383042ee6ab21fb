"""Cohen's kappa: how far two judgements of the same things agree beyond chance.

kappa([("right", "right"), ("wrong", "wrong"), ("right", "wrong")])    # 0.4
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Return (observed - expected) / (1 - expected) agreement; None if both always give one and the same judgement.

    Source: J. Cohen, "A Coefficient of Agreement for Nominal Scales", 1960.
    """
    if not pairs:
        return None
    firsts, seconds = (Counter(side) for side in zip(*pairs, strict=True))
    observed = sum(one == other for one, other in pairs) / len(pairs)
    expected = sum(firsts[name] * seconds[name] for name in firsts) / len(pairs) ** 2
    return (observed - expected) / (1 - expected) if expected < 1 else None
