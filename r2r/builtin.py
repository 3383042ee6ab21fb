"""Names that stand for what ships with the package: collections and models.

Owns the table of these names. Does not own what they stand for.

    model("demo", "teacher")    # the folder of the demo's teacher
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent

# Name of a collection -> its folder, in BEIR's layout.
COLLECTIONS: dict[str, Path] = {"demo": _HERE / "demo" / "world"}
# Name and role of a model -> its folder.
MODELS: dict[tuple[str, str], Path] = {
    ("demo", role): _HERE / "demo" / "weights" / role for role in ("teacher", "student")
}


def model(name: str, role: str) -> str:
    """Return the folder of a built-in model; any other name unchanged. `role` is "teacher" or "student"."""
    return str(MODELS.get((name, role), name))
