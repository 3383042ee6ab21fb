"""One worker of a training run: resume, take the steps, measure, save.

Owns the training loop, the same for one worker or many, on CPUs or GPUs. Does not own how workers are started
(distill), which rows a step works on (batches), the model (model), the losses (losses), or the files (checkpoint, log).

A step gives the same result with any number of workers, and after any restart: its batches and their dropout seeds
follow from the step's number, and its losses are means over all examples or tokens of the step.

    train(config)    # on every worker of a process group, as distill calls it
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import cos, pi
from pathlib import Path
from typing import Any, NamedTuple

import torch

from r2r import builtin, tables
from r2r.config import DistillSettings
from r2r.llm.prompt import load_tokenizer
from r2r.places import Place, place, replacing_folder
from r2r.student import batches, checkpoint
from r2r.student.adapter import kind
from r2r.student.examples import Example, collate, example, until_order
from r2r.student.heldout import TEMPERATURES, ndcg, pair_losses, temperature
from r2r.student.log import Log, operations, peak
from r2r.student.losses import LOSSES, Loss, Outputs, count_ordered, used
from r2r.student.model import dtype, load_model, predict, score, start_engine
from r2r.student.prompt import label_ids

# Prompts whose label scores are saved with what was trained, so that whoever loads it can compare.
_PROBES = 4


class Run(NamedTuple):
    """What a worker knows of its run, the same in all steps.

    folder: the run's checkpoints. rows: the annotations. plan: see `distill.choose`. labels: [20], the label tokens.
    pad: the padding token. rank, world: number of this worker, from 0, and of all workers. tell: for the progress line.
    """

    settings: DistillSettings
    folder: Place
    rows: list[dict[str, Any]]
    plan: dict[str, Any]
    tokenizer: Any
    labels: torch.Tensor
    pad: int
    rank: int
    world: int
    tell: Callable[[str, dict[str, Any]], Any]


class Work(NamedTuple):
    """A batch of tensors (see `examples.collate`), its number in the run, and whether it counts or is only filler."""

    batch: dict[str, torch.Tensor]
    number: int
    counts: bool


def train(config: dict[str, Any]) -> None:
    """Train to the last step, or until `patience` is over, from the newest checkpoint if there is one.

    config: `settings`, as a dict; `rows`, a function that returns the annotations; `out`, the stage's folder;
    `checkpoints`, the run's folder, with the plan of `distill.choose` in `plan.json`; `tell`, which the first worker
    calls with a source and its counts, as `workers.progress` has it. Leaves a checkpoint of the last step, the best of
    what was trained, and the log.
    """
    run = set_up(config)
    settings, last = run.settings, run.settings.steps
    engine, flops, state = resume(run)
    done = state["step"]
    # In place of what a worker told that has died.
    run.tell("steps", {"done": done})
    run.tell("held out", {})
    groups, probes = ranking_examples(run)
    log = Log(place(config["out"]), done, settings) if run.rank == 0 else None
    if not done:
        state["before"], _ = measure(engine, run, groups)
        if log:
            log.write_held_out(0, state["before"])
    # The next step's batches are made while the workers calculate this one.
    with ThreadPoolExecutor(1) as ahead:
        next_work = ahead.submit(prepare, run, done)
        for step in range(last if state["stopped"] else done, last):
            begun, number = time.time(), step + 1
            work = next_work.result()
            if number < last:
                next_work = ahead.submit(prepare, run, number)
            entry = {"step": number, **take_step(engine, work, run.labels, settings, step)}
            seconds = time.time() - begun
            entry["seconds"] = round(seconds, 3)
            run.tell("steps", {"done": number, **entry})
            if most := peak(settings):
                entry["mfu"] = flops(entry) / seconds / (most * run.world)
            if number % settings.evaluate_every == 0 or number == last:
                entry |= evaluate(engine, run, groups, probes, state, number)
                state["stopped"] = number < last and is_over(state, settings, number)
            if log:
                log.write(entry)
            if number % settings.save_every == 0 or number == last or state["stopped"]:
                # Before the checkpoint: a resumed training needs the lines of all steps up to it.
                if log:
                    log.keep()
                save(engine, run, state, number)
            if state["stopped"]:
                break
    if log:
        log.close()
    torch.distributed.barrier()


def set_up(config: dict[str, Any]) -> Run:
    """Choose this worker's device and return its run. config: see `train`."""
    settings = DistillSettings(**config["settings"])
    if not settings.gpus:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    accelerator = deepspeed.get_accelerator()
    accelerator.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    folder, rank = place(config["checkpoints"]), torch.distributed.get_rank()
    tokenizer = load_tokenizer(builtin.model(settings.student, "student"))
    return Run(
        settings=settings,
        folder=folder,
        rows=config["rows"](),
        plan=json.loads((folder / "plan.json").read_text()),
        tokenizer=tokenizer,
        labels=torch.tensor(label_ids(tokenizer, settings.student), device=accelerator.current_device_name()),
        pad=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        rank=rank,
        world=torch.distributed.get_world_size(),
        tell=config["tell"] if rank == 0 else lambda source, counts: None,
    )


