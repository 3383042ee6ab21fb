"""What a measure of reasons is. Each has a file of its own beside this one, with its sources.

Owns the type, and the version of all measures. `stage.py` has the list of measures and reports them.

    MEASURE.values(row)    # [1.0, None, 0.0]: sound, nothing to judge, unsound
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from r2r import reasons
from r2r.identity import digest
from r2r.judge.explained import Explained


class Measure(NamedTuple):
    """A measure that looks at reasons, their passages and the ranking, and asks no model.

    part: the kind of reason that it judges. values: from a row to a value for each passage, aligned with its docids,
    None where there is nothing to judge. better: whether high or low values are good. flags: whether a value says that
    its reason is wrong. why: what is wrong then, in words.
    """

    name: str
    part: Literal["direct", "evidence", "comparison"]
    values: Callable[[Explained], list[float | None]]
    better: Literal["higher", "lower"]
    flags: Callable[[float], bool]
    why: str


def version(folder: Path = Path(__file__).parent) -> str:
    """Return what changes with the code of any measure: a hash of this folder's modules, and of what they share."""
    files = [*sorted(folder.glob("*.py")), Path(reasons.__file__)]
    return digest([file.read_text(encoding="utf-8") for file in files])[:12]
