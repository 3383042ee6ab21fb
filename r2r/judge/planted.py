"""Known errors: reasons that were given to another passage of the same query, to see which measures notice.

Owns which reasons are swapped, and the rows that bound a measure: reasons all handed round, and reasons that are sound.

    rows, swapped = swap(rows, rate=0.2, seed=0)
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from r2r.judge.explained import Explained
from r2r.reasons import sentences

# Characters of the sentence that stands for a sound reason.
_LONGEST = 400


def swap(rows: Sequence[Explained], rate: float, seed: int) -> tuple[list[Explained], list[set[int]]]:
    """Swap the reasons of pairs of passages of the same query, each pair with the probability `rate`.

    All reasons of a passage move together. Returns the rows, and the indices of the reasons that are wrong now, aligned
    with the rows. Two passages with the same reasons are left as they are.
    """
    swapped, planted = [], []
    for row in rows:
        rng = random.Random(f"{seed} swap {row.qid}")
        places = row.places()
        rng.shuffle(places)
        moved: dict[int, tuple[str, str, str]] = {}
        for one, other in zip(places[::2], places[1::2], strict=False):
            if rng.random() < rate and row.reasons(one) != row.reasons(other):
                moved |= {one: row.reasons(other), other: row.reasons(one)}
        swapped.append(row.with_reasons(moved))
        planted.append(set(moved))
    return swapped, planted


def handed_round(rows: Sequence[Explained], seed: int) -> list[Explained]:
    """Return the rows with each reason at another passage of its query: the floor of a measure."""
    found = []
    for row in rows:
        places = row.places()
        if len(places) > 1:
            by = random.Random(f"{seed} round {row.qid}").randrange(1, len(places))
            givers = places[by:] + places[:by]
            row = row.with_reasons({at: row.reasons(giver) for at, giver in zip(places, givers, strict=True)})
        found.append(row)
    return found


def sound(rows: Sequence[Explained]) -> list[Explained]:
    """Return the rows with reasons that say little and are sound: the ceiling of a measure.

    Each reason that was given is replaced: direct reason and evidence by the passage's first sentence, the comparison
    by the place beside its neighbour.
    """
    return [row.with_reasons({at: _sound(row, at) for at in row.places()}) for row in rows]


def _sound(row: Explained, at: int) -> tuple[str, str, str]:
    first = next(iter(sentences(row.texts[at], _LONGEST)), "")
    last = at == len(row.docids) - 1
    comparison = f"It stands below [{at}]." if last else f"It stands above [{at + 2}]."
    direct, evidence, compared = row.reasons(at)
    return first if direct else "", first if evidence else "", comparison if compared else ""
