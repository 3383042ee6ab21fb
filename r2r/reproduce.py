"""Do a finished stage again, from its manifest, and compare.

Owns what differs between a manifest and here: versions, inputs, settings; and the way from a manifest to the stage that
wrote it. Does not own the stages.

    reproduce("runs/demo/evaluate/manifest.json", "runs/again/evaluate")
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from r2r import config, stage
from r2r.datasets.runs import RunSpec
from r2r.errors import BadInput, Stopped
from r2r.identity import manifest_of
from r2r.places import Place, is_store, place
from r2r.stage import Stage

SETTINGS: dict[str, type[config.Section]] = {
    "index": config.IndexSettings,
    "retrieve": config.RetrieveSettings,
    "queries": config.QueriesSettings,
    "annotate": config.AnnotateSettings,
    "distill": config.DistillSettings,
    "rerank": config.RerankSettings,
    "evaluate": config.EvaluateSettings,
    "judge": config.JudgeSettings,
    "export": config.ExportSettings,
}


def reproduce(manifest: str, out: str | Place) -> None:
    """Do a stage again into the folder `out`, and print what differs here and whether the output is the same.

    manifest: a stage's manifest.json, or its folder. Inputs are read where the manifest says, or else beside the
    stage's folder, since runs are moved. Raises BadInput for a manifest that cannot be read and inputs that are gone,
    and Stopped if the new output is another one.
    """
    folder = place(manifest).parent if place(manifest).name == "manifest.json" else place(manifest)
    then = manifest_of(folder)
    if then is None or then.get("stage") not in SETTINGS:
        raise BadInput(
            f"{manifest}: is no manifest of a finished stage; give a manifest.json, or the folder it lies in"
        )
    if place(out).absolute() == folder.absolute():
        raise BadInput(f"out: {out}: holds the work that is to be reproduced; give a new folder")
    again = stage_of(then, folder, out)
    stage.plan([again])
    for line in differences(then, again):
        print(f"reproduce: {line}", flush=True)
    stage.run(again)
    now = manifest_of(place(out))
    assert now is not None
    if now["content"] != then["content"]:
        raise Stopped(
            f"reproduce: {then['stage']}: another output, {now['content']}; recorded was {then['content']} ({folder})"
        )
    print(f"reproduce: {then['stage']}: the same output, {now['content']}", flush=True)


def differences(then: dict[str, Any], again: Stage) -> Iterator[str]:
    """Yield a line on each kind of difference between a manifest and the stage as it would run here."""
    old, new = then["versions"], stage.versions()
    changed = [
        f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}"
        for name in sorted(old | new)
        if name in old and old[name] != new.get(name)
    ]
    yield f"versions: {', '.join(changed) or 'the same'}"
    identity = stage.identify(again)
    other = [
        f"{name}: other content, {again.inputs[name].source}"
        for name, put in then["inputs"].items()
        if identity.inputs.get(name) != put["fingerprint"]
    ]
    yield f"inputs: {', '.join(other) or 'the same'}"
    what = [
        f"{name} {then['what'].get(name, 'default')} -> {identity.what.get(name, 'default')}"
        for name in sorted({*then["what"], *identity.what})
        if then["what"].get(name, "default") != identity.what.get(name, "default")
    ]
    yield f"settings: {', '.join(what) or 'the same'}"


def stage_of(then: dict[str, Any], folder: Place, out: str | Place) -> Stage:
    """Return the stage that a manifest in `folder` is of, to be run into `out`. Raises BadInput as `reproduce`."""
    from r2r import firststage
    from r2r.bm25 import index, retrieve
    from r2r.evaluation import evaluate
    from r2r.hub import export
    from r2r.judge import stage as judge
    from r2r.student import distill, rerank
    from r2r.teacher import annotate, queries

    name = then["stage"]
    put = {key: _here(one["source"], folder) for key, one in then["inputs"].items()}
    model = SETTINGS[name]
    # What is at its default is left out: a setting that was given may not fit others.
    given = {key: value for key, value in then["settings"].items() if not _is_default(model, key, value)}
    for key in given.keys() & put.keys():
        given[key] = put[key]
    settings: Any = config.validate(model, given, f"{folder / 'manifest.json'}: settings")
    runs = {key.split(" ", 2)[-1]: source for key, source in put.items() if key.startswith("run ")}
    against = {key.removeprefix("against "): source for key, source in put.items() if key.startswith("against ")}
    match name:
        case "index":
            return index.stage(put["corpus"], out, settings)
        case "retrieve" if runs:
            return firststage.stage(
                RunSpec(list(runs.values()), put["queries"], put.get("corpus"), put.get("index")), out, settings
            )
        case "retrieve":
            return retrieve.stage(put["index"], put["queries"], out, settings)
        case "queries":
            return queries.stage(put["corpus"], put.get("index"), out, settings)
        case "annotate":
            return annotate.stage(put.get("candidates"), out, settings, corpus=put.get("corpus"))
        case "distill":
            return distill.stage(put["annotations"], out, settings)
        case "rerank":
            return rerank.stage(put["candidates"], put["student"], put.get("adapter"), out, settings)
        case "evaluate":
            tables = (put.get("candidates"), put.get("rankings"), put.get("distill"))
            return evaluate.stage(put["qrels"], runs, out, settings, *tables)
        case "judge":
            models = (put.get("student"), put.get("adapter"))
            return judge.stage(put["rankings"], put.get("candidates"), out, settings, *models, against)
        case _:
            # It is not uploaded a second time.
            return replace(export.stage(put.get("trained") or put["dataset"], out, settings), after=lambda: None)


def _is_default(model: type[config.Section], name: str, value: Any) -> bool:
    field = model.model_fields.get(name)
    return field is not None and not field.is_required() and field.get_default(call_default_factory=True) == value


def _here(source: str, folder: Place) -> str:
    """Return where an input is now: as it was written, or at the same place in the run, where that was moved."""
    named = place(source)
    if (":" in source and not is_store(source)) or named.exists() or not named.name:
        return source
    # A stage of `evaluations/NAME` lies two folders deeper than the training that it reads.
    above = folder.absolute().parents[:3]
    moved = [one / name for one in above for name in (named.name, f"{named.parent.name}/{named.name}")]
    return next((str(one) for one in moved if one.exists()), source)
