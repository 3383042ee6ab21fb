"""The training loop under DeepSpeed, with one worker and with two: the number of workers, restarts and ZeRO stages must
not change the result."""

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from r2r import builtin
from r2r.config import DistillSettings
from r2r.errors import BadInput
from r2r.student import adapter
from r2r.student.distill import _said
from r2r.student.log import operations, read_steps
from r2r.student.losses import LOSSES
from r2r.student.model import load_model, predict
from r2r.student.train import is_over, learning_rate
from r2r.workers import _Board
from tests.tiny import tiny_model

NAMES = [loss.name for loss in LOSSES if loss.always]
STEPS, STOPPED = 6, 5
BASE = {
    **{"steps": STEPS, "batch": 2, "workers": 2, "learning_rate": 0.01, "lora_rank": 1, "warmup": 0.2},
    **{"max_length": 640, "held_out": 0.2, "evaluate_every": 2, "save_every": 2, "lora_dropout": 0.2},
}
ONE_STEP = {"steps": 1, "held_out": 0, "workers": 1}


def job(name: str, resume: str | None = None, die: int | None = None, after: str | None = None, **settings) -> dict:
    more = {"resume": resume, "after": after or resume, "die": die}
    return {"name": name, "settings": settings} | {key: value for key, value in more.items() if value is not None}


# By the number of workers.
JOBS = {
    1: [
        job("one worker", workers=1),
        job("one worker again", workers=1),
        job("another seed", workers=1, seed=1),
        job("one worker, zero 3", workers=1, zero_stage=3),
        job("one worker stopped", workers=1, zero_stage=0, die=STOPPED),
        *(job(f"checkpointing, zero {stage}", checkpointing=True, zero_stage=stage) for stage in (2, 3)),
        *(
            made
            for stage in (0, 2, 3)
            for made in (
                job(f"bfloat16, zero {stage}", dtype="bfloat16", zero_stage=stage),
                job(f"bfloat16 stopped, zero {stage}", dtype="bfloat16", zero_stage=stage, die=STOPPED),
                job(
                    f"bfloat16 stopped and on, zero {stage}",
                    dtype="bfloat16",
                    zero_stage=stage,
                    resume=f"bfloat16 stopped, zero {stage}",
                ),
            )
        ),
        *(
            job(f"{reasoning}, order {order}", reasoning=reasoning, order_position=order, **ONE_STEP)
            for reasoning in ("none", "direct", "comparison", "both")
            for order in ("first", "last")
        ),
        *(
            job(
                f"all weights, zero {stage}{more}",
                workers=1,
                method="full",
                learning_rate=1e-3,
                zero_stage=stage,
                **given,
            )
            for stage in (0, 2, 3)
            for more, given in (
                ("", {}),
                (" stopped", {"die": STOPPED}),
                (" stopped and on", {"resume": f"all weights, zero {stage} stopped"}),
            )
        ),
        job("all weights, bfloat16", workers=1, method="full", learning_rate=1e-3, dtype="bfloat16"),
        *(job(f"without {part}", **{part: 0}, **ONE_STEP) for part in NAMES),
        job("without patience", patience=1, workers=1, learning_rate=1e-9, evaluate_every=1),
        job(
            "stopped without patience",
            workers=1,
            patience=1,
            learning_rate=1e-9,
            evaluate_every=1,
            resume="without patience",
        ),
        job("other losses", margin=0.3, lambdarank=0.7, **ONE_STEP),
        job("likelihood, one worker", workers=1, scores="likelihood"),
        job("two workers, then one", resume="two workers stopped"),
        job("two workers, then one, zero 3", resume="two workers stopped, zero 3", zero_stage=3),
    ],
    2: [
        job("two workers"),
        job("two workers, zero 0", zero_stage=0),
        job("all weights, two workers", method="full", learning_rate=1e-3),
        job("two workers, zero 3", zero_stage=3),
        *(job(f"likelihood, two workers, zero {stage}", scores="likelihood", zero_stage=stage) for stage in (2, 3)),
        job("two workers stopped, zero 3", zero_stage=3, die=STOPPED),
        job("two workers stopped", die=STOPPED),
        job("one worker, then two, zero 3", zero_stage=3, resume="one worker stopped"),
        job("one worker, then two", resume="one worker stopped"),
    ],
}


