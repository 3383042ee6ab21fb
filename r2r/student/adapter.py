"""What `distill` trained, on disk: a LoRA adapter, a plain PEFT folder; or, with all weights trained, a plain model
folder. Find one, check it, and merge an adapter into its model.

Owns these files and the checks of `check.json`, the answers that `distill` recorded. Does not train or rank.

model, adapter = places("Qwen/Qwen2.5-7B-Instruct", "runs/demo/distill")
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r2r import builtin
from r2r.config import DistillSettings
from r2r.errors import BadInput
from r2r.llm.prompt import load_tokenizer
from r2r.places import Place, fetch, has, place

# The file in the folder that says how it was trained (see `record`).
RECORD = "r2r.json"
# Largest difference of log-probabilities that rounding may cause, by data type, for logits of about 16 to 32.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25}
# The same between two libraries.
_ROUNDING = {"float32": 0.01, "bfloat16": 0.25}


def kind(settings: DistillSettings) -> str:
    """Return what a training writes, which is also the name of its folder: "adapter" or "model"."""
    return "model" if settings.method == "full" else "adapter"


def is_adapter(folder: str | Place) -> bool:
    return has(place(folder), "adapter_config.json")


def find(adapter: str) -> Place:
    """Return the folder of what was trained: `adapter` itself, or `adapter/` or `model/` in a distill stage's folder.

    A model counts only with the record that `distill` writes into it. Raises BadInput if there is nothing.
    """
    for folder in (place(adapter), place(adapter) / "adapter", place(adapter) / "model"):
        if is_adapter(folder) or (has(folder, "config.json") and has(folder, RECORD)):
            return folder
    raise BadInput(f"{adapter}: no adapter_config.json in it; give a PEFT folder, or the folder that distill wrote")


def places(student: str, adapter: str | None, weights: bool = True) -> tuple[str, str | None]:
    """Return the model to load, and the PEFT folder to load onto it, or None; both on this disk.

    A student whose weights were all trained takes the place of the one that it was trained from. weights: as for
    `builtin.model`. Raises BadInput as `find`.
    """
    folder = find(adapter) if adapter else None
    if folder and not is_adapter(folder):
        return builtin.model(str(folder), "student", weights), None
    return builtin.model(student, "student", weights), str(fetch(folder)) if folder else None


def check_saved(folder: str | Path) -> None:
    """Raise RuntimeError unless all tensors of a saved adapter or model are finite, and some lora_B is not zero."""
    moved = not is_adapter(folder)
    for name, tensor in _tensors(folder):
        if tensor.numel() == 0 or not tensor.isfinite().all():
            raise RuntimeError(f"{folder}: {name} is empty or not finite")
        moved = moved or (".lora_B." in name and bool(tensor.any()))
    if not moved:
        raise RuntimeError(f"{folder}: lora_B is zero throughout: the adapter changes nothing")


def check_scores(folder: str | Path, check: str | Path, model: str, method: str = "lora") -> list[list[float]]:
    """Load what was trained. Raise RuntimeError if its log-probabilities differ from those in training.

    folder: a PEFT folder, which is loaded onto `model`, or a model's. check: a JSON file: {"dtype": ..., "prompts":
    [{"prompt": token ids, "labels": token ids, "logprobs": of each label as the next token}, ...]}. Returns, for each
    prompt, the log-probabilities of `model` as it was before the training. method: see `DistillSettings`.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    recorded = json.loads(Path(check).read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tolerance = _TOLERANCE[recorded["dtype"]]

    def load(name: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(
            name,
            dtype=recorded["dtype"],
            device_map=device if device == "cuda" else None,
            **quantized(method, recorded["dtype"]),
        ).eval()

    def logprobs(loaded: Any, probe: dict[str, Any]) -> list[float]:
        with torch.no_grad():
            logits = loaded(torch.tensor([probe["prompt"]], device=device), logits_to_keep=1).logits[0, -1]
        return logits.float().log_softmax(-1)[probe["labels"]].tolist()

    base = load(model)
    plain = [logprobs(base, probe) for probe in recorded["prompts"]]
    if is_adapter(folder):
        # By default, PEFT would load the adapter in float32 whatever it was trained in.
        loaded = PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False).eval()
    else:
        del base
        loaded = load(str(folder))
    for probe in recorded["prompts"]:
        apart = max(abs(a - b) for a, b in zip(logprobs(loaded, probe), probe["logprobs"], strict=True))
        # Written so that not-a-number fails.
        if not apart <= tolerance:
            raise RuntimeError(f"{folder}: not what was trained: log-probabilities of labels are {apart:.4f} apart")
    return plain


def quantized(method: str, dtype: str) -> dict[str, Any]:
    """Return the arguments with which a model is loaded in 4 bits for `method` qlora; none for the others.

    NF4 with double quantization, calculated in `dtype`: QLoRA, Dettmers et al. 2023, arXiv 2305.14314.
    """
    if method != "qlora":
        return {}
    from transformers import BitsAndBytesConfig

    bits = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
    return {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **bits)}


def check_method(method: str) -> None:
    """Raise BadInput for `qlora` where bitsandbytes, which holds weights in 4 bits, is not installed."""
    if method == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        raise BadInput(
            "method: qlora: needs the package bitsandbytes, which is not installed; install it, or take lora"
        )


def check_tracker(tracker: str | None) -> None:
    """Raise BadInput for a tracker whose package is not installed."""
    if tracker and importlib.util.find_spec(tracker) is None:
        raise BadInput(f"tracker: {tracker}: needs the package {tracker}, which is not installed; install it")


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
    for name, tensor in _tensors(folder):
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


def recorded(folder: Place) -> tuple[list[dict[str, Any]], float]:
    """Return the answers that `distill` recorded beside what it trained, [] if there are none: `prompt` and `labels`,
    as token ids; `logprobs`, of each label as the token after the prompt; and `base`, the same before the training. And
    by how much an engine's log-probabilities may differ from these by rounding alone."""
    file = folder.parent / "check.json"
    check = json.loads(file.read_text()) if file.exists() else {"prompts": []}
    return check["prompts"], _ROUNDING[check.get("dtype", "float32")]


def _tensors(folder: str | Path) -> Iterator[tuple[str, Any]]:
    """Yield the name and the tensor of each weight, one at a time: a model may have many files."""
    from safetensors import safe_open

    if is_adapter(folder):
        files = [Path(folder) / "adapter_model.safetensors"]
        if not files[0].exists():
            raise BadInput(f"{files[0]}: missing; a PEFT folder holds the adapter's weights there")
    else:
        files = sorted(Path(folder).glob("*.safetensors"))
        if not files:
            raise BadInput(f"{folder}: holds no .safetensors file; a model's weights are in them")
    for file in files:
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                yield name, tensors.get_tensor(name)
