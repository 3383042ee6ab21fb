"""Which passages of a query the teacher ranks: the first candidates, or a seeded draw that also has deeper ones.

Owns the draws, near-duplicates, the positives that are put in, and the windows of a list that is too long for a call.
Does not own the order in which passages are shown, nor how they are asked about (`ask.py`).

    rows = drawn(datasets.open_candidates("runs/demo/retrieve-train"), "demo", settings)
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, NamedTuple

from r2r import datasets
from r2r.config import AnnotateSettings
from r2r.datasets.candidates import Candidates
from r2r.datasets.documents import Part, contents
from r2r.errors import BadInput
from r2r.windows import windows
from r2r.workers import bar, on_workers, start_ray

# Passages are near-duplicates if they share this much of their runs of _RUN words: the Jaccard index of the two sets.
# Source: A. Broder, On the resemblance and containment of documents, 1997.
_SAME, _RUN = 0.8, 5
_WORD = re.compile(r"\w+")
# Begins the name of the count of a positive without a text; qid and docid follow.
WITHOUT_TEXT = "without text: "


class Positives(NamedTuple):
    """judged: qid -> docid -> grade, of the relevant passages alone. texts: docid -> text, of those in the corpus."""

    judged: Mapping[str, Mapping[str, int]]
    texts: Mapping[str, str]


def drawn(candidates: Candidates, corpus: str | None, settings: AnnotateSettings) -> Candidates:
    """Return candidates in which each row has just the passages to rank; one row a draw, numbered by `draw` from 0.

    corpus: the dataset with the texts of positives that are no candidates. A row's `counts` are of near-duplicates
    that were left out, and of positives. Raises BadInput if the positives judge none of the queries.
    """
    if not (settings.depth or settings.draws > 1 or settings.distinct or settings.positives):
        return candidates
    positives = Positives({}, {})
    if settings.positives:
        judged = relevant(settings.positives, set(candidates.qids))
        wanted = {docid for grades in judged.values() for docid in grades}
        positives = Positives(judged, _texts(corpus, wanted) if corpus else {})
    return Candidates(
        [qid for qid in candidates.qids for _ in range(settings.draws)],
        lambda rows: [_Drawn(part, settings, positives) for part in candidates.parts(max(1, rows // settings.draws))],
    )


@dataclass(frozen=True)
class _Drawn:
    """A part of the candidates, with the passages to rank alone."""

    part: Part
    settings: AnnotateSettings
    positives: Positives
    unit: ClassVar[str] = "row"

    @property
    def size(self) -> int | None:
        return self.part.size

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for at, row in self.part.read():
            for one in draws(row, self.settings, self.positives):
                yield at, one

    def place(self, at: int) -> str:
        return self.part.place(at)


def draws(row: dict[str, Any], settings: AnnotateSettings, positives: Positives) -> Iterator[dict[str, Any]]:
    """Yield a candidates row once a draw, with the passages of the draw, in retrieved order.

    Positives that are no candidates come last. Rows get `draw`, their number, and `counts`.
    """
    texts = dict(zip(row["docids"], row["texts"], strict=True))
    candidates = list(texts)
    grades = positives.judged.get(row["qid"], {})
    texts |= {docid: positives.texts[docid] for docid in grades if docid not in texts and docid in positives.texts}
    once = Counter({f"{WITHOUT_TEXT}{row['qid']} {docid}": 1 for docid in grades if docid not in texts})
    is_new = _Distinct() if settings.distinct else lambda text: True
    # Before all others, so that a positive is never left out for a candidate.
    known = {docid: grade for docid, grade in grades.items() if docid in texts}
    kept = {docid: grade for docid, grade in known.items() if is_new(texts[docid])}
    new = (docid in kept or (docid not in known and is_new(texts[docid])) for docid in candidates)
    once["near_duplicates"] = len(known) - len(kept)
    pool: list[str] = []
    for docid, taken in islice(zip(candidates, new, strict=True), settings.depth or None):
        if taken:
            pool.append(docid)
        elif docid not in known:
            once["near_duplicates"] += 1
        if not settings.depth and len(pool) == settings.passages:
            break
    seed = f"{settings.seed} {row['query']}"
    rank = {docid: at for at, docid in enumerate(texts)}
    for number in range(settings.draws):
        chosen = strata(pool, settings.passages, f"{seed} draw", number)
        counts = Counter(once if number == 0 else {})
        if kept:
            chosen = _with_positives(chosen, kept, settings.passages, random.Random(f"{seed} {number}"), counts)
            counts["positives_from_corpus"] = sum(docid not in row["docids"] for docid in chosen)
        shown = sorted(chosen, key=rank.__getitem__)
        passages = {"docids": shown, "texts": [texts[docid] for docid in shown]}
        yield {"qid": row["qid"], "query": row["query"], **passages, "draw": number, "counts": counts}


def strata(pool: list[str], passages: int, seed: str, number: int) -> list[str]:
    """Return the passages of draw `number`, in the order drawn: the upper half from the top of the pool, then one from
    each of as many equal strata of the rest.

    Draws have the same upper half, and other passages of a stratum as long as it has any.
    """
    top, deep = passages - passages // 2, passages // 2
    rest = pool[top:]
    if len(rest) <= deep:
        return list(pool)
    chosen = pool[:top]
    for at in range(deep):
        stratum = rest[len(rest) * at // deep : len(rest) * (at + 1) // deep]
        chosen.append(random.Random(f"{seed} {at}").sample(stratum, len(stratum))[number % len(stratum)])
    return chosen


def _with_positives(
    chosen: list[str], grades: Mapping[str, int], passages: int, draw: random.Random, counts: Counter[str]
) -> list[str]:
    """Return the passages with positives in place of the last-drawn others, the highest grades first.

    Positives are put in only up to half of the passages: a list needs others to rank them above. Counts them.
    """
    found = [docid for docid in chosen if docid in grades]
    missed = [docid for docid in grades if docid not in found]
    missed.sort(key=lambda docid: (-grades[docid], draw.random()))
    put_in = missed[: max(0, passages // 2 - len(found))]
    others = [docid for docid in chosen if docid not in grades][: passages - len(found) - len(put_in)]
    counts.update(positives_drawn=len(found), positives_put_in=len(put_in))
    counts.update(positives_left_out=len(missed) - len(put_in))
    return [*found, *others, *put_in]


class _Distinct:
    """Tells whether a text is no near-duplicate of those that it has called new.

    Duplicates are the same apart from case, white space and punctuation, or nearly (see _SAME).
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.holders: dict[tuple[str, ...], list[int]] = defaultdict(list)

    def __call__(self, text: str) -> bool:
        words = _WORD.findall(text.casefold())
        runs = set(zip(*(words[at:] for at in range(_RUN)), strict=False)) or {tuple(words)}
        shared = Counter(number for run in runs for number in self.holders.get(run, ()))
        if any(same / (len(runs) + self.sizes[number] - same) >= _SAME for number, same in shared.items()):
            return False
        for run in runs:
            self.holders[run].append(len(self.sizes))
        self.sizes.append(len(runs))
        return True