def make_rows() -> list[dict]:
    """Return annotations of 1 to 6 passages, some short and some long."""
    draw = random.Random(0)
    words = ["flea", "dog", "cat", "river", "bark", "swim", "live", "day", "year", "fast", "slow", "old"]
    rows = []
    for number in range(24):
        size = draw.choice([1, 2, 3, 4, 6])
        ranking = list(range(1, size + 1))
        draw.shuffle(ranking)
        texts = [" ".join(draw.choices(words, k=draw.choice([3, 8, 20]))) for _ in range(size)]
        direct = [f"It says {text.split()[0]}." for text in texts]
        comparison = [f"Beside [{draw.randint(1, size)}]." for _ in texts]
        row = {"qid": f"q{number}", "query": " ".join(draw.choices(words, k=4)), "texts": texts, "ranking": ranking}
        row |= {"docids": [str(place) for place in range(size)], "evidence": [""] * size}
        rows.append(row | {"direct": direct, "comparison": comparison})
    return rows


def make_student(folder: Path) -> None:
    """Write a tiny model whose adapter has an odd number of weights, so that workers get parts of different sizes."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_model())
    config = Qwen3Config(
        **{"vocab_size": len(tokenizer), "hidden_size": 33, "intermediate_size": 35, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "initializer_range": 0.2},
        **{"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "dtype": "float32"},
    )
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder with the files of every job."""
    folder = tmp_path_factory.mktemp("trained")
    make_student(folder / "student")
    (folder / "rows.json").write_text(json.dumps(make_rows()))
    env = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_EXTENSIONS_DIR": str(folder / "extensions")}
    ports = []
    for world, jobs in JOBS.items():
        every = [one | {"settings": BASE | {"student": str(folder / "student")} | one["settings"]} for one in jobs]
        (folder / f"jobs-{world}.json").write_text(json.dumps(every))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(str(free.getsockname()[1]))
    command = [sys.executable, str(Path(__file__).with_name("training.py")), str(folder), *ports]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


def weights(trained: Path, name: str) -> dict:
    (found,) = (trained / name / "checkpoints").glob("best-*/*/*.safetensors")
    return load_file(found)


def last_weights(trained: Path, name: str) -> dict:
    """The trained weights after the last step, which may not be the best."""
    return load_file(trained / name / "checkpoints" / f"step-{STEPS:06}" / "state.safetensors")


def same(trained: Path, one: str, other: str, most: float) -> None:
    for read in (weights, last_weights):
        first, second = read(trained, one), read(trained, other)
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            torch.testing.assert_close(tensor, second[name], rtol=0, atol=most, msg=lambda said: f"{name}: {said}")  # noqa: B023
    steps = [read_steps(trained / name / "steps.jsonl") for name in (one, other)]
    assert [step["step"] for step in steps[0]] == [step["step"] for step in steps[1]] == list(range(1, STEPS + 1))
    for mine, theirs in zip(*steps, strict=True):
        assert mine["tokens"] == theirs["tokens"] and mine["unranked"] == theirs["unranked"]
        assert mine["learning_rate"] == theirs["learning_rate"]
        for part in NAMES:
            assert mine[part] == pytest.approx(theirs[part], abs=max(most, 1e-6) * 10)


def test_two_workers_have_the_gradients_of_one_with_doubled_accumulation(trained):
    names = ("two workers", "one worker", "two workers, zero 3")
    every = [torch.load(trained / name / "gradients.pt") for name in names]
    for name, gradient in every[0].items():
        assert ".lora_" in name
        for other in every[1:]:
            torch.testing.assert_close(other[name].view_as(gradient), gradient, rtol=1e-5, atol=1e-5)
    assert any(gradient.abs().max() > 0.01 for gradient in every[0].values())


