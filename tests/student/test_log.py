"""What a training tells an experiment tracker: MLflow's own file store, read back by MLflow's own client."""

import pytest

from r2r.config import DistillSettings
from r2r.errors import BadInput
from r2r.student import adapter
from r2r.student.log import Log, read_steps


def entry(step):
    return {"step": step, "pairwise": 1 / step, "listwise": 0.5, "learning_rate": 1e-4, "tokens": 100, "seconds": 2.0}


def steps(out, settings, first, last, done):
    log = Log(out, done, settings)
    for step in range(first, last + 1):
        log.write(entry(step) | ({"ndcg": 0.75} if step == last else {}))
    log.close()


def test_mlflow_gets_each_step_and_a_resumed_training_goes_on_in_the_same_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    # Releases from 3.7 on ask for this.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    settings = DistillSettings(student="demo", steps=5, tracker="mlflow")
    steps(tmp_path / "run" / "distill", settings, 1, 3, done=0)
    steps(tmp_path / "run" / "distill", settings, 4, 5, done=3)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("reason-to-rank").experiment_id])
    assert run.info.run_name == "run" and run.info.status == "FINISHED"
    assert run.data.params["steps"] == "5" and "tracker" not in run.data.params
    history = client.get_metric_history(run.info.run_id, "loss/pairwise")
    assert sorted((one.step, one.value) for one in history) == [(step, 1 / step) for step in range(1, 6)]
    assert run.data.metrics["held_out/ndcg"] == 0.75 and run.data.metrics["training/tokens_per_second"] == 50
    # Another training in the same folder is another run.
    steps(tmp_path / "run" / "distill", settings, 1, 1, done=0)
    assert len(client.search_runs([run.info.experiment_id])) == 2


def test_without_a_tracker_nothing_is_imported_and_the_steps_are_there(out, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    steps(out, DistillSettings(student="demo", steps=2), 1, 2, done=0)
    assert [one["step"] for one in read_steps(out / "steps.jsonl")] == [1, 2]
    assert not (out / "tracker").exists() and any((out / "tensorboard").glob("*"))


def test_a_log_in_a_store_is_that_of_the_last_checkpoint_at_least(out, monkeypatch):
    settings = DistillSettings(student="demo", steps=5)
    log = Log(out, 0, settings)
    for step in (1, 2):
        log.write(entry(step))
    log.keep()
    log.write(entry(3))
    # As after a kill: a step of which there is no checkpoint is taken again.
    steps(out, settings, 3, 5, done=2)
    assert [one["step"] for one in read_steps(out / "steps.jsonl")] == [1, 2, 3, 4, 5]
    assert len(list((out / "tensorboard").glob("*"))) == 2


def test_a_tracker_that_is_not_installed_is_told_before_the_training(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    adapter.check_tracker(None)
    with pytest.raises(BadInput, match="tracker: wandb: needs the package wandb"):
        adapter.check_tracker("wandb")
