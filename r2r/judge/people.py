"""What people answered on a sheet: how far they agree, what each system got, and which systems differ.

Owns the reading of answers, as strict as for any input, and their figures. `sheet.py` made the sheet and its key.

    print(figures("sheet.html", ["ada.json", "bob.json"], seed=0)["agreement"]["useful"]["alpha"])
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from r2r import tables
from r2r.errors import BadInput
from r2r.evaluation.significance import randomization
from r2r.judge.figures import mean
from r2r.judge.krippendorff import alpha
from r2r.judge.sheet import CHOICE, SCALES, key_of
from r2r.places import Place, place

_SIDES = ("left", "right")


class Answer(NamedTuple):
    """One rater's answer about one item. side: that it is about, 0 or 1; -1 for the choice. value: from 1 to 5; for
    the choice, the side that was preferred."""

    rater: str
    item: str
    question: str
    side: int
    value: int


def figures(sheet: str, files: Sequence[str], seed: int) -> dict[str, Any]:
    """Return the figures of the raters' files.

    - `agreement`: Krippendorff's alpha of each question, ordinal for the scales, nominal for the choice, and `units`,
      the number of what at least two raters rated. None where it is not defined.
    - `means`: of each system, for each scale, the mean from 1 to 5 with a 95 % interval, over items; raters' answers
      about the same thing are averaged first.
    - `pairs`: the `tests` of each two `systems` that were shown beside each other: for each scale, `difference`, the
      first minus the second, over `items` with both, and `p`, two-sided, by Fisher's paired randomization test; and
      `preferred`, the share of choices for the first, with the p of the same test on the items' shares less a half.

    Raises BadInput for a file or a key that cannot be read, is of another sheet, or has an answer out of range.
    """
    key = _json(key_of(sheet))
    if not isinstance(key, dict) or not {"sheet", "items"} <= key.keys():
        raise BadInput(f"{key_of(sheet)}: is no key of a sheet; give the one that r2r judge --sheet wrote beside it")
    answers = [answer for file in files for answer in _read(file, key)]
    raters = sorted({answer.rater for answer in answers})
    if len(raters) < len(files):
        raise BadInput(f"read: {len(files)} files of {len(raters)} raters; give one file of each rater")
    rated: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for one in answers:
        rated[(one.item, one.side, one.question)].append(one.value)
    systems = sorted({system for pair in key["items"].values() for system in pair})
    return {
        "sheet": key["sheet"],
        "raters": raters,
        "answers": len(answers),
        "agreement": {question: _agreement(rated, question) for question in (*SCALES, CHOICE)},
        "means": {system: _means(rated, key["items"], system, seed) for system in systems},
        "pairs": [
            found for one, other in combinations(systems, 2) if (found := _pair(rated, key["items"], one, other))
        ],
    }


def read(sheet: str, files: Sequence[str], out: str, seed: int) -> None:
    """Write the figures of the raters' files to `people.json` in `out`, and print them. Arguments as for `figures`."""
    found = figures(sheet, files, seed)
    tables.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", place(out) / "people.json")
    print("\n".join(lines(found)), flush=True)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the figures as text."""
    yield f"people: {found['answers']:,} answers of {len(found['raters'])} raters, sheet {found['sheet']}"
    for question, one in found["agreement"].items():
        yield f"  {question:9} Krippendorff's alpha {_number(one['alpha'])} over {one['units']} that two or more rated"
    for system, scales in found["means"].items():
        for scale, one in scales.items():
            span = f"{_number(one['low'])} to {_number(one['high'])}"
            yield f"  {system:24} {scale:9} {_number(one['value'])} ({span}), {one['n']} items"
    for one in found["pairs"]:
        names = f"{one['systems'][0]} - {one['systems'][1]}"
        for question, test in one["tests"].items():
            yield f"  {names}: {question} {_number(test['difference'])}, p {_number(test['p'])}, {test['items']} items"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _json(file: Place) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(
            f"{file}: {(error.strerror or str(error)).lower()}; a file of answers or a key is needed"
        ) from None
    except ValueError:
        raise BadInput(f"{file}: is not JSON in UTF-8; give a file that the sheet saved") from None


def _read(file: str, key: dict[str, Any]) -> Iterator[Answer]:
    found = _json(place(file))
    given = found if isinstance(found, dict) else {}
    if not isinstance(given.get("answers"), dict) or not given["answers"] or not isinstance(given.get("rater"), str):
        raise BadInput(f"{file}: has no rater and no answers; give a file that the sheet saved")
    if found.get("sheet") != key["sheet"]:
        raise BadInput(f"{file}: answers sheet {found.get('sheet')}, not {key['sheet']}; give answers of this sheet")
    for item, slots in found["answers"].items():
        if item not in key["items"] or not isinstance(slots, dict):
            raise BadInput(f"{file}: item {item}: is not on the sheet; it has i1 to i{len(key['items'])}")
        for slot, value in slots.items():
            side, _, question = slot.partition("_")
            if slot == CHOICE and value in _SIDES:
                yield Answer(found["rater"], item, CHOICE, -1, _SIDES.index(value))
            elif side in _SIDES and question in SCALES and type(value) is int and 1 <= value <= 5:
                yield Answer(found["rater"], item, question, _SIDES.index(side), value)
            else:
                raise BadInput(f"{file}: item {item}: {slot}: {value!r}: is no answer; scales go from 1 to 5")


Rated = dict[tuple[str, int, str], list[int]]


def _agreement(rated: Rated, question: str) -> dict[str, Any]:
    units = [values for (_, _, asked), values in rated.items() if asked == question and len(values) > 1]
    return {"alpha": alpha(units, "nominal" if question == CHOICE else "ordinal"), "units": len(units)}


def _means(rated: Rated, items: dict[str, list[str]], system: str, seed: int) -> dict[str, Any]:
    found = {}
    for scale in SCALES:
        values = [
            [float(np.mean(given))]
            for item, sides in items.items()
            for side, shown in enumerate(sides)
            if shown == system and (given := rated.get((item, side, scale)))
        ]
        if values:
            found[scale] = mean(values, seed)
    return found


def _pair(rated: Rated, items: dict[str, list[str]], one: str, other: str) -> dict[str, Any] | None:
    """Return the tests of two systems, None if no item with both was rated."""
    both = {item: (sides.index(one), sides.index(other)) for item, sides in items.items() if {one, other} == {*sides}}
    tests: dict[str, Any] = {}
    for scale in SCALES:
        pairs = [
            (rated.get((item, first, scale)), rated.get((item, second, scale)))
            for item, (first, second) in both.items()
        ]
        tests[scale] = [float(np.mean(left) - np.mean(right)) for left, right in pairs if left and right]
    # The share of answers for the first system, less a half.
    chosen = [(rated.get((item, -1, CHOICE)), first) for item, (first, _) in both.items()]
    tests["preferred"] = [float(np.mean([value == first for value in given])) - 0.5 for given, first in chosen if given]
    tests = {name: _test(values, 0.5 * (name == "preferred")) for name, values in tests.items() if values}
    return {"systems": [one, other], "tests": tests} if tests else None


def _test(differences: list[float], shift: float) -> dict[str, Any]:
    column = np.asarray(differences)[:, None]
    p = float(randomization(column)[0])
    return {"difference": float(column.mean()) + shift, "p": p, "items": len(differences)}
