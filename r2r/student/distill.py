"""The distill stage: the student learns order and reasons from annotations, as a LoRA adapter.

Owns the training run: Ray Train's workers, DeepSpeed, the steps and what is saved. The format of examples, and the
losses, lie beside it.

    distill("runs/demo/annotate", "runs/demo/distill", DistillSettings(student="demo", steps=20))
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from r2r import datasets, tables
from r2r.config import BadInput, DistillSettings
from r2r.llm import resolve
from r2r.llm.prompt import load_tokenizer
from r2r.student import adapter
from r2r.student.prompt import fields, label_ids
from r2r.student.rank import check
from r2r.workers import bar, enter, start_ray, watching

_PARTS = ("pairwise", "listwise", "generation")


def distill(annotations: str, out: str, settings: DistillSettings) -> None:
    """Write the adapter into `out/adapter` and the losses of every step into `out/steps.jsonl`.

    `annotations` is a stage folder or `teacher:FILE`. Raises BadInput where they lack what `reasoning` asks for, where
    there is no compiler, or where the student's tokenizer has no single-token labels.
    """
    inputs = {"annotations": annotations, "student": settings.student}
    stage = tables.Stage("distill", out, inputs, settings)
    if stage.done:
        return
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    _check_compiler(settings)
    rows = _rows(annotations, settings)
    check(settings.student, None)
    folder = Path(out).resolve()
    shutil.rmtree(folder / "train", ignore_errors=True)
    start_ray()
    have = ray.cluster_resources().get("CPU", 0)
    if have < settings.workers:
        print(f"distill: waits for {settings.workers} CPUs; the cluster has {have:g}", flush=True)
    trainer = TorchTrainer(
        _train,
        train_loop_config={
            "settings": settings.model_dump(),
            "annotations": annotations,
            "out": str(folder),
            "here": os.getcwd(),
        },
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.gpus > 0,
            resources_per_worker={"CPU": 1} | ({"GPU": settings.gpus} if settings.gpus else {}),
        ),
        run_config=RunConfig(name="train", storage_path=str(folder), failure_config=FailureConfig(max_failures=0)),
    )
    log = folder / "steps.jsonl"
    log.unlink(missing_ok=True)
    with _progress(log, settings.steps):
        trainer.fit()
    shutil.rmtree(folder / "train", ignore_errors=True)
    steps = _steps(log)
    stage.finish(
        rows={"annotations": len(rows)},
        files=["adapter", "steps.jsonl"],
        left_out=steps[-1]["left_out"],
        steps=len(steps),
        tokens=sum(step["tokens"] for step in steps),
    )
    first, last = steps[0], steps[-1]
    for part in _PARTS:
        print(f"distill: {part} loss {first[part]:.4f} -> {last[part]:.4f}", flush=True)


def _check_compiler(settings: DistillSettings) -> None:
    """DeepSpeed compiles its communication between processes when it starts on a CPU."""
    if settings.gpus:
        return
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise BadInput(f"{compiler}: no such compiler; DeepSpeed needs one on a CPU: install g++, or name yours in CXX")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.exists():
        raise BadInput(
            f"{header}: missing; DeepSpeed compiles against it on a CPU: install Python's headers (python3-dev)"
        )


def _rows(annotations: str, settings: DistillSettings) -> list[dict]:
    """Return the annotations, in an order that does not depend on which worker finished first."""
    rows, _ = datasets.read_annotations(annotations)
    if not rows:
        raise BadInput(f"{annotations}: holds no annotations; see its rejects table for the reasons")
    # Evidence may be missing everywhere: a passage need not answer, and what is false of it has been left out.
    for column in (name for name in fields(settings.reasoning) if name != "evidence"):
        if not any(any(row[column]) for row in rows):
            raise BadInput(
                f"{annotations}: holds no {column} texts, but reasoning is {settings.reasoning}; "
                f"annotate with that reasoning, or distill with less"
            )
    return sorted(rows, key=lambda row: (row["qid"], row["key"]))


def _steps(log: Path) -> list[dict]:
    """Return the steps that the first worker has written so far; a line that it is still writing is left for later."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def _progress(log: Path, steps: int) -> Iterator[None]:
    """Show the steps of a training that runs elsewhere, with its losses and tokens per second."""
    with bar("distill", steps, "step") as shown:

        def look() -> None:
            done = _steps(log)
            if done:
                last = done[-1]
                losses = " ".join(f"{name} {last[name]:.3f}" for name in _PARTS)
                shown.set_postfix_str(f"{losses}, {last['tokens'] / last['seconds']:,.0f} tokens/s", refresh=False)
            shown.update(len(done) - shown.n)

        with watching(look):
            yield


