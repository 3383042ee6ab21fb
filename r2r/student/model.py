"""The student in training: the model, with an adapter or with all weights to train, the DeepSpeed engine around it, and
what it makes of a batch.

Does not own the training loop (train) or the files of a run (checkpoint, log).

    engine = start_engine(load_model(settings, "cpu"), settings, world=1)
    scores = score(engine, batch, labels)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from r2r import builtin
from r2r.config import DistillSettings
from r2r.student.adapter import quantized


def load_model(settings: DistillSettings, device: str) -> Any:
    """Return the student with a new adapter, a PEFT model; or, with `method` full, the student itself."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(settings.seed)
    model = AutoModelForCausalLM.from_pretrained(
        builtin.model(settings.student, "student"),
        dtype=dtype(settings),
        # Straight to the GPU: the copies of eight workers would fill a machine's memory.
        device_map=device if settings.gpus else None,
        **quantized(settings.method, dtype(settings)),
    )
    # As the files of what is trained name it: not where its copy lies on this machine.
    model.name_or_path = model.config._name_or_path = builtin.named(settings.student, "student")
    trained = model.train() if settings.method == "full" else _with_adapter(model, settings)
    if settings.checkpointing:
        # ZeRO-3 gathers weights for each pass. Only reentrant checkpointing works with that, and it needs inputs with
        # gradients.
        reentrant = settings.zero_stage == 3
        trained.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        if reentrant:
            trained.enable_input_require_grads()
    return trained


def _with_adapter(model: Any, settings: DistillSettings) -> Any:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if settings.method == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.lora_targets,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def dtype(settings: DistillSettings) -> str:
    """Return the data type that the model calculates in: "bfloat16" or "float32"."""
    if settings.dtype != "auto":
        return settings.dtype
    return "bfloat16" if settings.gpus else "float32"


def start_engine(model: Any, settings: DistillSettings, world: int) -> Any:
    """Return the DeepSpeed engine that trains the model on `world` workers."""
    import deepspeed

    # On a CPU, DeepSpeed would compile an operation that training never calls. A process killed during that leaves a
    # lock behind, and every later process waits for it forever.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

    config = {
        "train_micro_batch_size_per_gpu": settings.batch,
        "gradient_accumulation_steps": -(-settings.batches // world),
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": settings.zero_stage},
        "bf16": {"enabled": dtype(settings) == "bfloat16"},
        # torch_adam needs no compiled kernel of DeepSpeed's own.
        "optimizer": {"type": "AdamW", "params": {"lr": settings.learning_rate, "torch_adam": True}},
        "steps_per_print": 1_000_000_000,
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return deepspeed.initialize(model=model, model_parameters=trained, config=config)[0]


def predict(model: Any, batch: dict[str, torch.Tensor], which: str = "") -> torch.Tensor:
    """Return the logits [B, T, V] that predict the replies of a batch (see `examples.collate`).

    which: "asked_" for the queries after single passages.
    """
    return model(
        input_ids=batch[f"{which}input_ids"],
        attention_mask=batch[f"{which}attention_mask"],
        position_ids=batch[f"{which}position_ids"],
        logits_to_keep=batch[f"{which}targets"].shape[1],
        use_cache=False,
    ).logits


def score(
    model: Any, batch: dict[str, torch.Tensor], labels: torch.Tensor, logits: torch.Tensor | None = None
) -> torch.Tensor:
    """Return each passage's score [B, N]: by query likelihood if the batch holds what it needs, else by labels.

    labels: [20], the label tokens. logits: [B, T, V] of the windows, if they are there already.
    """
    if "asked_targets" in batch:
        return likelihoods(predict(model, batch, "asked_"), batch)
    return label_scores(predict(model, batch) if logits is None else logits, batch, labels)


def label_scores(logits: torch.Tensor, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Return each passage's score [B, N]: the logit of its label where the order begins.

    logits: [B, T, V]; labels: [20], the label tokens.
    """
    first = logits[torch.arange(len(logits), device=logits.device), batch["first"]]
    return first.gather(1, labels[batch["labels"]])


def likelihoods(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return each passage's score [B, N]: the log-probability of the query after it, in nats per token of the query; 0
    for no passage.

    The losses compare scores with ranks. Sums over the query would differ by several nats between passages, and
    training would first learn to doubt them. logits: [P, Q, V], which predict the query after each of P passages.
    """
    targets, ranks = batch["asked_targets"], batch["ranks"]
    lost = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="none")
    scores = lost.new_zeros(ranks.shape)
    scores[ranks >= 0] = -lost.view(targets.shape).sum(1) / (targets != -100).sum(1)
    return scores
