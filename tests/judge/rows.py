"""Explained rankings for tests, from the demo's world, whose truth is known; and what a judge is shown of them."""

import asyncio
import re
from collections import Counter

from demo_models.truth import ideal
from demo_models.world import world
from r2r import tables
from r2r.judge.explained import Explained
from r2r.rows import pool


def row(comparison=None, direct=None, evidence=None, texts=None, n=4, **columns) -> Explained:
    """Return a row of `n` passages; reasons that are not given are empty."""
    texts = texts or [f"passage number {at}" for at in range(n)]
    empty = [""] * len(texts)
    made = {"qid": "q1", "query": "fleas", "docids": [f"d{at}" for at in range(1, len(texts) + 1)], "texts": texts}
    made |= {"direct": direct or empty, "evidence": evidence or empty, "comparison": comparison or empty}
    return Explained(**made | columns)


def true_annotation(query) -> dict:
    """Return an annotations row about a query of the demo's world, whose order and reasons are true."""
    passages = [passage for passage, _ in world().world.judged(query)]
    found = ideal(query, passages)
    return {
        **{"qid": query.qid, "query": query.text, "docids": [one.docid for one in passages]},
        **{"texts": [one.shown for one in passages], "ranking": [at + 1 for at in found.order]},
        **{"direct": found.direct, "evidence": found.evidence, "comparison": found.comparison},
        **{"teacher": "truth", "key": query.qid, "attempts": 1, "prompt_tokens": 0, "completion_tokens": 0},
    }


def read_prompt(prompt) -> tuple[str, dict[int, str], dict[int, dict[str, str]]]:
    """Return what a judge's prompt shows: the query, passages by number, and what is written of them ("reason",
    "comparison")."""
    query = re.search(r"^Query: (.*)$", prompt, re.MULTILINE)[1]
    passages = re.findall(r"^Passage \[(\d+)\]: (.*?)\n\n", prompt, re.MULTILINE | re.DOTALL)
    written = re.findall(r"^Written about passage \[(\d+)\]:\n(.*?)\n\n", prompt, re.MULTILINE | re.DOTALL)
    reasons = {int(number): dict(line[2:].split(": ", 1) for line in said.split("\n")) for number, said in written}
    return query, {int(number): text for number, text in passages}, reasons


def run_rows(rows, job, settings, out, go_on):
    """Do as `pool.run_rows` does, in this process, without Ray and a journal."""
    worker, counts, found = job.worker(*job.arguments), Counter(), {table: [] for table in job.tables}
    for one in pool.rows_of(rows.parts(7)):
        table, answer, more = asyncio.run(worker(one))
        found[table].append(answer | {"qid": one["qid"]})
        counts.update({**more, table: 1})
    for table, answers in found.items():
        if answers:
            tables.write(answers, out, table)
    return pool.Done(counts, 0, 0.0, {})
