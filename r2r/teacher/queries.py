"""The queries stage: a teacher writes the training queries that a corpus lacks, one for each drawn passage.

Owns the tables `passages` (drawn), `written`, `queries`, `qrels` and `rejects`, and which queries are kept: those by
which BM25 finds their passage again, once each. `sample.py` draws, `write.py` asks about one passage, `r2r.rows` owns
the engines and the finished rows.

    make_queries("beir:scifact", "runs/x/index", "runs/x/queries", QueriesSettings(teacher="Qwen/...", n=1000))
"""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import Any, NamedTuple

from r2r import datasets, tables
from r2r.bm25 import java
from r2r.bm25.roundtrip import places
from r2r.bm25.search import facts
from r2r.config import QueriesSettings
from r2r.datasets import parquet
from r2r.datasets.candidates import Candidates
from r2r.errors import BadInput, Stopped
from r2r.identity import digest, manifest_of
from r2r.llm import is_remote
from r2r.llm.probe import Probed
from r2r.places import Place, place
from r2r.rows import pool
from r2r.rows.journal import KEYS, Journal
from r2r.rows.pool import share
from r2r.stage import Identity, Input, Result, Stage, There, identify, run
from r2r.teacher import calls, stats, write
from r2r.teacher.sample import Sample, draw
from r2r.workers import bar

# Settings that decide which passages get a query and which queries are kept, not what is written about a passage.
_CHOICE = {"n", "min_chars", "found_within"}
# Passages in a file of the table. A worker reads a file up to its own rows.
_PASSAGES_PER_FILE = 1000
# Estimated tokens of a reply.
_QUERY = 20
# What a server is asked about first.
_SMALL_PASSAGE = "The sky is blue."


def stage(
    corpus: str, index: str | None, out: str | Place, settings: QueriesSettings, retry_rejects: bool = False
) -> Stage:
    """Return the stage in which a teacher writes queries for passages of `corpus`, a dataset string.

    index: the folder that index wrote from the same corpus; None keeps queries whether or not BM25 finds their passage.
    retry_rejects: run even if the stage is done, and ask again about passages whose replies could not be read.
    """

    def check(there: There) -> None:
        _check(corpus, index, settings, there)

    def work(identity: Identity) -> Result:
        return _work(corpus, index, place(out), settings, identity, retry_rejects)

    inputs = {
        "corpus": Input(corpus, partial(datasets.fingerprint, what="corpus")),
        "teacher": Input(settings.teacher, calls.identify_teacher),
    }
    if index is not None:
        inputs["index"] = Input(index)
    if settings.examples is not None:
        inputs["examples"] = Input(settings.examples)
    writes = ["queries", "qrels", "passages", "written", "rejects", "stats.json"]
    versions = {"prompt": write.VERSION}
    return Stage("queries", place(out), settings, inputs, check, work, writes, versions, again=retry_rejects)


def make_queries(
    corpus: str, index: str | None, out: str | Place, settings: QueriesSettings, retry_rejects: bool = False
) -> None:
    """Write the tables of the stage and `stats.json` into `out`, which then is a dataset of queries and qrels.

    Arguments as for `stage`. Finished passages are not asked about again, also when `n` grows. Raises BadInput for a
    wrong setting or input; and Stopped if more replies than `max_reject_rate` cannot be read, if the next call might
    exceed `max_cost`, or if no query is left.
    """
    run(stage(corpus, index, out, settings, retry_rejects))


def _check(corpus: str, index: str | None, settings: QueriesSettings, there: There) -> None:
    """Raise BadInput for inputs that cannot be read, or that do not go together."""
    datasets.check(corpus, "corpus")
    if settings.teacher.startswith(("teacher:", "replies:")):
        raise BadInput(f"teacher: {settings.teacher}: recorded, so it cannot write queries; name a model or a server")
    calls.check_teacher(settings)
    if settings.examples is not None:
        write.Prompter(settings, write.read_examples(settings.examples))
    if index is not None:
        java.find_java()
        if there(index):
            facts(index)
            built_from = (manifest_of(place(index)) or {})["inputs"]["corpus"]
            if built_from["fingerprint"] != datasets.fingerprint(corpus, "corpus"):
                raise BadInput(f"index: {index}: was built from {built_from['source']}; give the index of {corpus}")


def _version(settings: QueriesSettings, identity: Identity) -> str:
    """Return what all keys have in common: a hash of the teacher, the examples, the prompt and what else counts."""
    what = {name: value for name, value in identity.what.items() if name not in _CHOICE}
    names = ["teacher", *["examples"] * (settings.examples is not None)]
    return f"{KEYS}-{Identity(identity.inputs, what).key(*names)}"


