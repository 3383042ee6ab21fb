"""The models before any training: deterministic, with labels of one token each.

.venv/bin/python -m pytest tests/demo/test_untrained.py
"""

import pytest

from r2r.demo.untrained import make_tokenizer, new_model

LABELS = "ABCDEFGHIJKLMNOPQRST"


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def test_made_twice_they_are_the_same(tokenizer):
    assert make_tokenizer().backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    first, again = new_model(tokenizer, 1).state_dict(), new_model(tokenizer, 1).state_dict()
    assert all(first[name].equal(again[name]) for name in first)


def test_every_label_is_one_token_wherever_it_stands(tokenizer):
    for label in LABELS:
        (token,) = tokenizer.encode(label, add_special_tokens=False)
        assert tokenizer(f"{label} > A > B", add_special_tokens=False).input_ids[0] == token
        assert tokenizer(f"[{label}] a passage", add_special_tokens=False).input_ids[1] == token


def test_text_comes_back_as_it_was(tokenizer):
    for text in ('{"order": "C > A > B"}', " two  spaces , and a comma", "naïve Ångström 水 🦊\n"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