def resume(run: Run) -> tuple[Any, Callable[[dict[str, Any]], float], checkpoint.State]:
    """Return the DeepSpeed engine, `log.operations` of its model, and the state, all as in the newest checkpoint."""
    # The first worker decides: other workers may see older files.
    newest = torch.tensor(checkpoint.newest(run.folder) if run.rank == 0 else 0, device=run.labels.device)
    torch.distributed.broadcast(newest, 0)
    folder = checkpoint.step_folder(run.folder, int(newest)) if newest else None
    model = load_model(run.settings, str(run.labels.device))
    if folder:
        checkpoint.load_weights(model, folder)
    # Counted now, since ZeRO-3 takes the weights apart.
    flops = operations(model)
    engine = start_engine(model, run.settings, run.world)
    if not folder:
        return engine, flops, {"step": 0, "best": None, "before": None, "stopped": False}
    checkpoint.load_optimizer(engine, folder)
    return engine, flops, checkpoint.load_state(folder)


def prepare(run: Run, step: int) -> list[Work]:
    """Return this worker's share of a step, counted from 0."""
    work = []
    drawn = batches.step_batches(run.plan["lengths"], run.settings, step)
    for batch, counts in batches.shares(drawn, run.rank, run.world):
        rows = [(run.rows[run.plan["learn"][row]], seed) for row, seed in batch.drawn]
        examples = [example(run.tokenizer, row, run.settings, seed) for row, seed in rows]
        work.append(Work(collate(examples, run.pad, reads_windows(run.settings)), batch.number, counts))
    return work


def reads_windows(settings: DistillSettings) -> bool:
    """Return whether training needs the windows, for labels to score or replies to write."""
    return settings.scores == "labels" or settings.generation > 0


def ranking_examples(run: Run) -> tuple[list[list[Example]], list[Example]]:
    """Return the held-out examples in batches of similar length, and a few probes (see `save_best`).

    All of them end where ranking ends: with the label of the best passage.
    """

    def made(row: int, seed: str) -> Example:
        return until_order(example(run.tokenizer, run.rows[row], run.settings, seed))

    held = [made(row, f"held out {row}") for row in run.plan["held"]]
    probes = held[:_PROBES] or [made(row, "check") for row in run.plan["learn"][:_PROBES]]
    ordered = sorted((one for one in held if len(one.ranks) > 1), key=lambda one: len(one.prompt) + len(one.reply))
    size = run.settings.batch
    return [ordered[place : place + size] for place in range(0, len(ordered), size)], probes