def _examples(settings: QueriesSettings) -> list[write.Example]:
    return write.read_examples(settings.examples) if settings.examples is not None else []


def _rows(sample: Sample) -> list[dict[str, str]]:
    """Return the drawn passages with the qids of their queries."""
    return [{"qid": f"made-{passage['docid']}"} | passage for passage in sample.passages]


def _work(
    corpus: str, index: str | None, out: Place, settings: QueriesSettings, identity: Identity, retry_rejects: bool
) -> Result:
    sample = draw(corpus, settings.n, settings.min_chars, settings.seed)
    rows = _rows(sample)
    if len(rows) < settings.n:
        print(f"queries: only {len(rows):,} passages have {settings.min_chars} characters or more", flush=True)
    _write_passages(rows, out)
    version = _version(settings, identity)
    row_key = partial(write.key, version=version)
    probed: Probed | None = None
    if is_remote(settings.teacher) and (probed := _probe(out, version, settings)):
        settings = settings.model_copy(update={"server": probed.dialect})
    settings = calls.spread(settings)
    budget = calls.open_budget(out, version, settings)
    worker = (settings, _examples(settings), row_key, budget, version)
    job = pool.Job("queries", write.Writer, worker, row_key, version, ("written", "rejects"), calls.steps(settings))
    # Above this number, even passages without a reject cannot bring the share down again.
    most = settings.max_reject_rate * len(rows)
    passages = Candidates([row["qid"] for row in rows], partial(_parts, out, len(rows)))
    done = pool.run_rows(passages, job, settings, out, lambda counts: counts["rejects"] <= most, retry_rejects)

    done.counts.update(calls.probe_counts(out, version))
    kept = _kept(tables.read(out, "written").to_pylist(), index, settings)
    unread = tables.read(out, "rejects").to_pylist()
    contents = _write_kept(kept, unread, out)
    found = {
        "corpus": {"documents": sample.documents, "too_short": sample.too_short, "drawn": len(rows)},
        "rows": {"queries": len(kept.rows), "rejects": len(unread) + len(kept.rejects), "unasked": done.unasked},
        **stats.asking(done.counts, [row["reason"] for row in unread], done.speed, settings),
        "filtered": dict(kept.filtered),
        "found_again": kept.found_again,
    }
    if probed:
        found["probes"] |= {"takes": probed.dialect.model_dump(), "refusal": probed.refusal}
    _tell(found)
    tables.write_text(json.dumps(found, indent=2) + "\n", out / "stats.json")
    stats.stop_at_limits("queries", found, len(unread), done.unasked, len(rows), settings)
    if not kept.rows:
        why = stats.reasons({**found, "rejects": found["rejects"] | found["filtered"]})
        raise Stopped(f"queries: none of {len(rows):,} is left: {why}; look at {tables.path(out, 'rejects')}")
    counts = {f"{name}_tokens": found["tokens"][name] for name in ("prompt", "completion")}
    written = {"queries": len(kept.rows), "qrels": len(kept.rows), "rejects": found["rows"]["rejects"]}
    extra = {"passages": len(rows), "written": done.counts["written"]}
    return Result(written | extra, digest(contents), ["stats.json"], counts)


def _probe(out: Place, version: str, settings: QueriesSettings) -> Probed | None:
    """Find out what the server takes; see `calls.probe_server`."""
    message, _ = write.Prompter(settings, []).message(_SMALL_PASSAGE)
    return calls.probe_server("queries", out, version, settings, message, write.schema(settings))


