"""What a trained student was made from, and what was measured of it, as the manifests of its run say.

Owns the way from a folder's manifest to those of the stages before it and of the evaluations after it: by content, so
that figures and data are those of this very training. A run that was moved is read where it lies now.

    trained("runs/demo").manifest["counts"]
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from r2r.errors import BadInput
from r2r.identity import changed_files, fingerprint, manifest_of
from r2r.places import Place, place

# Folder of a run with a folder for each of its `evaluations`.
_EVALUATIONS = "evaluations"


class Made(NamedTuple):
    """A finished stage: its folder and its manifest."""

    folder: Place
    manifest: dict[str, Any]


class Measured(NamedTuple):
    """An evaluation: its folder, its qrels as the user wrote them, its metrics.json, and this student's rows in it.
    collection: its name among a run file's `evaluations`, "" for the run's own collection."""

    folder: Place
    collection: str
    qrels: str
    metrics: dict[str, Any]
    rows: list[str]


def trained(folder: str) -> Made:
    """Return the training in a run's or a distill stage's folder. Raises BadInput if it holds none that is finished."""
    for held in (place(folder), place(folder) / "distill"):
        found = manifest_of(held)
        if found and found["stage"] == "distill":
            if lost := changed_files(held, found):
                raise BadInput(f"{held / lost[0]}: is missing or was changed since it was trained; distill again")
            return Made(held, found)
    raise BadInput(f"{folder}: holds no finished training; give the folder of a run, or the one that distill wrote")


def before(made: Made) -> list[Made]:
    """Return the stages that the training was made from, those that can be found, the nearest first."""
    near = {content: one for one in _beside(made) for content in _contents(one.manifest)}
    found: list[Made] = []
    waiting = [made]
    for one in waiting:
        for put in one.manifest["inputs"].values():
            maker = near.get(put["fingerprint"]) or _at(put)
            if maker and maker not in waiting:
                waiting.append(maker)
                found.append(maker)
    return found


def sources(made: list[Made]) -> dict[str, str]:
    """Return the inputs of these stages that no stage wrote: name -> source as the user wrote it, the nearest first."""
    contents = {content for one in made for content in _contents(one.manifest)}
    found: dict[str, str] = {}
    for one in made:
        for name, put in one.manifest["inputs"].items():
            if put["fingerprint"] not in contents:
                found.setdefault(name, put["source"])
    return found


def evaluations(made: Made) -> list[Measured]:
    """Return the evaluations of a run that was ranked with what it trained: in the folders beside the training, and for
    each further collection of a run file in those under `evaluations`."""
    beside = [*_beside(made), *_beside(made, f"{_EVALUATIONS}/*/*")]
    ranked = {
        fingerprint(str(one.folder / "run.txt"))
        for one in beside
        if one.manifest["inputs"].get("adapter", {}).get("fingerprint") == made.manifest["content"]
        and (one.folder / "run.txt").exists()
    }
    found = []
    for one in beside:
        if one.manifest["stage"] == "evaluate":
            runs = {name: put for name, put in one.manifest["inputs"].items() if name.startswith("run ")}
            rows = [name.split(" ", 2)[2] for name, put in runs.items() if put["fingerprint"] in ranked]
            if rows:
                metrics = json.loads((one.folder / "metrics.json").read_text(encoding="utf-8"))
                home = one.folder.parent
                name = home.name if home.parent.name == _EVALUATIONS else ""
                found.append(Measured(one.folder, name, one.manifest["inputs"]["qrels"]["source"], metrics, rows))
    return found


def _beside(made: Made, folders: str = "*") -> Iterator[Made]:
    """Yield the finished stages in these folders of the training's run."""
    for file in sorted(made.folder.absolute().parent.glob(f"{folders}/manifest.json")):
        found = manifest_of(file.parent)
        if found and not changed_files(file.parent, found):
            yield Made(file.parent, found)


def _contents(manifest: Mapping[str, Any]) -> list[str]:
    """Return the fingerprints of what a stage wrote: its own, and that of the annotations that a judge kept."""
    return [manifest["content"], *([manifest["kept"]] if "kept" in manifest else [])]


def _at(put: Mapping[str, str]) -> Made | None:
    """Return the stage at an input's source, if what it wrote is still what was read."""
    held = place(put["source"])
    for folder in (held, held.parent):
        found = manifest_of(folder)
        if found and put["fingerprint"] in _contents(found) and not changed_files(folder, found):
            return Made(folder, found)
    return None
