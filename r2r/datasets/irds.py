"""Collections that ir_datasets knows: `irds:ID` with its documents, queries or qrels.

Owns what of its records is read, cutting a corpus by the numbers of its documents, and saying what to put where if
ir_datasets has not the files and cannot get them. Does not own its files: they lie under IR_DATASETS_HOME.

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
from r2r.datasets.trec import judgement, unique_queries
from r2r.errors import BadInput

# ir_datasets has BRIGHT's exclusion lists among its qrels, with this relevance.
_EXCLUDED = -100


def corpus(name: str, fragment: str, parts: int) -> list[Part]:
    """Return the documents in parts, by their numbers.

    A part passes over those before it, unless ir_datasets has built its document store: that can be entered anywhere.
    """
    count = _dataset(name, "docs", fragment).docs_metadata().get("count", 0)
    bounds = [count * index // parts for index in range(parts)]
    # Here, once: workers that download at the same time would write to the same file.
    next(Records(name, "docs", _document, _home())._records(), None)
    return [
        Records(name, "docs", _document, _home(), start, stop, (count if stop is None else stop) - start or None)
        for start, stop in zip(bounds, [*bounds[1:], None], strict=True)
    ]


def queries(name: str, fragment: str) -> list[dict]:
    _dataset(name, "queries", fragment)
    return unique_queries(Records(name, "queries", _query, _home()), f"irds:{name}")


def qrels(name: str, fragment: str) -> list[dict]:
    _dataset(name, "qrels", fragment)
    found = [row for _, row in Records(name, "qrels", _judgement, _home()).read()]
    return [row for row in found if not _is_excluded(name, row)]


def excluded(name: str) -> dict[str, set[str]]:
    """Return qid -> docids that are no part of the query's ranking: BRIGHT has such."""
    found: dict[str, set[str]] = {}
    if name.startswith("bright/"):
        _dataset(name, "qrels", "")
        for _, row in Records(name, "qrels", _judgement, _home()).read():
            if _is_excluded(name, row):
                found.setdefault(row["qid"], set()).add(row["docid"])
    return found


def _is_excluded(name: str, row: dict) -> bool:
    return name.startswith("bright/") and row["relevance"] == _EXCLUDED


@dataclass(frozen=True)
class Records:
    """A part of what ir_datasets has under a name: the records [start, stop) of `kind`: docs, queries or qrels.

    `home` is the IR_DATASETS_HOME of the process that made the part, for the one that reads it.
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
        """Yield each record, parsed, with its number. Raises BadInput for an unsound one, and for files not there."""
        # ir_datasets looks when it is imported, and no later.
        os.environ["IR_DATASETS_HOME"] = self.home
        for at, record in enumerate(self._records(), start=self.start):
            try:
                row = self.parse(record)
            except ValueError as error:
                raise BadInput(f"{self.place(at)}: {error}") from None
            yield at, row

    def _records(self) -> Iterator:
        dataset = _dataset(self.name, self.kind, "")
        try:
            records = getattr(dataset, f"{self.kind}_iter")()
            if self.start and hasattr(records, "__getitem__") and dataset.docs_store().built():
                yield from records[self.start : self.stop]
            else:
                yield from itertools.islice(records, self.start, self.stop)
        except Exception as error:
            # Of any kind, since only ir_datasets runs in here: no network, a file that is missing or damaged, a
            # format that needs one more package.
            raise BadInput(f"irds:{self.name}: {self._advice(dataset, error)}") from None

    def _advice(self, dataset, error: Exception) -> str:
        """Return what to put where; what ir_datasets says, if all its files are there."""
        handler = getattr(dataset, f"{self.kind}_handler")()
        files = [f"{source} as {path}" for source, path in _downloads(handler, set()) if not Path(path).exists()]
        if not files:
            said = (str(error).splitlines() or [""])[0][:200]
            return f"ir_datasets cannot read its {self.kind} under {self.home}: {type(error).__name__}: {said}"
        home = f"or name a folder that has them in IR_DATASETS_HOME, which is {self.home}"
        return f"its {self.kind} are not on disk and cannot be downloaded; put {' and '.join(files)}, {home}"

    def place(self, at: int) -> str:
        return f"irds:{self.name}: {self.kind} record {at + 1}"


def _dataset(name: str, kind: str, fragment: str):
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
    """Yield source and path of every file that ir_datasets would download to give `thing`, one of its handlers."""
    from ir_datasets.util import Download, LocalDownload

    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Download):
        urls = [mirror.url for mirror in thing.mirrors if hasattr(mirror, "url")]
        local = [mirror.path(force=False) for mirror in thing.mirrors if isinstance(mirror, LocalDownload)]
        # Private, but its path() downloads a file that is kept nowhere.
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
