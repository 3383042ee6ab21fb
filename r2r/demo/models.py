"""The demo's models as they ship: a teacher and a student's base of under two million parameters each.

Owns their place. Each is a plain model folder that transformers and vLLM load, with a card that says how it was made.
`demo_models/` in the repository holds the code that trains them.

    demo_model("teacher")
"""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"


def demo_model(role: str) -> str:
    """Return the folder of the demo's model for a role, "teacher" or "student"."""
    return str(WEIGHTS / role)
