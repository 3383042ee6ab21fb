"""The export stage: an adapter or a model as others load it, with a model card; uploaded to the hub only if asked to.

Owns the stage's folder: `model/`, whose files are those that are uploaded; or `dataset/`, a copy of annotations that
lie in the hub's layout already, with a card of their own. Does not own the model's card (card.py), what a run says of
itself (lineage.py), or talking to the hub (upload.py).

    export("runs/demo", "runs/demo/export", ExportSettings(license="apache-2.0"))
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from functools import partial

from r2r import builtin, tables
from r2r.config import ExportSettings
from r2r.errors import BadInput
from r2r.hub import card, lineage, upload
from r2r.identity import manifest_of, of_files
from r2r.places import Place, fetch, files, place, replacing_folder
from r2r.stage import Identity, Input, Result, Stage, There, run
from r2r.student import adapter as adapters
from r2r.student import record

_MODEL, _DATASET = "model", "dataset"
# What distill keeps in a model's folder beside the model itself is small, and goes with it; caches do not.
_LEFT_OUT = shutil.ignore_patterns("README.md", ".*", "__pycache__")


def stage(trained: str, out: str | Place, settings: ExportSettings) -> Stage:
    """Return the stage that exports what was trained. trained: the folder of a run, or of a distill stage; or that of a
    dataset, which has a card and Parquet files and is no stage's."""
    folder, dataset = place(out), _is_dataset(trained)

    def check(there: There) -> None:
        if dataset:
            _check_dataset(settings)
        else:
            _check_trained()
        if settings.push:
            upload.check_name(settings.push)
        if folder.is_dir() and any(folder.glob("*")) and not _is_ours(folder):
            raise BadInput(f"to: {out}: is no folder that export wrote, and not empty; give a new one")

    def _check_trained() -> None:
        made = lineage.trained(trained)
        if settings.merge and _kind(made.folder) == "model":
            raise BadInput(
                f"merge: {made.folder}: all weights were trained, there is no adapter to merge; leave it out"
            )

    def work(identity: Identity) -> Result:
        return _copy(place(trained), folder) if dataset else _work(trained, folder, settings)

    if dataset:
        tell = partial(_tell, folder, settings, "dataset")
        return Stage("export", folder, settings, {"dataset": Input(trained)}, check, work, [_DATASET], after=tell)
    inputs = {"trained": Input(trained, lambda folder: lineage.trained(folder).manifest["content"])}
    inputs |= {f"evaluation {at}": Input(str(one)) for at, one in enumerate(_measured(trained), start=1)}
    return Stage(
        "export", folder, settings, inputs, check, work, [_MODEL], after=partial(_tell, folder, settings, "model")
    )


def export(trained: str, out: str | Place, settings: ExportSettings) -> None:
    """Write the adapter or model and its card into `out/model`, a dataset into `out/dataset`; print the files. With
    settings.push, upload them.

    Arguments as for `stage`. The card's facts are those of the manifests: of the training, of the stages before it and
    of the evaluations of the same run, each found by its content. Raises BadInput if nothing was trained, if
    `out` holds something else, and for a hub that cannot be reached or refuses the upload.
    """
    run(stage(trained, out, settings))


def _measured(trained: str) -> Iterator[Place]:
    """Yield the folders of the evaluations of what was trained."""
    try:
        made = lineage.trained(trained)
    except BadInput:
        # check says it.
        return
    yield from (one.folder for one in lineage.evaluations(made))


def _is_ours(out: Place) -> bool:
    """Return whether a folder holds an export, or an attempt at one."""
    ours = {"manifest.json", _MODEL, f".{_MODEL}.tmp", _DATASET, f".{_DATASET}.tmp"}
    return {one.name for one in out.glob("*")} <= ours


def _is_dataset(folder: str) -> bool:
    held = place(folder)
    return (held / "README.md").exists() and not (held / "manifest.json").exists() and any(held.glob("*/*.parquet"))


def _check_dataset(settings: ExportSettings) -> None:
    for name in ("license", "base", "merge"):
        if getattr(settings, name):
            raise BadInput(f"{name}: belongs to a model; a dataset has a card of its own; leave {name} out")


def _copy(dataset: Place, out: Place) -> Result:
    with replacing_folder(out / _DATASET) as aside:
        shutil.copytree(fetch(dataset), aside, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
    return Result({"files": len(files(dataset))}, of_files(out / _DATASET), [_DATASET])


def _kind(distilled: Place) -> str:
    return "adapter" if adapters.is_adapter(adapters.find(str(distilled))) else "model"


def _work(trained: str, out: Place, settings: ExportSettings) -> Result:
    made = lineage.trained(trained)
    folder = fetch(adapters.find(str(made.folder)))
    kind = "merged" if settings.merge else _kind(made.folder)
    source = made.manifest["inputs"]["student"]["source"]
    base, on_hub = card.base_name(settings.base, source)
    if not on_hub:
        line = f"export: warning: the base model, {source}, has no name on the hub; give its name there in --base"
        print(line, file=sys.stderr, flush=True)
    stages = lineage.before(made)
    facts = card.Facts(
        kind=kind,
        base=base,
        license=settings.license,
        training=made,
        before=stages,
        sources=lineage.sources([made, *stages]),
        evaluations=lineage.evaluations(made),
        record=record.recorded(str(made.folder)),
        repository=settings.push or "OWNER/NAME",
    )
    with replacing_folder(out / _MODEL) as aside:
        if settings.merge:
            adapters.write_merged(str(folder), builtin.model(source, "student"), str(aside))
            shutil.copy(folder / adapters.RECORD, aside)
        else:
            shutil.copytree(folder, aside, ignore=_LEFT_OUT, dirs_exist_ok=True)
        if kind == "adapter":
            config = aside / "adapter_config.json"
            tables.write_text(card.rewritten(config, base), config)
        tables.write_text(card.text(facts), aside / "README.md")
    return Result({"evaluations": len(facts.evaluations)}, of_files(out / _MODEL), [_MODEL])


def _tell(out: Place, settings: ExportSettings, kind: str) -> None:
    """Print the files, and upload them if settings.push says so."""
    manifest = manifest_of(out)
    assert manifest is not None
    for name, size in manifest["files"].items():
        print(f"  {size:>13,} bytes  {name}")
    if settings.push:
        print(f"export: uploaded -> {upload.push(fetch(out / kind), settings.push, kind)}", flush=True)
    else:
        print("export: nothing was uploaded; --push OWNER/NAME uploads these files, and nothing else", flush=True)
