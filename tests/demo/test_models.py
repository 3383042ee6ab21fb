"""The demo's models as they ship: they are small, have a card each, and transformers loads them.

.venv/bin/python -m pytest tests/demo/test_models.py
"""

from pathlib import Path

import pytest

from r2r import builtin

LABELS = "ABCDEFGHIJKLMNOPQRST"
ROLES = ["teacher", "student"]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(builtin.model("demo", "student"))


def test_the_weights_are_small():
    weights = [file for folder in builtin.MODELS.values() for file in folder.glob("*.safetensors")]
    assert 0 < sum(file.stat().st_size for file in weights) < 25_000_000


@pytest.mark.parametrize("role", ROLES)
def test_a_card_says_what_the_model_is(role):
    card = (Path(builtin.model("demo", role)) / "README.md").read_text()
    for said in ("python -m demo_models.train", "seed", "minutes", "foretold right", "knows nothing but"):
        assert said in card


@pytest.mark.parametrize("role", ROLES)
def test_transformers_loads_and_generates(role):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = builtin.model("demo", role)
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
