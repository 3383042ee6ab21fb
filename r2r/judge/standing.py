"""What is known of each measure itself: whether it follows the truth of reasons, where that truth is known.

Owns the reading of `standing.json`, which `python -m demo_models.judged` writes: on the demo's world, where the truth
of every reason is known, the correlation of each measure's value with it.

    STANDING["verbatim"]["follows"]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from r2r.identity import digest

# measure -> correlation, with its 95 % interval (low, high), the number n of reasons, and whether it follows the truth.
STANDING: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("standing.json").read_text(encoding="utf-8"))


def follows(measure: str) -> bool | None:
    """Return whether a measure follows the truth; None where that is not known."""
    return STANDING[measure]["follows"] if measure in STANDING else None


def version() -> str:
    """Return what changes with the standing of any measure."""
    return digest(STANDING)[:12]
