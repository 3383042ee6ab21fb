"""Datasets of the Hugging Face hub, or a local copy of one: `hf:OWNER/NAME[@REVISION]` or `hf:FOLDER`, Parquet files in
the layout of the package `datasets`.

Owns that layout: which files are which split of which configuration, by README.md's `configs:`, else by their names.
Does not own the rows (parquet.py). Files on the hub are read in place, a batch of rows at a time; all processes of a
job read the same commit.

    corpus("mteb/fiqa", "corpus/corpus,docid=_id", parts=4)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from r2r import identity, tables
from r2r.datasets import parquet
from r2r.datasets.columns import columns
from r2r.datasets.documents import Part
from r2r.datasets.files import open_file
from r2r.datasets.trec import unique_judgements, unique_queries
from r2r.errors import BadInput

_PART = re.compile(r"(?:^|-)\d{4,}(?:-of-\d{5})?$")


class _Listing(NamedTuple):
    """The files of a dataset. root: what stands before their names in an address. commit: "" for a local folder."""

    root: str
    names: list[str]
    commit: str


def corpus(source: str, fragment: str, parts: int) -> list[Part]:
    """Return the documents in parts."""
    return _split(source, fragment, "corpus", parts, parquet.document_row)


def queries(source: str, fragment: str) -> list[dict]:
    """Return the queries. Raises BadInput, with the row, for one that is not sound."""
    (rows,) = _split(source, fragment, "queries", 1, parquet.query_row)
    return unique_queries(rows, f"hf:{source}")


def qrels(source: str, fragment: str) -> list[dict]:
    """Return the judgements. Raises BadInput, with the row, for one that is not sound."""
    (rows,) = _split(source, fragment, "qrels", 1, parquet.judgement_row)
    return unique_judgements(rows, f"hf:{source}")


def annotation_rows(source: str, fragment: str) -> list[dict]:
    """Return the rows of annotations. Raises BadInput for files without the columns of that table."""
    found: list[dict] = []
    for file in files(source, fragment):
        with told(f"hf:{source}"):
            opened = parquet.open_parquet(file)
            for batch in opened.iter_batches():
                found += tables.checked(pa.Table.from_batches([batch]), "annotations", file).to_pylist()
    return found


def files(source: str, fragment: str) -> list[str]:
    """Return the addresses of the files of the split that a fragment names, `[CONFIGURATION/]SPLIT[,FIELDS]`.

    Raises BadInput for a dataset that cannot be reached, has no Parquet files, or has several splits if none is named.
    """
    found = _splits(source)
    known = ", ".join(f"#{config}/{split}" for config, split in found)
    wanted = _wanted(fragment)
    config, _, split = wanted.rpartition("/")
    fit = [key for key in found if wanted in ("", key[1]) or key == (config, split)]
    if len(fit) != 1:
        wrong = f"has no split #{wanted}" if wanted and not fit else "has several splits; name one"
        raise BadInput(f"hf:{source}: {wrong}: {known}")
    return [f"{_listing(source).root}{name}" for name in found[fit[0]]]


def fingerprint(source: str, fragment: str) -> str:
    """Return what identifies a split: the contents of local files, or the dataset's commit on the hub."""
    listing = _listing(source)
    if listing.commit:
        return f"hf:{source.partition('@')[0]}@{listing.commit}#{fragment}"
    return "sha256:" + identity.digest([fragment, [identity.fingerprint(file) for file in files(source, fragment)]])


def _wanted(fragment: str) -> str:
    first = fragment.partition(",")[0]
    return "" if "=" in first else first


def _fields(fragment: str) -> str:
    return ",".join(one for one in fragment.split(",") if "=" in one)


def _split(source: str, fragment: str, table: str, parts: int, parse: Any) -> list[Part]:
    with told(f"hf:{source}"):
        names = columns(_fields(fragment), table)
        return parquet.split(files(source, fragment), names, parts, parse, partial(_Streamed, source=source))


@dataclass(frozen=True)
class _Streamed(parquet.Rows):
    """A part of a dataset, whose errors say which one it is."""

    source: str = ""

    def read(self) -> Iterator[tuple[int, Any]]:
        with told(f"hf:{self.source}"):
            yield from super().read()


