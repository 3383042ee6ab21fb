"""Runs and qrels in memory: read, complete and compare runs; make the random and the oracle order.

Owns the checks of a run file and the warnings about runs. Does not own measures.
A run is a dict from qid to its docids, best first, without scores. Ids are as run files hold them (`tables.run_id`).

    read_run("runs/demo/retrieve/run.txt")["q1"][:10]
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from r2r import datasets, tables
from r2r.datasets.files import Lines, open_file
from r2r.datasets.trec import RUN_LINE, in_order, run_line
from r2r.errors import BadInput
from r2r.places import is_store, place

Run = dict[str, list[str]]
Qrels = dict[str, dict[str, int]]

# Grades of the collections that are in use.
_USUAL = range(-2, 11)
# An id that holds one number: D12, 0012, doc-12.txt.
_ONE_NUMBER = re.compile(r"[^0-9]*0*([0-9]+)[^0-9]*")
# Documents of a query that are compared with the judged ones by the numbers in their ids.
_LOOKED_AT = 100


def check_run(name: str, file: str, first: bool) -> None:
    """Raise BadInput if there is no run to read: no file, or a folder without the table annotations.

    first: whether the others are compared with this run, which annotations cannot be.
    """
    wanted = f"run {name} needs a TREC run file, or a folder that annotate wrote"
    if _is_candidates(file):
        datasets.open_candidates(file)
    elif "://" in file and not is_store(file):
        open_file(file, wanted=wanted).close()
    elif place(file).is_dir():
        if not tables.path(file, "annotations").is_dir():
            raise BadInput(f"{file}: is a folder; {wanted}")
        if first:
            raise BadInput(
                f"run {name}={file}: annotations order only what the teacher saw; give them after a run that lists all "
                f"documents, such as bm25"
            )
    elif not place(file).is_file():
        raise BadInput(f"{file}: no such file; {wanted}")


def _is_candidates(source: str) -> bool:
    return source.startswith("rankgpt:")


def read_qrels(source: str) -> Qrels:
    """Return qid -> docid -> relevance, from a dataset or a TREC qrels file.

    Raises BadInput if there is none, and for two ids that are the same in a run file, such as `a b` and `a%20b`.
    """
    judged: Qrels = {}
    known: dict[tuple[str, str], str] = {}
    for row in datasets.read_qrels(source).to_pylist():
        qid, docid = (tables.run_id(row[name]) for name in ("qid", "docid"))
        for what, given, written in (("queries", row["qid"], qid), ("documents", row["docid"], docid)):
            other = known.setdefault((what, written), given)
            if other != given:
                raise BadInput(f"{source}: the {what} {other!r} and {given!r} are both {written} in a run; rename one")
        judged.setdefault(qid, {})[docid] = row["relevance"]
    if not judged:
        raise BadInput(f"{source}: holds no judgements; qrels need at least one row of qid, docid and relevance")
    return judged


def read_runs(files: Mapping[str, str], source: str, judged: Qrels) -> tuple[dict[str, Run], list[str]]:
    """Return each run's judged queries, and the warnings, one line each.

    files: name -> TREC run file, `rankgpt:FILE`, or a folder with the table annotations, which are completed from the
    first run. source: place of the qrels, for messages. Raises BadInput for a run that cannot be read, or of which no
    query is judged.
    """
    teachers = [name for name, file in files.items() if place(file).is_dir()]
    found, lines = {}, _check_grades(source, judged)
    for name, file in files.items():
        run = _read_any(file)
        found[name] = {qid: docids for qid, docids in run.items() if qid in judged}
        if not found[name]:
            raise BadInput(
                f"{file}: none of its queries is judged in {source}: the run has query {next(iter(run))!r}, the qrels "
                f"have {next(iter(judged))!r}; give the qrels for the run's own queries"
            )
        if name not in teachers:
            lines += [f"run {name} {said}" for said in _check_ids(run, source, judged)]
    return found, lines + _complete(found, teachers, judged) + _compare(found, judged)


def _read_any(file: str) -> Run:
    if place(file).is_dir():
        return _read_annotations(file)
    if _is_candidates(file):
        return {row["qid"]: row["docids"] for row in with_run_ids(datasets.read_candidates(file).to_pylist())}
    return read_run(file)


def _check_grades(source: str, judged: Qrels) -> list[str]:
    """Return a line for grades that are unusual, and one if no document is relevant."""
    grades = {grade for by_docid in judged.values() for grade in by_docid.values()}
    low, high, lines = min(grades), max(grades), []
    if low not in _USUAL or high not in _USUAL:
        lines.append(f"{source} has grades from {low} to {high}; nDCG takes a grade as the gain that it is")
    if high <= 0:
        lines.append(f"{source} has no grade above 0, so no document is relevant and most measures are 0")
    return lines


def _check_ids(run: Run, source: str, judged: Qrels) -> Iterator[str]:
    """Yield what is said of a run whose ids are partly not those of the qrels."""
    if others := run.keys() - judged.keys():
        near = _near(others, judged.keys() - run.keys())
        like = f"; some ids differ in form only, such as {near[0][0]} here and {near[0][1]} there" if near else ""
        yield f"has {len(others)} queries that {source} does not judge; they play no part{like}"
    both = [(docids[:_LOOKED_AT], judged[qid]) for qid, docids in run.items() if qid in judged]
    near = [pair for docids, known in both for pair in _near(set(docids) - known.keys(), known.keys() - set(docids))]
    if near:
        yield (
            f"lists {len(near)} documents without a judgement whose ids differ in form only from judged ones, such as "
            f"{near[0][0]} here and {near[0][1]} in {source}; write them alike"
        )
    elif not any(known.keys() & run[qid] for qid, known in judged.items() if qid in run):
        docids, known = both[0]
        yield (
            f"lists no document that {source} judges, so most measures are 0: it has {docids[0]}, the qrels have "
            f"{next(iter(known))}; are these ids of the same collection?"
        )


def _near(ids: Iterable[str], judged: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of an id and a judged one of which one is a number, and the other holds the same number."""
    by_number = {found[1]: other for other in judged if (found := _ONE_NUMBER.fullmatch(other))}
    pairs = ((one, by_number.get(found[1])) for one in sorted(ids) if (found := _ONE_NUMBER.fullmatch(one)))
    return [(one, other) for one, other in pairs if other and (one.isdigit() or other.isdigit())]


