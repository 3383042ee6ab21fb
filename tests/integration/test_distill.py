"""One training by the command, killed three times, terminated once and resumed, in the end on one CPU with one worker
of two; and the same undisturbed. Both end with the same adapter.

Owns the kills: of one of Ray Train's workers, of the driver, of the Ray node, and SIGTERM.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from demo_models.world import world
from r2r import tables
from tests.ending import terminate
from tests.tiny import tiny_model

pytestmark = pytest.mark.slow

R2R = str(Path(sys.executable).parent / "r2r")
TRAINING = Path(__file__).parents[1] / "student" / "training.py"
STEPS = 60
SETTINGS = {
    **{"student": tiny_model(), "steps": STEPS, "workers": 2, "learning_rate": 0.01, "lora_dropout": 0.1},
    **{"save_every": 5, "evaluate_every": 20, "held_out": 0.2, "reasoning": "direct", "max_length": 1024},
}


@pytest.fixture
def rows(tmp_path) -> list[dict]:
    """Annotations in the order in which distill reads them, and the table of them in `tmp_path`."""
    texts = [passage.text for passage in world().world.passages]
    found = []
    for number in range(20):
        passages = texts[3 * number : 3 * number + 3]
        row = {"qid": f"q{number:02}", "query": passages[0][:40], "docids": ["a", "b", "c"], "texts": passages}
        row |= {"ranking": [1 + number % 3, 1 + (number + 1) % 3, 1 + (number + 2) % 3], "comparison": [""] * 3}
        row |= {"direct": [text[:20] for text in passages], "evidence": [""] * 3, "teacher": "t", "key": str(number)}
        found.append(row | {"attempts": 1, "prompt_tokens": 1, "completion_tokens": 1})
    tables.write(found, tmp_path / "annotate", "annotations")
    return found


class Distillation:
    """The job, run by one command that is given again whenever it was killed."""

    def __init__(self, folder: Path):
        self.out = folder / "distill"
        self.command = [R2R, "distill", "--annotations", str(folder / "annotate"), "--out", str(self.out)]
        for name, value in SETTINGS.items():
            self.command += ["--" + name.replace("_", "-"), str(value)]
        self.log = folder / "log"
        self.start()

    def start(self, **env: str) -> None:
        env = os.environ | {"RAY_ADDRESS": "local", "TORCH_EXTENSIONS_DIR": str(self.out / "extensions")} | env
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=env, stdout=log, stderr=log, start_new_session=True)

    def steps(self) -> list[int]:
        file = self.out / "steps.jsonl"
        return [json.loads(line)["step"] for line in file.read_text().splitlines()] if file.exists() else []

    def kill(self, name: str, step: int, resumed: int) -> None:
        """Kill the driver, or a process below it, once the training has resumed so often and has come to a step."""
        while len(self.steps()) < step or self.log.read_text().count("goes on after step") < resumed:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.02)
        driver = psutil.Process(self.process.pid)
        if name == "driver":
            driver.kill()
            return
        if name == "SIGTERM":
            terminate(self.process, self.log)
            return
        below = ((one, Path((one.cmdline() or [""])[0]).name) for one in driver.children(recursive=True))
        victim = next(one for one, title in below if title.startswith(name))
        victim.kill()
        print(f"{name} is killed after step {len(self.steps())}", flush=True)


@pytest.fixture
def job(rows, tmp_path):
    started = Distillation(tmp_path)
    yield started
    started.process.kill()
    started.process.wait()


def test_kills_of_worker_driver_and_node_change_nothing(job, rows, tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "jobs-1.json").write_text(json.dumps([{"name": "undisturbed", "settings": SETTINGS}]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    job.kill("ray::RayTrainWorker", 7, resumed=0)
    # The same command goes on by itself.
    job.kill("driver", 17, resumed=1)
    job.process.wait()
    one_cpu = {"RAY_OVERRIDE_RESOURCES": '{"CPU": 1}'}
    job.start(**one_cpu)
    job.kill("SIGTERM", 22, resumed=2)
    job.start(**one_cpu)
    job.kill("raylet", 32, resumed=3)
    # Its workers notice it sooner or later.
    if job.process.wait():
        job.start(**one_cpu)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(TRAINING), str(tmp_path), port], check=True, capture_output=True, env=env)
    assert job.process.wait() == 0, job.log.read_text()[-3000:]

    said = job.log.read_text()
    assert said.count("goes on after step") in (3, 4) and said.count("a worker has died") == 1
    assert job.steps() == list(range(1, STEPS + 1))
    (best,) = (tmp_path / "undisturbed" / "checkpoints").glob("best-*")
    undisturbed = load_file(best / "adapter" / "adapter_model.safetensors")
    killed = load_file(job.out / "adapter" / "adapter_model.safetensors")
    assert killed.keys() == undisturbed.keys()
    for name, tensor in killed.items():
        torch.testing.assert_close(tensor, undisturbed[name], rtol=0, atol=1e-4)
    manifest = json.loads((job.out / "manifest.json").read_text())
    assert manifest["best_step"] == int(best.name[5:]) and manifest["held_out"] == 4
    assert sorted(file.name for file in job.out.iterdir()) == [
        *("adapter", "check.json", "manifest.json", "steps", "steps.jsonl", "tensorboard")
    ]