def _splits(source: str) -> dict[tuple[str, str], list[str]]:
    """Return (configuration, split) -> names of its files."""
    listing = _listing(source)
    found = _declared(source, listing) if "README.md" in listing.names else {}
    for name in listing.names if not found else []:
        if name.endswith(".parquet"):
            found.setdefault(_place(name), []).append(name)
    if not found:
        raise BadInput(
            f"hf:{source}: holds no .parquet file; the hub keeps a copy of many datasets in Parquet, at "
            f"hf:{source.partition('@')[0]}@refs/convert/parquet"
        )
    return found


def _place(name: str) -> tuple[str, str]:
    """Return configuration and split of a file: `CONFIG/SPLIT-00000-of-00001.parquet` or `CONFIG/SPLIT/0000.parquet`;
    the configuration is `default` for files under `data/` or no folder."""
    *folders, last = name.removesuffix(".parquet").split("/")
    if not (split := _PART.sub("", last)):
        split = folders.pop() if folders else "train"
    return "/".join(folders) if folders not in ([], ["data"]) else "default", split


def _declared(source: str, listing: _Listing) -> dict[tuple[str, str], list[str]]:
    """Return the Parquet files that README.md's `configs:` names; {} if it names none."""
    import yaml

    with told(f"hf:{source}"), open_file(f"{listing.root}README.md") as opened:
        text = opened.read().decode("utf-8", "replace")
    head = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    try:
        about = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError:
        # The hub shows such a card, too; the names of the files are left.
        return {}
    try:
        return _configured((about or {}).get("configs") or [], listing.names)
    except (AttributeError, KeyError, TypeError):
        raise BadInput(
            f"hf:{source}: README.md: its configs cannot be read; each has a config_name and data_files"
        ) from None


def _configured(configs: list[dict[str, Any]], names: list[str]) -> dict[tuple[str, str], list[str]]:
    """Return (configuration, split) -> Parquet files, of what a card declares."""
    found: dict[tuple[str, str], list[str]] = {}
    for config in configs:
        given = config.get("data_files") or []
        for one in given if isinstance(given, list) else [given]:
            entry = one if isinstance(one, dict) else {"split": "train", "path": one}
            paths = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
            held = [name for name in names for path in paths if fnmatch(name, path) and name.endswith(".parquet")]
            if held:
                found.setdefault((str(config.get("config_name", "default")), str(entry["split"])), []).extend(held)
    return found


def _listing(source: str) -> _Listing:
    folder = Path(source)
    if not folder.exists():
        return _on_hub(source)
    there = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return _Listing(f"{folder}/", [name for name in there if not re.search(r"(^|/)[._]", name)], "")


# One look a process: a plan and its run then read the same commit.
@lru_cache(maxsize=64)
def _on_hub(source: str) -> _Listing:
    from huggingface_hub import HfApi

    name, _, revision = source.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise BadInput(f"hf:{source}: no such folder, and no name of a dataset on the hub; write hf:OWNER/NAME")
    with told(f"hf:{source}"):
        found = HfApi().dataset_info(name, revision=revision or None)
    held = sorted(one.rfilename for one in found.siblings or [])
    return _Listing(f"hf://datasets/{name}@{found.sha}/", held, str(found.sha))


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into BadInput that begins with `what`."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    # The HTTP library's own error: which library it is differs between releases.
    http_error = HfHubHTTPError.__bases__[0]
    try:
        yield
    except OfflineModeIsEnabled:
        raise BadInput(
            f"{what}: HF_HUB_OFFLINE is set, so the hub is not asked; unset it, or give a local copy"
        ) from None
    except LocalTokenNotFoundError:
        raise BadInput(f"{what}: no token; run hf auth login, or set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise BadInput(f"{what}: the hub has none of this name, or HF_TOKEN may not read it") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = "; give a token that may do this in HF_TOKEN" if status in (401, 403) else ""
        raise BadInput(f"{what}: the hub answers {status}: {_line(error)}{hint}") from None
    except (http_error, OSError) as error:
        raise BadInput(
            f"{what}: the hub cannot be reached: {_line(error)}; try again with a network, or give a local copy"
        ) from None


def _line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
