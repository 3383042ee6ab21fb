"""MS MARCO's passage files as published: DIR/collection.tsv, DIR/queries.SPLIT.tsv, DIR/qrels.SPLIT.tsv.

Owns that layout, and the names of TREC's Deep Learning files (splits dl19 and dl20). Each file may be gzipped (.gz).
Does not repair texts: broken characters in the published collection stay.

    queries("msmarco", "dev.small")
"""

from __future__ import annotations

from r2r.datasets import trec
from r2r.datasets.documents import Document, Part, as_id, clean, document
from r2r.datasets.files import Lines, find, names, split, text_of, within
from r2r.errors import BadInput

_TRACKS = {
    "dl19": ("msmarco-test2019-queries.tsv", "2019qrels-pass.txt"),
    "dl20": ("msmarco-test2020-queries.tsv", "2020qrels-pass.txt"),
}


def corpus(folder: str, _: str, parts: int) -> list[Part]:
    """Return the passages in parts, the same for every split. Lines are `pid<TAB>passage`."""
    return split(_need(folder, "collection.tsv"), parts, _document)


def _document(line: bytes) -> Document:
    docid, text, repaired = _pair(line, "pid and passage")
    return document(docid, "", text, repaired)


def queries(folder: str, wanted: str) -> list[dict]:
    """Return the queries of a split (no split: queries.tsv). If the split has qrels, return the judged queries only."""
    lines = Lines(_need(folder, *_names(wanted)[0]), _query)
    found = trec.unique_queries(lines, lines.file)
    judged = find(folder, *_names(wanted)[1])
    return trec.judged_only(found, trec.qrels(judged, tell=False), lines.file) if judged else found


def _query(line: bytes) -> dict:
    qid, query, _ = _pair(line, "qid and query")
    return {"qid": clean(as_id(qid, "query"))[0], "query": clean(query)[0]}


def qrels(folder: str, wanted: str) -> list[dict]:
    """Return the judgements of a split (no split: qrels.tsv). Lines are `qid 0 pid relevance`."""
    return trec.qrels(_need(folder, *_names(wanted)[1]))


def files(folder: str, wanted: str, kind: str) -> list[str]:
    """Return the files that `kind` reads: corpus, queries (with the qrels that select them) or qrels."""
    if kind == "corpus":
        return [_need(folder, "collection.tsv")]
    asked, judged = _names(wanted)
    if kind == "qrels":
        return [_need(folder, *judged)]
    found = find(folder, *judged)
    return [_need(folder, *asked), *([found] if found else [])]


def _names(wanted: str) -> tuple[list[str], list[str]]:
    """Return the names that the queries file of a split may have, and those of its qrels file."""
    if wanted in _TRACKS:
        asked, judged = _TRACKS[wanted]
        return [asked], [judged]
    middle = f".{wanted}" if wanted else ""
    return [f"queries{middle}.tsv"], [f"qrels{middle}.tsv", f"qrels{middle}.txt"]


def _need(folder: str, *wanted: str) -> str:
    if found := find(folder, *wanted):
        return found
    there = names(folder)
    if there is None:
        raise BadInput(
            f"{folder}: no such folder; expected collection.tsv, queries.SPLIT.tsv and qrels.SPLIT.tsv in it"
        )
    kind = wanted[0].split(".")[0]
    splits = {name.removeprefix(f"{kind}.").split(".tsv")[0] for name in there if name.startswith(f"{kind}.")}
    known = [name for name in sorted(splits) if name != "tsv"]
    known += [name for name, files in _TRACKS.items() if find(folder, *files)]
    hint = f"; it has {', '.join(f'#{name}' for name in known)}" if known and wanted[0] != "collection.tsv" else ""
    raise BadInput(f"{within(folder, wanted[0])}: no such file, nor {wanted[0]}.gz{hint}")


def _pair(line: bytes, wanted: str) -> tuple[str, str, bool]:
    text, repaired = text_of(line)
    columns = text.rstrip("\r\n").split("\t")
    if len(columns) != 2:
        raise ValueError(f"has {len(columns)} columns; expected {wanted}, separated by a tab")
    return columns[0], columns[1], repaired