def take_step(
    engine: Any, work: list[Work], labels: torch.Tensor, settings: DistillSettings, step: int
) -> dict[str, Any]:
    """Take an optimizer step and return its entry in the log, over all workers.

    Returns: each loss by its name; `examples`; `unranked`, those without an order; `tokens`; `replies`, the tokens of
    replies; `squares`, the sum of squared lengths; `padding`, a share; `learning_rate`; `grad_norm`, before clipping.
    """
    counts = _sum_over_workers([_counts(one.batch) for one in work if one.counts], 6, engine.device)
    examples, ordered, replies, tokens, squares, positions = map(int, counts)
    rate = learning_rate(settings, step)
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    # DeepSpeed takes the mean over workers and their batches; each loss is a share of the step's mean.
    scale = torch.distributed.get_world_size() * len(work)
    weights, sums = used(settings), []
    for cpu_batch, number, counted in work:
        torch.manual_seed(settings.seed * 1_000_003 + number)
        batch = {name: tensor.to(engine.device) for name, tensor in cpu_batch.items()}
        losses = forward(engine, batch, labels, settings.tau, ordered, replies, tuple(weights))
        total = sum(weight * loss for weight, loss in zip(weights.values(), losses, strict=True))
        engine.backward(total * (scale if counted else 0))
        if not engine.zero_optimization_stage():
            # Without ZeRO, DeepSpeed does not report the norm. After the last batch, it is that of the whole step.
            norm = torch.nn.utils.get_total_norm([one.grad for one in engine.module.parameters() if one.requires_grad])
        engine.step()
        if counted:
            sums.append(torch.stack([loss.detach().double() for loss in losses]))
    means = _sum_over_workers(sums, len(weights), engine.device)
    if engine.zero_optimization_stage():
        norm = engine.get_global_grad_norm()
    return {
        **{loss.name: mean for loss, mean in zip(weights, means.tolist(), strict=True)},
        "examples": examples,
        "unranked": examples - ordered,
        "tokens": tokens,
        "replies": replies,
        "squares": squares,
        "padding": round(1 - tokens / positions, 4),
        "learning_rate": rate,
        "grad_norm": float(norm),
    }


