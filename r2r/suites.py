"""Suites: the lists of collections over which the field reports an average, by name.

Owns which collections a suite has, where they come from, and which of them are averaged first. Whose list each one is
stands in `docs/collections.md`. Does not own the average (`r2r.evaluation.summary`), nor the reading of collections.

    members("beir-8", "data/beir")["scifact"]["corpus"]    # "beir:data/beir/scifact"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# BEIR's name of a collection -> its test split in ir_datasets, None where that has none, for its licence.
_BEIR = {
    "trec-covid": "beir/trec-covid",
    "nfcorpus": "beir/nfcorpus/test",
    "bioasq": None,
    "nq": "beir/nq",
    "hotpotqa": "beir/hotpotqa/test",
    "fiqa": "beir/fiqa/test",
    "signal1m": None,
    "trec-news": None,
    "robust04": None,
    "arguana": "beir/arguana",
    "webis-touche2020": "beir/webis-touche2020/v2",
    "cqadupstack": "beir/cqadupstack",
    "quora": "beir/quora/test",
    "dbpedia-entity": "beir/dbpedia-entity/test",
    "scidocs": "beir/scidocs",
    "fever": "beir/fever/test",
    "climate-fever": "beir/climate-fever",
    "scifact": "beir/scifact/test",
}
_LICENSED = tuple(name for name, found in _BEIR.items() if found is None)
_EIGHT = (
    "trec-covid",
    "nfcorpus",
    "webis-touche2020",
    "dbpedia-entity",
    "scifact",
    "signal1m",
    "trec-news",
    "robust04",
)
_FORUMS = (
    "android", "english", "gaming", "gis", "mathematica", "physics", "programmers", "stats", "tex", "unix",
    "webmasters", "wordpress",
)  # fmt: skip
_BRIGHT = (
    "biology", "earth_science", "economics", "psychology", "robotics", "stackoverflow", "sustainable_living",
    "leetcode", "pony", "aops", "theoremqa_questions", "theoremqa_theorems",
)  # fmt: skip
_DL = {
    "dl19": ("msmarco-passage", "trec-dl-2019"),
    "dl20": ("msmarco-passage", "trec-dl-2020"),
    "dl21": ("msmarco-passage-v2", "trec-dl-2021"),
    "dl22": ("msmarco-passage-v2", "trec-dl-2022"),
    "dl23": ("msmarco-passage-v2", "trec-dl-2023"),
}

# Suite -> what it averages: collections, and cqadupstack, which is the average of its forums.
SUITES: dict[str, tuple[str, ...]] = {
    "beir-8": _EIGHT,
    "beir-13": tuple(name for name in _BEIR if name not in (*_LICENSED, "cqadupstack")),
    "beir-18": tuple(_BEIR),
    "bright-12": _BRIGHT,
    "dl19-dl23": tuple(_DL),
}


def members(suite: str, data: str | None) -> dict[str, dict[str, Any]]:
    """Return a suite's collections: name -> settings of an evaluation.

    data: folder that holds a folder in BEIR's layout for each collection of BEIR; None: they come from ir_datasets. A
    collection that ir_datasets lacks has no `corpus` then.
    """
    if suite == "bright-12":
        return {task: _one(f"bright:{task}") for task in _BRIGHT}
    if suite == "dl19-dl23":
        return {
            name: _one(f"irds:{corpus}/{track}/judged") | {"corpus": f"irds:{corpus}"}
            for name, (corpus, track) in _DL.items()
        }
    return dict(_beir(suite, data))


def _beir(suite: str, data: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    # BEIR takes a document out of the ranking of the query with the same id: ArguAna's queries are in its corpus.
    for name in SUITES[suite]:
        for part in _FORUMS if name == "cqadupstack" else ("",):
            path = f"{name}/{part}" if part else name
            held = _BEIR[name] and (f"{_BEIR[name]}/{part}" if part else _BEIR[name])
            spec = f"beir:{data.rstrip('/')}/{path}" if data else f"irds:{held}" if held else None
            found = (_one(spec) if spec else {}) | {"remove_query": True}
            yield path.replace("/", "-"), found | ({"group": name} if part else {})


def _one(spec: str) -> dict[str, Any]:
    return {"corpus": spec, "queries": spec, "qrels": spec}
