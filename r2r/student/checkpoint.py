"""The checkpoints of a training run, and the best of what it trained so far.

Owns the files. Turns DeepSpeed's partitions of weights and moments into whole tensors and back, so that a run can
resume with another number of workers. Does not know when to save, nor which step is best.

`step-000050/` holds the weights and the optimizer's moments in `state.safetensors`, and the `State` in `state.json`.
`best-000050/` holds `adapter/`, a plain PEFT folder, or `model/`, a plain model, and `check.json`. Each folder is put
in place when it is whole, so it is always complete.

    save(engine, step_folder(folder, 50), state)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict

from r2r.places import Place, fetch, has, remove, replacing_folder

_MOMENTS = ("exp_avg", "exp_avg_sq")


class State(TypedDict):
    """`step`: the step of the checkpoint, 0 before the first. `best`: step and held-out nDCG of the best, None
    before the first; the nDCG is None if nothing is held out. `before`: held-out nDCG before training, or None.
    `stopped`: whether the training has ended before its last step, and must not go on."""

    step: int
    best: list[Any] | None
    before: float | None
    stopped: bool


def newest(folder: Place, last: int = 0) -> int:
    """Return the step of the newest checkpoint, 0 if there is none. last: a step that is looked for by its name."""
    # A store's listing may be late.
    if last and _is_whole(step_folder(folder, last)):
        return last
    return max((int(path.name[5:]) for path in folder.glob("step-*") if _is_whole(path)), default=0)


def _is_whole(folder: Place) -> bool:
    return has(folder, "state.json")


def step_folder(folder: Place, step: int) -> Place:
    return folder / f"step-{step:06}"


def best_folder(folder: Place, step: int) -> Place:
    return folder / f"best-{step:06}"


def keep(folder: Place, step: int, best: int) -> None:
    """Remove all checkpoints but that of `step`, and all that was trained but that of step `best`."""
    for path in [*folder.glob("step-*"), *folder.glob("best-*"), *folder.glob(".*.tmp")]:
        if path not in (step_folder(folder, step), best_folder(folder, best)):
            remove(path)


def save(engine: Any, folder: Place, state: State) -> None:
    """Write a checkpoint. Every worker calls it, the first one writes."""
    import torch
    from safetensors.torch import save_file

    tensors = {
        f"{kind}/{name}": tensor for kind in ("weight", *_MOMENTS) for name, tensor in _whole(engine, kind).items()
    }
    # The optimizer's own count may differ from ours: one of DeepSpeed's optimizers takes a step when it starts.
    tensors["step"] = next(iter(_inner(engine).state.values()))["step"].clone()
    if torch.distributed.get_rank() == 0:
        with replacing_folder(folder) as aside:
            save_file(tensors, aside / "state.safetensors")
            (aside / "state.json").write_text(json.dumps(state))


def load_state(folder: Place) -> State:
    # Checkpoints of earlier releases do not say whether they stopped: they never did.
    return {"stopped": False} | json.loads((folder / "state.json").read_text())


def load_weights(model: Any, folder: Place) -> None:
    """Load a checkpoint's weights into a model, before DeepSpeed takes it over."""
    tensors = _read(folder, "weight")
    for name, parameter in _trained(model).items():
        parameter.data.copy_(tensors[name])


def load_optimizer(engine: Any, folder: Place) -> None:
    """Load a checkpoint's moments and float32 weights into the optimizer of a new engine."""
    import torch

    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    if stage == 3:
        flat = optimizer.fp32_partitioned_groups_flat
    elif stage:
        flat = optimizer.single_partition_of_fp32_groups
    else:
        flat = _masters(engine).values()
    # The optimizer would only make its moments in its first step.
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


def save_trained(engine: Any, folder: Path) -> None:
    """Write the adapter as a PEFT folder, or the model as a plain one. Every worker calls it, the first one writes."""
    import torch
    from peft import PeftModel

    model, tensors = engine.module, _whole(engine, "weight")
    if torch.distributed.get_rank():
        return
    # Without state_dict, the empty parameters would be written that ZeRO-3 leaves in the model.
    if isinstance(model, PeftModel):
        model.save_pretrained(folder, state_dict=tensors, save_embedding_layers=False)
        return
    weights = dict(model.named_parameters(remove_duplicate=False))
    buffers = {name: tensor for name, tensor in model.state_dict().items() if name not in weights}
    # In the number type that was calculated in. The optimizer's is float32.
    rounded = {name: tensor.to(weights[name].dtype) for name, tensor in tensors.items()}
    model.save_pretrained(folder, state_dict=buffers | rounded)


def _read(folder: Place, kind: str) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(fetch(folder) / "state.safetensors", "pt") as tensors:
        return {
            name.removeprefix(f"{kind}/"): tensors.get_tensor(name)
            for name in tensors.keys()  # noqa: SIM118 - not a dict
            if name.partition("/")[0] == kind
        }


def _trained(model: Any) -> dict[str, Any]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _whole(engine: Any, kind: str) -> dict[str, Any]:
    """Return the trained weights, or one of their moments, as whole float32 tensors by name. Every worker calls it."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    def read(parameter: Any) -> Any:
        if not engine.zero_optimization_stage():
            master = _masters(engine)[parameter]
            return master if kind == "weight" else _inner(engine).state[master][kind]
        if kind == "weight":
            return safe_get_full_fp32_param(parameter)
        return safe_get_full_optimizer_state(parameter, kind)

    return {name: read(parameter).detach().float().cpu().clone() for name, parameter in _trained(engine.module).items()}


def _put(engine: Any, parameter: Any, kind: str, value: Any) -> None:
    """Write a whole tensor to where `_whole` reads it; each worker writes its own part."""
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
        # DeepSpeed's function for whole tensors fails if the workers' parts differ in size.
        size = safe_get_local_fp32_param(parameter).numel()
        whole = torch.nn.functional.pad(value.flatten(), (0, size * torch.distributed.get_world_size() - value.numel()))
        value = whole.narrow(0, size * torch.distributed.get_rank(), size)
    if kind == "weight":
        (safe_set_local_fp32_param if stage == 3 else safe_set_full_fp32_param)(parameter, value)
    else:
        (safe_set_local_optimizer_state if stage == 3 else safe_set_full_optimizer_state)(parameter, value, kind)


def _inner(engine: Any) -> Any:
    """Return the torch optimizer inside DeepSpeed's."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def _masters(engine: Any) -> dict[Any, Any]:
    """Return the float32 weights that the optimizer of ZeRO stage 0 updates, by the model's own parameters."""
    optimizer = engine.optimizer
    if not hasattr(optimizer, "fp32_groups"):
        return {parameter: parameter for parameter in _trained(engine.module).values()}
    pairs = zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
    return {low: high for lows, highs in pairs for low, high in zip(lows, highs, strict=True)}
