"""Names that stand for what ships with the package: collections and models.

Owns the table of these names. Does not own what they stand for.

    model("demo", "teacher")    # the folder of the demo's teacher
"""

from __future__ import annotations

from pathlib import Path

from r2r.places import fetch, is_store, place

# How the names of files with weights end.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack")
_HERE = Path(__file__).parent

# Name of a collection -> its folder, in BEIR's layout.
COLLECTIONS: dict[str, Path] = {"demo": _HERE / "demo" / "world"}
# Name and role of a model -> its folder.
MODELS: dict[tuple[str, str], Path] = {
    ("demo", role): _HERE / "demo" / "weights" / role for role in ("teacher", "student")
}


def named(name: str, role: str) -> str:
    """Return the folder of a built-in model; any other name unchanged. `role` is "teacher" or "student"."""
    return str(MODELS.get((name, role), name))


def model(name: str, role: str, weights: bool = True) -> str:
    """Return what model libraries load: as `named`, and for a folder in a store its copy on this disk.

    Without `weights`, the copy may lack them: for those who look at its configuration or its tokenizer.
    """
    found = named(name, role)
    if not is_store(found):
        return found
    return str(fetch(place(found), leave=lambda file: not weights and file.endswith(_WEIGHTS)))
