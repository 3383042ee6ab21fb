"""The distill stage: the student learns orders and reasons from annotations, as a LoRA adapter or with all weights.

Owns the stage's folder, the choice of annotations, Ray Train's workers and their restarts. `train.py` trains.

    distill("runs/demo/annotate", "runs/demo/distill", DistillSettings(student="demo", steps=20))
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from r2r import builtin, datasets, places, tables
from r2r.config import DistillSettings
from r2r.errors import BadInput
from r2r.identity import fingerprint, of_files
from r2r.llm.prompt import load_tokenizer, longest
from r2r.places import Place, place
from r2r.stage import Identity, Input, Result, Stage, There, run
from r2r.student import adapter, checkpoint, prompt, record
from r2r.student.batches import split, steps_of
from r2r.student.log import losses_of, read_steps
from r2r.student.model import dtype
from r2r.student.prompt import fields
from r2r.student.rank import check_student
from r2r.student.train import train
from r2r.workers import progress, start_ray, use_driver_folder

# How often training restarts after a worker died. Spot nodes get reclaimed.
_MAX_RESTARTS = 10


def stage(annotations: str, out: str | Place, settings: DistillSettings) -> Stage:
    """Return the stage that trains a student. annotations: a stage's folder or `teacher:FILE`."""

    def check(there: There) -> None:
        if there(annotations):
            read_rows(annotations, settings)
        check_student(settings.student, None)
        adapter.check_method(settings.method)
        adapter.check_tracker(settings.tracker)
        if settings.method != "full":
            model = builtin.model(settings.student, "student", weights=False)
            adapter.check_targets(settings.lora_targets, model, settings.student)

    def work(identity: Identity) -> Result:
        return _work(annotations, place(out).absolute(), settings, identity)

    def tidy() -> None:
        # After the manifest is written: a kill before it would lose the training.
        places.remove(place(out) / "checkpoints")

    inputs = {
        "annotations": Input(annotations, partial(datasets.fingerprint, what="annotations")),
        "student": Input(settings.student, lambda name: fingerprint(builtin.named(name, "student"))),
    }
    writes = [adapter.kind(settings), "check.json", "steps", "steps.jsonl", "tensorboard"]
    versions = {"prompt": prompt.version(settings.scores)}
    return Stage("distill", place(out), settings, inputs, check, work, writes, versions, tidy)


def distill(annotations: str, out: str | Place, settings: DistillSettings) -> None:
    """Write the adapter and its record into `out/adapter` (with method full, the model into `out/model`), its answers
    to a few prompts into `out/check.json`, and the figures of each step into the table `steps`, `out/steps.jsonl` and
    `out/tensorboard`.

    Arguments as for `stage`. A training that was stopped goes on from its last checkpoint. Raises BadInput if the
    annotations lack the texts that `reasoning` names, if no annotation fits `max_length`, or if the student's tokenizer
    splits a label.
    """
    run(stage(annotations, out, settings))


def _work(annotations: str, out: Place, settings: DistillSettings, identity: Identity) -> Result:
    rows = read_rows(annotations, settings)
    checkpoints = out / "checkpoints" / identity.key(*identity.inputs)
    if not checkpoint.newest(checkpoints):
        places.remove(out / "checkpoints")
    settings = within_student(settings)
    plan = choose(rows, settings)
    held = len(plan["held"])
    if settings.epochs:
        needed = steps_of(settings.epochs, len(plan["learn"]), settings)
        print(f"distill: {needed:,} steps for {settings.epochs:g} epochs", flush=True)
        settings = settings.model_copy(update={"steps": needed, "epochs": None})
    print(
        f"distill: {len(plan['learn']):,} annotations to learn from, {held:,} held out; {plan['left_out']:,} left out, "
        f"too long for max_length {settings.max_length} or of over 20 passages; {plan['unranked']:,} of a single "
        f"passage, without an order to learn",
        flush=True,
    )
    # In a file, since it is large and Ray Train shows its configuration on the dashboard.
    tables.write_text(json.dumps(plan) + "\n", checkpoints / "plan.json")
    config = {"settings": settings.model_dump(), "rows": partial(read_rows, annotations, settings)}
    _train(config | {"out": str(out), "checkpoints": str(checkpoints)}, settings)

    # A training that patience ended has not come to its last step.
    state = checkpoint.load_state(checkpoint.step_folder(checkpoints, checkpoint.newest(checkpoints, settings.steps)))
    if state["step"] < settings.steps and not state["stopped"]:
        raise BadInput(f"{checkpoints}: its last checkpoint is not listed yet; run the same command again")
    assert state["best"] is not None
    best, value = state["best"]
    found = checkpoint.best_folder(checkpoints, best)
    checked = _checked(found, settings)
    # Checkpoints of earlier releases have none.
    fitted = checked.pop("temperature", None)
    trained = adapter.kind(settings)
    for earlier in ("adapter", "model"):
        # An earlier training may have had another method.
        places.remove(out / earlier)
    with places.replacing_folder(out / trained) as aside:
        shutil.copytree(places.fetch(found) / trained, aside, dirs_exist_ok=True)
        record.write(aside, [rows[place] for place in plan["fitting"]], settings, fitted)
    tables.write_text(json.dumps(checked) + "\n", out / "check.json")
    steps = read_steps(out / "steps.jsonl")
    tables.write([_step_row(step) for step in steps], out, "steps")
    tokens = sum(step["tokens"] for step in steps)
    positions = sum(step["tokens"] / (1 - step["padding"]) for step in steps)
    measured = {"ndcg_before": state["before"], "ndcg": value, "temperature": fitted}
    counts = {
        "left_out": plan["left_out"],
        "unranked": plan["unranked"],
        "held_out": held,
        "best_step": best,
        **{name: round(figure, 4) for name, figure in measured.items() if figure is not None},
        "tokens": tokens,
        "padding": round(1 - tokens / positions, 4),
    }
    _tell(steps, state, held, settings)
    return Result(
        {"annotations": len(rows), "steps": len(steps)},
        of_files(out / trained),
        [trained, "check.json", "steps.jsonl"],
        counts,
    )


