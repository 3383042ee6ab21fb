"""A teacher writes a query for one passage: its prompt, and the row or reject.

Owns the wording (`query.j2` beside this file), the examples in it, the row's key, and how the reply is read. Does not
own the attempts and their cost (`calls.py`), which passages get a query, or which queries are kept (`queries.py`).

    table, row, counts = await Writer(settings, [], row_key, None)({"qid": "q1", "docid": "d1", "text": "A flea ..."})

Source of the idea: InPars (arXiv 2202.05144) and Promptagator (arXiv 2209.11755), which shows the user's own examples.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from r2r.config import QueriesSettings
from r2r.datasets.documents import clean
from r2r.datasets.files import Lines, json_object
from r2r.errors import BadInput
from r2r.identity import digest
from r2r.llm import Reply
from r2r.llm.prompt import break_controls
from r2r.reasons import fold
from r2r.replies import Unsound, decoded, text_field
from r2r.teacher import calls
from r2r.templates import wording

_TEMPLATE, VERSION = wording(Path(__file__).with_name("query.j2"))


class Example(NamedTuple):
    query: str
    passage: str


def read_examples(file: str) -> list[Example]:
    """Return the examples of a file of JSON lines. Raises BadInput, with the line, for one that is not sound."""
    found = [example for _, example in Lines(file, _example).read()]
    if not found:
        raise BadInput(f'{file}: holds no example; each line should be {{"query": "...", "passage": "..."}}')
    return found


def _example(line: bytes) -> Example:
    record = json_object(line)
    for name in Example._fields:
        if not isinstance(record.get(name), str) or not record[name].strip():
            raise ValueError(f'has no text in "{name}"; each line should be {{"query": "...", "passage": "..."}}')
    return Example(*(clean(record[name])[0].strip() for name in Example._fields))


def key(row: dict[str, Any], version: str) -> str:
    """Return a passage's resume key: a sha256 over all that its query depends on, `version` beside the passage."""
    return digest([row["docid"], row["text"], version])


def normal(query: str) -> str:
    """Return what two queries that are the same except for case, punctuation and white space have in common."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", query).casefold()))


def read_query(text: str, longest: int, repairs: set[str]) -> str:
    """Return the query in a reply, of at most `longest` characters, on one line. Raises Unsound."""
    reply = decoded(text, repairs)
    if not isinstance(reply, dict):
        raise Unsound("no JSON object with a query")
    query = fold(text_field("query", [reply.get("query")], repairs)[0])
    if not normal(query):
        raise Unsound("query holds no word")
    if len(query) > longest:
        raise Unsound(f"query longer than {longest} characters")
    return query


def schema(settings: QueriesSettings) -> dict[str, Any]:
    """Return the JSON schema of a reply."""
    query = {"type": "string", "minLength": 1, "maxLength": settings.query_chars}
    return {"type": "object", "properties": {"query": query}, "required": ["query"], "additionalProperties": False}


class Prompter(calls.Prompter):
    """Writes prompts that fit the teacher; see `calls.Prompter`. Raises BadInput for examples that leave no room."""

    def __init__(self, settings: QueriesSettings, examples: list[Example], model: Any = None):
        super().__init__(settings, model)
        shown = [Example(*map(break_controls, one)) for one in examples] if self.server else examples
        self.render = lambda query, passages: _TEMPLATE.render(passage=passages[0], examples=shown)
        if shown and self.longest is not None:
            taken = len(self.ids(self.render("", [""]))) + settings.max_tokens
            if taken > self.longest // 2:
                raise BadInput(
                    f"examples: {settings.examples}: with the reply they take {taken:,} of the teacher's "
                    f"{self.longest:,} tokens, more than half; give fewer or shorter ones"
                )

    def message(self, passage: str) -> tuple[str, int]:
        """Return the message about a passage, and how many texts were cut: 0 or 1."""
        return self.fitted(self.render, "", [passage])


class Writer(calls.Worker):
    """Asks a teacher about one passage at a time (see `pool.RowWorker`), in up to `attempts` calls.

    row_key: returns a row's resume key. budget: a Ray actor of `calls.Budget`; None sets no limit. version: what all
    keys have in common.
    """

    def __init__(
        self,
        settings: QueriesSettings,
        examples: list[Example],
        row_key: Callable[[dict[str, Any]], str],
        budget: Any,
        version: str = "",
    ):
        self.settings, self.key = settings, row_key
        self.shown = {normal(example.query) for example in examples}
        self.model = calls.open_teacher(settings, version)
        self.prompter = Prompter(settings, examples, self.model)
        self.teacher = calls.Teacher(settings, self.model, self.prompter, budget)

    async def __call__(self, row: dict[str, Any]) -> tuple[str, dict[str, Any], Mapping[str, Any]] | None:
        message, cut = self.prompter.message(row["text"])
        try:
            answer = await self.teacher.answer(message, schema(self.settings), self._read, row.get("attempts", 0))
        except calls.OverBudget:
            return None
        counts = answer.counts
        counts["cut_texts"] = cut
        head = {"qid": row["qid"], "key": self.key(row), "attempts": answer.attempts}
        if answer.reason:
            return "rejects", head | {"reason": answer.reason, "reply": clean(answer.text)[0]}, counts
        written = head | {
            "query": answer.found,
            "docid": row["docid"],
            "teacher": self.settings.teacher,
            "prompt_tokens": counts["prompt_tokens"],
            "completion_tokens": counts["completion_tokens"],
        }
        return "written", written, counts

    def _read(self, reply: Reply, counts: Counter[str]) -> tuple[str, str]:
        """Return the query in a reply, and what is wrong with it, "" if nothing."""
        repairs: set[str] = set()
        try:
            query = read_query(reply.text, self.settings.query_chars, repairs)
        except Unsound as error:
            return "", calls.unread(reply, str(error), self.settings)
        counts["repaired"] += bool(repairs)
        return query, "query of an example" if normal(query) in self.shown else ""
