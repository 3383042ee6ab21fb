"""Query likelihood: a passage's score is how likely the student writes the query after it, per token of the query.

Owns what the student reads for it, the same for training and ranking. Each passage is read alone, so scores need no
window, and those of one query can be compared. (Query likelihood: Ponte and Croft 1998; with an instruction-tuned
model: UPR, Sachan et al. 2022, arXiv 2204.07496.)

    prompt, written, cut = asked(tokenizer, "how long do fleas live", "A flea lives 100 days.", longest=512)
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from r2r.identity import digest
from r2r.llm.prompt import chat_ids, fit, text_ids


class Asked(NamedTuple):
    """`prompt`: token ids of the chat that shows the passage. `written`: those of the query, its reply. `cut`: whether
    one of the two was cut."""

    prompt: list[int]
    written: list[int]
    cut: bool


def asked(tokenizer: Any, query: str, passage: str, longest: int, most: int = sys.maxsize) -> Asked:
    """Return what the student reads and writes for one passage, cut to `longest` tokens together.

    The query gets at most half of them. most: longest passage, in tokens.
    """
    whole = text_ids(tokenizer, query)
    written = whole[: longest // 2]
    message, cut = fit(tokenizer, lambda _, texts: prompt(*texts), "", [passage], longest - len(written), most)
    return Asked(chat_ids(tokenizer, message), written, bool(cut) or len(written) < len(whole))


def prompt(passage: str) -> str:
    """Return the message that asks for the query of a passage."""
    return f"Passage: {passage}\n\nWrite a question that this passage answers."


# Of the prompt, for the identity of what was made with it.
VERSION = digest(prompt("PASSAGE"))[:12]
