"""What is kept of a training run: checkpoints to go on from, and the best adapter so far.

Owns the files, and the way from DeepSpeed's partitions of weights and moments to whole tensors and back, so that a run
may go on with another number of workers. Does not know when to save, nor what is best.

In a run's folder, `step-000050/` holds the weights and the optimizer's moments in `state.safetensors`, and what else is
known in `state.json`; `best-000050/` holds `adapter/`, a plain PEFT folder, and `check.json`. Each is written aside and
renamed, so that a folder of such a name is whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MOMENTS = ("exp_avg", "exp_avg_sq")


def newest(folder: Path) -> int:
    """Return the step of the last checkpoint, 0 where there is none."""
    return max((int(found.name[5:]) for found in folder.glob("step-*")), default=0)


def step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06}"


def best_folder(folder: Path, step: int) -> Path:
    return folder / f"best-{step:06}"


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield a folder to write to, which takes the place of `folder` once the block ends without an error."""
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)


def keep(folder: Path, step: int, best: int) -> None:
    """Remove all checkpoints but the one of `step`, and all adapters but the best."""
    for found in [*folder.glob("step-*"), *folder.glob("best-*"), *folder.glob(".*.tmp")]:
        if found not in (step_folder(folder, step), best_folder(folder, best)):
            shutil.rmtree(found, ignore_errors=True)


def save(engine, folder: Path, state: dict) -> None:
    """Write a checkpoint; every worker calls it, and the first one writes. `state` is what `load_state` returns."""
    import torch
    from safetensors.torch import save_file

    tensors = {
        f"{kind}/{name}": tensor for kind in ("weight", *_MOMENTS) for name, tensor in _whole(engine, kind).items()
    }
    # Not always the number of steps: one of DeepSpeed's optimizers takes a first one by itself.
    tensors["step"] = next(iter(_inner(engine).state.values()))["step"].clone()
    if torch.distributed.get_rank() == 0:
        with replacing(folder) as aside:
            save_file(tensors, aside / "state.safetensors")
            (aside / "state.json").write_text(json.dumps(state))


def load_state(folder: Path) -> dict:
    return json.loads((folder / "state.json").read_text())


def load_weights(model, folder: Path) -> None:
    """Put a checkpoint's weights into a model, before it is DeepSpeed's."""
    tensors = _read(folder, "weight")
    for name, parameter in _trained(model).items():
        parameter.data.copy_(tensors[name])


def load_optimizer(engine, folder: Path) -> None:
    """Put a checkpoint's moments, and its weights in full precision, into the optimizer of a new engine."""
    import torch

    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    if stage == 3:
        flat = optimizer.fp32_partitioned_groups_flat
    elif stage:
        flat = optimizer.single_partition_of_fp32_groups
    else:
        flat = _masters(engine).values()
    # The optimizer makes its moments in its first step.
    (taken,) = _read(folder, "step").values()
    for weights in flat:
        moments = {name: torch.zeros_like(weights, dtype=torch.float32) for name in _MOMENTS}
        _inner(engine).state[weights] = {"step": taken.clone(), **moments}
    if stage in (1, 2):
        optimizer._lazy_init_hp_params_optimizer_state()
    for kind in ("weight", *_MOMENTS):
        tensors = _read(folder, kind)
        for name, parameter in _trained(engine.module).items():
            _put(engine, parameter, kind, tensors[name].to(engine.device))


def save_adapter(engine, folder: Path) -> None:
    """Write the adapter as a PEFT folder; every worker calls it, and the first one writes."""
    import torch

    tensors = _whole(engine, "weight")
    if torch.distributed.get_rank() == 0:
        # Left to itself, PEFT writes what ZeRO-3 leaves of a parameter: nothing.
        engine.module.save_pretrained(folder, state_dict=tensors, save_embedding_layers=False)


def _read(folder: Path, kind: str) -> dict:
    from safetensors import safe_open

    with safe_open(folder / "state.safetensors", "pt") as tensors:
        return {
            name.removeprefix(f"{kind}/"): tensors.get_tensor(name)
            for name in tensors.keys()  # noqa: SIM118 - not a dict
            if name.partition("/")[0] == kind
        }


def _trained(model) -> dict:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _whole(engine, kind: str) -> dict:
    """Return the trained weights, or one of their moments, as whole float32 tensors by name; every worker calls it."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    def one(parameter):
        if not engine.zero_optimization_stage():
            master = _masters(engine)[parameter]
            return master if kind == "weight" else _inner(engine).state[master][kind]
        if kind == "weight":
            return safe_get_full_fp32_param(parameter)
        return safe_get_full_optimizer_state(parameter, kind)

    return {name: one(parameter).detach().float().cpu().clone() for name, parameter in _trained(engine.module).items()}


def _put(engine, parameter, kind: str, value) -> None:
    """Put a whole tensor where `_whole` reads it, each worker the part that it holds."""
    import torch
    from deepspeed.utils import (
        safe_get_local_fp32_param,
        safe_set_full_fp32_param,
        safe_set_full_optimizer_state,
        safe_set_local_fp32_param,
        safe_set_local_optimizer_state,
    )

    stage = engine.zero_optimization_stage()
    if not stage:
        master = _masters(engine)[parameter]
        (master.data if kind == "weight" else _inner(engine).state[master][kind]).copy_(value)
        return
    if stage == 3:
        # DeepSpeed's own way to set the whole fails where the workers' parts are not of one size.
        size = safe_get_local_fp32_param(parameter).numel()
        whole = torch.nn.functional.pad(value.flatten(), (0, size * torch.distributed.get_world_size() - value.numel()))
        value = whole.narrow(0, size * torch.distributed.get_rank(), size)
    if kind == "weight":
        (safe_set_local_fp32_param if stage == 3 else safe_set_full_fp32_param)(parameter, value)
    else:
        (safe_set_local_optimizer_state if stage == 3 else safe_set_full_optimizer_state)(parameter, value, kind)


def _inner(engine):
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def _masters(engine) -> dict:
    """Return the weights that the optimizer of ZeRO stage 0 changes, by those that the model calculates with."""
    optimizer = engine.optimizer
    if not hasattr(optimizer, "fp32_groups"):
        return {parameter: parameter for parameter in _trained(engine.module).values()}
    pairs = zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
    return {low: high for lows, highs in pairs for low, high in zip(lows, highs, strict=True)}