def learning_rate(settings: DistillSettings, step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    warm = round(settings.warmup * settings.steps)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    left = 1 - (step - warm) / (settings.steps - warm)
    share = {"none": 1.0, "linear": left, "cosine": (1 - cos(pi * left)) / 2}[settings.decay]
    return settings.learning_rate * share


def forward(
    model: Any,
    batch: dict[str, torch.Tensor],
    labels: torch.Tensor,
    tau: float,
    ordered: int = 0,
    replies: int = 0,
    losses: tuple[Loss, ...] = LOSSES,
) -> tuple[torch.Tensor, ...]:
    """Return each of `losses` for a batch (see `examples.collate`), from one forward pass.

    labels: [20], the label tokens. ordered, replies: the counts of the step that the batch is part of; 0: of the batch.
    """
    ranks = batch["ranks"]
    # A student that is scored by query likelihood, and writes nothing, reads no windows.
    targets = batch.get("targets", ranks.new_empty((len(ranks), 0)))
    logits = predict(model, batch) if "targets" in batch else torch.empty((len(ranks), 0, 1), device=ranks.device)
    counts = ordered or count_ordered(ranks).clamp(min=1), replies or (targets != -100).sum().clamp(min=1)
    outputs = Outputs(score(model, batch, labels, logits), ranks, logits, targets, tau, *counts)
    return tuple(loss.function(outputs) for loss in losses)


def evaluate(
    engine: Any, run: Run, groups: list[list[Example]], probes: list[Example], state: checkpoint.State, number: int
) -> dict[str, float]:
    """Measure the student after step `number`, and save it if it is the best so far.

    Changes `state["best"]`. Returns what to log.
    """
    (value, fitted), best = measure(engine, run, groups), state["best"]
    # With nothing held out, the last step is the best.
    if number == run.settings.steps if value is None else best is None or value > best[1]:
        state["best"] = [number, value]
        save_best(engine, run, probes, fitted, checkpoint.best_folder(run.folder, number))
    return {} if value is None else {"ndcg": value}


def is_over(state: checkpoint.State, settings: DistillSettings, number: int) -> bool:
    """Return whether, at the measurement after step `number`, patience with a student that learns no more is over."""
    if state["best"] is None:
        return False
    waited = number // settings.evaluate_every - state["best"][0] // settings.evaluate_every
    return 0 < settings.patience <= waited


def measure(engine: Any, run: Run, groups: list[list[Example]]) -> tuple[float, float] | tuple[None, None]:
    """Return the mean nDCG@10 and the temperature (see `heldout`) of groups of examples, over all workers; None if
    there are none."""
    if not groups:
        return None, None
    sums, mine = [], batches.shares(groups, run.rank, run.world)
    engine.eval()
    for measured, (examples, counts) in enumerate(mine):
        run.tell("held out", {"measured": measured, "to measure": len(mine)})
        batch = _to_device(examples, run, engine, windows=run.settings.scores == "labels")
        with torch.no_grad():
            scores, ranks = score(engine, batch, run.labels), batch["ranks"]
            values = torch.cat([ndcg(scores, ranks)[:, None], pair_losses(scores, ranks)], 1)
        if counts:
            sums.append(torch.cat([values.sum(0), torch.tensor([len(values)], device=values.device)]))
    engine.train()
    run.tell("held out", {})
    total, *losses, queries = _sum_over_workers(sums, 2 + len(TEMPERATURES), engine.device)
    return float(total / queries), temperature(torch.stack(losses))


def save_best(engine: Any, run: Run, probes: list[Example], fitted: float | None, folder: Place) -> None:
    """Write what is trained, label log-probabilities for probes, and the temperature. Every worker calls it, the first
    one writes."""
    prompts = []
    engine.eval()
    for probe in probes:
        with torch.no_grad():
            logprobs = predict(engine, _to_device([probe], run, engine))[0, -1].float().log_softmax(-1)
        ids, labels = probe.prompt + probe.reply[:-1], run.labels[torch.tensor(probe.labels)]
        prompts.append({"prompt": ids, "labels": labels.tolist(), "logprobs": logprobs[labels].tolist()})
    engine.train()
    if run.rank == 0:
        with replacing_folder(folder) as aside:
            trained = aside / kind(run.settings)
            checkpoint.save_trained(engine, trained)
            if run.settings.method == "full":
                run.tokenizer.save_pretrained(trained)
            check = {"dtype": dtype(run.settings), "prompts": prompts, "temperature": fitted}
            tables.write_text(json.dumps(check) + "\n", aside / "check.json")
    else:
        checkpoint.save_trained(engine, Path())


def save(engine: Any, run: Run, state: checkpoint.State, number: int) -> None:
    """Write the checkpoint of step `number`, and remove what it replaces; every worker calls it."""
    state["step"] = number
    checkpoint.save(engine, checkpoint.step_folder(run.folder, number), state)
    if run.rank == 0:
        checkpoint.keep(run.folder, number, state["best"][0] if state["best"] else 0)


def _to_device(examples: list[Example], run: Run, engine: Any, windows: bool = True) -> dict[str, torch.Tensor]:
    return {name: tensor.to(engine.device) for name, tensor in collate(examples, run.pad, windows).items()}


def _counts(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return a batch's examples, those with an order, reply tokens, tokens, their squared lengths, and positions."""
    masks = [batch[name] for name in ("attention_mask", "asked_attention_mask") if name in batch]
    lengths = torch.cat([mask.sum(-1) for mask in masks])
    replies = (batch["targets"] != -100).sum() if "targets" in batch else 0
    counts = [len(batch["ranks"]), count_ordered(batch["ranks"]), replies, lengths.sum(), (lengths**2).sum()]
    return torch.tensor([*counts, sum(mask.numel() for mask in masks)], dtype=torch.float64)


def _sum_over_workers(tensors: list[torch.Tensor], width: int, device: Any) -> torch.Tensor:
    """Return the sum [width] of all workers' tensors, in float64; a worker may have none."""
    total = torch.zeros(width, dtype=torch.float64, device=device)
    for tensor in tensors:
        total += tensor.to(device)
    torch.distributed.all_reduce(total)
    return total.cpu()
