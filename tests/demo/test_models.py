"""The demo's models: deterministic, safe to race for, and loaded by transformers as they lie.

.venv/bin/python -m pytest tests/demo/test_models.py
"""

import multiprocessing
from pathlib import Path

import pytest

from r2r.demo.models import demo_model

LABELS = "ABCDEFGHIJKLMNOPQRST"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def tokenizer(cache):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(demo_model("student"))


def contents(folder: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def test_built_twice_the_bytes_are_the_same(cache, tmp_path, monkeypatch):
    first = contents(demo_model("teacher"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert contents(demo_model("teacher")) == first


def test_teacher_and_student_differ_in_weights_and_share_a_tokenizer(cache):
    teacher, student = contents(demo_model("teacher")), contents(demo_model("student"))
    differing = {name for name in teacher if teacher[name] != student[name]}
    assert "model.safetensors" in differing
    assert differing.isdisjoint(["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])


def test_processes_may_race(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.map(demo_model, ["student", "student"])
    assert folders[0] == folders[1]
    assert [file.name for file in Path(folders[0]).parent.iterdir()] == ["student"]


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_transformers_loads_and_generates(cache, role):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = demo_model(role)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    prompt = tokenizer("Which animal glows at night?", return_tensors="pt")
    reply = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert prompt.input_ids.shape[1] < reply.shape[1] <= prompt.input_ids.shape[1] + 4


def test_every_label_is_one_token_wherever_it_stands(tokenizer):
    for label in LABELS:
        (token,) = tokenizer.encode(label, add_special_tokens=False)
        assert tokenizer(f"{label} > A > B", add_special_tokens=False).input_ids[0] == token
        assert tokenizer(f"[{label}] a passage", add_special_tokens=False).input_ids[1] == token


def test_text_comes_back_as_it_was(tokenizer):
    for text in ('{"order": "C > A > B"}', " two  spaces , and a comma", "naïve Ångström 水 🦊\n"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_chat_template_is_chatml(tokenizer):
    messages = [{"role": "system", "content": "Rank."}, {"role": "user", "content": "A or B?"}]
    chat = "<|im_start|>system\nRank.<|im_end|>\n<|im_start|>user\nA or B?<|im_end|>\n"
    assert tokenizer.apply_chat_template(messages, tokenize=False) == chat
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == chat + "<|im_start|>assistant\n"


def test_control_tokens_are_single_tokens_only_where_asked_for(tokenizer):
    for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        assert len(tokenizer.encode(token, add_special_tokens=False)) == 1
        assert len(tokenizer.encode(token, add_special_tokens=False, split_special_tokens=True)) > 1
