"""From text to tokens: chat prompts in which passages are data, and lengths that fit.

Owns the chat format and the cutting of texts. Does not know what a prompt asks for.

    ids = chat_ids(tokenizer, "Rank these passages: ...")
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from r2r.errors import BadInput

# Stands for the user's message while the chat template is filled in; it must survive a template's strip().
_PLACE = "R2R-MESSAGE-HERE"
_ALL = sys.maxsize
# Tokens that a text may take more among other text than alone.
_SEAM = 2


# What chat formats mark turns and ends with, where a text spells it: a mark's second half.
_CONTROL = re.compile(
    r"(?<=<)(?=\|[\w-]+\|?>|\|?/?(?:s|eos|bos|pad|unk|start_of_turn|end_of_turn|think)>|/?<?SYS>)|(?<=\[)(?=/?INST\])",
    re.IGNORECASE,
)


class Bytes:
    """Stands in for a tokenizer that is not at hand: a token for every byte of UTF-8, as many as any tokenizer makes.

    Has of a tokenizer what this file calls.
    """

    _FRAME = 64  # tokens of a chat around its message

    def apply_chat_template(self, messages: list[dict], **options) -> str:
        return messages[0]["content"] + " " * self._FRAME

    def encode(self, text: str, **options) -> list[int]:
        return list(text.encode())

    def __call__(self, text: str, **options) -> dict:
        offsets = [(at, at + 1) for at, character in enumerate(text) for _ in character.encode()]
        return {"input_ids": self.encode(text), "offset_mapping": offsets}


def break_controls(text: str) -> str:
    """Return the text with a space in all that spells a control token, for a server, which has no way to be told that
    a text is only text."""
    return _CONTROL.sub(" ", text)


def load_tokenizer(model: str):
    """Return the tokenizer of a model folder or hub name. Raises BadInput where there is none, or no chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise BadInput(f"{model}: no model found here or at the hub: {first}") from None
    if tokenizer.chat_template is None:
        raise BadInput(f"{model}: its tokenizer has no chat template; name an instruction-tuned model")
    return tokenizer


def chat_ids(tokenizer, message: str, start: str = "") -> list[int]:
    """Return the token ids of a chat with one user message, up to where the model's reply begins.

    The message is encoded as ordinary text, so a passage that spells `<|im_end|>` cannot end the turn. `start` is the
    beginning of the reply, where the caller has decided it already.
    """
    frame = tokenizer.apply_chat_template(
        [{"role": "user", "content": _PLACE}], add_generation_prompt=True, tokenize=False, enable_thinking=False
    )
    before, _, after = frame.partition(_PLACE)
    return (
        tokenizer.encode(before, add_special_tokens=False)
        + text_ids(tokenizer, message)
        + tokenizer.encode(after, add_special_tokens=False)
        + text_ids(tokenizer, start)
    )


def text_ids(tokenizer, text: str) -> list[int]:
    """Return the token ids of a text, in which nothing is a control token."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) if text else []


def fit(
    tokenizer, render: Callable[[str, list[str]], str], query: str, passages: list[str], budget: int, most: int = _ALL
) -> tuple[str, int]:
    """Return `render(query, passages)`, texts cut so that its chat takes at most `budget` tokens, and how many of them,
    query and passages, were cut.

    `render` says the query twice, and each passage once. A passage gets at most `most` tokens, and the query is cut
    where it would take over half of what the wording leaves.
    """
    wording = len(chat_ids(tokenizer, render("", [""] * len(passages)))) + _SEAM * (len(passages) + 2)
    room = max(0, budget - wording)
    (query,), cut = cut_to_fit(tokenizer, [query], room // 4)
    passages, more = cut_to_fit(tokenizer, passages, room - 2 * len(text_ids(tokenizer, query)), most)
    return render(query, passages), cut + more


def cut_to_fit(tokenizer, texts: list[str], budget: int, most: int = _ALL) -> tuple[list[str], int]:
    """Cut texts so that together they take at most `budget` tokens, and each at most `most`; return them and how many
    were cut.

    Short texts keep all of theirs, and what they leave is shared evenly by the long ones.
    """
    encoded = [
        tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        for text in texts
    ]
    lengths = [len(one["input_ids"]) for one in encoded]
    limit, left = most, budget
    for place, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - place)
        if length > share:
            limit = min(most, share)
            break
        left -= length
    kept = []
    for text, one, length in zip(texts, encoded, lengths, strict=True):
        if length > limit:
            text = text[: one["offset_mapping"][limit - 1][1]].rstrip() if limit > 0 else ""
        kept.append(text)
    return kept, sum(length > limit for length in lengths)
