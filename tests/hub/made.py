"""A finished run as its stages leave it, made in a second: real manifests, tables, an adapter's files and figures; no
model behind them.

    finished_run(tmp_path / "run")
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from r2r import config, datasets, stage, tables
from r2r.evaluation.evaluate import evaluate
from r2r.identity import of_files
from r2r.stage import Input, Result, Stage
from r2r.student import record

QRELS = "".join(f"q{number} 0 d{number} 1\n" for number in range(8))
ANNOTATION = {
    **{"qid": "q1", "query": "how long do fleas live", "docids": ["a", "b"], "texts": ["Dogs bark.", "100 days."]},
    **{"ranking": [2, 1], "direct": ["It barks.", "It says."], "evidence": ["", "100 days."], "comparison": ["", ""]},
    **{"teacher": "big/teacher", "key": "k", "attempts": 1, "prompt_tokens": 1200, "completion_tokens": 34},
}


def finished_run(run: Path, method: str = "lora", student: str = "small/student", kept: bool = False) -> Path:
    """Write annotate, distill, rerank and evaluate into the folder of a run. Return it. kept: with the judge that keeps
    sound annotations, from which distill learns."""
    _stage(
        "annotate",
        run,
        config.AnnotateSettings(teacher="http://10.0.0.7:8000/v1#big/teacher"),
        {"teacher": "x"},
        _annotate,
    )
    trained = config.DistillSettings(student=student, method=method, epochs=2.5, lora_rank=4)
    inputs = {"annotations": str(run / "annotate"), "student": student}
    if kept:
        _stage("judge", run, config.JudgeSettings(keep=0.5), {"rankings": str(run / "annotate")}, _judge)
        inputs["annotations"] = str(run / "judge" / "kept")
    _stage("distill", run, trained, inputs, lambda out: _distill(out, trained))
    inputs = {"candidates": "demo", "student": student, "adapter": str(run / "distill")}
    _stage("rerank", run, config.RerankSettings(), inputs, _rerank)
    (run / "qrels.txt").write_text(QRELS)
    (run / "bm25.txt").write_text(
        "".join(f"q{number} Q0 d{at} {at + 1} {9 - at} bm25\n" for number in range(8) for at in range(8))
    )
    rows = {"bm25": str(run / "bm25.txt"), "student": str(run / "rerank" / "run.txt")}
    evaluate(str(run / "qrels.txt"), rows, run / "evaluate", config.EvaluateSettings())
    return run


def _stage(
    name: str, run: Path, settings: config.Section, inputs: dict[str, str], work: Callable[[Path], Result]
) -> None:
    out = run / name
    put = {key: Input(getattr(settings, key, None) or source) for key, source in inputs.items()}
    if "annotations" in put:
        put["annotations"] = Input(inputs["annotations"], partial(datasets.fingerprint, what="annotations"))
    stage.run(Stage(name, out, settings, put, lambda there: None, lambda identity: work(out), []))


def _annotate(out: Path) -> Result:
    content = tables.write([ANNOTATION], out, "annotations")
    return Result({"annotations": 1}, content, counts={"prompt_tokens": 1200, "completion_tokens": 34})


def _judge(out: Path) -> Result:
    # Not all of them, or they would be those of annotate.
    content = tables.write([ANNOTATION | {"qid": "q2"}], out / "kept", "annotations")
    return Result({"judged": 2}, "of the measures", [], {"kept": content})


def _distill(out: Path, settings: config.DistillSettings) -> Result:
    kind = "model" if settings.method == "full" else "adapter"
    folder = out / kind
    folder.mkdir(parents=True)
    if kind == "adapter":
        save_file(
            {"base_model.model.q.lora_B.weight": np.ones((2, 4), np.float32)}, folder / "adapter_model.safetensors"
        )
        about = {"peft_type": "LORA", "base_model_name_or_path": str(out / "base"), "r": 4}
        (folder / "adapter_config.json").write_text(json.dumps(about))
        (folder / "README.md").write_text("PEFT's own card")
    else:
        save_file({"q.weight": np.ones((2, 4), np.float32)}, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
    record.write(folder, [ANNOTATION], settings, 1.5)
    counts = {"held_out": 1, "best_step": 10, "ndcg_before": 0.5, "ndcg": 0.75}
    return Result({"annotations": 1, "steps": 20}, of_files(folder), [kind], counts)


def _rerank(out: Path) -> Result:
    tables.write_text("".join(f"q{number} Q0 d{number} 1 1 r2r\n" for number in range(8)), out / "run.txt")
    return Result({"rankings": 8}, of_files(out / "run.txt"), ["run.txt"])