def _step_row(step: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the table `steps` from a line of steps.jsonl."""
    return step | {"loss": losses_of(step)}


def _tell(steps: list[dict[str, Any]], state: checkpoint.State, held: int, settings: DistillSettings) -> None:
    """Print what was learned, which step was chosen, and why the training ended."""
    assert state["best"] is not None
    trained, (best, value), before = adapter.kind(settings), state["best"], state["before"]
    for name, first in losses_of(steps[0]).items():
        print(f"distill: {name} loss {first:.4f} -> {steps[-1][name]:.4f}", flush=True)
    if state["stopped"]:
        print(
            f"distill: ended after step {state['step']} of {settings.steps}: {settings.patience} measurements in a row "
            f"(patience) were no better than that of step {best}",
            flush=True,
        )
    if value is None:
        print(f"distill: no query was held out, so the {trained} is that of the last step, {best}", flush=True)
    else:
        print(
            f"distill: nDCG@10 by the teacher's order, on {held:,} held-out annotations: {before:.4f} -> {value:.4f} "
            f"after step {best}, the best, whose {trained} this is",
            flush=True,
        )


def read_rows(annotations: str, settings: DistillSettings) -> list[dict[str, Any]]:
    """Return the annotations, sorted. Raises BadInput if there are none, or they lack texts that `reasoning` names."""
    rows, _ = datasets.read_annotations(annotations)
    if not rows:
        raise BadInput(f"{annotations}: holds no annotations; see its rejects table for the reasons")
    # Evidence may be missing everywhere: passages may hold no answer, and false evidence was left out.
    for column in (name for name in fields(settings.reasoning) if name != "evidence"):
        if not any(any(row[column]) for row in rows):
            raise BadInput(
                f"{annotations}: holds no {column} texts, but reasoning is {settings.reasoning}; "
                f"annotate with that reasoning, or distill with less"
            )
    return sorted(rows, key=lambda row: (row["qid"], row["key"]))


def within_student(settings: DistillSettings) -> DistillSettings:
    """Return the settings with a `max_length` of at most what the student reads; print a line if it was more."""
    most = longest(builtin.model(settings.student, "student", weights=False))
    if most is None or settings.max_length <= most:
        return settings
    print(f"distill: max_length {most:,}: the student reads no more ({settings.max_length:,} was set)", flush=True)
    return settings.model_copy(update={"max_length": most})


def choose(rows: list[dict[str, Any]], settings: DistillSettings) -> dict[str, Any]:
    """Return which rows are used, as indices into `rows`.

    fitting: rows that fit `max_length`. learn: those to learn from, with their lengths in tokens in `lengths`. held:
    those held out. left_out: how many rows do not fit. unranked: how many fitting rows have a single passage. Raises
    BadInput if no row fits.
    """
    from r2r.student.examples import length

    tokenizer = load_tokenizer(builtin.model(settings.student, "student", weights=False))
    lengths = [length(tokenizer, row, settings) for row in rows]
    fitting = [place for place, found in enumerate(lengths) if found]
    if all(len(row["docids"]) > len(prompt.LABELS) for row in rows):
        raise BadInput(
            f"annotations: all {len(rows):,} have over {len(prompt.LABELS)} passages, and there are no more labels; "
            f"annotate with --passages {len(prompt.LABELS)} or fewer"
        )
    if not fitting:
        raise BadInput(f"max_length: {settings.max_length}: no annotation fits; raise it")
    learn, held = split([rows[place]["query"] for place in fitting], settings)
    learn, held = [fitting[place] for place in learn], [fitting[place] for place in held]
    unranked = sum(len(rows[place]["docids"]) < 2 for place in fitting)
    plan = {"fitting": fitting, "learn": learn, "held": held, "lengths": [lengths[place] for place in learn]}
    return plan | {"left_out": len(rows) - len(fitting), "unranked": unranked}


def _train(config: dict[str, Any], settings: DistillSettings) -> None:
    """Train to the end, on new workers from the last checkpoint whenever one has died."""
    start_ray()
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchTrainer

    need, kind = (settings.gpus, "GPU") if settings.gpus else (1, "CPU")
    have = ray.cluster_resources().get(kind, 0)
    if have < settings.min_workers * need:
        print(f"distill: waits for {settings.min_workers * need:g} {kind}s; the cluster has {have:g}", flush=True)
    most = settings.workers
    scaling = ScalingConfig(
        num_workers=most if settings.min_workers == most else (settings.min_workers, most),
        use_gpu=settings.gpus > 0,
        resources_per_worker={"CPU": 1} | ({"GPU": settings.gpus} if settings.gpus else {}),
        # Adding workers restarts training at the last checkpoint, which is not worth it every minute.
        elastic_resize_monitor_interval_s=1800,
    )
    checkpoints = place(config["checkpoints"])
    done = checkpoint.newest(checkpoints)
    # Ray Train keeps notes on the run in its storage. Nobody reads them: checkpoints are ours.
    with (
        progress("distill", settings.steps, "step", _said, initial=done) as tell,
        TemporaryDirectory(prefix="r2r-") as notes,
    ):
        given = config | {"here": os.getcwd(), "tell": tell}
        for life in range(_MAX_RESTARTS):
            if done:
                print(f"distill: goes on after step {done}", flush=True)
            storage = f"{notes}/{life}"
            run = RunConfig(name="train", storage_path=storage, failure_config=FailureConfig(max_failures=0))
            try:
                TorchTrainer(_worker, train_loop_config=given, scaling_config=scaling, run_config=run).fit()
                break
            except WorkerGroupError as error:
                if life + 1 == _MAX_RESTARTS or not any(map(_died, error.worker_failures.values())):
                    raise
                print("distill: a worker has died; its work is done again from the last checkpoint", flush=True)
                done = checkpoint.newest(checkpoints)


def _died(failure: Exception) -> bool:
    """Return whether a worker died, rather than raised an error."""
    from ray.exceptions import RayActorError

    return isinstance(getattr(failure, "health_check_failure", failure), RayActorError)


def _worker(config: dict[str, Any]) -> None:
    use_driver_folder(config["here"])
    train(config | {"tell": config["tell"].remote})


def _checked(best: Place, settings: DistillSettings) -> dict[str, Any]:
    """Load what was saved back and compare it with what was trained. Return the content of check.json (see
    `adapter.recorded`). Raises RuntimeError if they differ."""
    trained = adapter.kind(settings)
    adapter.check_saved(places.fetch(best) / trained)
    print(f"distill: loads the {trained} back, in {dtype(settings)}, and compares it with what was trained", flush=True)

    def compare(here: str) -> list[list[float]]:
        use_driver_folder(here)
        model = builtin.model(settings.student, "student")
        held = places.fetch(best)
        return adapter.check_scores(held / trained, held / "check.json", model, settings.method)

    if settings.gpus:
        # The driver's machine may have no GPU.
        import ray

        plain = ray.get(ray.remote(num_cpus=1, num_gpus=settings.gpus)(compare).remote(os.getcwd()))
    else:
        plain = compare(os.getcwd())
    check = json.loads((best / "check.json").read_text())
    prompts = [one | {"base": base} for one, base in zip(check["prompts"], plain, strict=True)]
    return check | {"prompts": prompts}


def _said(counts: Counter[str], _: float) -> str:
    """Return the text after the bar: what is waited for, or the last step's losses and tokens per second."""
    if counts["to measure"]:
        return f"measuring on the held-out queries, {counts['measured'] / counts['to measure']:.0%}"
    if not counts["seconds"]:
        return "waiting for the first step"
    losses = " ".join(f"{name} {value:.3f}" for name, value in losses_of(counts).items())
    return f"{losses}, {counts['tokens'] / counts['seconds']:,.0f} tokens/s"
