"""Annotations as training examples: the tokens of prompt and reply, and the teacher's rank of each label.

Owns the shuffling of passages and the padding of batches. Does not know losses or models.

    batch = collate([example(tokenizer, row, settings, seed=0)], pad=0)
"""

from __future__ import annotations

import random
from functools import partial
from typing import Any, NamedTuple

import torch

from r2r.config import DistillSettings
from r2r.llm.prompt import chat_ids, fit, text_ids
from r2r.reasons import rename
from r2r.student.likelihood import Asked, asked
from r2r.student.prompt import LABELS, fields, order_line, prompt, reply


class Example(NamedTuple):
    """`prompt` and `reply`: token ids. `ranks[i]`: the teacher's rank of the passage shown as number i, 0 for the best.
    `labels[i]`: its label, as an index into A to T. `place`: index of the reply token with which the order begins, the
    label of the best. `asked[i]`: what the passage's query likelihood is read from; empty if labels are scored."""

    prompt: list[int]
    reply: list[int]
    ranks: list[int]
    labels: list[int]
    place: int
    asked: tuple[Asked, ...] = ()


def fits(tokenizer: Any, row: dict[str, Any], settings: DistillSettings) -> bool:
    """Return whether a row has at most 20 passages, and a reply of at most half of `max_length`."""
    return len(row["docids"]) <= len(LABELS) and _reply_length(tokenizer, row, settings) <= settings.max_length // 2


def length(tokenizer: Any, row: dict[str, Any], settings: DistillSettings) -> int:
    """Return about how many tokens a row's example has, to form batches by; 0 if it does not fit."""
    if not fits(tokenizer, row, settings):
        return 0
    # Most of a prompt is passages, at about four characters per token. An exact count would take much longer.
    return _reply_length(tokenizer, row, settings) + sum(map(len, row["texts"])) // 4


def example(tokenizer: Any, row: dict[str, Any], settings: DistillSettings, seed: int | str) -> Example:
    """Return a row of annotations as an example, with its passages shuffled by `seed` and cut to fit `max_length`.

    A student that always saw BM25's order would learn to repeat it. One that only ever saw A to E could not use the
    other labels of a longer window.
    """
    shown = _shown(row, seed)
    labels = _labels(len(shown), settings, seed)
    letters = [LABELS[label] for label in labels]
    answer, place = _reply(tokenizer, row, settings, shown, letters)
    passages = [row["texts"][position] for position in shown]
    message, _ = fit(
        tokenizer, partial(prompt, labels=letters), row["query"], passages, settings.max_length - len(answer)
    )
    rank_of = {position - 1: rank for rank, position in enumerate(row["ranking"])}
    ranks = [rank_of[position] for position in shown]
    alone: tuple[Asked, ...] = ()
    if settings.scores == "likelihood":
        texts = [row["texts"][position] for position in shown]
        alone = tuple(asked(tokenizer, row["query"], text, settings.max_length) for text in texts)
    return Example(chat_ids(tokenizer, message), answer, ranks, labels, place, alone)


def until_order(one: Example) -> Example:
    """Return the example with its reply cut after the label of the best, where ranking stops reading."""
    return one._replace(reply=one.reply[: one.place + 1])


def _shown(row: dict[str, Any], seed: int | str) -> list[int]:
    """Return the indices of a row's passages in the order in which the student sees them."""
    shown = list(range(len(row["docids"])))
    random.Random(seed).shuffle(shown)
    return shown


def _labels(passages: int, settings: DistillSettings, seed: int | str) -> list[int]:
    """Return the labels of so many passages, as indices into A to T. They ascend, as they do when a list is ranked."""
    if settings.labels == "first":
        return list(range(passages))
    return sorted(random.Random(f"{seed} labels").sample(range(len(LABELS)), passages))


def _reply_length(tokenizer: Any, row: dict[str, Any], settings: DistillSettings) -> int:
    shown = list(range(len(row["docids"])))
    return len(_reply(tokenizer, row, settings, shown, list(LABELS[: len(shown)]))[0])


