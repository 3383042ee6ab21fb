"""Writes docs/settings.md from the settings themselves, so that the two cannot differ.

python docs/make_settings.py
"""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import CliPositionalArg

from r2r.cli import COMMANDS
from r2r.config import ENGINE_HOW, Evaluation, Quoted, RunFile, Section

FILE = Path(__file__).with_name("settings.md")
_BY_PLACE = get_args(CliPositionalArg[str])[1]
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}

_HEAD = f"""# Settings

`python docs/make_settings.py` writes this page from [`r2r/config.py`](../r2r/config.py). A test fails if the page is
out of date. Do not edit it by hand.

A setting can be given in four places. The first one that has it wins:

| place | example |
| --- | --- |
| 1. a flag of the stage's command, or of `r2r run` | `r2r distill --steps 50 ...`, `r2r run demo --distill.steps 50` |
| 2. an environment variable, `R2R_SECTION__SETTING` | `R2R_DISTILL__STEPS=50` |
| 3. the run file (for `r2r run` only) | `distill: {{steps: 50}}` |
| 4. the default | 100 |

- A flag is the setting's name with dashes: `lora_rank` is `--lora-rank`. `--lora_rank` works too.
- A variable has two underscores between section and setting. A setting outside of a section has none:
  `R2R_TRAIN_QUERIES`.
- A switch is `--merge` or `--no-merge`; in a variable or a run file, `true` or `false`.
- A dictionary is JSON: `--engine '{{"max_model_len": 8192}}'`. It adds to the dictionary of the run file and replaces
  only the keys that it names. A list of words is one text: `--measures "nDCG@10 AP"`.
- An unknown name is an error, in a flag and in a run file.

The column *kind* says what a change does to finished work:

| kind | meaning |
| --- | --- |
| what | It changes the result. The stage runs again, and asks all rows again. |
| how | Resources, limits, retries, prices and places. Finished work stays. |
| source | It names an input. The input's content counts, not its name. |

Most of an `engine`'s arguments are *what*. These are *how*: {", ".join(f"`{name}`" for name in sorted(ENGINE_HOW))}.
"""

_COMMANDS = """## The commands

`r2r run FILE` runs all stages of a run file; `--dry-run` prints what would run and why. FILE is a YAML file, or the
name of one that ships with the package, such as `demo`. Each stage is also a command of its own, such as `r2r index`.
Its settings have the same names in the stage's section of the run file; that of `queries` is `make_queries`.
`serve` has no section there.
`r2r COMMAND --help` prints the same lists. `python -m r2r` is the same as `r2r`.
"""


def text() -> str:
    """Return the whole page."""
    stages = {name: command for name, command in COMMANDS.items() if name != "run"}
    pages = [_HEAD, "## The run file\n", _table(_settings(RunFile))]
    pages += ["Each entry of `evaluations` ([what it does](collections.md)):\n", _table(_settings(Evaluation))]
    pages += ["Each entry of `quoted`:\n", _table(_settings(Quoted)), _COMMANDS]
    for name, command in stages.items():
        own = [(_flag(key, field), field) for key, field in command.arguments.model_fields.items()]
        arguments = [(flag, _needed(field), _words(field)) for flag, field in own]
        pages += [f"## {name}\n", _table([("argument", "needed", "description"), *arguments])]
        if command.settings.model_fields:
            pages += [_table(_settings(command.settings, nested=True))]
    return "\n".join(pages)


def _flag(name: str, field: FieldInfo) -> str:
    """Return an argument as it is given: by a flag, or by its place."""
    return name.upper() if _BY_PLACE in field.metadata else f"`--{name.replace('_', '-')}`"


def _table(rows: list[tuple[str, ...]]) -> str:
    head, *others = rows
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *others))


def _settings(section: type[Section], nested: bool = False) -> list[tuple[str, ...]]:
    """Return a table's rows; `nested`: also those of the sections within, as `server.seed`."""
    rows: list[tuple[str, ...]] = [("setting", "type", "default", "kind", "description")]
    for name, field in section.model_fields.items():
        inner = field.annotation
        if not isinstance(inner, type) or not issubclass(inner, Section):
            rows.append((f"`{name}`", _type(field), _default(field), section.kind(name), _words(field)))
        elif nested:
            rows += [(f"`{name}.{row[0][1:]}", *row[1:]) for row in _settings(inner)[1:]]
    return rows


def _type(field: FieldInfo) -> str:
    limits = [
        f"{words} {getattr(one, name)}"
        for one in field.metadata
        for name, words in _LIMITS.items()
        if hasattr(one, name)
    ]
    return ", ".join([_named(field.annotation), *limits])


def _named(annotation: Any) -> str:
    """Return a type in words: one of its values, a list, a dictionary, or a plain type."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is Annotated:
        return _named(inner[0])
    if origin is list and issubclass(inner[0], Section):
        return "list"
    if origin in (Union, types.UnionType):
        return " or ".join(_named(one) for one in inner if one is not type(None))
    return {list: "words", dict: "dictionary", str: "text", bool: "switch"}.get(
        origin or annotation, annotation.__name__
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    if isinstance(field.default, list) and field.default:
        return f"`{' '.join(field.default)}`"
    return "" if field.default in (None, "", []) else f"`{json.dumps(field.default)}`".replace('"', "")


def _needed(field: FieldInfo) -> str:
    return "yes" if field.is_required() else ""


def _words(field: FieldInfo) -> str:
    return (field.description or "").replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
