"""A student ranks a query's first passages again: with parts taken out or swapped, in another order, by reasons alone.

Owns the table `probes` and its worker. The measures `comprehensiveness`, `sufficiency`, `counterfactual`,
`agreement` and `simulatability` read the table.
Does not own the cuts (`cuts.py`), ranking (`r2r.student.rank`), nor the finished rows (`r2r.rows`).

    probes = probe(rows, "demo", "runs/demo/distill", settings, Path("runs/demo/judge"), identity)
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from r2r import tables
from r2r.config import JudgeSettings, RerankSettings
from r2r.datasets.candidates import Candidates, Listed
from r2r.identity import digest
from r2r.judge.cuts import cuts, swapped
from r2r.judge.explained import Explained, aligned
from r2r.llm import Refused
from r2r.places import Place
from r2r.reasons import named, rename
from r2r.rows import pool
from r2r.rows.journal import KEYS
from r2r.stage import Identity
from r2r.student.prompt import LABELS
from r2r.student.rank import Ranker
from r2r.teacher.borda import kendall_tau

# Of what a row is asked. Raise it with every change to that.
_VERSION = 3
# What stands for a passage of which nothing is shown.
_NOTHING = "-"
# Settings that the answers depend on.
_SETTINGS = ("engine", "window", "passage_tokens", "merge", "seed")


def rank_settings(settings: JudgeSettings) -> RerankSettings:
    """Return how the student ranks: one window, as trained unless the settings say otherwise."""
    same = {name: getattr(settings, name) for name in ("engine", "window", "passage_tokens", "merge")}
    return RerankSettings(**same)


def probe(
    rows: Sequence[Explained],
    student: str,
    adapter: str | None,
    settings: JudgeSettings,
    out: Place,
    identity: Identity,
) -> list[dict[str, Any] | None]:
    """Write the tables `probes` and `rejects` into `out`. Return the probe of each row, None if it has none.

    Finished rows are not asked again. Rejects are rows that the engine refused, or that ended it.
    """
    made_of = [
        _VERSION,
        identity.inputs["student"],
        identity.inputs.get("adapter"),
        {one: identity.what[one] for one in _SETTINGS},
    ]
    version = f"{KEYS}-{digest(made_of)[:16]}"
    row_key = partial(key, version=version)
    asked = [row._asdict() for row in rows if row.places()]
    job = pool.Job("judge", Prober, (student, adapter, settings, row_key), row_key, version, ("probes", "rejects"))
    listed = Candidates(
        [row["qid"] for row in asked],
        lambda size: [Listed(tuple(asked[at : at + size])) for at in range(0, len(asked), size)],
    )
    pool.run_rows(listed, job, settings, out, lambda counts: True)
    found = tables.read(out, "probes").to_pylist() if tables.path(out, "probes").is_dir() else []
    return aligned(found, rows, row_key)


def key(row: Mapping[str, Any], version: str) -> str:
    """Return a row's resume key: a sha256 over all that its answer depends on."""
    return digest([row["query"], row["texts"], row["direct"], row["evidence"], row["comparison"], version])


