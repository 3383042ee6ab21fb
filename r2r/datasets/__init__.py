"""Dataset strings: one string names a corpus, queries, qrels, candidates or annotations; these functions read it.

A collection has a corpus, queries and qrels:

    beir:DIR[#SPLIT]      a folder in BEIR's layout; SPLIT (default: test) selects the qrels and the queries they judge
    msmarco:DIR[#SPLIT]   MS MARCO's passage files as published; SPLIT is train, dev.small, dl19, ...
    irds:ID               an ID of ir_datasets, such as irds:beir/fiqa/test
    bright:TASK           a task of BRIGHT, such as bright:biology; its excluded documents stay out of the rankings
    jsonl:FILE[#FIELDS]   one JSON object per line
    parquet:PATH[#FIELDS] a Parquet file or a folder of them
    hf:NAME[@REVISION][#[CONFIGURATION/]SPLIT[,FIELDS]]
                          a dataset of the Hugging Face hub, OWNER/NAME, or a local copy of one: Parquet files
    demo[#SPLIT]          the built-in world; SPLIT is test (default), dev, train or train500 (the first 500 of train)

Single inputs:

    PATH                  qrels: a TREC qrels file; queries, qrels, candidates and annotations: the folder of the stage
                          that wrote them
    rankgpt:FILE          candidates in RankGPT's JSON
    run:FILE#corpus=DATASET,queries=DATASET
                          candidates from a run of any first stage; FILE+FILE fuses runs; index=DIR may stand for corpus
    hf:NAME...            annotations, with the columns of our table, in a dataset of the hub or a local copy
    teacher:FILE          annotations in the JSONL that the authors of Reason-to-Rank published, or the folder of
                          annotations that annotate exported
    replies:FILE          recorded listwise replies of other rerankers, as a teacher for given candidates

FIELDS say what your files call our fields, as in jsonl:docs.jsonl#docid=id,text=contents. Our fields are docid, title
(optional) and text in a corpus; qid and query in queries; qid, docid and relevance in qrels.

A DIR, FILE or PATH is local, or on a file system that pyarrow opens: s3://, gs://, hdfs://, file://. A stage's folder
is local, or in a store that stages write to: s3://, gs://, abfs://. Text files may be gzipped (.gz).

Owns what these strings mean. Does not own the formats: each scheme has its module in this folder. Knows no stage.

    read_queries("beir:scifact#test").num_rows
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING

from r2r import builtin, identity, tables
from r2r.datasets.files import open_file
from r2r.errors import BadInput
from r2r.places import Place, place

if TYPE_CHECKING:
    import pyarrow as pa

    from r2r.datasets.candidates import Candidates
    from r2r.datasets.documents import Part
    from r2r.datasets.runs import RunSpec

_COLLECTIONS = ("beir", "msmarco", "irds", "bright", "jsonl", "parquet", "hf")
# Kind of input -> its schemes, and what a plain path means ("" where a plain path is a mistake).
_KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "corpus": (_COLLECTIONS, ""),
    "queries": (_COLLECTIONS, "a folder with a queries table"),
    "qrels": (_COLLECTIONS, "a TREC qrels file or a folder with a qrels table"),
    "candidates": (("rankgpt", "run"), "a stage's folder"),
    "annotations": (("teacher", "hf"), "a stage's folder"),
}
# Schemes with one folder for several kinds of input. Their modules have files(source, fragment, kind).
_FOLDERS = ("beir", "msmarco")


def corpus_parts(spec: str, parts: int) -> list[Part]:
    """Cut a corpus into `parts` that workers read independently. The same corpus gives the same parts."""
    scheme, source, fragment = _parse(spec, "corpus")
    return _collection(scheme).corpus(source, fragment, parts)


def read_queries(spec: str) -> pa.Table:
    """Return the queries (qid, query) in the source's order. Raises BadInput if there is none, or a qid repeats."""
    scheme, source, fragment = _parse(spec, "queries")
    return _table(_collection(scheme).queries(source, fragment), "queries")


def read_qrels(spec: str) -> pa.Table:
    """Return the judgements (qid, docid, relevance). Raises BadInput for one that cannot be read."""
    from r2r.datasets import trec

    scheme, source, fragment = _parse(spec, "qrels")
    return _table(_collection(scheme).qrels(source, fragment) if scheme else trec.qrels(source), "qrels")


def read_excluded(spec: str) -> dict[str, set[str]]:
    """Return qid -> docids that the collection excludes from that query's ranking, before the cut to the top k.

    Only BRIGHT excludes documents. Other collections return {}.
    """
    scheme, source, _ = _parse(spec, "queries")
    collection = _collection(scheme)
    return collection.excluded(source) if hasattr(collection, "excluded") else {}


def read_barred(spec: str, qids: Iterable[str], own: bool) -> dict[str, set[str]]:
    """Return `read_excluded`; `own`: with each query's own id, since a query may be a document of its collection."""
    excluded = read_excluded(spec)
    return {qid: excluded.get(qid, set()) | {qid} for qid in qids} if own else excluded


def open_candidates(spec: str, aside: Place | None = None) -> Candidates:
    """Return the qids of the candidates, and a way to read their rows in parts.

    aside: folder to which the candidates of a `run:` are written, once, for workers to read; None: a folder that is
    removed when this process ends. Raises BadInput, with the row, for a qid that repeats. Reading a part raises it for
    an unsound row.
    """
    from r2r.datasets import candidates, firststage

    scheme, source, _ = _parse(spec, "candidates")
    if given := runs_of(spec):
        return candidates.of_stage(firststage.folder_of(spec, given, aside))
    return candidates.of_rankgpt(source) if scheme else candidates.of_stage(source)