@pytest.mark.parametrize(
    "name",
    [
        *("one worker", "two workers, zero 0", "two workers, zero 3", "one worker, zero 3"),
        *("checkpointing, zero 2", "checkpointing, zero 3"),
    ],
)
def test_the_adapter_does_not_depend_on_workers_zero_or_checkpointing(trained, name):
    same(trained, "two workers", name, 1e-4)


@pytest.mark.parametrize("stage", [2, 3])
def test_nor_where_a_step_reads_windows_and_single_passages(trained, stage):
    same(trained, "likelihood, one worker", f"likelihood, two workers, zero {stage}", 1e-4)


def test_the_same_seed_gives_the_same_adapter(trained):
    same(trained, "one worker", "one worker again", 0)
    one, other = weights(trained, "one worker"), weights(trained, "another seed")
    assert any((tensor - other[name]).abs().max() > 1e-3 for name, tensor in one.items())


@pytest.mark.parametrize(
    "name",
    [
        *("one worker, then two", "one worker, then two, zero 3"),
        *("two workers, then one", "two workers, then one, zero 3"),
    ],
)
def test_a_run_goes_on_with_more_workers_or_fewer_as_if_never_stopped(trained, name):
    same(trained, "two workers", name, 1e-4)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_bfloat16_goes_on_as_if_never_stopped(trained, stage):
    # The checkpoint must restore the optimizer's float32 weights: the model holds them in bfloat16 only.
    same(trained, f"bfloat16, zero {stage}", f"bfloat16 stopped and on, zero {stage}", 1e-6)
    tensors = weights(trained, f"bfloat16, zero {stage}")
    assert any((tensor != tensor.bfloat16().float()).any() for tensor in tensors.values())


@pytest.mark.parametrize(
    "name",
    [
        *("two workers", "two workers, zero 0", "two workers, zero 3"),
        *("bfloat16, zero 0", "bfloat16, zero 2", "bfloat16, zero 3"),
    ],
)
def test_a_saved_adapter_is_loaded_back_as_it_was_trained(trained, name):
    (best,) = (trained / name / "checkpoints").glob("best-*")
    adapter.check_saved(best / "adapter")
    adapter.check_scores(best / "adapter", best / "check.json", str(trained / "student"))
    checks = json.loads((best / "check.json").read_text())["prompts"]
    assert len(checks) == 4
    checks[0]["logprobs"] = [value + 0.5 for value in checks[0]["logprobs"]]
    (best / "wrong.json").write_text(json.dumps({"dtype": "float32", "prompts": checks}))
    with pytest.raises(RuntimeError, match="not what was trained"):
        adapter.check_scores(best / "adapter", best / "wrong.json", str(trained / "student"))


@pytest.mark.parametrize(
    "name",
    ["all weights, zero 0", "all weights, zero 3", "all weights, two workers", "all weights, zero 2 stopped and on"],
)
def test_training_all_weights_does_not_depend_on_workers_zero_or_stops(trained, name):
    same(trained, "all weights, zero 2", name, 1e-4)


@pytest.mark.parametrize("stage", [0, 3])
def test_training_all_weights_goes_on_as_if_never_stopped(trained, stage):
    same(trained, f"all weights, zero {stage}", f"all weights, zero {stage} stopped and on", 1e-6)


@pytest.mark.parametrize("name", ["all weights, zero 2", "all weights, zero 3", "all weights, bfloat16"])
def test_a_saved_model_is_a_plain_one_and_is_loaded_back_as_it_was_trained(trained, name):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (best,) = (trained / name / "checkpoints").glob("best-*")
    assert sorted(file.name for file in best.iterdir()) == ["check.json", "model"]
    student, model = str(trained / "student"), best / "model"
    adapter.check_saved(model)
    before = adapter.check_scores(model, best / "check.json", student, "full")
    checks = json.loads((best / "check.json").read_text())
    assert len(before) == 4 and all(
        one != probe["logprobs"] for one, probe in zip(before, checks["prompts"], strict=True)
    )
    loaded, old = AutoModelForCausalLM.from_pretrained(model), AutoModelForCausalLM.from_pretrained(student)
    assert str(loaded.dtype) == f"torch.{checks['dtype']}" and AutoTokenizer.from_pretrained(model).chat_template
    unmoved = [key for key, one in loaded.state_dict().items() if (one.float() == old.state_dict()[key].float()).all()]
    assert unmoved == []


