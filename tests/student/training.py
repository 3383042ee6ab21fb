"""The trainings for test_train.py, without Ray: python training.py FOLDER PORT ...

The first port is for one worker that runs FOLDER/jobs-1.json, the second for two workers that run jobs-2.json, and so
on. A jobs file is a list of {"name", "settings", "after": a job to wait for, "resume": a job whose checkpoints to
resume from, "die": the step at which to fail}. Each job leaves its files and gradients, and what it told for the
progress line, in FOLDER/NAME.
"""

import json
import os
import shutil
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path


def rows(file: Path) -> list[dict]:
    return json.loads(file.read_text())


def run(folder: Path, job: dict, rank: int) -> None:
    import torch
    from deepspeed.utils import safe_get_full_grad

    from r2r.config import DistillSettings
    from r2r.student import train as training
    from r2r.student.distill import choose

    settings = DistillSettings(**job["settings"])
    out = folder / job["name"]
    if rank == 0:
        out.mkdir()
        if "resume" in job:
            shutil.copytree(folder / job["resume"] / "checkpoints", out / "checkpoints")
            shutil.copy(folder / job["resume"] / "steps.jsonl", out)
        (out / "checkpoints").mkdir(exist_ok=True)
    if rank == 0:
        (out / "checkpoints" / "plan.json").write_text(json.dumps(choose(rows(folder / "rows.json"), settings)))
    torch.distributed.barrier()

    def tell(source: str, counts: dict) -> None:
        with (out / "told.jsonl").open("a") as lines:
            lines.write(json.dumps([source, counts]) + "\n")

    config = {
        **{"settings": settings.model_dump(), "rows": partial(rows, folder / "rows.json")},
        **{"out": str(out), "checkpoints": str(out / "checkpoints"), "tell": tell},
    }
    took = training.take_step

    def take_step(engine, work, labels, settings, step):
        if step + 1 == job.get("die"):
            raise InterruptedError
        ends = engine.step

        def record():
            # The gradients of the whole step, before they are clipped.
            if step == 0 and engine.is_gradient_accumulation_boundary():
                named = {name: one for name, one in engine.module.named_parameters() if one.requires_grad}
                gradients = {name: safe_get_full_grad(one).clone() for name, one in named.items()}
                if rank == 0:
                    torch.save(gradients, out / "gradients.pt")
            ends()

        engine.step = record
        try:
            return took(engine, work, labels, settings, step)
        finally:
            engine.step = ends

    training.take_step = take_step
    try:
        training.train(config)
    except InterruptedError:
        pass
    finally:
        training.take_step = took
    torch.distributed.barrier()
    if rank == 0:
        (out / "done").touch()


def work(folder: Path, rank: int, world: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"LOCAL_RANK": str(rank)}
    import torch

    torch.distributed.init_process_group("gloo")
    for job in json.loads((folder / f"jobs-{world}.json").read_text()):
        while "after" in job and not (folder / job["after"] / "done").exists():
            time.sleep(0.1)
        run(folder, job, rank)


def main(folder: Path, *ports: int) -> None:
    os.environ |= {"DS_ACCELERATOR": "cpu"}
    # Imported once, before the fork: imports take longer than all of the training.
    import deepspeed  # noqa: F401
    import peft  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401

    import r2r.student.distill  # noqa: F401

    workers = set()
    for world, port in enumerate(ports, start=1):
        for rank in range(world):
            if not (worker := os.fork()):
                status = 1
                try:
                    work(folder, rank, world, port)
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(status)
            workers.add(worker)
    failed = False
    while workers and not failed:
        worker, status = os.wait()
        workers.remove(worker)
        failed = status != 0
    # The others would wait for the failed one.
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    sys.exit(failed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
