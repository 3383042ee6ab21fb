"""A training step with all three losses, compared with the generation loss alone and with a plain PEFT loop.

    python benchmarks/distill.py --work DIR [--steps 12] [--batch 2] [--threads 2] [--layers 12] [--width 768]

The script makes the student: a Qwen3 of random weights, about 77 million with the default layers and width. It makes
the annotations from passages of the built-in collection, 5 passages each with three reasons. All three ways take every
batch in turn, in one process, so that other work on the machine slows all of them. The median over the steps counts.
The plain loop is the usual one with transformers, peft and torch: the model's own loss on the reply's tokens, AdamW,
clipped gradients.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Passages per example; steps before the median is taken.
PASSAGES, WARM = 5, 2


def make_student(folder: Path, layers: int, width: int) -> None:
    """Write a Qwen3 of random weights, with the tokenizer of the demo's student."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    from r2r import builtin

    tokenizer = AutoTokenizer.from_pretrained(builtin.model("demo", "student"))
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=max(1, width // 192),
        head_dim=64,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    print(f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.0f} million weights", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_rows(count: int) -> list[dict[str, Any]]:
    """Return rows of annotations whose order and reasons are random."""
    from r2r.datasets import corpus_parts

    (part,) = corpus_parts("demo", 1)
    texts = [document.text for _, document in part.read()]
    draw = random.Random(0)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        passages = [text[: draw.randrange(200, 500)] for text in draw.sample(texts, PASSAGES)]
        ranking = draw.sample(range(1, PASSAGES + 1), PASSAGES)
        row: dict[str, Any] = {"qid": str(number), "query": " ".join(passages[0].split()[:6])}
        row |= {"texts": passages, "ranking": ranking}
        row |= {"docids": [str(place) for place in range(PASSAGES)], "evidence": [text[:60] for text in passages]}
        row |= {name: [draw.choice(texts)[:120] for _ in passages] for name in ("direct", "comparison")}
        rows.append(row)
    return rows


def plain_loop(settings: Any) -> Callable[[dict[str, Any]], float]:
    """Return a function that takes a step of the plain PEFT loop and returns its loss. settings: DistillSettings."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(settings.seed)
    base = AutoModelForCausalLM.from_pretrained(settings.student, dtype="float32")
    lora = LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules=settings.lora_targets)
    model: Any = get_peft_model(base, lora).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate)

    def step(batch: dict[str, Any]) -> float:
        targets = batch["targets"]
        # The model shifts labels by one itself, and needs the reply's last token in its input.
        ids = torch.cat([batch["input_ids"], targets[:, -1:]], 1)
        labels = torch.full_like(ids, -100)
        labels[:, -targets.shape[1] :] = targets
        mask = torch.cat([batch["attention_mask"], torch.ones_like(targets[:, -1:])], 1)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def main(given: list[str]) -> None:
    """Run the benchmark, print the table, and write WORK/results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=lambda name: Path(name).resolve(), help="folder to write to")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768, help="a multiple of 64")
    asked = parser.parse_args(given)

    os.environ |= {"DS_ACCELERATOR": "cpu", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    import torch

    from r2r.config import DistillSettings
    from r2r.llm.prompt import load_tokenizer
    from r2r.student import train as training
    from r2r.student.batches import step_batches
    from r2r.student.distill import choose
    from r2r.student.examples import collate, example
    from r2r.student.losses import Loss, Outputs
    from r2r.student.model import load_model, predict, start_engine
    from r2r.student.prompt import label_ids

    torch.set_num_threads(asked.threads)
    torch.distributed.init_process_group("gloo")
    make_student(asked.work / "student", asked.layers, asked.width)
    steps = WARM + asked.steps
    settings = DistillSettings(
        student=str(asked.work / "student"), steps=steps, workers=1, batch=asked.batch, batches=1, held_out=0
    )
    rows = make_rows(2 * steps * asked.batch)
    plan = choose(rows, settings)
    tokenizer = load_tokenizer(settings.student)
    labels = torch.tensor(label_ids(tokenizer, settings.student))
    engine = start_engine(load_model(settings, "cpu"), settings, 1)
    plain = plain_loop(settings)

    def generation_alone(
        model: Any,
        batch: dict[str, torch.Tensor],
        labels: torch.Tensor,
        tau: float,
        ordered: int,
        replies: int,
        losses: tuple[Loss, ...],
    ) -> tuple[torch.Tensor, ...]:
        nothing, ranks, targets = torch.zeros(()), batch["ranks"], batch["targets"]
        outputs = Outputs(nothing, ranks, predict(model, batch), targets, tau, ordered, replies)
        return tuple(loss.function(outputs) if loss.name == "generation" else nothing for loss in losses)

    all_three = training.forward
    seconds: dict[str, list[float]] = {"all": [], "generation": [], "plain": [], "tokenising": []}
    tokens, padding = [], []
    for step in range(steps):
        begun = time.perf_counter()
        (batch,) = step_batches(plan["lengths"], settings, step)
        drawn = [(rows[plan["learn"][row]], seed) for row, seed in batch.drawn]
        tensors = collate([example(tokenizer, row, settings, seed) for row, seed in drawn], 0)
        work = [training.Work(tensors, batch.number, True)]
        seconds["tokenising"].append(time.perf_counter() - begun)
        ways = ["all", "generation", "plain"]
        # Each way is first in turn, since the caches are cold for the first.
        for way in ways[step % 3 :] + ways[: step % 3]:
            begun = time.perf_counter()
            if way == "plain":
                theirs = plain(tensors)
            else:
                training.forward = all_three if way == "all" else generation_alone
                entry = training.take_step(engine, work, labels, settings, step)
                if way == "all":
                    mine = entry["generation"]
            seconds[way].append(time.perf_counter() - begun)
        if step == 0:
            # Untrained, both have the same loss on the same tokens.
            first_losses = [[mine, theirs]]
        tokens.append(entry["tokens"])
        padding.append(entry["padding"])
    training.forward = all_three

    def median(values: list[float]) -> float:
        return statistics.median(values[WARM:])

    ratio = median([a / b for a, b in zip(seconds["all"], seconds["generation"], strict=True)])
    speed = median([b / a for a, b in zip(seconds["all"], seconds["plain"], strict=True)])
    rate = {way: median([count / took for count, took in zip(tokens, seconds[way], strict=True)]) for way in seconds}
    print(
        f"\n{asked.steps} steps of {asked.batch} examples, {median(tokens):.0f} tokens, {median(padding):.1%} padding; "
        f"{asked.threads} threads, load {os.getloadavg()[0]:.1f}"
    )
    print("\n| | seconds a step | tokens per second |\n| --- | --- | --- |")
    names = {"all": "all three losses", "generation": "generation loss alone", "plain": "plain PEFT loop"}
    for way, name in names.items():
        print(f"| {name} | {median(seconds[way]):.3f} | {rate[way]:.0f} |")
    print(f"\nA step with all three losses takes {ratio:.2f} of one with the generation loss alone.")
    print(f"Tokens per second with all three losses: {speed:.2f} of the plain loop's.")
    print(f"Tokenizing a batch takes {median(seconds['tokenising']):.3f} s, during the step before it.")
    found = {
        "ratio": ratio,
        "speed": speed,
        "tokens_per_second": rate,
        "seconds": seconds,
        "first_losses": first_losses,
    }
    (asked.work / "results.json").write_text(json.dumps(found) + "\n")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
