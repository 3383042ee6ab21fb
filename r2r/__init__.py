"""Reason-to-Rank on Ray: distil a large teacher into a small model that reranks and explains itself.

import r2r

r2r.Reranker("Qwen/Qwen2.5-7B-Instruct", adapter="runs/x/distill").rank(query, documents, top_n=5, explain=True)
r2r.rerank("runs/x/retrieve", "demo", "runs/x/distill", "runs/x/rerank", r2r.RerankSettings(explain=3))
r2r.run(r2r.load_run_file("demo", {"out": "runs/demo"}))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from r2r.api import RankedDocument, Reasons, Reranker
    from r2r.bm25.index import build_index
    from r2r.bm25.retrieve import retrieve
    from r2r.config import (
        AnnotateSettings,
        DistillSettings,
        EvaluateSettings,
        ExportSettings,
        IndexSettings,
        JudgeSettings,
        QueriesSettings,
        RerankSettings,
        RetrieveSettings,
        RunFile,
        ServeSettings,
        load_run_file,
    )
    from r2r.datasets.runs import RunSpec
    from r2r.errors import BadInput, Stopped
    from r2r.evaluation.evaluate import evaluate
    from r2r.firststage import retrieve_runs
    from r2r.hub.export import export
    from r2r.judge.stage import judge_reasons
    from r2r.pipeline import run
    from r2r.serving.app import serve
    from r2r.student.distill import distill
    from r2r.student.rerank import rerank
    from r2r.teacher.annotate import annotate
    from r2r.teacher.queries import make_queries

# Where each name is, so that `import r2r` takes no time and loads no model library.
_NAMES = {
    "r2r.api": ("RankedDocument", "Reasons", "Reranker"),
    "r2r.bm25.index": ("build_index",),
    "r2r.bm25.retrieve": ("retrieve",),
    "r2r.config": (
        "AnnotateSettings",
        "DistillSettings",
        "EvaluateSettings",
        "ExportSettings",
        "IndexSettings",
        "JudgeSettings",
        "QueriesSettings",
        "RerankSettings",
        "RetrieveSettings",
        "RunFile",
        "ServeSettings",
        "load_run_file",
    ),
    "r2r.datasets.runs": ("RunSpec",),
    "r2r.errors": ("BadInput", "Stopped"),
    "r2r.evaluation.evaluate": ("evaluate",),
    "r2r.firststage": ("retrieve_runs",),
    "r2r.hub.export": ("export",),
    "r2r.judge.stage": ("judge_reasons",),
    "r2r.pipeline": ("run",),
    "r2r.serving.app": ("serve",),
    "r2r.student.distill": ("distill",),
    "r2r.student.rerank": ("rerank",),
    "r2r.teacher.annotate": ("annotate",),
    "r2r.teacher.queries": ("make_queries",),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'r2r' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
