"""Explanations: how many documents of a ranking have one, whose evidence stands in its passage, and whose comparison
names the documents next to it.

Owns the counts over the table rankings. What can be checked of one reason is in `r2r.reasons`.

    count(tables.read("runs/demo/rerank", "rankings").to_pylist(), {"q1": {"d1": "The passage."}})
"""

from __future__ import annotations

from collections.abc import Iterable

from r2r.reasons import is_verbatim
from r2r.tables import run_id


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


def count(
    rows: Iterable[dict], texts: dict[str, dict[str, str]], false_evidence: int = 0, false_comparisons: int = 0
) -> dict[str, int | float | None]:
    """Check the explanations of rankings rows against passages, `texts`: qid -> docid -> text. So many pieces of
    evidence and comparisons were found to be false and are not in the rows any more; they count as wrong.

    Returns `explained`, the documents that have an explanation; `evidence_empty`, the share of them without evidence;
    `evidence_verbatim`, the share of all evidence that stands word for word in its passage; `compared`, the comparisons
    that were written; `neighbours`, the share of them that name the document directly above or below their own, or
    both, and no third. Shares lie between 0 and 1, and are None where there is nothing to count; evidence whose passage
    is unknown is left out of its share.
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


def names_neighbours(comparison: str, docid: str, ranking: list[str]) -> bool:
    """Say whether the comparison of a document names others of its ranking, as `[docid]`, and only those directly above
    or below it. It may name its own document as well."""
    place = ranking.index(docid)
    # A ranking that is read with a run has its ids as run files hold them; reasons have them as they are.
    text = run_id(comparison)
    named = {at for at, other in enumerate(ranking) if f"[{run_id(other)}]" in text} - {place}
    return bool(named) and named <= {place - 1, place + 1}
