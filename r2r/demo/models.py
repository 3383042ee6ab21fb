"""The demo's models as they ship: a teacher and a student's base of under two million parameters each.

Owns where they lie. Each is a folder like any other, which transformers and vLLM load as it is, with a card that says
what it was made from. What they learned, and how, is in `lessons.py` and `train.py`.

    demo_model("teacher")
"""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"


def demo_model(role: str) -> str:
    """Return the folder of the demo's "teacher" or "student"."""
    return str(WEIGHTS / role)
