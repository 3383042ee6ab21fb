"""The log of a training run: `steps.jsonl`, TensorBoard, an experiment tracker if one is asked for, and
how busy the GPUs are.

Owns these and the count of floating point operations. Does not know how a step is taken.

    log = Log(Path("runs/demo/distill"), done=0)
    log.write({"step": 1, "pairwise": 0.7, ...})
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from r2r import places, tables
from r2r.config import DistillSettings
from r2r.places import Place
from r2r.student.losses import LOSSES

# Dense bfloat16 operations per second, as the maker says, by a part of the GPU's name. The first that fits counts.
_PEAK = {
    **{"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12, "A100": 312e12},
    **{"L40S": 362e12, "L40": 181e12, "L4": 121e12, "A10G": 70e12, "A10": 125e12, "4090": 165e12},
}

# What trackers call the place of all runs, unless their own variables name one.
_PROJECT = "reason-to-rank"


class Log:
    """The log of the first worker: a line in steps.jsonl for each step, and the same for TensorBoard.

    out: the folder of the stage. done: the step of the checkpoint that the run resumes from, 0 for none; later steps of
    an earlier attempt are removed. settings: of the training; its tracker gets the same figures as TensorBoard, and a
    resumed run goes on there.
    """

    def __init__(self, out: Place, done: int, settings: DistillSettings):
        from torch.utils.tensorboard import SummaryWriter

        kept = [line for line in read_steps(out / "steps.jsonl") if line["step"] <= done]
        if not done:
            places.remove(out / "tensorboard")
        # These files grow, which an object of a store does not.
        self.out, self.over = out, ExitStack()
        self.folder = self.over.enter_context(places.working(out))
        self.file = self.folder / "steps.jsonl"
        tables.write_text("".join(json.dumps(line) + "\n" for line in kept), self.file)
        places.bring(self.folder, out)
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=done + 1)
        self.track, self.end_tracking = _tracked(out, done, settings)

    def write_held_out(self, step: int, value: float | None) -> None:
        """Write the nDCG on the held-out queries after a step, for TensorBoard alone; None writes nothing."""
        if value is not None:
            self._scalars({"held_out/ndcg": value}, step)

    def write(self, entry: dict[str, Any]) -> None:
        """Write a step: its number, what `train.take_step` returned, `seconds`, and `mfu` and `ndcg` if known."""
        with self.file.open("a") as lines:
            lines.write(json.dumps({name: value for name, value in entry.items() if name != "squares"}) + "\n")
        step, scalars = entry["step"], {f"loss/{name}": value for name, value in losses_of(entry).items()}
        known = (name for name in ("learning_rate", "grad_norm", "padding", "mfu") if name in entry)
        scalars |= {f"training/{name}": entry[name] for name in known}
        self._scalars(scalars | {"training/tokens_per_second": entry["tokens"] / entry["seconds"]}, step)
        self.write_held_out(step, entry.get("ndcg"))

    def _scalars(self, scalars: dict[str, float], step: int) -> None:
        for name, value in scalars.items():
            self.board.add_scalar(name, value, step)
        self.track(scalars, step)

    def keep(self) -> None:
        """Bring all that was logged to where it is kept, before a checkpoint of the same step."""
        self.board.flush()
        places.bring(self.folder, self.out)

    def close(self) -> None:
        self.board.close()
        self.keep()
        self.over.close()
        self.end_tracking()


def _tracked(
    out: Place, done: int, settings: DistillSettings
) -> tuple[Callable[[dict[str, float], int], Any], Callable[[], Any]]:
    """Start a run of the tracker in the settings, or go on with the run of an earlier attempt, whose id is in the file
    `tracker`. Return a function that takes scalars and their step, and one that ends the run.

    Their own functions, not Ray's `setup_mlflow` and `setup_wandb`: with these, each attempt is a run of its own.
    """
    file = out / "tracker"
    before = file.read_text() if done and file.exists() else None
    about = {name: value for name, value in settings.model_dump(mode="json").items() if name != "tracker"}
    if settings.tracker == "mlflow":
        import mlflow

        if "MLFLOW_EXPERIMENT_NAME" not in os.environ and "MLFLOW_EXPERIMENT_ID" not in os.environ:
            mlflow.set_experiment(_PROJECT)
        begun = mlflow.start_run(run_id=before, run_name=None if before else out.parent.name)
        if before is None:
            mlflow.log_params(about)
            tables.write_text(begun.info.run_id, file)
        return (lambda scalars, step: mlflow.log_metrics(scalars, step=step)), mlflow.end_run
    if settings.tracker == "wandb":
        import wandb

        project = os.environ.get("WANDB_PROJECT", _PROJECT)
        run = wandb.init(project=project, name=out.parent.name, id=before, resume="allow", config=about)
        tables.write_text(run.id, file)
        return (lambda scalars, step: run.log(scalars, step=step)), run.finish
    return (lambda scalars, step: None), (lambda: None)


def read_steps(file: Place) -> list[dict[str, Any]]:
    """Return the steps in a steps.jsonl, without a last line that is still being written; [] if there is no file."""
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def losses_of(entry: dict[str, Any]) -> dict[str, float]:
    """Return the losses in a step's entry, by name."""
    return {loss.name: entry[loss.name] for loss in LOSSES if loss.name in entry}


def operations(model: Any) -> Callable[[dict[str, Any]], float]:
    """Return a function that gives the floating point operations a step needs, from the step's entry.

    Linear layers take 2 operations per weight and token forward, and 2 backward; a trained weight takes 2 more, for a
    gradient of its own. The output layer counts for reply tokens only. Attention takes 2 s^2 d per layer forward, for s
    tokens of width d that see earlier tokens only, and twice that backward. (As for "model FLOPs utilization" in PaLM,
    arXiv 2204.02311, but with frozen weights and causal attention.)
    """
    import torch

    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", 0) or config.hidden_size // heads)
    embedded, head = model.get_input_embeddings().weight, config.vocab_size * config.hidden_size
    # Frozen ones count, unless all are trained: an adapter's own are few.
    each = 6 if embedded.requires_grad else 4
    counted = [weight for weight in model.parameters() if weight.requires_grad == embedded.requires_grad]
    # A byte of a model in 4 bits holds two weights.
    weights = sum(weight.numel() * (1 + (weight.dtype == torch.uint8)) for weight in counted) - embedded.numel()
    if model.get_output_embeddings().weight is not embedded:
        weights -= head

    def step_operations(entry: dict[str, Any]) -> float:
        attention = 6 * config.num_hidden_layers * width * entry["squares"]
        return each * (weights * entry["tokens"] + head * entry["replies"]) + attention

    return step_operations


def peak(settings: DistillSettings) -> float | None:
    """Return the operations per second that this worker's GPU can do; None without a GPU, or for an unknown one."""
    if not settings.gpus:
        return None
    import torch

    name = torch.cuda.get_device_name()
    return next((rate for part, rate in _PEAK.items() if part in name), None)