def test_the_best_on_held_out_queries_is_kept_and_the_last_step(trained):
    steps = read_steps(trained / "two workers" / "steps.jsonl")
    measured = {step["step"]: step["ndcg"] for step in steps if "ndcg" in step}
    assert list(measured) == [2, 4, 6] and all(0 < value <= 1 for value in measured.values())
    best = max(measured, key=lambda step: (measured[step], -step))
    folder = trained / "two workers" / "checkpoints"
    assert sorted(found.name for found in folder.iterdir()) == [f"best-{best:06}", "plan.json", f"step-{STEPS:06}"]
    state = json.loads((folder / f"step-{STEPS:06}" / "state.json").read_text())
    assert state["best"] == [best, measured[best]] and 0 < state["before"] <= 1


@pytest.mark.parametrize("name", ["without patience", "stopped without patience"])
def test_a_student_that_learns_no_more_is_not_trained_to_the_last_step(trained, name):
    # At such a learning rate no step changes the order, so the first measurement is the best. Nor does a training that
    # has ended go on when it is resumed.
    steps = read_steps(trained / name / "steps.jsonl")
    assert [step["step"] for step in steps] == [1, 2] and steps[0]["ndcg"] == steps[1]["ndcg"]
    folder = trained / name / "checkpoints"
    assert sorted(found.name for found in folder.iterdir()) == ["best-000001", "plan.json", "step-000002"]
    state = json.loads((folder / "step-000002" / "state.json").read_text())
    assert state["stopped"] and state["best"] == [1, steps[0]["ndcg"]]


def test_other_losses_are_learned_from_and_logged(trained):
    (step,) = read_steps(trained / "other losses" / "steps.jsonl")
    assert all(step[name] > 0 for name in (*NAMES, "margin", "lambdarank"))
    assert not {"margin", "lambdarank"} & read_steps(trained / "one worker" / "steps.jsonl")[0].keys()
    gradients = [torch.load(trained / name / "gradients.pt") for name in ("other losses", "both, order first")]
    assert any((one - gradients[1][name]).abs().max() > 1e-3 for name, one in gradients[0].items())


def test_patience_counts_measurements_without_a_new_best():
    settings = DistillSettings(student="demo", evaluate_every=10, patience=2)

    def over(best, number, settings=settings):
        return is_over({"step": number, "best": best, "before": 0.5, "stopped": False}, settings, number)

    assert not over([10, 0.5], 20) and over([10, 0.5], 30) and not over([30, 0.5], 30) and not over(None, 30)
    assert not over([10, 0.5], 90, settings.model_copy(update={"patience": 0}))


def test_steps_tell_what_they_were_made_of(trained):
    steps = read_steps(trained / "two workers" / "steps.jsonl")
    assert all(0 <= step["padding"] < 0.5 and step["grad_norm"] > 0 and step["examples"] == 4 for step in steps)
    assert sum(step["unranked"] for step in steps) > 0


def test_the_progress_line_says_what_is_waited_for(trained):
    board, lines, done = _Board(), [], []
    for line in (trained / "two workers" / "told.jsonl").read_text().splitlines():
        board.tell(*json.loads(line))
        lines.append(_said(board.sums(), 0))
        done.append(board.sums()["done"])
    assert list(dict.fromkeys(done)) == list(range(STEPS + 1))
    assert lines[0] == "waiting for the first step" and lines[-1].endswith("tokens/s")
    # Before the first step, and after every second one.
    begins = "measuring on the held-out queries, 0%"
    assert [step for step, line in zip(done, lines, strict=True) if line == begins] == [0, 2, 4, 6]
    last = read_steps(trained / "two workers" / "steps.jsonl")[-1]
    assert lines[-1].startswith(f"pairwise {last['pairwise']:.3f} listwise ")


