"""Explained rankings in one form, whether a teacher annotated or a student ranked.

Owns this form, and the reading of both tables into it. Does not own the tables, nor what the reasons are worth.

    rows = read("runs/demo/rerank", "runs/demo/retrieve")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from r2r import datasets, identity, tables
from r2r.errors import BadInput
from r2r.places import place
from r2r.reasons import rename

PARTS = ("direct", "evidence", "comparison")


class Explained(NamedTuple):
    """One query's passages, best first, and their reasons. All lists are aligned; a text that is missing is "".

    Comparisons name passages by their rank, as `[1]` for the best one, whatever the table calls them. A query whose
    passages were drawn several times has as many rows.
    """

    qid: str
    query: str
    docids: Sequence[str]
    texts: Sequence[str]
    direct: Sequence[str]
    evidence: Sequence[str]
    comparison: Sequence[str]

    def reasons(self, at: int) -> tuple[str, str, str]:
        """Return the direct reason, the evidence and the comparison of the passage at index `at`."""
        return self.direct[at], self.evidence[at], self.comparison[at]

    def places(self) -> list[int]:
        """Return the indices of the passages that have a reason of any kind."""
        return [at for at in range(len(self.docids)) if any(self.reasons(at))]

    def with_reasons(self, reasons: Mapping[int, tuple[str, str, str]]) -> Explained:
        """Return the row with other reasons at these indices."""
        found = [reasons.get(at, self.reasons(at)) for at in range(len(self.docids))]
        direct, evidence, comparison = (list(texts) for texts in zip(*found, strict=True))
        return self._replace(direct=direct, evidence=evidence, comparison=comparison)


def is_annotations(source: str) -> bool:
    """Return whether a source has annotations: `teacher:FILE`, or a stage's folder with that table."""
    return source.startswith("teacher:") or tables.path(source, "annotations").is_dir()


def passages_of(source: str, candidates: str | None) -> str | None:
    """Return the candidates that a source needs: none if it has its own passages."""
    return None if is_annotations(source) else candidates


def _check(rankings: str, candidates: str | None) -> None:
    """Raise BadInput for a source without either table, or candidates that are missing or too much."""
    if is_annotations(rankings):
        if candidates:
            raise BadInput(f"candidates: {candidates}: {rankings} has its own passages; leave candidates out")
        return
    if not tables.path(rankings, "rankings").is_dir():
        raise BadInput(f"{rankings}: holds no rankings and no annotations; give a folder that rerank or annotate wrote")
    if not candidates:
        raise BadInput(f"candidates: missing; {rankings} has no passages, so give the candidates that were ranked")


def fingerprint(rankings: str) -> str:
    """Return what identifies a source: the content of its table."""
    if is_annotations(rankings):
        return datasets.fingerprint(rankings, "annotations")
    return identity.finished(place(rankings)) or tables.content_of(rankings, "rankings")


def read(rankings: str, candidates: str | None) -> list[Explained]:
    """Return the rows of a rankings or annotations table, in its order.

    rankings: a stage's folder with either table, or teacher:FILE. candidates: the passages of a rankings table. Raises
    BadInput for a source without either table, candidates that are missing, too much or others than those ranked, and
    if no passage has a reason.
    """
    _check(rankings, candidates)
    if is_annotations(rankings):
        found = [_annotated(row) for row in datasets.read_annotations(rankings)[0]]
    else:
        assert candidates is not None
        rows = datasets.read_candidates(candidates).to_pylist()
        texts = {row["qid"]: dict(zip(row["docids"], row["texts"], strict=True)) for row in rows}
        found = [
            _ranked(row, texts.get(row["qid"], {}), candidates) for row in tables.read(rankings, "rankings").to_pylist()
        ]
    if not any(row.places() for row in found):
        raise BadInput(f"{rankings}: has no reasons to judge; rerank with --explain, or annotate with --reasoning both")
    return found


def aligned(
    answers: Sequence[Mapping[str, Any]], rows: Sequence[Explained], key: Callable[[dict[str, Any]], str]
) -> list[dict[str, Any] | None]:
    """Return what a model answered about each row, None where it did not.

    answers: rows of a table, with the key of what was asked. key: returns that of a row. Rows with the same key were
    asked once.
    """
    by_key = {one["key"]: one for one in answers}
    found = ((row.qid, by_key.get(key(row._asdict()))) for row in rows)
    return [{**answer, "qid": qid} if answer else None for qid, answer in found]


def _annotated(row: Mapping[str, Any]) -> Explained:
    order = [position - 1 for position in row["ranking"]]
    ranks = {position: str(rank) for rank, position in enumerate(row["ranking"], start=1)}
    columns = {name: [row[name][at] for at in order] for name in ("docids", "texts", "direct", "evidence")}
    comparison = [rename(row["comparison"][at], ranks) for at in order]
    return Explained(row["qid"], row["query"], comparison=comparison, **columns)


def _ranked(row: Mapping[str, Any], texts: Mapping[str, str], candidates: str) -> Explained:
    docids = row["docids"]
    missing = next((docid for docid in docids if docid not in texts), None)
    if missing is not None:
        raise BadInput(
            f"{candidates}: qid {row['qid']}: has no passage {missing}; give the candidates that were ranked"
        )
    # Explanations start from the top, and lists may end where they do.
    columns = {name: [*row[name], *[""] * (len(docids) - len(row[name]))] for name in PARTS}
    ranks = {docid: str(rank) for rank, docid in enumerate(docids, start=1)}
    columns["comparison"] = [_by_rank(text, ranks) for text in columns["comparison"]]
    return Explained(row["qid"], row["query"], docids, [texts[docid] for docid in docids], **columns)


def _by_rank(comparison: str, ranks: Mapping[str, str]) -> str:
    """Return a comparison with `[rank]` for `[docid]`, and `[?]` for other brackets."""
    longest_first = sorted(ranks, key=len, reverse=True)
    known = "|".join(map(re.escape, longest_first))
    return re.sub(rf"\[({known}|[^\[\]]*)\]", lambda match: f"[{ranks.get(match[1], '?')}]", comparison)
