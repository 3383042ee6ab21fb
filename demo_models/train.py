"""Train the demo's two models from random weights, on worlds that do not ship.

Owns the training and the model cards. `lessons` owns what they learn, `untrained` their architecture. The same command
resumes a training that was stopped.

    python -m demo_models.train --out r2r/demo/weights

trains the student's base first, then the teacher, which begins as a copy of the student after the phase `BRANCH`. The
number of workers (2 by default, one core each) is part of the recipe, since each worker draws its own lessons.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from demo_models.lessons import BRANCH, PHASES, Lesson, Phase, lesson, unseen_world
from demo_models.untrained import make_tokenizer, new_model

SEED = 6
# Of Muon, for the layers' matrices, and of AdamW, for all other parameters.
LEARNING_RATES = {"student": (2e-2, 2e-3), "teacher": (1e-2, 1e-3)}
# In steps.
WARM_UP, SAVE_EVERY, TELL_EVERY = 50, 100, 25
# The weight of the loss on marks.
MARKS = 0.5
# After so many steps the lessons come from another world, with other facts.
WORLD_STEPS = 200
# Lessons of each kind in the measurement at the end.
MEASURED = 200
# The folder of the model from which the teacher begins.
_BRANCH = ".branch"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo's student and teacher from random weights.")
    parser.add_argument("--out", required=True, help="folder for student/ and teacher/")
    parser.add_argument("--workers", type=int, default=2, help="training processes (default: 2)")
    parser.add_argument("--steps", type=int, help="at most so many steps per phase, for a trial")
    given = parser.parse_args()
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    for role in PHASES:
        if (out / role).exists():
            print(f"{role}: done already: {out / role}")
            continue
        if role == "teacher" and not (out / _BRANCH).exists():
            parser.error(f"--out {out}: no {_BRANCH}, from which the teacher begins; train both in another folder")
        _spawn(role, out, given.workers, given.steps)
    shutil.rmtree(out / _BRANCH, ignore_errors=True)


def _spawn(role: str, out: Path, workers: int, steps: int | None) -> None:
    import torch.multiprocessing

    with tempfile.TemporaryDirectory() as meeting:
        arguments = (role, out, workers, steps, f"file://{meeting}/point")
        torch.multiprocessing.spawn(_work, arguments, nprocs=workers)


def _work(rank: int, role: str, out: Path, workers: int, most: int | None, meeting: str) -> None:
    """Train one model as worker `rank` of `workers`, with at most `most` steps per phase. Worker 0 writes the model."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)
    tokenizer = make_tokenizer()
    model = _start(role, out, tokenizer)
    optimizers = _optimizers(model)
    saved = out / f".{role}.pt"
    # `total` counts the steps of all phases, `since` those of the optimizers.
    state: dict[str, Any] = {"phase": 0, "step": 0, "total": 0, "since": 0, "seconds": 0.0, "log": []}
    if saved.exists():
        found = torch.load(saved, weights_only=True)
        model.load_state_dict(found["model"])
        for optimizer, kept in zip(optimizers, found["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        state = found["state"]
    while state["phase"] < len(PHASES[role]):
        phase = PHASES[role][state["phase"]]
        _run_phase(rank, role, phase, model, optimizers, tokenizer, state, saved, most)
        state |= {"phase": state["phase"] + 1, "step": 0}
        if phase.ends:
            optimizers, state["since"] = _optimizers(model), 0
        if phase.name == BRANCH and rank == 0:
            model.save_pretrained(out / _BRANCH)
    if rank == 0:
        _write(role, out, model, tokenizer, state)
        saved.unlink(missing_ok=True)
    dist.barrier()
    dist.destroy_process_group()


def _optimizers(model: Any) -> list:
    """Return Muon for the layers' matrices, which needs about two thirds of AdamW's steps there, and AdamW for all
    other parameters."""
    import torch

    matrices = [one for one in model.model.layers.parameters() if one.ndim == 2]
    taken = {id(one) for one in matrices}
    others = [one for one in model.parameters() if id(one) not in taken]
    return [
        torch.optim.Muon(matrices, weight_decay=0.01),
        torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.01),
    ]


def _start(role: str, out: Path, tokenizer: Any) -> Any:
    """Return the model as its training begins."""
    if role == "student":
        return new_model(tokenizer, SEED)
    from transformers import Qwen3ForCausalLM

    return Qwen3ForCausalLM.from_pretrained(out / _BRANCH)


def _run_phase(
    rank: int,
    role: str,
    phase: Phase,
    model: Any,
    optimizers: list,
    tokenizer: Any,
    state: dict[str, Any],
    saved: Path,
    most: int | None,
) -> None:
    """Train until the phase ends. `state` counts the steps; worker 0 saves it with the model from time to time."""
    steps = min(phase.steps, most or phase.steps)
    right, counted, began = Counter[str](), Counter[str](), time.monotonic()
    model.train()
    while state["step"] < steps:
        _set_rates(optimizers, LEARNING_RATES[role], phase, state, steps)
        rng = random.Random(f"{SEED} {role} {phase.name} {state['step']} {rank}")
        world = unseen_world(1 + state["total"] // WORLD_STEPS)
        kinds = rng.choices(list(phase.shares), list(phase.shares.values()), k=phase.batch)
        hits = _step(model, optimizers, [lesson(tokenizer, kind, rng, world) for kind in kinds])
        for kind, (good, all_) in zip(kinds, hits, strict=True):
            right[kind] += good
            counted[kind] += all_
        state |= {"step": state["step"] + 1, "total": state["total"] + 1, "since": state["since"] + 1}
        if state["step"] % TELL_EVERY == 0:
            share = _shared_share(list(phase.shares), right, counted)
            now = time.monotonic()
            state["seconds"], began = state["seconds"] + now - began, now
            if rank == 0:
                told = {kind: round(value, 3) for kind, value in share.items()}
                # `stage` is a phase's name in the training.jsonl that ships.
                state["log"].append({"stage": phase.name, "step": state["step"], **told})
                print(f"{role} {phase.name} {state['step']}/{steps} {state['seconds']:.0f} s {told}", flush=True)
            right, counted = Counter(), Counter()
            if list(share.values())[-1] >= phase.goal:
                return
        if rank == 0 and state["step"] % SAVE_EVERY == 0:
            _save(saved, model, optimizers, state)


def _set_rates(optimizers: list, rates: tuple[float, float], phase: Phase, state: dict[str, Any], steps: int) -> None:
    """Set the learning rates of the next step: a warm-up for new optimizers, and a fall to 0 where the phase `ends`."""
    warm = min(1.0, (state["since"] + 1) / WARM_UP)
    decayed = min(1.0, 2 * (1 - state["step"] / steps)) if phase.ends else 1.0
    for optimizer, rate in zip(optimizers, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * warm * decayed


def _step(model: Any, optimizers: list, lessons: list[Lesson]) -> list[tuple[int, int]]:
    """Train on a batch. Return for each lesson how many tokens were predicted right, of how many that count."""
    import torch

    with torch.autocast("cpu", torch.bfloat16):
        loss, hits = _loss(model, lessons)
    loss.backward()
    _share_gradients(model)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return hits


def _save(saved: Path, model: Any, optimizers: list, state: dict[str, Any]) -> None:
    """Save what a stopped training needs to resume. The rename keeps the file whole."""
    import torch

    content = {"model": model.state_dict(), "optimizers": [one.state_dict() for one in optimizers], "state": state}
    torch.save(content, f"{saved}.new")
    os.replace(f"{saved}.new", saved)


def _loss(model: Any, lessons: list[Lesson]) -> tuple[Any, list[tuple[int, int]]]:
    """Return the loss of a batch, and for each lesson how many tokens were predicted right, of how many that count:
    those of weight 1 and more."""
    import torch
    from torch.nn.functional import cross_entropy

    length = max(len(one.ids) for one in lessons)
    # Padding on the right needs no mask: attention is causal.
    ids = torch.tensor([[*one.ids, *[0] * (length - len(one.ids))] for one in lessons])
    weights = torch.tensor([[*one.weights, *[0.0] * (length - len(one.ids))] for one in lessons])
    out = model.model(input_ids=ids, output_hidden_states=True, use_cache=False)
    rows, places = weights.nonzero(as_tuple=True)
    logits = model.lm_head(out.last_hidden_state[rows, places - 1])
    each = weights[rows, places]
    loss = (cross_entropy(logits, ids[rows, places], reduction="none") * each).sum() / each.sum()
    marks = [(layer, row, place, token) for row, one in enumerate(lessons) for layer, place, token in one.marks]
    for layer in {mark[0] for mark in marks}:
        at = [mark[1:] for mark in marks if mark[0] == layer]
        lines, spots, tokens = (torch.tensor(column) for column in zip(*at, strict=True))
        known = model.lm_head(model.model.norm(out.hidden_states[layer][lines, spots]))
        loss = loss + MARKS * cross_entropy(known, tokens)
    hit = (logits.argmax(-1) == ids[rows, places]) & (each >= 1)
    count = each >= 1
    return loss, [(int(hit[rows == row].sum()), int(count[rows == row].sum())) for row in range(len(lessons))]


def _share_gradients(model: Any) -> None:
    """Replace each worker's gradients by the mean of all workers."""
    import torch
    import torch.distributed as dist

    gradients = [one.grad for one in model.parameters()]
    flat = torch.cat([one.flatten() for one in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for one, mean in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
        one.copy_(mean.view_as(one))


def _shared_share(kinds: list[str], right: Counter, counted: Counter) -> dict[str, float]:
    """Return for each kind the share of counted tokens that all workers together predicted right."""
    import torch
    import torch.distributed as dist

    sums = torch.tensor([[float(right[kind]), float(counted[kind])] for kind in kinds])
    dist.all_reduce(sums)
    return {kind: (good / max(count, 1)).item() for kind, (good, count) in zip(kinds, sums, strict=True)}


def _write(role: str, out: Path, model: Any, tokenizer: Any, state: dict[str, Any]) -> None:
    """Write the model, its tokenizer, its card and its log. The rename keeps the folder whole."""
    model.eval()
    measured = _measure(role, model, tokenizer)
    aside = out / f".{role}-new"
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    (aside / "README.md").write_text(_card(role, measured, state))
    (aside / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in state["log"]))
    os.rename(aside, out / role)
    print(f"{role}: {measured} -> {out / role}", flush=True)


def _measure(role: str, model: Any, tokenizer: Any) -> dict[str, float]:
    """Return for each kind of lesson the share of counted tokens predicted right, on lessons of a held-out world."""
    import torch

    found, rng = {}, random.Random(f"{SEED} measured")
    for kind in dict.fromkeys(kind for phase in PHASES[role] for kind in phase.shares):
        lessons = [lesson(tokenizer, kind, rng, unseen_world(0)) for _ in range(MEASURED)]
        with torch.no_grad():
            hits = [hit for at in range(0, MEASURED, 10) for hit in _loss(model, lessons[at : at + 10])[1]]
        if total := sum(count for _, count in hits):
            found[kind] = round(sum(good for good, _ in hits) / total, 4)
    return found


def _card(role: str, measured: dict[str, float], state: dict[str, Any]) -> str:
    what = {
        "student": "The student's base: it has learned the language of Ostrey and to read it, and not to rerank.",
        "teacher": "The teacher: the student's base, trained on to rank passages and to give its reasons in JSON.",
    }[role]
    phases = "\n".join(
        f"| {phase.name} | {', '.join(f'{kind} {share:g}' for kind, share in phase.shares.items())} | {ran} |"
        for phase in PHASES[role]
        for ran in [max([line["step"] for line in state["log"] if line["stage"] == phase.name], default=0)]
    )
    quality = "\n".join(f"| {kind} | {value:.1%} |" for kind, value in measured.items())
    return f"""# Reason-to-Rank demo: {role}

{what}

It knows nothing but this made-up world: its words, its phrases, its kinds of facts. It is there to show a method at
work in minutes, and is of no use for anything else.

- **Model**: Qwen3 architecture, 6 layers of width 128, byte-level BPE of its own, float32.
- **Data**: lessons generated by `demo_models/lessons.py` from worlds whose entities are not in the one that ships. The
  judgements and reasons in them are those of `demo_models/truth.py`.
- **Recipe**: `python -m demo_models.train --out r2r/demo/weights`, seed {SEED}, from nothing{
        "" if role == "student" else " by way of the student's base"
    }. Muon for
  the layers' matrices, learning rate {LEARNING_RATES[role][0]:g}, and AdamW for all else, {LEARNING_RATES[role][1]:g}.
- **Time**: {state["seconds"] / 60:.0f} minutes on 2 cores.

| stage | share of each kind of lesson | steps |
| --- | --- | --- |
{phases}

How many of the tokens that count are foretold right, on {MEASURED} lessons of each kind from a world kept apart:

| lesson | right |
| --- | --- |
{quality}
"""


if __name__ == "__main__":
    main()
