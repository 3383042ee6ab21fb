"""One worker of a training run: the model, its steps, and what is measured and kept on the way.

Owns the training loop, the same for one worker or many, on CPUs or GPUs, under DeepSpeed. Does not own how workers are
started (distill), which rows a step works on (batches), the formulas (losses, heldout), or the files of a checkpoint.

Every step comes out the same for any number of workers, and after any stop: its batches and the seed of their dropout
follow from the step's number, and its losses are means over all examples, or tokens, of the step.

    train(config)    # on every worker of a process group, as distill calls it
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from r2r import builtin, tables
from r2r.config import DistillSettings
from r2r.errors import BadInput
from r2r.llm.prompt import load_tokenizer
from r2r.student import batches, checkpoint
from r2r.student.prompt import label_ids

PARTS = ("pairwise", "listwise", "generation")
# Prompts whose label scores are written down beside an adapter, for whoever loads it to compare.
_CHECKED = 4
# Dense bfloat16 operations per second, by what a GPU calls itself.
_PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "4090": 165e12}


class Work(NamedTuple):
    """A batch of tensors (see `examples.collate`), its number in the run, and whether it counts or only fills up."""

    batch: dict
    number: int
    counts: bool


def train(config: dict) -> None:
    """Train, from the last checkpoint if there is one, to the end.

    config: `settings`, as a dict; `rows`, a function that returns the annotations; `out`, the stage's folder;
    `checkpoints`, the run's, with `plan.json` in it: which rows are learned from (`learn`), their `lengths`, and which
    are held out (`held`). Leaves a checkpoint of the last step, and the best adapter. Raises BadInput for layers that
    the student does not have.
    """
    settings = DistillSettings(**config["settings"])
    if not settings.gpus:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import torch

    from r2r.student.examples import collate, example, until_order

    accelerator = deepspeed.get_accelerator()
    accelerator.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    device = accelerator.current_device_name()
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()

    rows, folder = config["rows"](), Path(config["checkpoints"])
    plan = json.loads((folder / "plan.json").read_text())
    learn = plan["learn"]
    tokenizer = load_tokenizer(builtin.model(settings.student, "student"))
    labels = torch.tensor(label_ids(tokenizer, settings.student), device=device)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    # The first worker says where to go on, since others may see a shared folder as it was.
    start = torch.tensor(checkpoint.newest(folder) if rank == 0 else 0, device=device)
    torch.distributed.broadcast(start, 0)
    done = int(start)
    model = load_model(settings, device)
    if done:
        checkpoint.load_weights(model, checkpoint.step_folder(folder, done))
    flops = operations(model)
    engine = start_engine(model, settings, world)
    state = {"step": 0, "best": None, "before": None}
    if done:
        checkpoint.load_optimizer(engine, checkpoint.step_folder(folder, done))
        state = checkpoint.load_state(checkpoint.step_folder(folder, done))

    def prepared(step: int) -> list[Work]:
        found = []
        for batch, counts in batches.shares(batches.step_batches(plan["lengths"], settings, step), rank, world):
            examples = [example(tokenizer, rows[learn[row]], settings, seed) for row, seed in batch.drawn]
            found.append(Work(collate(examples, pad), batch.number, counts))
        return found

    held = [until_order(example(tokenizer, rows[row], settings, f"held out {row}")) for row in plan["held"]]
    checked = held[:_CHECKED] or [
        until_order(example(tokenizer, rows[row], settings, "check")) for row in learn[:_CHECKED]
    ]
    held = sorted((one for one in held if len(one.ranks) > 1), key=lambda one: len(one.prompt) + len(one.reply))
    groups = [held[place : place + settings.batch] for place in range(0, len(held), settings.batch)]

    def measured() -> float | None:
        return _measure(engine, batches.shares(groups, rank, world), labels, pad) if groups else None

    log = _Log(Path(config["out"]), done) if rank == 0 else None
    if not done:
        state["before"] = measured()
        if log:
            log.write_held_out(0, state["before"])
    with ThreadPoolExecutor(1) as ahead:
        next_work = ahead.submit(prepared, done)
        for step in range(done, settings.steps):
            begun = time.time()
            work, number, last = next_work.result(), step + 1, step + 1 == settings.steps
            if not last:
                next_work = ahead.submit(prepared, number)
            entry = {"step": number, **take_step(engine, work, labels, settings, step)}
            seconds = time.time() - begun
            entry["seconds"] = round(seconds, 3)
            if peak := _peak(settings):
                entry["mfu"] = flops(entry) / seconds / (peak * world)
            if number % settings.evaluate_every == 0 or last:
                found = measured()
                if found is not None:
                    entry["ndcg"] = found
                # Where nothing is held out, the last step is the best.
                best = state["best"]
                if last if found is None else best is None or found > best[1]:
                    state["best"] = [number, found]
                    _save_best(engine, checkpoint.best_folder(folder, number), checked, labels, settings)
            if log:
                log.write(entry)
            if number % settings.save_every == 0 or last:
                state["step"] = number
                checkpoint.save(engine, checkpoint.step_folder(folder, number), state)
                if rank == 0:
                    checkpoint.keep(folder, number, state["best"][0] if state["best"] else 0)
    if log:
        log.close()
    torch.distributed.barrier()


def load_model(settings: DistillSettings, device: str):
    """Return the student with a new adapter."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(settings.seed)
    model = AutoModelForCausalLM.from_pretrained(
        # Straight to the GPU: eight workers of a machine would fill its memory with a copy each.
        builtin.model(settings.student, "student"),
        dtype=dtype(settings),
        device_map=device if settings.gpus else None,
    )
    lora = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.lora_targets,
        task_type="CAUSAL_LM",
    )
    # PEFT passes over what it does not find, as long as it finds something.
    layers = {name.rpartition(".")[2] for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)}
    for name in settings.lora_targets:
        if name not in layers:
            raise BadInput(
                f"lora_targets: {name}: no such layer in {settings.student}; it has {', '.join(sorted(layers))}"
            )
    model = get_peft_model(model, lora)
    if settings.checkpointing:
        # Under ZeRO-3 only the older way knows that weights come and go between the two calculations; it needs inputs
        # with gradients.
        older = settings.zero_stage == 3
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": older})
        if older:
            model.enable_input_require_grads()
    return model