def test_tensorboard_has_them(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(trained / "two workers" / "tensorboard")).Reload()
    losses = [f"loss/{part}" for part in NAMES]
    told = [f"training/{name}" for name in ("learning_rate", "grad_norm", "padding", "tokens_per_second")]
    assert set(board.Tags()["scalars"]) == {*losses, *told, "held_out/ndcg"}
    steps = read_steps(trained / "two workers" / "steps.jsonl")
    found = [(event.step, event.value) for event in board.Scalars("loss/pairwise")]
    assert found == [(step["step"], pytest.approx(step["pairwise"])) for step in steps]
    assert [event.step for event in board.Scalars("held_out/ndcg")] == [0, 2, 4, 6]


@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("reasoning", ["none", "direct", "comparison", "both"])
def test_every_kind_of_reply_is_learned(trained, reasoning, order):
    (step,) = read_steps(trained / f"{reasoning}, order {order}" / "steps.jsonl")
    assert all(step[part] > 0 for part in NAMES)
    assert torch.cat([one.flatten() for one in weights(trained, f"{reasoning}, order {order}").values()]).any()


def test_a_part_without_weight_has_no_gradient(trained):
    gradients = {part: torch.load(trained / f"without {part}" / "gradients.pt") for part in NAMES}
    full = torch.load(trained / "both, order first" / "gradients.pt")
    for name, gradient in full.items():
        # Each loss is missing in one of them.
        total = sum(one[name] for one in gradients.values())
        torch.testing.assert_close(total, (len(NAMES) - 1) * gradient, rtol=1e-4, atol=1e-5)
    assert all(any((one[name] - full[name]).abs().max() > 1e-3 for name in full) for one in gradients.values())


def test_deepspeed_compiles_nothing(trained):
    # A process killed while compiling leaves a lock behind, and every later run waits for it.
    assert not (trained / "extensions").exists()


def test_layers_that_the_student_lacks_are_named():
    with pytest.raises(BadInput, match=r"lora_targets: wq: no such layer in demo; it has .*, q_proj"):
        adapter.check_targets(["q_proj", "wq"], builtin.model("demo", "student"), "demo")


@pytest.mark.slow
def test_operations_are_those_that_are_counted(tmp_path):
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        **{"vocab_size": 1024, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 12, "head_dim": 32},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False},
    )
    Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    model = load_model(DistillSettings(student=str(tmp_path), lora_rank=1), "cpu")
    model.set_attn_implementation("eager")
    for length in (16, 256):
        ids = torch.ones(1, length, dtype=torch.long)
        batch = {"input_ids": ids, "attention_mask": ids, "position_ids": ids.cumsum(-1) - 1}
        with FlopCounterMode(display=False) as counter:
            predict(model, batch | {"targets": ids[:, :4]}).sum().backward()
        ours = operations(model)({"tokens": length, "squares": length**2, "replies": 4})
        # It also counts the attention that the causal mask removes.
        theirs = counter.get_total_flops() - 6 * 12 * 128 * length**2
        assert ours == pytest.approx(theirs, rel=0.05)


def test_the_learning_rate_rises_and_falls():
    settings = DistillSettings(student="demo", steps=20, learning_rate=1.0, warmup=0.2)
    rates = [learning_rate(settings, step) for step in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True) and 0 < rates[-1] < 0.02
    linear = settings.model_copy(update={"decay": "linear"})
    assert learning_rate(linear, 12) == pytest.approx(0.5)
    assert learning_rate(settings, 12) == pytest.approx(0.5)
    assert learning_rate(settings.model_copy(update={"decay": "none", "warmup": 0.0}), 19) == 1.0
