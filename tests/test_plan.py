"""`benchmarks/plan.py`: its arithmetic, its limits, and its simulation of the pool."""

import json

import pytest

from benchmarks import plan
from r2r.teacher.stats import guessed_reply


@pytest.fixture
def known():
    return plan.known_with({"loss": 0.0})


def simulated(load, ready, **losses):
    return plan.simulate(plan.Load(*load), ready, **losses)


def test_a_full_engine_takes_as_many_rows_as_its_slots_do():
    # 800 rows in 8 slots of 2 s each, on two actors: 100 s; the last rows end at different times.
    done = simulated((800, 2, 4, 2.0), [10.0, 10.0])
    assert 210 < done.seconds < 217 and 0.95 < done.busy <= 1 and done[1:3] == (0, 0)
    # Without a spread it is exact.
    assert simulated((800, 2, 4, 2.0, 0.0), [10.0, 10.0]).seconds == 210


@pytest.mark.parametrize("actors", [2, 16, 200])
def test_actors_that_start_late_still_get_their_share(actors):
    rows, seconds = 100 * actors, 3.0
    late = [seconds * actor / actors for actor in range(actors)]
    done = simulated((rows, actors, 16, seconds), late)
    # 100 rows in 16 slots are 19 s. An even share is at most seven rounds of half to one and a half.
    assert done.seconds < late[-1] + 1.35 * 100 * seconds / 16


def test_a_lost_engine_asks_its_rows_again():
    whole = simulated((2000, 4, 8, 2.0), [0.0] * 4)
    lost = simulated((2000, 4, 8, 2.0), [0.0] * 4, loss=60.0, back=10.0)
    assert lost.deaths > 0 and 0 < lost.lost_rows <= 8 * lost.deaths
    assert lost.seconds > whole.seconds and lost.busy < whole.busy


@pytest.mark.parametrize("name", ["70B", "8B"])
def test_more_gpus_are_never_slower_and_never_save_gpu_hours(name, known):
    found = [plan.annotate(name, gpus, known, 50_000) for gpus in (8, 16, 64, 256)]
    seconds, hours = ([one[what] for one in found] for what in ("seconds", "gpu_hours"))
    assert seconds == sorted(seconds, reverse=True) and hours == sorted(hours)
    assert all(one["busy"] <= 1.001 for one in found)


def test_the_time_is_what_the_tokens_and_the_start_take(known):
    speed = {**known, "speed 8B": 1000.0}
    found = plan.annotate("8B", 8, speed, 100_000)
    tokens = guessed_reply(plan.PASSAGES, "both")
    asking = 100_000 * tokens / 1000 / 8
    start = known["job"] + known["node"] + known["start 8B"]
    assert start + asking < found["seconds"] < start + 1.05 * asking + found["tables"]
    assert found["tokens_per_second"] == 8000
    assert found["cost"] == pytest.approx(found["gpu_hours"] * known["price"], rel=0.01)


def test_a_student_in_training_uses_no_more_gpus_than_a_step_has_batches(known):
    found = [plan.distill(gpus, known, 64_000) for gpus in (8, 32, 256)]
    assert [one["engines"] for one in found] == [8, 32, 32]
    assert found[0]["seconds"] > found[1]["seconds"] == found[2]["seconds"]
    assert found[0]["steps"] == 2000


def test_few_queries_use_few_engines_and_windows_are_those_of_the_strategy(known):
    found = plan.rerank(43, 64, known)
    assert (found["engines"], found["windows"]) == (43, 6)
    assert plan.rerank(43, 64, known, window=5)["windows"] == 35


def test_an_actors_process_is_a_limit_of_its_own(known):
    fast = plan.annotate("8B", 8, {**known, "speed 8B": 1e9}, 50_000)
    assert fast["rows_per_second"] <= 8 / (known["row"] + known["prompt"])
    (process,) = (share for name, share, _ in fast["limits"] if name == "an actor's process")
    assert 0.5 < process <= 1.01


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "0"], "gpus: 0; at least 1 is needed"),
        (["--gpus", "2"], "gpus: 2: an engine of 70B takes 4; give at least as many"),
        (["--price", "-1"], "price: -1; a figure above 0 is needed"),
        (["--loss", "nan"], "loss: nan; a figure above 0 is needed"),
        (
            ["--speed", "9B=3"],
            "speed: 9B=3: names no model; write speed as NAME=NUMBER, of 70B, 8B, 7B, distill, rerank",
        ),
        (["--start", "8B=x"], "start: 8B=x: is no number; write it as 8B=900"),
    ],
)
def test_wrong_input_is_one_line(words, said, tmp_path, capsys):
    out = tmp_path / "plan.json"
    assert plan.main([*words, "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"plan: {said}\n" and not out.exists()


def test_the_tables_are_printed_and_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plan, "QUERIES", 2000)
    out = tmp_path / "plan.json"
    assert plan.main(["--gpus", "8", "--speed", "70B=900", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert {one["is"] for one in written["figures"].values()} == {"assumed", "measured"}
    assert [one["stage"] for one in written["plans"]][:4] == ["index", "retrieve", "annotate", "annotate"]
    assert "| annotate, 70B | 500,000 |" in capsys.readouterr().out