def _train(config: dict) -> None:
    """The training loop of one worker."""
    settings = DistillSettings(**config["settings"])
    enter(config["here"])
    if not settings.gpus:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import torch
    from peft import LoraConfig, get_peft_model
    from ray import train
    from transformers import AutoModelForCausalLM

    from r2r.student.examples import collate, example, fits

    rank, world = train.get_context().get_world_rank(), train.get_context().get_world_size()
    student = resolve(settings.student, "student")
    tokenizer = load_tokenizer(student)
    labels = torch.tensor(label_ids(tokenizer, settings.student))
    every = _rows(config["annotations"], settings)
    rows = [row for row in every if fits(tokenizer, row, settings)]
    if not rows:
        raise BadInput(f"max_length: {settings.max_length}: no annotation fits; raise it")

    torch.manual_seed(settings.seed)
    model = AutoModelForCausalLM.from_pretrained(student, dtype="bfloat16" if settings.gpus else "float32")
    model = get_peft_model(
        model,
        LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=settings.lora_targets,
            task_type="CAUSAL_LM",
        ),
    )
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
        config=_deepspeed(settings),
    )
    log = Path(config["out"]) / "steps.jsonl"
    for step in range(settings.steps):
        started = time.time()
        # The three losses and the tokens, added up over the forward passes of all workers.
        totals = torch.zeros(4, dtype=torch.float64)
        for turn in range(settings.accumulate):
            drawn = _draw(len(rows), settings, (step * settings.accumulate + turn) * world + rank)
            batch = collate(
                [example(tokenizer, rows[row], settings, seed) for row, seed in drawn], tokenizer.pad_token_id
            )
            tokens = int(batch["attention_mask"].sum())
            batch = {name: tensor.to(engine.device) for name, tensor in batch.items()}
            parts = forward(engine, batch, labels.to(engine.device), settings.tau)
            weights = (settings.pairwise, settings.listwise, settings.generation)
            engine.backward(sum(weight * part for weight, part in zip(weights, parts, strict=True)))
            engine.step()
            totals += torch.tensor([*(part.item() for part in parts), tokens], dtype=torch.float64)
        totals = totals.to(engine.device)
        torch.distributed.all_reduce(totals)
        losses = (totals[:3] / (settings.accumulate * world)).tolist()
        if rank == 0:
            entry = {
                "step": step + 1,
                **dict(zip(_PARTS, losses, strict=True)),
                "tokens": int(totals[3]),
                "seconds": round(time.time() - started, 3),
                "left_out": len(every) - len(rows),
            }
            with log.open("a") as lines:
                lines.write(json.dumps(entry) + "\n")
    if rank == 0:
        folder = Path(config["out"]) / "adapter"
        aside = folder.with_name(".adapter.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        engine.module.save_pretrained(aside)
        adapter.check_saved(aside)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
    train.report({"step": settings.steps})


def forward(model, batch: dict, labels, tau: float) -> tuple:
    """Return the pairwise, listwise and generation losses of a batch (see `examples.collate`), from one forward pass.

    `labels` [20] are the label tokens; a passage's score is its label's logit at the reply's first position.
    """
    import torch

    from r2r.student import losses

    targets, ranks = batch["targets"], batch["ranks"]
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        logits_to_keep=targets.shape[1],
        use_cache=False,
    ).logits
    first = logits[torch.arange(len(targets), device=logits.device), batch["first"]]
    scores = first[:, labels[: ranks.shape[1]]]
    return (
        losses.pairwise(scores, ranks),
        losses.listwise(scores, ranks, tau),
        losses.generation(logits, targets),
    )


def _draw(rows: int, settings: DistillSettings, batch: int) -> list[tuple[int, int]]:
    """Return (row, shuffling seed) for each example of the run's `batch`-th batch, counted over all workers.

    Each pass over the rows has an order of its own, which does not depend on the number of workers.
    """
    drawn = []
    for place in range(batch * settings.batch, (batch + 1) * settings.batch):
        epoch, within = divmod(place, rows)
        drawn.append((_order(rows, settings.seed, epoch)[within], settings.seed + place))
    return drawn


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> list[int]:
    order = list(range(rows))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order


def _deepspeed(settings: DistillSettings) -> dict:
    return {
        "train_micro_batch_size_per_gpu": settings.batch,
        "gradient_accumulation_steps": settings.accumulate,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": settings.zero_stage},
        "bf16": {"enabled": settings.gpus > 0},
        # torch_adam needs no compiled kernel of DeepSpeed's own.
        "optimizer": {"type": "AdamW", "params": {"lr": settings.learning_rate, "torch_adam": True}},
        "steps_per_print": 1_000_000,
    }
