"""From text to tokens: chat prompts, with texts cut to fit a model's length.

Owns the chat format and the cutting. Texts stay data: none can become a control token. Does not own a prompt's wording.

    ids = chat_ids(tokenizer, "Rank these passages: ...")
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r2r import builtin
from r2r.errors import BadInput

# Stands for the user's message while the chat template is filled in. Templates may strip white space around it.
_MESSAGE_MARK = "R2R-MESSAGE-HERE"
_NO_LIMIT = sys.maxsize
# A text inside a prompt may take this many tokens more than alone.
_JOIN_TOKENS = 2

# Matches inside a text that spells a control token, after its first character.
_INSIDE_CONTROL_TOKEN = re.compile(
    r"(?<=<)(?=\|[\w-]+\|?>|\|?/?(?:s|eos|bos|pad|unk|start_of_turn|end_of_turn|think)>|/?<?SYS>)|(?<=\[)(?=/?INST\])",
    re.IGNORECASE,
)


class ByteTokenizer:
    """Replaces a server's unknown tokenizer: one token per UTF-8 byte, an upper bound for any tokenizer's count.

    It has the methods of a tokenizer that this module calls, and ignores their options.
    """

    _CHAT_TOKENS = 64  # for the chat format around a message

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
        return messages[0]["content"] + " " * self._CHAT_TOKENS

    def encode(self, text: str, **options: Any) -> list[int]:
        return list(text.encode())

    def __call__(self, texts: list[str], **options: Any) -> dict[str, list]:
        offsets = [[(at, at + 1) for at, character in enumerate(text) for _ in character.encode()] for text in texts]
        return {"input_ids": [self.encode(text) for text in texts], "offset_mapping": offsets}


def break_controls(text: str) -> str:
    """Return the text with a space inside everything that spells a control token.

    For servers only: they take text and would read a control token in it as one.
    """
    return _INSIDE_CONTROL_TOKEN.sub(" ", text)


def load_tokenizer(model: str) -> Any:
    """Return the tokenizer of a model folder or hub name.

    Raises BadInput if it is missing, has no chat template, or has one that does not take one user message as it is.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(builtin.model(model, "", weights=False))
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise BadInput(f"{model}: no model found here or at the hub: {first}") from None
    if tokenizer.chat_template is None:
        raise BadInput(f"{model}: its tokenizer has no chat template; name an instruction-tuned model")
    _frame(tokenizer)
    return tokenizer


def longest(model: str) -> int | None:
    """Return the most tokens that a model reads, reply included; None if its configuration does not say."""
    from transformers import AutoConfig

    found = getattr(AutoConfig.from_pretrained(model).get_text_config(), "max_position_embeddings", None)
    return int(found) if found else None


def check_model(model: str) -> None:
    """Raise BadInput for a model that `load_tokenizer` would refuse.

    Looks at the files of a folder, since loading a model library takes seconds. What they leave open, and a hub name,
    is decided by loading.
    """
    settings, template = Path(model, "tokenizer_config.json"), Path(model, "chat_template.jinja")
    if not (Path(model, "config.json").exists() and settings.exists()):
        load_tokenizer(model)
        return
    found = template.read_text("utf-8") if template.exists() else _template_in(settings)
    if not (isinstance(found, str) and _takes_a_message(found)):
        load_tokenizer(model)


def _template_in(settings: Path) -> Any:
    try:
        return json.loads(settings.read_text("utf-8")).get("chat_template")
    except ValueError:
        return None


def _takes_a_message(template: str) -> bool:
    """Return whether plain Jinja fills a message into a chat template. False says nothing: templates may need more."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    try:
        filled = jinja.from_string(template).render(
            messages=_messages(_MESSAGE_MARK), add_generation_prompt=True, enable_thinking=False
        )
    except Exception:
        # A template is a program of the model's makers, and raises what it likes.
        return False
    return filled.count(_MESSAGE_MARK) == 1


def chat_ids(tokenizer: Any, message: str, start: str = "") -> list[int]:
    """Return the token ids of a chat with one user message, followed by `start`, the given beginning of the reply.

    The message is encoded as ordinary text, so a passage that spells `<|im_end|>` cannot end the turn. Raises BadInput
    if the chat template does not take it.
    """
    before, after = _frame(tokenizer)
    return (
        tokenizer.encode(before, add_special_tokens=False)
        + text_ids(tokenizer, message)
        + tokenizer.encode(after, add_special_tokens=False)
        + text_ids(tokenizer, start)
    )


def _messages(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def _frame(tokenizer: Any) -> tuple[str, str]:
    """Return what the chat template writes before and after a user's message, given as text, else as a list of parts.

    Raises BadInput if the message comes out of the template changed, or not at all.
    """
    said = "it leaves the message out, or changes it"
    for content in (_MESSAGE_MARK, [{"type": "text", "text": _MESSAGE_MARK}]):
        try:
            frame = tokenizer.apply_chat_template(
                _messages(content), add_generation_prompt=True, tokenize=False, enable_thinking=False
            )
        except Exception as error:
            # A template is a program of the model's makers, and raises what it likes.
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        before, mark, after = frame.partition(_MESSAGE_MARK)
        if mark and _MESSAGE_MARK not in after:
            return before, after
    raise BadInput(
        f"{tokenizer.name_or_path}: its chat template does not take a user's message: {said}; "
        f"name an instruction-tuned model, or fix the template"
    )


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text. None of them is a control token."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) if text else []


def fit(
    tokenizer: Any,
    render: Callable[[str, list[str]], str],
    query: str,
    passages: list[str],
    budget: int,
    most: int = _NO_LIMIT,
) -> tuple[str, int]:
    """Cut the query and the passages so that the chat with `render(query, passages)` fits into `budget` tokens.

    `render` repeats the query twice, and each passage once. The query gets at most half of the tokens that the wording
    leaves, and each passage at most `most`. Returns the message, and how many of query and passages were cut.
    """
    wording = len(chat_ids(tokenizer, render("", [""] * len(passages)))) + _JOIN_TOKENS * (len(passages) + 2)
    room = max(0, budget - wording)
    (query,), query_cut = cut_to_fit(tokenizer, [query], room // 4)
    passages, passages_cut = cut_to_fit(tokenizer, passages, room - 2 * len(text_ids(tokenizer, query)), most)
    return render(query, passages), query_cut + passages_cut


def cut_to_fit(tokenizer: Any, texts: list[str], budget: int, most: int = _NO_LIMIT) -> tuple[list[str], int]:
    """Cut texts to at most `most` tokens each and `budget` tokens together. Returns them, and how many were cut.

    There is one text at least. Short texts stay whole; long ones share the rest evenly.
    """
    # In one call: a call for each takes half of the time that it takes to make a prompt.
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    limit, left = most, budget
    for shorter, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - shorter)
        if length > share:
            limit = min(most, share)
            break
        left -= length
    kept = []
    for text, offsets, length in zip(texts, encoded["offset_mapping"], lengths, strict=True):
        if length > limit:
            text = text[: offsets[limit - 1][1]].rstrip() if limit > 0 else ""
        kept.append(text)
    return kept, sum(length > limit for length in lengths)