class Prober:
    """Probes one explained row at a time (see `pool.RowWorker`)."""

    def __init__(
        self, student: str, adapter: str | None, settings: JudgeSettings, row_key: Callable[[dict[str, Any]], str]
    ) -> None:
        self.ranker = Ranker(student, adapter, rank_settings(settings))
        self.key, self.seed = row_key, settings.seed

    def in_writing(self) -> int:
        return self.ranker.model.in_writing()

    def close(self) -> None:
        self.ranker.model.close()

    async def __call__(self, row: dict[str, Any]) -> tuple[str, dict[str, Any], Mapping[str, Any]]:
        key = self.key(row)
        try:
            probed, counts = await self._probe(row, random.Random(f"{self.seed} {key}"))
            return "probes", probed | {"key": key}, counts
        except Refused as refused:
            reject = {"qid": row["qid"], "key": key, "reason": f"refused: {refused}", "reply": "", "attempts": 1}
            return "rejects", reject, {}

    async def _probe(self, row: dict[str, Any], rng: random.Random) -> tuple[dict[str, Any], Counter[str]]:
        """Return the row's probe, with ranks from 1 of each passage with evidence that can be cut; and the counts."""
        texts = row["texts"][: self.ranker.taught.window]
        # In the order of the ranking, a student that trusts the first places would hold on to it.
        first, second = (rng.sample(range(len(texts)), len(texts)) for _ in range(2))
        found = {at: made for at, text in enumerate(texts) if (made := cuts(text, row["evidence"][at], rng))}
        asked = [(at, text) for at, made in found.items() for text in made]
        pairs = [
            ((one, two), exchanged)
            for one, two in _compared(row["comparison"][: len(texts)])
            if (exchanged := swapped(texts[one], row["evidence"][one], texts[two], row["evidence"][two], rng))
        ]
        counts: Counter[str] = Counter()

        async def order(shown: list[int], changed: Mapping[int, str]) -> list[int]:
            ranked = await self.ranker.rank(row["query"], [changed.get(at, texts[at]) for at in shown])
            counts.update(ranked.counts)
            return [shown[place] for place in ranked.order]

        swaps = [dict(zip(pair, both, strict=True)) for pair, exchanged in pairs for both in exchanged]
        changes: list[Mapping[int, str]] = [{}, *({at: text} for at, text in asked), *swaps]
        reasoned = [at for at in first if row["direct"][at] or row["comparison"][at]]
        blank = [(reasoned, {at: _NOTHING for at in reasoned}), (reasoned, _reasons(row, reasoned))]
        others = [(second, {}), *(blank if len(reasoned) > 1 else [])]
        found_orders = await asyncio.gather(
            *(order(first, one) for one in changes), *(order(shown, changed) for shown, changed in others)
        )
        whole, *changed, shuffled = found_orders[: len(changes) + 1]
        ranks = [other.index(at) + 1 for other, (at, _) in zip(changed, asked, strict=False)]
        turned = [
            (other.index(one) < other.index(two)) != (whole.index(one) < whole.index(two))
            for other, (one, two) in zip(changed[len(asked) :], [pair for pair, _ in pairs for _ in "12"], strict=True)
        ]
        probed = {"qid": row["qid"], "passages": len(texts), "agreement": kendall_tau(whole, shuffled)}
        probed |= {"ranks": [at + 1 for at in found], "whole": [whole.index(at) + 1 for at in found]}
        # Four cuts of each passage, in the order of their fields.
        names = ("without", "without_random", "only", "only_random")
        probed |= {name: ranks[place::4] for place, name in enumerate(names)}
        probed |= {"above": [pair[0] + 1 for pair, _ in pairs], "below": [pair[1] + 1 for pair, _ in pairs]}
        probed |= {"turned": turned[::2], "turned_random": turned[1::2]}
        taus = (kendall_tau(sorted(reasoned), one) for one in found_orders[len(changes) + 1 :])
        return probed | {"unseen": next(taus, None), "simulated": next(taus, None)}, counts


def _compared(comparison: Sequence[str]) -> list[tuple[int, int]]:
    """Return the pairs of passages that a comparison compares, as indices, the one that ranks higher first."""
    pairs = {
        (min(at, number - 1), max(at, number - 1))
        for at, text in enumerate(comparison)
        for number in named(text)
        if 1 <= number <= len(comparison) and number - 1 != at
    }
    return sorted(pairs)


def _reasons(row: Mapping[str, Any], shown: Sequence[int]) -> dict[int, str]:
    """Return what stands for each passage if only its reasons are seen. They name passages by label, or as [?]."""
    names = {at + 1: "?" for at in range(len(row["texts"]))}
    names |= {at + 1: label for at, label in zip(shown, LABELS, strict=False)}
    return {at: f"{row['direct'][at]} {rename(row['comparison'][at], names)}".strip() for at in shown}
