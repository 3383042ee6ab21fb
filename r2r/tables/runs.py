"""TREC run files, as the stages write them.

write_run([{"qid": "q1", "docids": ["d1"], "scores": [1.0]}], Path("run.txt"), "bm25")
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from r2r.places import Place, replacing


def run_id(identifier: str) -> str:
    """Return a qid or docid as a run file holds it: white space, which separates its columns, written as in URLs."""
    return re.sub(r"[ \t\n\r\v\f]", lambda found: f"%{ord(found[0]):02X}", identifier)


def write_run(rows: Iterable[dict], file: Place, tag: str) -> None:
    """Write rows with qid, docids and scores as a TREC run: `qid Q0 docid rank score tag`, ranks from 1."""
    with replacing(file) as aside, aside.open("w", encoding="utf-8") as out:
        for row in rows:
            for rank, (docid, score) in enumerate(zip(row["docids"], row["scores"], strict=True), start=1):
                out.write(f"{run_id(row['qid'])} Q0 {run_id(docid)} {rank} {score:.9g} {tag}\n")
