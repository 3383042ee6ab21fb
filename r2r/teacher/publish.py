"""Annotations as a dataset that others load: Parquet files and a card, a folder that can be uploaded as it is.

Owns the folder's layout and the card (`card.md.j2`). The package `datasets` loads it by the card's head; for r2r it is
an annotations folder, `distill --annotations FOLDER`, and a teacher of recorded annotations, `teacher:FOLDER`. Does not
upload anything, and does not own the table's columns (`r2r.tables`).

    publish("runs/demo/annotate", "published", license="cc-by-4.0")
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from r2r import __version__, tables
from r2r.config import AnnotateSettings
from r2r.errors import BadInput
from r2r.hub.card import counting, public
from r2r.identity import manifest_of
from r2r.places import Place, place
from r2r.tables.schemas import read_file
from r2r.templates import load

_CARD, _TABLE = "README.md", "annotations"
# A file of a dataset should be a few hundred MB at most; a row has a few kB.
_ROWS_PER_FILE = 50_000
_COLUMNS = {
    "qid": "the query's id",
    "query": "the query",
    "docids": "the passages' ids, in the order in which the teacher saw them",
    "texts": "the passages",
    "ranking": "positions in `docids` from 1, best first",
    "direct": "why a passage by itself answers the query or does not; empty if not asked for",
    "evidence": "the sentence of the passage that answers, word for word; empty if none does",
    "comparison": "why a passage stands above or below others, named by their positions, as in [2]",
    "teacher": "the model",
    "key": "a hash of query, passages, teacher, prompt and settings",
    "attempts": "calls that the teacher needed",
    "prompt_tokens": "tokens of the prompts of all attempts",
    "completion_tokens": "tokens of the replies of all attempts",
    "agreement": "mean Kendall's tau between several samples; null if there was one",
}
# Settings that a reader of the data need not know, and that may name places on this machine.
_HIDDEN = ("engine", "tokenizer")
_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


def publish(annotated: str | Place, to: str | Place, license: str | None = None) -> None:
    """Write a finished stage's annotations and a card into the folder `to`, in place of an earlier dataset there.

    license: as the hub spells it, such as cc-by-4.0. Of a teacher that is a server or a folder, only the model's name
    is published; everything else of the rows is as it was. Raises BadInput if the stage is not done, or if `to` holds
    anything else.
    """
    annotated, to = place(annotated), place(to)
    manifest = manifest_of(annotated)
    if manifest is None or manifest.get("stage") != "annotate":
        raise BadInput(f"{annotated}: holds no finished annotations; give the folder that annotate wrote")
    there = {one.name for one in to.glob("*")} if to.is_dir() else set()
    if to.exists() and not (to.is_dir() and there <= {_CARD, _TABLE}):
        raise BadInput(f"export: {to}: is no dataset that annotate exported, and not empty; give a new folder")
    # Without its card, a folder is no dataset.
    (to / _CARD).unlink(missing_ok=True)
    tables.clear(to, _TABLE)
    rows, teachers, names = 0, dict[str, None](), list[str]()
    for number, part in enumerate(_parts(annotated)):
        names.append(f"train-{number:05}")
        tables.write_part(part, to, _TABLE, names[-1])
        rows += len(part)
        teachers.update(dict.fromkeys(row["teacher"] for row in part))
    tables.seal(to, _TABLE, names)
    tables.write_text(_card(to, manifest, rows, list(teachers), license), to / _CARD)
    print(f"export: {rows:,} annotations -> {to}; nothing was uploaded", flush=True)
    if license is None:
        print("export: the card says that no licence was stated; --license NAME states one, such as cc-by-4.0")


def _parts(annotated: Place) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each file to write."""
    waiting: list[dict[str, Any]] = []
    for file in tables.files(annotated, _TABLE):
        found = read_file(file, _TABLE).to_pylist()
        waiting += [row | {"teacher": public(row["teacher"])} for row in found]
        while len(waiting) >= _ROWS_PER_FILE:
            yield waiting[:_ROWS_PER_FILE]
            waiting = waiting[_ROWS_PER_FILE:]
    yield waiting


def _settings(settings: dict[str, Any]) -> dict[str, str]:
    """Return the settings that made the annotations what they are, as JSON. The prompt's version has its own line."""
    made = counting(AnnotateSettings, settings)
    made |= {name: settings[name] for name in ["false_evidence"] if name in settings}
    found = {name: json.dumps(value, ensure_ascii=False) for name, value in made.items() if name not in _HIDDEN}
    return found | ({"positives": public(settings["positives"])} if settings.get("positives") else {})


def _card(to: Place, manifest: dict[str, Any], rows: int, teachers: list[str], license: str | None) -> str:
    settings, what = manifest["settings"], manifest["what"]
    recorded = settings["teacher"].startswith(("teacher:", "replies:"))
    head = {
        "license": license or "unknown",
        "task_categories": ["text-ranking"],
        "tags": ["reason-to-rank"],
        "size_categories": [next((name for most, name in _SIZES.items() if rows < most), "1M<n<10M")],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": f"{_TABLE}/*.parquet"}]},
        ],
    }
    schema = tables.SCHEMAS[_TABLE]
    return load(Path(__file__).with_name("card.md.j2")).render(
        head=yaml.safe_dump(head, sort_keys=False, allow_unicode=True).strip(),
        name=to.absolute().name,
        passages="their passages" if recorded else f"each with up to {settings['passages']} passages,",
        version=__version__,
        teachers=teachers,
        prompt="not known: recorded elsewhere" if recorded else what["prompt"],
        license=license,
        rows=rows,
        rejected=manifest["rows"]["rejects"],
        prompt_tokens=manifest["prompt_tokens"],
        completion_tokens=manifest["completion_tokens"],
        settings={} if recorded else _settings(settings),
        columns=[(name, schema.field(name).type, what) for name, what in _COLUMNS.items()],
    )
