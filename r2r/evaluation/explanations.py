"""Explanations: how many documents of a ranking have one, and whose evidence stands in its passage.

Owns the counts over the table rankings. What can be checked of one reason is in `r2r.reasons`.

    check(tables.read("runs/demo/rerank", "rankings").to_pylist(), {"q1": {"d1": "The passage."}})
"""

from __future__ import annotations

from collections.abc import Iterable

from r2r.reasons import is_verbatim


def reasons(row: dict) -> dict[str, dict[str, str]]:
    """Return docid -> {direct, evidence, comparison} for the explained documents of one row of a rankings table: those
    with at least one of the three. Lists may be shorter than docids: explanations start from the top."""
    parts = ("direct", "evidence", "comparison")
    found = {}
    for place, docid in enumerate(row["docids"]):
        written = {part: row[part][place].strip() if place < len(row[part]) else "" for part in parts}
        if any(written.values()):
            found[docid] = written
    return found


def check(rows: Iterable[dict], texts: dict[str, dict[str, str]], left_out: int = 0) -> dict[str, int | float | None]:
    """Check the explanations of rankings rows against passages, `texts`: qid -> docid -> text. `left_out` pieces of
    evidence were false and are not in the rows any more.

    Returns `explained`, the documents that have an explanation; `evidence_empty`, the share of them without evidence;
    `evidence_verbatim`, the share of all evidence that stands word for word in its passage. Shares lie between 0 and
    1, and are None where there is nothing to count; evidence whose passage is unknown is left out of the last.
    """
    explained = empty = verbatim = 0
    checked = left_out
    for row in rows:
        passages = texts.get(row["qid"], {})
        for docid, written in reasons(row).items():
            explained += 1
            if not written["evidence"]:
                empty += 1
            elif docid in passages:
                checked += 1
                verbatim += is_verbatim(written["evidence"], passages[docid])
    return {
        "explained": explained,
        "evidence_empty": empty / explained if explained else None,
        "evidence_verbatim": verbatim / checked if checked else None,
    }
