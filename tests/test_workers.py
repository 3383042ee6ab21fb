import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from r2r import workers
from r2r.errors import BadInput
from r2r.workers import on_workers, share_of


class Worker:
    """Kills its process at the first try of block 1. Raises BadInput for block 3 if `bad` is set."""

    def __init__(self, folder: Path, bad: bool):
        self.folder, self.bad = folder, bad

    def __call__(self, block: pa.Table) -> dict:
        number = block["number"][0].as_py()
        if number == 1 and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            os._exit(1)
        if number == 3 and self.bad:
            raise BadInput("block 3: is wrong; do it right")
        return {"number": number, "rows": block.num_rows}


def test_a_worker_that_dies_is_replaced_and_bad_input_reaches_the_driver(ray_local, tmp_path):
    from ray import cloudpickle

    # The worker does not find this file as a module.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    blocks = [pa.table({"number": [number] * 3}) for number in range(4)]
    answers = list(on_workers(blocks, Worker, (tmp_path, False), count=1, ahead=1))
    assert sorted(answer["number"] for answer in answers) == [0, 1, 2, 3]
    assert {answer["rows"] for answer in answers} == {3}
    assert (tmp_path / "died").exists()
    with pytest.raises(BadInput, match=r"^block 3: is wrong; do it right$"):
        list(on_workers(blocks, Worker, (tmp_path, True), count=1, ahead=1))


class Here:
    def __call__(self, block: pa.Table) -> dict:
        return {"folder": os.getcwd()}


def test_relative_paths_mean_the_same_to_a_worker_of_a_ray_that_was_started_elsewhere(ray_local, tmp_path, monkeypatch):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.chdir(tmp_path)
    answers = on_workers([pa.table({"number": [1]})], Here, (), count=1, ahead=1)
    assert list(answers) == [{"folder": str(tmp_path)}]


# Two reports of one worker, the second of which replaces the first, and one of another.
REPORTS = """
import ray
from r2r.workers import _Board, beside_driver, start_ray

class Board(_Board):
    calls = 0

    def tell(self, *report):
        self.calls += 1
        return super().tell(*report)

    def told(self):
        return self.calls, dict(self.sums())

start_ray()
board = beside_driver(Board)

@ray.remote(num_cpus=1, max_retries=-1)
def report(board):
    return [ray.get(board.tell.remote(*one)) for one in (("a", {"done": 1}), ("a", {"done": 2}), ("b", {"done": 3}))]

print(ray.get(report.remote(board)), *ray.get(board.told.remote()))
"""


def test_a_report_whose_answer_is_lost_is_made_again():
    # Ray's own way to lose answers: of the first calls of each process, here.
    lost = {"CoreWorkerService.grpc_client.PushTask": {"num_failures": 2, "resp_failure_prob": 100}}
    env = os.environ | {"RAY_testing_rpc_failure": json.dumps(lost), "RAY_ADDRESS": "local"}
    done = subprocess.run([sys.executable, "-c", REPORTS], env=env, capture_output=True, text=True, timeout=300)
    found = re.search(r"^\[True, True, True\] (\d+) {'done': 5}$", done.stdout, re.MULTILINE)
    assert found and int(found[1]) > 3, done.stderr


@pytest.mark.parametrize(
    ("nodes", "actors", "each"),
    [
        ([2], 1, 2),
        ([2], 2, 1),
        ([2], 5, 1),
        ([16, 16], 2, 16),
        ([16, 4], 2, 8),
        ([16, 4], 6, 3),
        ([0, 8], 1, 8),
        ([], 1, 1),
    ],
)
def test_all_cpus_are_shared_out_among_the_engines(nodes, actors, each):
    assert share_of(nodes, actors) == each
    # Each fits on a node that is there.
    assert each == 1 or sum(cpus // each for cpus in nodes) >= actors


def test_an_engine_alone_gets_all_cpus_and_none_of_a_cluster_in_use(monkeypatch):
    import ray

    free = {"CPU": 4.0}
    monkeypatch.setattr(workers, "_PATIENCE", 0.1)
    monkeypatch.setattr(
        ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": False, "Resources": {}}]
    )
    monkeypatch.setattr(ray, "available_resources", lambda: free)
    assert workers.cpus_each(1, 0) == 4 and workers.cpus_each(2, 0) == 2
    assert workers.cpus_each(1, gpus=1) == 1
    free["CPU"] = 3.0
    assert workers.cpus_each(1, 0) == 1


HALF_MADE = """
import logging, os, signal, time
from r2r.errors import Terminated
from r2r.workers import end_on_sigterm
end_on_sigterm()
half = logging.StreamHandler.__new__(logging.StreamHandler)
logging.Handler.__init__(half)
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
except Terminated:
    print("terminated")
"""


def test_a_log_handler_that_sigterm_left_half_made_prints_nothing():
    done = subprocess.run([sys.executable, "-c", HALF_MADE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "terminated\n", "")
