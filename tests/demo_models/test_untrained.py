"""The models before training: always the same, and each label is one token.

.venv/bin/python -m pytest tests/demo_models/test_untrained.py
"""

import pytest
from transformers import AutoTokenizer

from demo_models.untrained import make_tokenizer, new_model
from r2r import builtin

LABELS = "ABCDEFGHIJKLMNOPQRST"


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def test_made_twice_they_are_the_same(tokenizer):
    assert make_tokenizer().backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    first, again = new_model(tokenizer, 1).state_dict(), new_model(tokenizer, 1).state_dict()
    assert all(first[name].equal(again[name]) for name in first)


def test_the_tokenizer_that_ships_is_the_one_that_is_made(tokenizer):
    # A new training then has the same tokens, and its losses can be compared.
    for role in ("teacher", "student"):
        shipped = AutoTokenizer.from_pretrained(builtin.model("demo", role))
        assert shipped.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_every_label_is_one_token_wherever_it_stands(tokenizer):
    for label in LABELS:
        (token,) = tokenizer.encode(label, add_special_tokens=False)
        assert tokenizer(f"{label} > A > B", add_special_tokens=False).input_ids[0] == token
        assert tokenizer(f"[{label}] a passage", add_special_tokens=False).input_ids[1] == token


def test_text_comes_back_as_it_was(tokenizer):
    for text in ('{"order": "C > A > B"}', " two  spaces , and a comma", "naïve Ångström 水 🦊\n"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
