"""Annotations as training examples: tokens, the reply's place in them, and the teacher's ranks by label.

Owns the shuffling of passages and the padding of batches. Does not know losses or models.

    batch = collate([example(tokenizer, row, settings, seed=0)], pad=0)
"""

from __future__ import annotations

import random
from typing import NamedTuple

from r2r.config import DistillSettings
from r2r.llm.prompt import chat_ids, fit, text_ids
from r2r.student.prompt import LABELS, fields, order_line, prompt, rename, reply


class Example(NamedTuple):
    """`prompt` and `reply` are token ids; `ranks[i]` is the teacher's rank, 0 for the best, of label i. `place` is
    where in the reply the order begins, with the label of the best."""

    prompt: list[int]
    reply: list[int]
    ranks: list[int]
    place: int


def fits(tokenizer, row: dict, settings: DistillSettings) -> bool:
    """Return whether there are labels for a row's passages, and its reply leaves them at least half of `max_length`."""
    return len(row["docids"]) <= len(LABELS) and _reply_length(tokenizer, row, settings) <= settings.max_length // 2


def length(tokenizer, row: dict, settings: DistillSettings) -> int:
    """Return about how many tokens a row's example has, 0 where it does not fit: what batches are put together by."""
    if not fits(tokenizer, row, settings):
        return 0
    # Most of a prompt is its passages, of four characters a token; counting them all would take much longer.
    return _reply_length(tokenizer, row, settings) + sum(map(len, row["texts"])) // 4


def example(tokenizer, row: dict, settings: DistillSettings, seed: int | str) -> Example:
    """Return an annotations row as an example, its passages in an order drawn with `seed`, cut to fit `max_length`.

    Shuffled, since a student that always sees BM25's order learns to repeat it.
    """
    shown = _shown(row, seed)
    answer, place = _reply(tokenizer, row, settings, shown)
    passages = [row["texts"][position] for position in shown]
    message, _ = fit(tokenizer, prompt, row["query"], passages, settings.max_length - len(answer))
    rank_of = {position - 1: rank for rank, position in enumerate(row["ranking"])}
    ranks = [rank_of[position] for position in shown]
    return Example(chat_ids(tokenizer, message), answer, ranks, place)


def until_order(one: Example) -> Example:
    """Return an example that ends with the label of the best: as far as ranking reads."""
    return one._replace(reply=one.reply[: one.place + 1])


def _shown(row: dict, seed: int | str) -> list[int]:
    """Return the places of a row's passages, from 0, in the order in which the student sees them."""
    shown = list(range(len(row["docids"])))
    random.Random(seed).shuffle(shown)
    return shown


def _reply_length(tokenizer, row: dict, settings: DistillSettings) -> int:
    return len(_reply(tokenizer, row, settings, list(range(len(row["docids"]))))[0])


def _reply(tokenizer, row: dict, settings: DistillSettings, shown: list[int]) -> tuple[list[int], int]:
    """Return the tokens of the reply to learn, up to and with the end of the turn, and where in it the order begins."""
    label_of = {position: LABELS[place] for place, position in enumerate(shown)}
    order = [position - 1 for position in row["ranking"]]
    numbers = {position + 1: label for position, label in label_of.items()}
    # Reasons that come before the order are listed by label: listed best first, they would give the order away.
    listed = order if settings.order == "first" else shown
    reasons = [{name: row[name][position] for name in fields(settings.reasoning)} for position in listed]
    for reason in reasons:
        if "comparison" in reason:
            reason["comparison"] = rename(reason["comparison"], numbers)
    text = reply([label_of[position] for position in listed], reasons, settings.reasoning)
    if settings.order == "first":
        return [*text_ids(tokenizer, text), tokenizer.eos_token_id], 0
    _, _, reasons = text.partition("\n")
    before = text_ids(tokenizer, reasons + "\n") if reasons else []
    # Tokenised apart from what stands before it, so that its first token is the label alone.
    line = text_ids(tokenizer, order_line([label_of[position] for position in order]))
    return [*before, *line, tokenizer.eos_token_id], len(before)


def collate(examples: list[Example], pad: int) -> dict:
    """Return a batch: input_ids, attention_mask, position_ids [B, L], targets [B, T], first [B] and ranks [B, N].

    Padding stands on the left, so that the replies end together: the last T positions of the input predict `targets`,
    and `first` is the place among them of the position that predicts where the order begins, the label of the best.
    """
    import torch

    length = max(len(one.prompt) + len(one.reply) - 1 for one in examples)
    longest = max(len(one.reply) for one in examples)
    widest = max(len(one.ranks) for one in examples)
    ids = torch.full((len(examples), length), pad)
    mask = torch.zeros((len(examples), length), dtype=torch.long)
    targets = torch.full((len(examples), longest), -100)
    ranks = torch.full((len(examples), widest), -1)
    for place, one in enumerate(examples):
        # The last token of the reply is only ever predicted.
        tokens = torch.tensor(one.prompt + one.reply[:-1])
        ids[place, length - len(tokens) :] = tokens
        mask[place, length - len(tokens) :] = 1
        targets[place, longest - len(one.reply) :] = torch.tensor(one.reply)
        ranks[place, : len(one.ranks)] = torch.tensor(one.ranks)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        "targets": targets,
        "first": torch.tensor([longest - len(one.reply) + one.place for one in examples]),
        "ranks": ranks,
    }
