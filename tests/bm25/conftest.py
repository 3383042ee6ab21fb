"""Fixtures of this folder: a Ray worker with a JVM, and collections on disk."""

import json
import sys
from pathlib import Path

import pytest

from r2r.bm25 import shard
from r2r.bm25.merge import merge_shards
from r2r.bm25.retrieve import _Worker
from r2r.bm25.search import Facts, Searcher
from r2r.config import RetrieveSettings
from r2r.datasets.beir import _document
from r2r.datasets.documents import document
from r2r.datasets.files import Lines, json_object


class Lucene:
    """Lucene's part of the tests, in its own process, because the driver must not have a JVM."""

    def build(self, file: str, index: Path, cuts: list[float], language: str = "en") -> list[dict]:
        """Build one shard from each cut to the next. Cuts are shares of the file; equal cuts give an empty shard."""
        content = Path(file).read_bytes()
        parse, size = _document if content.startswith(b'{"_id"') else _passage, len(content)
        bounds = [int(size * cut) for cut in cuts]
        parts = [Lines(file, parse, *bounds[number : number + 2]) for number in range(len(bounds) - 1)]
        (index / "shards").mkdir(parents=True)
        return [
            shard.build(part, index / "shards" / f"{number:05}", "", 512, lambda *told: None, language)
            for number, part in enumerate(parts)
        ]

    def merge(self, index: Path, out: Path) -> None:
        """Merge the shards of an index into an index with a single shard."""
        merge_shards(sorted((index / "shards").iterdir()), out / "shards" / "00000" / "lucene", 512)

    def search(self, index: Path, queries: list[str], k: int, k1: float = 0.9, b: float = 0.4) -> list[tuple]:
        """Return (docids, scores) of each query, best first."""
        searcher = Searcher(index, k1, b, 512)
        return [(hits.docids, hits.scores) for hits in (searcher.search(query, k) for query in queries)]

    def find(self, index: Path, language: str, query: str) -> list[str]:
        """Return the docids that a query finds in an index with this analyzer."""
        return Searcher(index, 0.9, 0.4, 512, language).search(query, 10).docids

    def texts(self, index: Path, docids: list[str]) -> dict[str, str]:
        return Searcher(index, 0.9, 0.4, 512).texts(docids)

    def worker(self, index: Path, statistics: tuple[int, int]) -> None:
        _Worker(str(index), Facts(*statistics, "en"), index, RetrieveSettings())

    def anserini(self, lucene: Path, queries: list[str], k: int) -> list[dict[str, float]]:
        """Return docid -> score of each query, by the Java searcher that Pyserini uses."""
        import jnius

        searcher = jnius.autoclass("io.anserini.search.SimpleSearcher")(str(lucene))
        return [{hit.docid: hit.score for hit in searcher.search(query, k)} for query in queries]


def _passage(line: bytes):
    row = json_object(line)
    return document(row["id"], "", row["contents"])


@pytest.fixture(scope="session")
def lucene(ray_local):
    """Return a function: `lucene(method, *arguments)` calls a method of Lucene in the worker."""
    from ray import cloudpickle

    # Ray's workers cannot import the tests.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    # It needs no CPU of Ray's, because it would hold that one during all later tests.
    actor = ray_local.remote(num_cpus=0)(Lucene).remote()
    yield lambda method, *arguments: ray_local.get(getattr(actor, method).remote(*arguments))
    ray_local.kill(actor)


@pytest.fixture
def corpus(tmp_path):
    """Return a function: `corpus({docid: text}, {qid: query})` writes a BEIR folder and returns its dataset string."""

    def write(documents: dict[str, str], queries: dict[str, str] | None = None, name: str = "collection") -> str:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        lines = [json.dumps({"_id": docid, "title": "", "text": text}) for docid, text in documents.items()]
        (folder / "corpus.jsonl").write_text("".join(line + "\n" for line in lines))
        lines = [json.dumps({"_id": qid, "text": query}) for qid, query in (queries or {}).items()]
        (folder / "queries.jsonl").write_text("".join(line + "\n" for line in lines))
        return f"beir:{folder}"

    return write