def read_candidates(spec: str) -> pa.Table:
    """Return all candidates, one row per query, each with at least one document. Raises BadInput with file and row."""
    found = open_candidates(spec)
    return _table([row for part in found.parts(len(found.qids)) for _, row in part.read()], "candidates")


def read_annotations(spec: str) -> tuple[list[dict], list[dict]]:
    """Return the rows of annotations and the rows of rejects. `ranking` holds positions from 1, best first."""
    from r2r.datasets import teacher

    scheme, source, fragment = _parse(spec, "annotations")
    if scheme == "teacher" and not place(source).is_dir():
        return teacher.annotations(source)
    if scheme == "hf":
        return _collection(scheme).annotation_rows(source, fragment), []
    rejects = tables.read(source, "rejects").to_pylist() if tables.path(source, "rejects").is_dir() else []
    return tables.read(source, "annotations").to_pylist(), rejects


def read_replies(teacher: str, candidates: str, passages: int) -> tuple[list[dict], list[dict]]:
    """Return annotations and rejects made of recorded listwise replies, `replies:FILE`, about candidates.

    A reply numbers the first `passages` candidates of its query, unless its line says how many it was shown.
    """
    from r2r.datasets import replies

    found = open_candidates(candidates)
    rows = (row for part in found.parts(256) for _, row in part.read())
    return replies.annotations(teacher.removeprefix("replies:"), rows, passages)


def check(spec: str, what: str) -> None:
    """Raise BadInput if the input of the kind `what` is not there. Reads no more than it must, downloads nothing."""
    scheme, source, fragment = _parse(spec, what)
    if what == "candidates":
        from r2r.datasets import firststage

        given = runs_of(spec)
        firststage.check(given) if given else open_candidates(spec)
    elif scheme in _FOLDERS:
        _collection(scheme).files(source, fragment, what)
    elif scheme == "bright":
        _collection(scheme).check(source, fragment, what)
    elif scheme == "irds":
        _collection(scheme).dataset(source, "docs" if what == "corpus" else what, fragment)
    elif scheme == "parquet":
        _collection(scheme).files(source)
    elif scheme == "hf":
        _collection(scheme).files(source, fragment)
    elif scheme in ("jsonl", ""):
        open_file(source).close()


def fingerprint(spec: str, what: str) -> str:
    """Return what identifies an input: its content where it is local, else its name.

    `what` is the kind of input: corpus, queries, qrels, candidates or annotations. Only the files that this kind
    reads count, so a new qrels split in a BEIR folder leaves the corpus as it is. Raises BadInput if one is missing.
    """
    scheme, source, fragment = _parse(spec, what)
    if scheme in _FOLDERS:
        files = _collection(scheme).files(source, fragment, what)
        return "sha256:" + identity.digest([identity.fingerprint(file) for file in files])
    if scheme == "hf":
        return _collection(scheme).fingerprint(source, fragment)
    if what == "candidates" and (given := runs_of(spec)):
        from r2r.datasets import firststage

        return firststage.fingerprint(given)
    if not scheme and what in ("candidates", "annotations"):
        return identity.finished(place(source)) or tables.content_of(source, what)
    return identity.fingerprint(spec)


def runs_of(spec: str) -> RunSpec | None:
    """Return what a `run:` string says, None for other candidates. Raises BadInput for one that cannot be read."""
    from r2r.datasets.runs import parse_spec

    scheme, source, fragment = _parse(spec, "candidates")
    return parse_spec(source, fragment) if scheme == "run" else None


def _parse(spec: str, what: str) -> tuple[str, str, str]:
    """Return scheme, source and fragment of a dataset string.

    As a teacher, a dataset of the hub is `teacher:hf:NAME`.

    The scheme of a plain path is "". A built-in collection is a folder in BEIR's layout; the queries and qrels in a
    stage's folder are Parquet files.
    """
    if what == "annotations" and spec.startswith("teacher:hf:"):
        spec = spec.removeprefix("teacher:")
    schemes, plain = _KINDS[what]
    builtins = tuple(builtin.COLLECTIONS) if schemes is _COLLECTIONS else ()
    name, _, fragment = spec.partition("#")
    if name in builtins:
        return "beir", str(builtin.COLLECTIONS[name]), fragment
    if what in ("queries", "qrels") and tables.path(spec, what).is_dir():
        return "parquet", str(tables.path(spec, what)), ""
    # An address such as s3://bucket/qrels.txt is a path, too.
    found = re.match(r"([a-z0-9_]+):(?!//)", spec)
    scheme, rest = (found[1], spec[found.end() :]) if found else ("", spec)
    if scheme not in schemes and (scheme or not plain or what == "queries"):
        known = [*(f"{name}:" for name in schemes), *builtins, *[plain] * bool(plain)]
        wrong = f"unknown scheme {scheme}:" if scheme else "a plain path"
        raise BadInput(f"{spec}: {wrong} for {what}; known here: {', '.join(known)}")
    source, _, fragment = rest.partition("#") if scheme else (rest, "", "")
    if not source:
        raise BadInput(f"{spec}: names nothing to read; write it after {scheme}:")
    return scheme, source, fragment


def _collection(scheme: str) -> ModuleType:
    """Return the module of a scheme: corpus(source, fragment, parts), queries and qrels(source, fragment)."""
    return importlib.import_module(f"r2r.datasets.{scheme}")


def _table(rows: list[dict], name: str) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=tables.SCHEMAS[name])