def _read_annotations(folder: str) -> Run:
    """Return the teacher's order of the documents that it saw.

    Raises BadInput if all rows were rejected, or a query has several annotations.
    """
    rows = with_run_ids(tables.read(folder, "annotations").to_pylist())
    if not rows:
        raise BadInput(f"{folder}: holds no annotations; a run has at least one query")
    counts = Counter(row["qid"] for row in rows)
    if again := next((qid for qid, count in counts.items() if count > 1), None):
        raise BadInput(f"{folder}: qid {again} has {counts[again]} annotations; a run needs one a query, with draws 1")
    return {row["qid"]: [row["docids"][position - 1] for position in row["ranking"]] for row in rows}


def with_run_ids(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of a table, with qid and docids as run files hold them."""
    return [
        row | {"qid": tables.run_id(row["qid"]), "docids": [tables.run_id(docid) for docid in row["docids"]]}
        for row in rows
    ]


def read_run(file: str) -> Run:
    """Read a TREC run, lines of `qid Q0 docid rank score tag`, and return qid -> docids, best first.

    The file may be gzipped (.gz), and on any file system that dataset strings may name. The order is trec_eval's: by
    score as a 32-bit float, highest first; equal scores by docid, the alphabetically last first. The rank column and
    blank lines do not count.

    Raises BadInput for a file that is missing, empty, cut off or not UTF-8; and, with the line number, for a line
    without six columns, a score that is not a number, and a document that a query lists twice.
    """
    scores: dict[str, dict[str, float]] = {}
    lines = Lines(file, run_line, wanted="a TREC run file is needed")
    for at, (qid, docid, score) in lines.read():
        found = scores.setdefault(qid, {})
        if docid in found:
            where = lines.place(at)
            raise BadInput(f"{where}: document {docid} stands twice in query {qid}; a run lists it once a query")
        found[docid] = score
    if not scores:
        raise BadInput(f"{file}: is empty; a TREC run has lines of {RUN_LINE}")
    return {qid: [docid for _, docid in in_order(found)] for qid, found in scores.items()}


def _complete(runs: dict[str, Run], teachers: Iterable[str], judged: Qrels) -> list[str]:
    """Complete the teachers' runs in place, from the first run. Return a line for each that lacks queries."""
    first_name, first = next(iter(runs.items()))
    lines = []
    for name in teachers:
        if missing := len(first.keys() - runs[name].keys()):
            lines.append(
                f"run {name} has no annotation for {missing} of {len(judged)} judged queries; they keep the order of "
                f"{first_name}"
            )
        runs[name] = completed(runs[name], first)
    return lines


def _compare(runs: Mapping[str, Run], judged: Qrels) -> list[str]:
    """Return a line for each run that lacks judged queries, or lists documents that the first run does not."""
    first_name, first = next(iter(runs.items()))
    lines = []
    for name, listed in runs.items():
        if missing := len(judged) - len(listed):
            lines.append(f"run {name} lacks {missing} of {len(judged)} judged queries; they count 0")
        others = sum(not set(docids) <= set(first.get(qid, ())) for qid, docids in listed.items())
        if others:
            lines.append(
                f"run {name} lists documents that run {first_name} does not, in {others} of {len(judged)} judged "
                f"queries; random and oracle reorder the documents of {first_name}"
            )
    return lines


def completed(run: Run, first: Run) -> Run:
    """Return the run, completed from the first run: missing documents after its own, then missing queries.

    Both come in the first run's order.
    """
    return {
        qid: [*run.get(qid, ()), *(docid for docid in first.get(qid, ()) if docid not in run.get(qid, ()))]
        for qid in first | run
    }


def shuffled(candidates: Run, seed: int) -> Run:
    """Return the same documents per query in a random order.

    It follows from the seed, the qid and the set of documents, not from the order in which they come.
    """
    return {
        qid: random.Random(f"{seed} {qid}").sample(sorted(docids), len(docids)) for qid, docids in candidates.items()
    }


def oracle(candidates: Run, qrels: Qrels) -> Run:
    """Return the same documents per query by relevance, highest first: the best order of them that there is.

    A document without a judgement has relevance 0.
    """
    return {
        qid: sorted(docids, key=lambda docid: -qrels.get(qid, {}).get(docid, 0)) for qid, docids in candidates.items()
    }