def _write_passages(rows: list[dict[str, str]], out: Place) -> None:
    tables.clear(out, "passages")
    for number, at in enumerate(range(0, len(rows), _PASSAGES_PER_FILE)):
        tables.write_part(rows[at : at + _PASSAGES_PER_FILE], out, "passages", f"part-{number:05}")
    tables.seal(out, "passages", (f"part-{number:05}" for number in range(-(-len(rows) // _PASSAGES_PER_FILE))))


def _parts(out: Place, total: int, rows: int) -> list[Any]:
    """Return the drawn passages in parts of about `rows`."""
    files = [str(file) for file in tables.files(out, "passages")]
    columns = {name: name for name in tables.SCHEMAS["passages"].names}
    return list(parquet.split(files, columns, -(-total // rows), _as_it_is))


def _as_it_is(record: dict[str, Any], names: dict[str, str], repaired: bool) -> dict[str, Any]:
    return record


class _Kept(NamedTuple):
    """rows: the written queries that are kept. rejects: rows of the table for the others. filtered: how many of these,
    by reason. found_again: where BM25 found the passages; None without an index."""

    rows: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    filtered: Counter[str]
    found_again: dict[str, Any] | None


def _kept(written: list[dict[str, Any]], index: str | None, settings: QueriesSettings) -> _Kept:
    """Return the queries by which BM25 finds their passage among the first `found_within`, each text once."""
    place: dict[str, int] = {}
    found_again = None
    if index is None:
        print("queries: no index was given, so no query was tried: BM25 may not find its passage", flush=True)
    elif written:
        place = places(index, written, settings.found_within)
        ranks = place.values()
        found_again = {
            "within": settings.found_within,
            "share": share(sum(rank > 0 for rank in ranks), len(written)),
            "first_share": share(sum(rank == 1 for rank in ranks), len(written)),
        }
    rows, rejects, filtered = [], [], Counter[str]()
    first: dict[str, str] = {}
    for row in written:
        reason, more = "", ""
        if place.get(row["qid"]) == 0:
            reason, more = "its passage is not found again", f"among the first {settings.found_within}"
        elif (other := first.setdefault(write.normal(row["query"]), row["qid"])) != row["qid"]:
            reason, more = "same query as another", other
        if reason:
            filtered[reason] += 1
            same = {name: row[name] for name in ("qid", "key", "attempts")}
            rejects.append(same | {"reason": f"{reason}: {more}", "reply": row["query"]})
        else:
            rows.append(row)
    return _Kept(rows, rejects, filtered, found_again)


def _write_kept(kept: _Kept, unread: list[dict[str, Any]], out: Place) -> list[str]:
    """Write the tables queries, qrels and rejects. Return the content hashes of the first two."""
    tables.write(unread + kept.rejects, out, "rejects")
    queries = [{"qid": row["qid"], "query": row["query"]} for row in kept.rows]
    qrels = [{"qid": row["qid"], "docid": row["docid"], "relevance": 1} for row in kept.rows]
    return [tables.write(queries, out, "queries"), tables.write(qrels, out, "qrels")]


def _tell(found: dict[str, Any]) -> None:
    """Print the summary."""
    said = [stats.written(found)]
    if found["found_again"]:
        share_found, within = found["found_again"]["share"], found["found_again"]["within"]
        said.append(f"BM25 finds {share_found:.1%} of the passages again among the first {within}")
    if found["cost"]["spent"]:
        said.append(f"cost {found['cost']['spent']:,.4f}")
    print(f"queries: {', '.join(said)}", flush=True)
    if found["rejects"]:
        print(f"queries: rejected: {stats.reasons(found)}", flush=True)
    for reason, count in found["filtered"].items():
        print(f"queries: filtered: {count:,} {reason}", flush=True)


def dry_run(
    corpus: str, index: str | None, out: str | Place | None, settings: QueriesSettings, retry_rejects: bool = False
) -> None:
    """Draw the passages; print how many would be asked about, the tokens, the cost and the time; ask nothing.

    out: the stage's folder; its finished rows are not counted. Raises BadInput.
    """
    planned = stage(corpus, index, out or ".", settings)
    planned.check(lambda _: True)
    version = _version(settings, identify(planned))
    sample = draw(corpus, settings.n, settings.min_chars, settings.seed)
    rows = _rows(sample)
    prompter, journal = write.Prompter(settings, _examples(settings)), Journal(place(out or ".") / "rows" / version)
    finished = {"written"} if retry_rejects else {"written", "rejects"}
    counts = Counter[str]({"done": len(rows)})
    for row in bar("queries: counting", len(rows), "passage", iterable=rows):
        if journal.table(write.key(row, version)) in finished:
            continue
        message, cut = prompter.message(row["text"])
        counts.update(rows=1, calls=1, prompt_tokens=len(prompter.ids(message)), cut_texts=cut)
    print(f"queries: {sample.documents:,} documents, {sample.too_short:,} too short, {len(rows):,} drawn")
    stats.plan("queries", counts, journal, settings, _QUERY * counts["calls"], f"at {_QUERY} for each query")


def show_prompt(corpus: str, index: str | None, settings: QueriesSettings) -> None:
    """Print the prompt about the first passage that is drawn, with the tokens of the chat format. Raises BadInput."""
    stage(corpus, index, ".", settings).check(lambda _: True)
    prompter = write.Prompter(settings, _examples(settings))
    (passage,) = draw(corpus, 1, settings.min_chars, settings.seed).passages
    print(prompter.shown(prompter.message(passage["text"])[0]))