def dtype(settings: DistillSettings) -> str:
    if settings.dtype != "auto":
        return settings.dtype
    return "bfloat16" if settings.gpus else "float32"


def start_engine(model, settings: DistillSettings, world: int):
    """Return the model as DeepSpeed trains it, on so many workers."""
    import deepspeed

    # On a CPU, DeepSpeed would compile an operation that training never calls; a process that is killed meanwhile
    # leaves a lock behind, for which every later one waits without end.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

    config = {
        "train_micro_batch_size_per_gpu": settings.batch,
        "gradient_accumulation_steps": -(-settings.workers * settings.accumulate // world),
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": settings.zero_stage},
        "bf16": {"enabled": dtype(settings) == "bfloat16"},
        # torch_adam needs no compiled kernel of DeepSpeed's own.
        "optimizer": {"type": "AdamW", "params": {"lr": settings.learning_rate, "torch_adam": True}},
        "steps_per_print": 1_000_000_000,
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return deepspeed.initialize(model=model, model_parameters=trained, config=config)[0]


def learning_rate(settings: DistillSettings, step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    warm = round(settings.warmup * settings.steps)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    left = 1 - (step - warm) / (settings.steps - warm)
    share = {"none": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}[settings.decay]
    return settings.learning_rate * share


def take_step(engine, work: list[Work], labels, settings: DistillSettings, step: int) -> dict:
    """Take an optimizer step and return what it came to, over all workers: losses, counts, learning rate, norm."""
    import torch

    counts = _reduced([_counts(one.batch) for one in work if one.counts], 6, engine.device)
    examples, ordered, replies, tokens, squares, positions = (int(one) for one in counts)
    rate = learning_rate(settings, step)
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    # DeepSpeed takes the mean over workers and over the batches of each; the losses are shares of the step's means.
    scale = torch.distributed.get_world_size() * len(work)
    weights = (settings.pairwise, settings.listwise, settings.generation)
    sums = []
    for batch, number, counted in work:
        torch.manual_seed(settings.seed * 1_000_003 + number)
        batch = {name: tensor.to(engine.device) for name, tensor in batch.items()}
        parts = forward(engine, batch, labels, settings.tau, ordered, replies)
        loss = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        engine.backward(loss * (scale if counted else 0))
        if not engine.zero_optimization_stage():
            # Without ZeRO, DeepSpeed does not tell; this is of the whole step once its last batch is done.
            norm = torch.nn.utils.get_total_norm([one.grad for one in engine.module.parameters() if one.requires_grad])
        engine.step()
        if counted:
            sums.append(torch.stack([part.detach().double() for part in parts]))
    losses = _reduced(sums, 3, engine.device)
    if engine.zero_optimization_stage():
        norm = engine.get_global_grad_norm()
    return {
        **dict(zip(PARTS, losses.tolist(), strict=True)),
        "examples": examples,
        "unranked": examples - ordered,
        "tokens": tokens,
        "replies": replies,
        "squares": squares,
        "padding": round(1 - tokens / positions, 4),
        "learning_rate": rate,
        "grad_norm": float(norm),
    }


def _counts(batch: dict):
    """Return a batch's examples, those with an order, tokens of replies, all tokens, their squares, and positions."""
    import torch

    from r2r.student.losses import ordered

    lengths = batch["attention_mask"].sum(-1)
    replies = (batch["targets"] != -100).sum()
    counted = [len(lengths), ordered(batch["ranks"]), replies, lengths.sum(), (lengths**2).sum()]
    return torch.tensor([*counted, batch["input_ids"].numel()], dtype=torch.float64)


def _reduced(sums: list, width: int, device):
    """Return the sum of all workers' tensors."""
    import torch

    total = torch.zeros(width, dtype=torch.float64, device=device)
    for one in sums:
        total += one.to(device)
    torch.distributed.all_reduce(total)
    return total.cpu()


def forward(model, batch: dict, labels, tau: float, ordered: int | None = None, replies: int | None = None) -> tuple:
    """Return the pairwise, listwise and generation losses of a batch (see `examples.collate`), from one forward pass.

    `labels` [20] are the label tokens. Where the batch is a part of a step, `ordered` examples and `replies` tokens are
    those of the step.
    """
    from r2r.student import losses

    logits = predict(model, batch)
    scores = label_scores(logits, batch, labels)
    return (
        losses.pairwise(scores, batch["ranks"], ordered),
        losses.listwise(scores, batch["ranks"], tau, ordered),
        losses.generation(logits, batch["targets"], replies),
    )


def predict(model, batch: dict):
    """Return the logits [B, T, V] that predict the replies."""
    return model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        logits_to_keep=batch["targets"].shape[1],
        use_cache=False,
    ).logits


def label_scores(logits, batch: dict, labels):
    """Return the score [B, N] of each passage: its label's logit where the order begins."""
    import torch

    first = logits[torch.arange(len(logits), device=logits.device), batch["first"]]
    return first[:, labels[: batch["ranks"].shape[1]]]


def _measure(engine, groups: list, labels, pad: int) -> float:
    """Return the mean nDCG (see `heldout`) of groups of examples, over all workers."""
    import torch

    from r2r.student.examples import collate
    from r2r.student.heldout import ndcg

    found = []
    engine.eval()
    for examples, counts in groups:
        batch = {name: tensor.to(engine.device) for name, tensor in collate(examples, pad).items()}
        with torch.no_grad():
            values = ndcg(label_scores(predict(engine, batch), batch, labels), batch["ranks"])
        if counts:
            found.append(torch.stack([values.sum(), torch.tensor(len(values), device=values.device)]))
    engine.train()
    total, queries = _reduced(found, 2, engine.device).tolist()
    return total / queries


def _save_best(engine, folder: Path, examples: list, labels, settings: DistillSettings) -> None:
    """Write the adapter, and what it makes of a few prompts; every worker calls it, and the first one writes."""
    import torch

    from r2r.student.examples import collate

    checks = []
    engine.eval()
    for one in examples:
        batch = {name: tensor.to(engine.device) for name, tensor in collate([one], 0).items()}
        with torch.no_grad():
            found = predict(engine, batch)[0, -1].float().log_softmax(-1)
        tokens = labels[: len(one.ranks)]
        checks.append(
            {"prompt": one.prompt + one.reply[:-1], "labels": tokens.tolist(), "logprobs": found[tokens].tolist()}
        )
    engine.train()
    if torch.distributed.get_rank() == 0:
        with checkpoint.replacing(folder) as aside:
            checkpoint.save_adapter(engine, aside / "adapter")
            tables.write_text(json.dumps({"dtype": dtype(settings), "prompts": checks}) + "\n", aside / "check.json")
    else:
        checkpoint.save_adapter(engine, folder)


def operations(model) -> Callable[[dict], float]:
    """Return what gives the floating point operations of a step, by its entry in steps.jsonl.

    Two operations a weight and token in the forward pass and two in the backward pass, whose other half, the gradients
    of the weights, an adapter does without; the head only where replies are predicted. Attention: 2 s^2 d a layer in
    the forward pass, since a token sees those before it, and twice that in the backward pass.
    """
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", 0) or config.hidden_size // heads)
    embedded, head = model.get_input_embeddings().weight, config.vocab_size * config.hidden_size
    weights = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad) - embedded.numel()
    if model.get_output_embeddings().weight is not embedded:
        weights -= head

    def of(entry: dict) -> float:
        attention = 6 * config.num_hidden_layers * width * entry["squares"]
        return 4 * weights * entry["tokens"] + 4 * head * entry["replies"] + attention

    return of


def _peak(settings: DistillSettings) -> float | None:
    """Return the operations per second that this GPU could do, None where that is not known."""
    if not settings.gpus:
        return None
    import torch

    name = torch.cuda.get_device_name()
    return next((peak for known, peak in _PEAK.items() if known in name), None)


class _Log:
    """What the first worker writes of every step: a line in steps.jsonl, and the same for TensorBoard.

    Takes back the steps after `done`, which a run that was stopped had not saved.
    """

    def __init__(self, out: Path, done: int):
        from torch.utils.tensorboard import SummaryWriter

        self.file = out / "steps.jsonl"
        kept = [line for line in read_steps(self.file) if line["step"] <= done]
        tables.write_text("".join(json.dumps(line) + "\n" for line in kept), self.file)
        if not done:
            shutil.rmtree(out / "tensorboard", ignore_errors=True)
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=done + 1)

    def write_held_out(self, step: int, value: float | None) -> None:
        if value is not None:
            self.board.add_scalar("held_out/ndcg", value, step)

    def write(self, entry: dict) -> None:
        with self.file.open("a") as lines:
            lines.write(json.dumps({name: value for name, value in entry.items() if name != "squares"}) + "\n")
        step = entry["step"]
        for name in PARTS:
            self.board.add_scalar(f"loss/{name}", entry[name], step)
        for name in ("learning_rate", "grad_norm", "padding", "mfu"):
            if name in entry:
                self.board.add_scalar(f"training/{name}", entry[name], step)
        self.board.add_scalar("training/tokens_per_second", entry["tokens"] / entry["seconds"], step)
        self.write_held_out(step, entry.get("ndcg"))

    def close(self) -> None:
        self.board.close()


def read_steps(file: Path) -> list[dict]:
    """Return the steps that the first worker has written so far; a line that it is still writing is left for later."""
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