def step(settings: AnnotateSettings) -> int:
    """Return how many passages a window moves up."""
    return settings.stride or settings.window // 2


def calls(shown: list[int], settings: AnnotateSettings) -> list[list[int]]:
    """Return the passages of each call about a passage order, if no reply moved any. The first call's are certain."""
    return [shown[start:end] for start, end in windows(len(shown), settings.window, step(settings))]


def relevant(positives: str, qids: Collection[str]) -> dict[str, dict[str, int]]:
    """Return qid -> docid -> grade of the relevant passages of some queries. Raises BadInput if there are none."""
    judged: dict[str, dict[str, int]] = {}
    for row in datasets.read_qrels(positives).to_pylist():
        if row["relevance"] > 0 and row["qid"] in qids:
            judged.setdefault(row["qid"], {})[row["docid"]] = row["relevance"]
    if not judged:
        raise BadInput(
            f"positives: {positives}: has no relevant passage for any query of the candidates; give the qrels of these "
            f"queries"
        )
    return judged


def _texts(corpus: str, docids: set[str]) -> dict[str, str]:
    """Return docid -> text of the documents in the corpus that are asked for, read by all CPUs of the cluster."""
    import pyarrow as pa

    cores = _cores()
    parts = datasets.corpus_parts(corpus, 4 * cores)
    blocks = [pa.table({"part": [number]}) for number in range(len(parts))]
    texts: dict[str, str] = {}
    with bar("annotate: positives", len(parts), "part of the corpus") as shown:
        for answer in on_workers(blocks, _Reader, (parts, docids), cores, ahead=2):
            texts |= answer
            shown.update()
    return texts


def _cores() -> int:
    start_ray()
    import ray

    return int(ray.cluster_resources().get("CPU", 1))


class _Reader:
    """Reads the texts of some documents from a part of the corpus."""

    def __init__(self, parts: list[Part], docids: set[str]) -> None:
        self.parts, self.docids = parts, docids

    def __call__(self, block: Any) -> dict[str, str]:
        documents = (document for _, document in self.parts[block["part"][0].as_py()].read())
        return {one.docid: contents(one) for one in documents if one.docid in self.docids}
