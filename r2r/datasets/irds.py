"""Collections of ir_datasets: `irds:ID`, with its documents, queries or qrels.

Owns which fields of its records are read, the cut of a corpus by document number, and the advice which files to put
where if ir_datasets cannot download them. Does not own the files: they are under IR_DATASETS_HOME.

    queries("beir/fiqa/test", "")[0]["query"]
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from r2r.datasets.documents import Document, Part, as_id, clean, document
from r2r.datasets.trec import judgement, unique_judgements, unique_queries
from r2r.errors import BadInput

# ir_datasets stores BRIGHT's excluded documents as qrels with this relevance.
_EXCLUDED = -100


def corpus(name: str, fragment: str, parts: int) -> list[Part]:
    """Return the documents in parts, by document number.

    A part skips the documents before it one by one, unless ir_datasets has built its document store.
    """
    count = dataset(name, "docs", fragment).docs_metadata().get("count", 0)
    bounds = [count * index // parts for index in range(parts)]
    # Download here, once: workers would all write to the same file.
    next(Records(name, "docs", _document, _home())._records(), None)
    return [
        Records(name, "docs", _document, _home(), start, stop, (count if stop is None else stop) - start or None)
        for start, stop in zip(bounds, [*bounds[1:], None], strict=True)
    ]


def queries(name: str, fragment: str) -> list[dict]:
    """Return the queries of an ID. Raises BadInput if ir_datasets has none, or cannot get them."""
    dataset(name, "queries", fragment)
    return unique_queries(Records(name, "queries", _query, _home()), f"irds:{name}")


def qrels(name: str, fragment: str) -> list[dict]:
    """Return the judgements of an ID, without BRIGHT's excluded documents. Raises BadInput as `queries` does."""
    dataset(name, "qrels", fragment)

    def kept(record: Any) -> dict | None:
        row = _judgement(record)
        return None if _is_excluded(name, row) else row

    return unique_judgements(Records(name, "qrels", kept, _home()), f"irds:{name}")


def excluded(name: str) -> dict[str, set[str]]:
    """Return qid -> docids that must not be in the query's ranking. Only BRIGHT has some."""
    found: dict[str, set[str]] = {}
    if name.startswith("bright/"):
        dataset(name, "qrels", "")
        for _, row in Records(name, "qrels", _judgement, _home()).read():
            if _is_excluded(name, row):
                found.setdefault(row["qid"], set()).add(row["docid"])
    return found


def _is_excluded(name: str, row: dict) -> bool:
    return name.startswith("bright/") and row["relevance"] == _EXCLUDED


@dataclass(frozen=True)
class Records:
    """A part of a collection of ir_datasets: the records [start, stop) of `kind`, which is docs, queries or qrels.

    `home` is the IR_DATASETS_HOME of the process that made the part; the process that reads it uses the same.
    """

    name: str
    kind: str
    parse: Callable[[Any], Any]
    home: str
    start: int = 0
    stop: int | None = None
    size: int | None = None
    unit: ClassVar[str] = "document"

    def read(self) -> Iterator[tuple[int, Any]]:
        """Yield each record, parsed, with its number. Raises BadInput for an unsound record and for missing files."""
        # ir_datasets reads this variable once, when it is imported.
        os.environ["IR_DATASETS_HOME"] = self.home
        for at, record in enumerate(self._records(), start=self.start):
            try:
                row = self.parse(record)
            except ValueError as error:
                raise BadInput(f"{self.place(at)}: {error}") from None
            yield at, row

    def _records(self) -> Iterator[Any]:
        found = dataset(self.name, self.kind, "")
        try:
            records = getattr(found, f"{self.kind}_iter")()
            if self.start and hasattr(records, "__getitem__") and found.docs_store().built():
                yield from records[self.start : self.stop]
            else:
                yield from itertools.islice(records, self.start, self.stop)
        except Exception as error:
            # Any kind of error, because only ir_datasets runs here: no network, a missing or damaged file, a format
            # that needs one more package.
            raise BadInput(f"irds:{self.name}: {self._advice(found, error)}") from None

    def _advice(self, found: Any, error: Exception) -> str:
        """Return which files to put where; if all files are there, the error of ir_datasets."""
        handler = getattr(found, f"{self.kind}_handler")()
        files = [f"{source} as {path}" for source, path in _downloads(handler, set()) if not Path(path).exists()]
        if not files:
            said = (str(error).splitlines() or [""])[0][:200]
            return f"ir_datasets cannot read its {self.kind} under {self.home}: {type(error).__name__}: {said}"
        home = f"or name a folder that has them in IR_DATASETS_HOME, which is {self.home}"
        return f"its {self.kind} are not on disk and cannot be downloaded; put {' and '.join(files)}, {home}"

    def place(self, at: int) -> str:
        return f"irds:{self.name}: {self.kind} record {at + 1}"


def dataset(name: str, kind: str, fragment: str) -> Any:
    """Return the data set of ir_datasets. Raises BadInput for an unknown ID, and for one without `kind`."""
    import ir_datasets

    if fragment:
        raise BadInput(
            f"irds:{name}#{fragment}: an ID of ir_datasets names its split itself, as in irds:beir/fiqa/test"
        )
    try:
        found = ir_datasets.load(name)
    except KeyError:
        near = [known for known in ir_datasets.registry if known.split("/")[0] == name.split("/")[0]]
        known = f"; it knows {', '.join(near[:12])}{', …' * (len(near) > 12)}" if near else "; ir_datasets list has all"
        raise BadInput(f"irds:{name}: ir_datasets knows no such ID{known}") from None
    if not found.has(kind):
        below = [known for known in ir_datasets.registry if known.startswith(f"{name}/")]
        under = [known for known in below if ir_datasets.load(known).has(kind)]
        hint = f"; {', '.join(under[:12])} have" if under else ""
        raise BadInput(f"irds:{name}: has no {kind} in ir_datasets{hint}")
    return found


def _home() -> str:
    import ir_datasets

    return str(ir_datasets.util.home_path().absolute())


def _downloads(thing: Any, seen: set[int]) -> Iterator[tuple[str, str]]:
    """Yield source and path of each file that `thing`, a handler of ir_datasets, downloads."""
    from ir_datasets.util import Download, LocalDownload

    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Download):
        urls = [mirror.url for mirror in thing.mirrors if hasattr(mirror, "url")]
        local = [mirror.path(force=False) for mirror in thing.mirrors if isinstance(mirror, LocalDownload)]
        # A private field, because the public path() downloads a file that ir_datasets does not cache.
        if path := thing._cache_path or next(iter(local), None):
            yield next(iter(urls), "what its licence gives you"), str(path)
    elif isinstance(thing, list | tuple):
        for one in thing:
            yield from _downloads(one, seen)
    elif isinstance(thing, dict):
        yield from _downloads(list(thing.values()), seen)
    elif type(thing).__module__.startswith("ir_datasets."):
        yield from _downloads(list(vars(thing).values()), seen)


def _document(record: Any) -> Document:
    if hasattr(record, "title") and hasattr(record, "text"):
        return document(record.doc_id, record.title, record.text)
    return document(record.doc_id, "", _text(record))


def _query(record: Any) -> dict:
    return {"qid": clean(as_id(record.query_id, "query"))[0], "query": clean(_text(record))[0]}


def _judgement(record: Any) -> dict:
    return judgement(record.query_id, record.doc_id, record.relevance)


def _text(record: Any) -> str:
    if hasattr(record, "default_text"):
        return record.default_text()
    if hasattr(record, "text"):
        return record.text
    raise ValueError(f"has no text that ir_datasets names, only {', '.join(record._fields)}; take another collection")
