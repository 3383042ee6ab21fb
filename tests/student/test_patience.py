"""When a training ends: at its last step, or before it where the student learns no more. Nothing is trained here."""

from types import SimpleNamespace

import pytest
import torch

from r2r.config import DistillSettings
from r2r.student import train


@pytest.fixture
def loop(monkeypatch):
    """A function that runs the training loop on given measurements, and returns its steps, its saves and its state."""

    def run(measured, state=None, **settings):
        chosen = DistillSettings(student="demo", evaluate_every=2, save_every=50, **settings)
        state = state or {"step": 0, "best": None, "before": None, "stopped": False}
        steps, saves = [], []
        run = SimpleNamespace(settings=chosen, rank=1, labels=None, folder=None, tell=lambda source, counts: None)
        values = iter(measured)

        def save(engine, run, state, number):
            state["step"] = number
            saves.append(number)

        stand_ins = {
            "set_up": lambda config: run,
            "resume": lambda run: (None, None, state),
            "ranking_examples": lambda run: ([], []),
            "measure": lambda *given: (next(values), None),
            "prepare": lambda run, step: step,
            "take_step": lambda engine, work, labels, settings, step: steps.append(step + 1) or {},
            "save_best": lambda *given: None,
            "save": save,
        }
        for name, stand_in in stand_ins.items():
            monkeypatch.setattr(train, name, stand_in)
        monkeypatch.setattr(train.checkpoint, "best_folder", lambda *given: None)
        monkeypatch.setattr(torch.distributed, "barrier", lambda: None)
        train.train({})
        return steps, saves, state

    return run


def test_a_training_ends_where_patience_is_over(loop):
    # The first figure is measured before training.
    steps, saves, state = loop([0.1, 0.5, 0.7, 0.6, 0.7], steps=20, patience=2)
    assert steps == list(range(1, 9)) and saves == [8]
    assert state == {"step": 8, "best": [4, 0.7], "before": 0.1, "stopped": True}
    # It does not go on when it is resumed.
    assert loop([], state, steps=20, patience=2) == ([], [], state)


def test_a_new_best_starts_the_count_again_and_the_last_step_is_no_early_end(loop):
    steps, saves, state = loop([0.1, 0.5, 0.4, 0.6, 0.5, 0.5], steps=10, patience=2)
    assert steps == list(range(1, 11)) and saves == [10] and not state["stopped"] and state["best"] == [6, 0.6]


def test_without_patience_all_steps_are_taken(loop):
    steps, _, state = loop([0.1, 0.5, 0.4, 0.4, 0.4, 0.4], steps=10)
    assert steps == list(range(1, 11)) and not state["stopped"] and state["best"] == [2, 0.5]
