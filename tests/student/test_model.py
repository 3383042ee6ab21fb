"""The student in training: which of its weights are trained, and how a student with all weights trained is saved."""

import json
from types import SimpleNamespace

import pytest
import torch

from r2r.config import DistillSettings
from r2r.llm.prompt import load_tokenizer
from r2r.student import adapter, checkpoint
from r2r.student.examples import collate, example, until_order
from r2r.student.model import load_model, predict
from r2r.student.prompt import label_ids
from r2r.student.train import forward
from tests.student.test_train import make_rows
from tests.tiny import tiny_model


@pytest.fixture
def engine(monkeypatch):
    """A function that returns a stand-in for DeepSpeed's engine of one worker, without ZeRO, after a step."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)

    def stepped(settings, tokenizer, rows):
        model = load_model(settings, "cpu")
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.01)
        labels = torch.tensor(label_ids(tokenizer, settings.student))
        batch = collate([example(tokenizer, row, settings, 0) for row in rows], 0)
        sum(forward(model, batch, labels, settings.tau)).backward()
        optimizer.step()
        return SimpleNamespace(module=model, optimizer=optimizer, zero_optimization_stage=lambda: 0, device="cpu")

    return stepped


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_student_with_all_weights_trained_is_saved_as_a_plain_model(engine, tmp_path, dtype):
    student = tiny_model()
    settings = DistillSettings(student=student, method="full", dtype=dtype, max_length=1024)
    tokenizer, rows = load_tokenizer(student), [row for row in make_rows() if len(row["docids"]) > 2]
    trained = engine(settings, tokenizer, rows[:2])
    assert all(weight.requires_grad for weight in trained.module.parameters())
    checkpoint.save_trained(trained, tmp_path / "model")

    trained.module.eval()
    probe = until_order(example(tokenizer, rows[2], settings, 0))
    with torch.no_grad():
        logprobs = predict(trained.module, collate([probe], 0))[0, -1].float().log_softmax(-1)
    labels = label_ids(tokenizer, student)
    told = {"prompt": probe.prompt + probe.reply[:-1], "labels": labels, "logprobs": logprobs[labels].tolist()}
    (tmp_path / "check.json").write_text(json.dumps({"dtype": dtype, "prompts": [told]}))
    adapter.check_saved(tmp_path / "model")
    (before,) = adapter.check_scores(tmp_path / "model", tmp_path / "check.json", student, "full")
    assert max(abs(a - b) for a, b in zip(before, told["logprobs"], strict=True)) > 0.1
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["dtype"] == dtype and "quantization_config" not in config
    # The model that was there before is not the one that was trained.
    with pytest.raises(RuntimeError, match="not what was trained"):
        adapter.check_scores(student, tmp_path / "check.json", student, "full")


def test_an_adapter_alone_is_trained(engine):
    settings = DistillSettings(student=tiny_model(), max_length=1024)
    trained = engine(settings, load_tokenizer(settings.student), make_rows()[:2])
    assert all((".lora_" in name) == one.requires_grad for name, one in trained.module.named_parameters())
