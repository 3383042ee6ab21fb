"""Candidates of any first stage: a `run:` string, or runs with the datasets that have their queries and texts.

Owns which inputs that takes, their checks and their fingerprint, and where the candidates of a `run:` string lie. Does
not own the formats of runs (`runs.py`) or the join (`joined.py`).

    write(RunSpec(["dense.run"], queries="beir:fiqa", corpus="beir:fiqa"), Path("out"), RetrieveSettings())
"""

from __future__ import annotations

from functools import cache
from tempfile import TemporaryDirectory

from r2r import datasets, identity, places
from r2r.config import RetrieveSettings
from r2r.datasets import joined, runs
from r2r.datasets.runs import RunSpec
from r2r.errors import BadInput
from r2r.places import Place, place


def write(given: RunSpec, out: Place, settings: RetrieveSettings) -> joined.Joined:
    """Write the table candidates into `out`, `settings.k` a query. Several runs are fused.

    The documents that the queries' collection excludes are left out before the cut. Raises BadInput as `joined.join`,
    and if no candidate is left.
    """
    texts: joined.Texts
    if given.index is None:
        corpus = str(given.corpus)
        texts = joined.Corpus(datasets.corpus_parts(corpus, 1)[0], corpus)
    else:
        from r2r.bm25.texts import Stored

        texts = Stored(given.index, settings.workers, settings.heap)
    asked = datasets.read_queries(given.queries).to_pylist()
    found = joined.join(
        {file: runs.open_run(file) for file in given.files},
        asked,
        given.queries,
        datasets.read_barred(given.queries, [row["qid"] for row in asked], settings.remove_query),
        texts,
        out,
        settings.k,
        settings.max_missing,
    )
    if not found.candidates:
        raise BadInput(f"{', '.join(given.files)}: no document is left for any query of {given.queries}")
    return found


def check(given: RunSpec) -> None:
    """Raise BadInput if an input is not there."""
    again = next((file for place, file in enumerate(given.files) if file in given.files[:place]), None)
    if again is not None:
        raise BadInput(f"{again}: given twice; each run is fused once")
    for file in given.files:
        runs.check(file)
    if given.corpus is not None:
        datasets.check(given.corpus, "corpus")
    if given.index is not None:
        from r2r.bm25.search import facts

        facts(given.index)
    datasets.check(given.queries, "queries")


def fingerprint(given: RunSpec) -> str:
    """Return what identifies the candidates, as `datasets.fingerprint`."""
    texts = identity.fingerprint(given.index) if given.index else datasets.fingerprint(str(given.corpus), "corpus")
    queries = datasets.fingerprint(given.queries, "queries")
    return "sha256:" + identity.digest([*map(identity.fingerprint, given.files), texts, queries, given.k])


def folder_of(spec: str, given: RunSpec, aside: Place | None) -> str:
    """Return a folder with the table candidates of a `run:` string. Writes it unless it is there.

    aside: where; what it holds of another run is removed. None: a folder that is removed when this process ends.
    """
    aside = aside or place(_scratch(spec).name)
    folder = aside / fingerprint(given).removeprefix("sha256:")[:16]
    if not folder.is_dir():
        check(given)
        places.remove(aside)
        with places.replacing_folder(folder) as being:
            write(given, being, RetrieveSettings(k=given.k) if given.k else RetrieveSettings())
    return str(folder)


@cache
def _scratch(spec: str) -> TemporaryDirectory:
    return TemporaryDirectory(prefix="r2r-")