def _reply(
    tokenizer: Any, row: dict[str, Any], settings: DistillSettings, shown: list[int], letters: list[str]
) -> tuple[list[int], int]:
    """Return the tokens of the reply, with the end of the turn, and the index of the token where the order begins.

    shown: indices of the passages as shown. letters: their labels, aligned with `shown`.
    """
    label_of = dict(zip(shown, letters, strict=True))
    order = [position - 1 for position in row["ranking"]]
    numbers = {position + 1: label for position, label in label_of.items()}
    # Reasons before the order are listed by label: listed best first, they would give the order away.
    listed = order if settings.order_position == "first" else shown
    reasons = [{name: row[name][position] for name in fields(settings.reasoning)} for position in listed]
    for reason in reasons:
        if "comparison" in reason:
            reason["comparison"] = rename(reason["comparison"], numbers)
    text = reply([label_of[position] for position in listed], reasons, settings.reasoning)
    if settings.order_position == "first":
        return [*text_ids(tokenizer, text), tokenizer.eos_token_id], 0
    _, _, written = text.partition("\n")
    before = text_ids(tokenizer, written + "\n") if written else []
    # The order is encoded by itself, so that its first token is the label alone.
    line = text_ids(tokenizer, order_line([label_of[position] for position in order]))
    return [*before, *line, tokenizer.eos_token_id], len(before)


def collate(examples: list[Example], pad: int, windows: bool = True) -> dict[str, torch.Tensor]:
    """Return a batch of B examples. All sequences are padded on the left, so that replies end at the last position.

    windows: whether the student reads the windows, or only single passages.

    Returns:
        ranks: [B, N], the teacher's rank of each passage, -1 where there is no passage.
        labels: [B, N], the label of each passage as an index into A to T, 0 where there is no passage.
        With `windows`:
            input_ids, attention_mask, position_ids: [B, L]. The last T positions predict `targets`.
            targets: [B, T], the reply's tokens, -100 for padding.
            first: [B], the index into T of the label of the best, where the order begins.
        If the examples are scored by query likelihood, the same for each of their P passages, in the order of `ranks`:
            asked_input_ids, asked_attention_mask, asked_position_ids: [P, M].
            asked_targets: [P, Q], the query's tokens.
    """
    widest = max(len(one.ranks) for one in examples)
    ranks = torch.full((len(examples), widest), -1)
    labels = torch.zeros((len(examples), widest), dtype=torch.long)
    for place, one in enumerate(examples):
        ranks[place, : len(one.ranks)] = torch.tensor(one.ranks)
        labels[place, : len(one.labels)] = torch.tensor(one.labels)
    batch = {"ranks": ranks, "labels": labels}
    if windows:
        batch |= _padded([(one.prompt, one.reply) for one in examples], pad)
        longest = batch["targets"].shape[1]
        batch["first"] = torch.tensor([longest - len(one.reply) + one.place for one in examples])
    alone = [(one.prompt, one.written) for example in examples for one in example.asked]
    if alone:
        batch |= {f"asked_{name}": tensor for name, tensor in _padded(alone, pad).items()}
    return batch


def _padded(pairs: list[tuple[list[int], list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """Return prompts and replies as tensors; see `collate`."""
    length = max(len(prompt) + len(reply) - 1 for prompt, reply in pairs)
    longest = max(len(reply) for _, reply in pairs)
    ids = torch.full((len(pairs), length), pad)
    mask = torch.zeros((len(pairs), length), dtype=torch.long)
    targets = torch.full((len(pairs), longest), -100)
    for place, (before, after) in enumerate(pairs):
        # The last token of the reply is only ever predicted.
        tokens = torch.tensor(before + after[:-1])
        ids[place, length - len(tokens) :] = tokens
        mask[place, length - len(tokens) :] = 1
        targets[place, longest - len(after) :] = torch.tensor(after)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "targets": targets}
