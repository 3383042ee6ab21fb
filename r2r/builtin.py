"""Names that stand for what ships with the package: collections and models.

Owns the table of these names. Does not own what they stand for.

    model("demo", "teacher")    # the folder of the demo's teacher
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

_HERE = Path(__file__).parent

# Name of a collection -> module with corpus, queries, qrels and fingerprint.
COLLECTIONS: dict[str, str] = {"demo": "r2r.demo.collection"}
# Name and role of a model -> its folder.
MODELS: dict[tuple[str, str], Path] = {
    ("demo", role): _HERE / "demo" / "weights" / role for role in ("teacher", "student")
}


def collection(name: str) -> ModuleType | None:
    """Return the module of a built-in collection; None for any other name."""
    return importlib.import_module(COLLECTIONS[name]) if name in COLLECTIONS else None


def model(name: str, role: str) -> str:
    """Return the folder of a built-in model; any other name unchanged. `role` is "teacher" or "student"."""
    return str(MODELS.get((name, role), name))
