"""LoRA adapters on disk, as plain PEFT folders: find one, check it, and merge it into its model.

Owns these files and the checks of `check.json`, the answers that `distill` recorded. Does not train or rank.

check_fits(find("runs/demo/distill"), "Qwen/Qwen2.5-7B-Instruct")
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from r2r.errors import BadInput
from r2r.llm.prompt import load_tokenizer

# Largest difference of log-probabilities that rounding may cause, by data type, for logits of about 16 to 32.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25}


def find(adapter: str) -> str:
    """Return the PEFT folder: `adapter` itself, or `adapter/` in a distill stage's folder. Else raises BadInput."""
    for folder in (Path(adapter), Path(adapter) / "adapter"):
        if (folder / "adapter_config.json").exists():
            return str(folder)
    raise BadInput(f"{adapter}: no adapter_config.json in it; give a PEFT folder, or the folder that distill wrote")


def check_saved(folder: str | Path) -> None:
    """Raise RuntimeError unless all tensors of a saved adapter are finite, and some lora_B is not zero."""
    tensors = _tensors(folder)
    if not tensors:
        raise RuntimeError(f"{folder}: the saved adapter holds no tensor")
    for name, tensor in tensors.items():
        if tensor.numel() == 0 or not tensor.isfinite().all():
            raise RuntimeError(f"{folder}: {name} is empty or not finite")
    if not any(tensor.any() for name, tensor in tensors.items() if ".lora_B." in name):
        raise RuntimeError(f"{folder}: lora_B is zero throughout: the adapter changes nothing")


def check_scores(folder: str | Path, check: str | Path, model: str) -> list[list[float]]:
    """Load model and adapter with PEFT. Raise RuntimeError if their log-probabilities differ from those in training.

    check: a JSON file: {"dtype": ..., "prompts": [{"prompt": token ids, "labels": token ids, "logprobs": of each label
    as the next token}, ...]}. Returns, for each prompt, the log-probabilities of the model without its adapter.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    recorded = json.loads(Path(check).read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = AutoModelForCausalLM.from_pretrained(
        model, dtype=recorded["dtype"], device_map=device if device == "cuda" else None
    )
    # By default, PEFT would load the adapter in float32 whatever it was trained in.
    loaded = PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False).eval()
    tolerance = _TOLERANCE[recorded["dtype"]]

    def logprobs(probe: dict[str, Any]) -> list[float]:
        with torch.no_grad():
            logits = loaded(torch.tensor([probe["prompt"]], device=device), logits_to_keep=1).logits[0, -1]
        return logits.float().log_softmax(-1)[probe["labels"]].tolist()

    for probe in recorded["prompts"]:
        apart = max(abs(a - b) for a, b in zip(logprobs(probe), probe["logprobs"], strict=True))
        # Written so that not-a-number fails.
        if not apart <= tolerance:
            raise RuntimeError(
                f"{folder}: not the adapter that was trained: log-probabilities of labels are {apart:.4f} apart"
            )
    with loaded.disable_adapter():
        return [logprobs(probe) for probe in recorded["prompts"]]


def check_targets(targets: list[str], model: str, student: str) -> None:
    """Raise BadInput for a target that is no linear layer of the model. PEFT skips it silently if others exist."""
    import torch

    linear = {name.rpartition(".")[2] for name, one in _layers(model).items() if isinstance(one, torch.nn.Linear)}
    for name in targets:
        if name not in linear:
            raise BadInput(f"lora_targets: {name}: no such layer in {student}; it has {', '.join(sorted(linear))}")


def _layers(model: str) -> dict[str, Any]:
    """Return the model's layers by name, without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return dict(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model)).named_modules())


def check_fits(folder: str, model: str) -> None:
    """Raise BadInput unless the model has each layer of the adapter, with the same shape.

    Reads the model's configuration, not its weights.
    """
    layers = _layers(model)
    config = json.loads((Path(folder) / "adapter_config.json").read_text())
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("modules_to_save"):
        raise BadInput(f"{folder}: no plain LoRA adapter, and vLLM serves no other; merge it into its model instead")
    made_for = config.get("base_model_name_or_path")
    for name, tensor in _tensors(folder).items():
        layer, _, side = re.sub(r"^base_model\.model\.", "", name).removesuffix(".weight").rpartition(".lora_")
        if side not in ("A", "B"):
            continue
        weight = getattr(layers.get(layer), "weight", None)
        if weight is None:
            raise BadInput(f"{folder}: made for another model ({made_for}): {model} has no layer {layer}")
        width, expected = (tensor.shape[1], weight.shape[1]) if side == "A" else (tensor.shape[0], weight.shape[0])
        if width != expected:
            raise BadInput(
                f"{folder}: made for another model ({made_for}): its {layer} is {width} wide, {model} has {expected}; "
                f"give the student that it was distilled into"
            )


def write_merged(folder: str, model: str, out: str) -> None:
    """Write the model with the adapter added to its weights, and its tokenizer, into the folder `out`."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False).merge_and_unload().save_pretrained(out)
    load_tokenizer(model).save_pretrained(out)


def recorded(folder: str) -> list[dict[str, Any]]:
    """Return the answers that `distill` recorded with an adapter, [] if it did not make it: `prompt` and `labels`, as
    token ids; `logprobs`, of each label as the token after the prompt; and `base`, the same without the adapter."""
    file = Path(folder).parent / "check.json"
    return json.loads(file.read_text())["prompts"] if file.exists() else []


def _tensors(folder: str | Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    file = Path(folder) / "adapter_model.safetensors"
    if not file.exists():
        raise BadInput(f"{file}: missing; a PEFT folder holds the adapter's weights there")
    return load_file(file)
