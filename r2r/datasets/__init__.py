"""Where corpora, queries, qrels, candidate lists and recorded annotations come from: one string says it.

    beir:DIR[#SPLIT]     a folder in BEIR's layout; the split says which queries and qrels (default: test)
    msmarco:DIR[#SPLIT]  MS MARCO's passages as Microsoft publishes them; splits such as train, dev.small, dl19
    irds:ID              anything that ir_datasets knows, such as irds:beir/fiqa/test
    bright:TASK          a task of BRIGHT, such as bright:biology, with its exclusion lists
    jsonl:FILE[#NAMES]   one JSON object a line; NAMES says which fields to read, such as #docid=id,text=contents,
                         where they are not called docid, title, text (corpus), qid, query (queries), relevance (qrels)
    parquet:PATH[#NAMES] a Parquet file or a folder of them, with NAMES likewise
    demo[#SPLIT]         the built-in world: test, dev, train, and the first queries of train as train500 and so on
    rankgpt:FILE         candidates in RankGPT's JSON
    teacher:FILE         annotations in the JSONL of Reason-to-Rank's authors
    PATH                 qrels: a TREC file; candidates, annotations: a stage's folder

All down to demo give a corpus, queries and qrels. DIR, FILE and PATH lie on this disk or on any file system that
pyarrow opens (s3://, gs://, hdfs://, file://); text files may be gzipped (.gz).

Owns what these strings mean; each scheme's format is a file beside this one. Knows no stage.

    read_queries("beir:scifact#test").num_rows
"""

from __future__ import annotations

import importlib
import re
from types import ModuleType
from typing import TYPE_CHECKING

from r2r.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

    from r2r.datasets.candidates import Candidates
    from r2r.datasets.documents import Part

_COLLECTIONS = ("beir", "msmarco", "irds", "bright", "jsonl", "parquet", "demo")


def corpus_parts(spec: str, parts: int) -> list[Part]:
    """Cut a corpus into `parts` that workers read apart, always the same ones for the same corpus."""
    scheme, source, fragment = _parse(spec, "corpus", _COLLECTIONS)
    return _collection(scheme).corpus(source, fragment, parts)


def read_queries(spec: str) -> pa.Table:
    """Return the queries (qid, query), in the order of the source."""
    scheme, source, fragment = _parse(spec, "queries", _COLLECTIONS)
    return _table(_collection(scheme).queries(source, fragment), "queries")


def read_qrels(spec: str) -> pa.Table:
    """Return the judgements (qid, docid, relevance)."""
    from r2r.datasets import trec

    scheme, source, fragment = _parse(spec, "qrels", (*_COLLECTIONS, ""), plain="a TREC qrels file")
    return _table(_collection(scheme).qrels(source, fragment) if scheme else trec.qrels(source), "qrels")


def read_excluded(spec: str) -> dict[str, set[str]]:
    """Return qid -> docids that the rules of a collection take out of that query's ranking, before it is cut to k.

    Only BRIGHT has such rules; for any other collection there are none.
    """
    scheme, source, _ = _parse(spec, "queries", _COLLECTIONS)
    collection = _collection(scheme)
    return collection.excluded(source) if hasattr(collection, "excluded") else {}


def open_candidates(spec: str) -> Candidates:
    """Return the candidates' qids, and a way to read their rows in parts. Raises BadInput, naming the row, where a qid
    comes twice; a part does so for an unsound row."""
    from r2r.datasets import candidates

    scheme, source, _ = _parse(spec, "candidates", ("rankgpt", ""), plain="a stage's folder")
    return candidates.of_rankgpt(source) if scheme else candidates.of_stage(source)


def read_candidates(spec: str) -> pa.Table:
    """Return all candidates, one row a query; each has at least one. Raises BadInput naming file and row."""
    found = open_candidates(spec)
    return _table([row for part in found.parts(len(found.qids)) for _, row in part.read()], "candidates")


def read_annotations(spec: str) -> tuple[list[dict], list[dict]]:
    """Return the rows of annotations, and those of rejects. Positions in `ranking` count from 1, best first."""
    from r2r import tables
    from r2r.datasets import teacher

    scheme, source, _ = _parse(spec, "annotations", ("teacher", ""), plain="a stage's folder")
    if scheme == "teacher":
        return teacher.annotations(source)
    rejects = tables.read(source, "rejects").to_pylist() if tables.path(source, "rejects").is_dir() else []
    return tables.read(source, "annotations").to_pylist(), rejects


def _parse(spec: str, what: str, schemes: tuple[str, ...], plain: str = "") -> tuple[str, str, str]:
    """Return scheme, source and fragment of a dataset string; the scheme of a plain path is empty.

    `plain` says what a plain path means for `what`; without it, a plain path is a mistake.
    """
    if "demo" in schemes and (found := re.fullmatch(r"demo(?:#(.*))?", spec)):
        return "demo", "", found[1] or ""
    found = re.match(r"([a-z0-9_]+):", spec)
    scheme, rest = (found[1], spec[found.end() :]) if found else ("", spec)
    if scheme not in schemes or scheme == "demo":
        known = ["demo" if name == "demo" else f"{name}:" for name in schemes if name] + [plain] * bool(plain)
        wrong = f"unknown scheme {scheme}:" if scheme else "a plain path"
        raise BadInput(f"{spec}: {wrong} for {what}; known here: {', '.join(known)}")
    source, _, fragment = rest.partition("#") if scheme else (rest, "", "")
    if not source:
        raise BadInput(f"{spec}: names nothing to read; write it after {scheme}:")
    return scheme, source, fragment


def _collection(scheme: str) -> ModuleType:
    """Return the file of a scheme that has corpus(source, fragment, parts), queries and qrels(source, fragment)."""
    return importlib.import_module(f"r2r.datasets.{scheme}")


def _table(rows: list[dict], name: str) -> pa.Table:
    import pyarrow as pa

    from r2r.tables import SCHEMAS

    return pa.Table.from_pylist(rows, schema=SCHEMAS[name])
