"""The model card, README.md of what is exported, from the manifests of a run.

Owns what the card says and the names in it. A card goes to strangers: of a place on this machine or of a server it
shows the last part alone.

    public("beir:/home/me/data/fiqa#train")    # "beir:fiqa#train"
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from r2r import __version__
from r2r.config import LOSSES, DistillSettings, Section
from r2r.hub.lineage import Made, Measured
from r2r.llm.engine import LORA_RANKS
from r2r.templates import load

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class Facts(NamedTuple):
    """What a card is made of.

    kind: adapter, merged or model, as the files are. base: the base model's public name, see `base_name`. record: how
    the student ranks, r2r.json. before: the stages before the training. sources: what those read. repository: its name
    on the hub.
    """

    kind: str
    base: str
    license: str | None
    training: Made
    before: list[Made]
    sources: Mapping[str, str]
    evaluations: list[Measured]
    record: Mapping[str, Any]
    repository: str


def public(source: str) -> str:
    """Return a source as a stranger may see it: of a path its last part, of a server or its files the model's name."""
    if source.startswith(("http://", "https://", "file:")):
        # A server may name its model by a path, too.
        return public(source.partition("#")[2]) or "a model behind a server"
    place, mark, fragment = source.partition("#")
    found = re.match(r"([a-z0-9_]+):(?!//)", place)
    scheme, path = (found[1], place[found.end() :]) if found else ("", place)
    if scheme in ("irds", "bright", "hf") or (not scheme and _HUB_NAME.fullmatch(path) and not Path(path).exists()):
        return source
    # A run's fragment names datasets of its own.
    shown = re.sub(r"[^,=:+]*/(?=[^/,+]+)", "", fragment) if scheme == "run" else fragment
    return f"{scheme}{':' * bool(scheme)}{Path(path.partition('?')[0]).name}{mark}{shown}"


def base_name(given: str | None, source: str) -> tuple[str, bool]:
    """Return the name of the base model for the card, and whether it is one on the hub."""
    name = given or public(source)
    return name, bool(_HUB_NAME.fullmatch(name))


def text(facts: Facts) -> str:
    """Return the card: what the hub reads of it as YAML, then Markdown."""
    settings = facts.training.manifest["settings"]
    return load(Path(__file__).with_name("card.md.j2")).render(
        f=facts,
        head=_head(facts),
        version=__version__,
        versions=facts.training.manifest["versions"],
        counts=facts.training.manifest,
        losses={name: settings[name] for name in LOSSES if settings.get(name)},
        settings=_settings(facts.training.manifest),
        stages=[_stage(one) for one in facts.before],
        data={name: public(one) for name, one in facts.sources.items() if name not in ("teacher", "student")},
        vllm_rank=next((rank for rank in LORA_RANKS if rank >= settings["lora_rank"]), settings["lora_rank"]),
        teacher=public(facts.sources["teacher"]) if "teacher" in facts.sources else None,
        tables=[_figures(one) for one in facts.evaluations],
    )


def counting(section: type[Section], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a manifest's settings that change the result, and are set, in the order of their section."""
    names = [name for name in section.model_fields if section.kind(name) == "what"]
    return {name: settings[name] for name in names if settings.get(name) is not None}


def _settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that made the student what it is, but for the losses' weights. The steps are those taken."""
    settings = manifest["settings"] | {"steps": manifest["rows"]["steps"]}
    whole = settings.get("method") == "full"
    return {
        name: ", ".join(value) if isinstance(value, list) else value
        for name, value in counting(DistillSettings, settings).items()
        if name not in LOSSES and not (whole and name.startswith("lora_"))
    }


def _head(facts: Facts) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    relation = {"adapter": "adapter", "merged": "finetune", "model": "finetune"}[facts.kind]
    on_hub = _HUB_NAME.fullmatch(facts.base)
    # The name is the configuration, too: huggingface_hub puts results together that differ in their name alone.
    results = [
        EvalResult("text-ranking", "custom", name, measure, value, dataset_config=name, metric_name=measure)
        for one in facts.evaluations
        for name in [one.collection or public(one.qrels)]
        for row in one.rows[:1]
        for measure, value in one.metrics["systems"][row].items()
    ]
    data = ModelCardData(
        license=facts.license or "unknown",
        base_model=facts.base if on_hub else None,
        library_name="peft" if facts.kind == "adapter" else "transformers",
        pipeline_tag="text-ranking",
        tags=["reason-to-rank", "reranker", "listwise", *["lora"] * (facts.kind == "adapter")],
        eval_results=results or None,
        model_name=facts.repository.rpartition("/")[2] if results else None,
        **({"base_model_relation": relation} if on_hub else {}),
    )
    return data.to_yaml()


def _stage(made: Made) -> str:
    """Return a line on a stage before the training: what it read and what it wrote."""
    found = made.manifest
    counts = [f"{count:,} {name}" for name, count in found["rows"].items() if count]
    counts += [
        f"{found[name]:,} {name.replace('_', ' ')}" for name in ("prompt_tokens", "completion_tokens") if name in found
    ]
    return f"`{found['stage']}`: {', '.join(counts)}"


def _figures(one: Measured) -> dict[str, Any]:
    """Return a table of figures, and what the tests say of this student's rows."""
    metrics, tests = one.metrics, one.metrics.get("tests", {})
    return {
        "collection": one.collection,
        "qrels": public(one.qrels),
        "queries": metrics["queries"],
        "measures": metrics["measures"],
        "rows": {name: [values[key] for key in metrics["measures"]] for name, values in metrics["systems"].items()},
        "own": one.rows,
        "baseline": tests.get("baseline"),
        "tests": [
            (row, measure, found)
            for row in one.rows
            for measure, found in tests.get("systems", {}).get(row, {}).items()
        ],
    }


def rewritten(file: Path, base: str) -> str:
    """Return adapter_config.json with the base's public name instead of a folder on this machine."""
    config = json.loads(file.read_text(encoding="utf-8"))
    return json.dumps(config | {"base_model_name_or_path": base}, indent=2, ensure_ascii=False) + "\n"
