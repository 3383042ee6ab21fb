"""Explanations: how many documents have one, and how many of them are sound.

Owns the counts over the table rankings: evidence that stands in its passage, comparisons that name the documents next
to theirs. The check of one piece of evidence is in `r2r.reasons`.

    count(tables.read("runs/demo/rerank", "rankings").to_pylist(), {"q1": {"d1": "The passage."}})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from r2r.reasons import is_verbatim
from r2r.tables import run_id


def reasons(row: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return docid -> {direct, evidence, comparison} for the documents of a rankings row with at least one of them.

    Lists may be shorter than docids: explanations start from the top.
    """
    parts = ("direct", "evidence", "comparison")
    found: dict[str, dict[str, str]] = {}
    for place, docid in enumerate(row["docids"]):
        written = {part: row[part][place].strip() if place < len(row[part]) else "" for part in parts}
        if any(written.values()):
            found[docid] = written
    return found


def count(
    rows: Iterable[Mapping[str, Any]],
    texts: Mapping[str, Mapping[str, str]],
    false_evidence: int = 0,
    false_comparisons: int = 0,
) -> dict[str, int | float | None]:
    """Count the explanations in rankings rows, and the sound ones among them.

    texts: qid -> docid -> passage. false_evidence, false_comparisons: how many were dropped before as false; they are
    not in the rows, and count as wrong.

    Returns `explained`, the documents that have an explanation; `evidence_empty`, the share of them without evidence;
    `evidence_verbatim`, the share of all evidence that stands word for word in its passage; `compared`, the comparisons
    that were written; `neighbours`, the share of them that name the document directly above or below their own, or
    both, and no third. Shares lie between 0 and 1; a share of nothing is None. Evidence whose passage is unknown does
    not count in its share.
    """
    explained = empty = verbatim = neighbours = 0
    checked, compared = false_evidence, false_comparisons
    for row in rows:
        passages = texts.get(row["qid"], {})
        for docid, written in reasons(row).items():
            explained += 1
            if not written["evidence"]:
                empty += 1
            elif docid in passages:
                checked += 1
                verbatim += is_verbatim(written["evidence"], passages[docid])
            if written["comparison"]:
                compared += 1
                neighbours += names_neighbours(written["comparison"], docid, row["docids"])
    return {
        "explained": explained,
        "evidence_empty": empty / explained if explained else None,
        "evidence_verbatim": verbatim / checked if checked else None,
        "compared": compared,
        "neighbours": neighbours / compared if compared else None,
    }


def names_neighbours(comparison: str, docid: str, ranking: Sequence[str]) -> bool:
    """Return whether a document's comparison names a neighbour in the ranking, as `[docid]`, and no document further
    away. It may name its own document too.
    """
    place = ranking.index(docid)
    # The ranking may have its ids as run files hold them; reasons have them as they are.
    text = run_id(comparison)
    named = {at for at, other in enumerate(ranking) if f"[{run_id(other)}]" in text} - {place}
    return bool(named) and named <= {place - 1, place + 1}
