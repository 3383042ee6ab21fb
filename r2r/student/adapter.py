"""LoRA adapters on disk: plain PEFT folders, found, checked after saving, and checked against the model they are for.

check_fits(find("runs/demo/distill"), "Qwen/Qwen2.5-7B-Instruct")
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from r2r.errors import BadInput
from r2r.llm.prompt import load_tokenizer

# How far apart a label's log-probabilities may be, with logits of the size of 16 to 32 in each kind of number.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25}


def find(adapter: str) -> str:
    """Return the PEFT folder that `adapter` names: itself, or `adapter/` in a distill stage's folder."""
    for folder in (Path(adapter), Path(adapter) / "adapter"):
        if (folder / "adapter_config.json").exists():
            return str(folder)
    raise BadInput(f"{adapter}: no adapter_config.json in it; give a PEFT folder, or the folder that distill wrote")


def check_saved(folder: str | Path) -> None:
    """Raise RuntimeError unless every tensor of a saved adapter holds numbers and training has moved lora_B."""
    tensors = _tensors(folder)
    if not tensors:
        raise RuntimeError(f"{folder}: the saved adapter holds no tensor")
    for name, tensor in tensors.items():
        if tensor.numel() == 0 or not tensor.isfinite().all():
            raise RuntimeError(f"{folder}: {name} is empty or not finite")
    if not any(tensor.any() for name, tensor in tensors.items() if ".lora_B." in name):
        raise RuntimeError(f"{folder}: lora_B is zero throughout: the adapter changes nothing")


def check_scores(folder: str | Path, check: str | Path, model: str) -> list[list[float]]:
    """Raise RuntimeError unless model and adapter, as PEFT loads them, make of the prompts in `check` what was trained.
    Return what the model makes of them without its adapter.

    check: a JSON file that distill wrote: {"dtype": ..., "prompts": [{"prompt": token ids, "labels": token ids,
    "logprobs": of the labels as the next token}, ...]}.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    wanted = json.loads(Path(check).read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = AutoModelForCausalLM.from_pretrained(
        model, dtype=wanted["dtype"], device_map=device if device == "cuda" else None
    )
    # In the numbers that were trained with; PEFT would take more precise ones.
    loaded = PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False).eval()
    most = _TOLERANCE[wanted["dtype"]]

    def scores(one: dict) -> list[float]:
        with torch.no_grad():
            logits = loaded(torch.tensor([one["prompt"]], device=device), logits_to_keep=1).logits[0, -1]
        return logits.float().log_softmax(-1)[one["labels"]].tolist()

    for one in wanted["prompts"]:
        found = scores(one)
        apart = max(abs(a - b) for a, b in zip(found, one["logprobs"], strict=True))
        if not apart <= most:
            raise RuntimeError(
                f"{folder}: not the adapter that was trained: log-probabilities of labels are {apart:.4f} apart"
            )
    with loaded.disable_adapter():
        return [scores(one) for one in wanted["prompts"]]


def check_fits(folder: str, model: str) -> None:
    """Raise BadInput unless each of the adapter's layers is one of the model's, of the same shape.

    Reads the model's configuration only, not its weights.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        layers = dict(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model)).named_modules())
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
        found, expected = (tensor.shape[1], weight.shape[1]) if side == "A" else (tensor.shape[0], weight.shape[0])
        if found != expected:
            raise BadInput(
                f"{folder}: made for another model ({made_for}): its {layer} is {found} wide, {model} has {expected}; "
                f"give the student that it was distilled into"
            )


def write_merged(folder: str, model: str, out: str) -> None:
    """Write the model with the adapter added to its weights, and its tokenizer, into the folder `out`."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False).merge_and_unload().save_pretrained(out)
    load_tokenizer(model).save_pretrained(out)


def distilled(adapter: str) -> dict:
    """Return the settings that an adapter was distilled with, {} where it came from elsewhere."""
    manifest = Path(adapter) / "manifest.json"
    return json.loads(manifest.read_text())["settings"] if manifest.exists() else {}


def recorded(folder: str) -> list[dict]:
    """Return what `distill` found an adapter to answer, [] where it came from elsewhere: for each `prompt`, token ids,
    the `logprobs` of the tokens `labels` as the next one, and those of the `base` model."""
    file = Path(folder).parent / "check.json"
    return json.loads(file.read_text())["prompts"] if file.exists() else []


def _tensors(folder: str | Path) -> dict:
    from safetensors.torch import load_file

    file = Path(folder) / "adapter_model.safetensors"
    if not file.exists():
        raise BadInput(f"{file}: missing; a PEFT folder holds the adapter's weights there")
    return load_file(file)
