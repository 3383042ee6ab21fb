"""A real language model on real text, small: SmolLM2-135M-Instruct learns from a few recorded annotations, and reranks
a few queries of TREC DL 2019 in every way of `benchmarks/real.py`.

So few steps teach nothing that a figure could show. What is tested is that the model's own knowledge comes through:
the engine's query likelihoods are those of transformers, and a reason can be read.
"""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from r2r.llm.prompt import load_tokenizer
from r2r.student.likelihood import asked
from r2r.teacher.borda import kendall_tau

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
REAL = runpy.run_path(str(ROOT / "benchmarks" / "real.py"))
QUERIES, DEPTH, ANNOTATIONS, PASSAGES, STEPS = 2, 7, 10, 3, 1


def shorter(line: str) -> str:
    """Return a recorded annotation without the last passages of its order."""
    record = json.loads(line)
    kept = record["re_rank_id"][:PASSAGES]
    number = {old: new for new, old in enumerate(sorted(kept), start=1)}
    passages = [
        one | {"identifier": number[one["identifier"]]} for one in record["reason"]["ranked_passages"][:PASSAGES]
    ]
    record |= {"re_rank_id": [number[old] for old in kept], "sorted_docids": record["sorted_docids"][:PASSAGES]}
    record |= {"unsorted_docs": [record["unsorted_docs"][old - 1] for old in sorted(kept)]}
    return json.dumps(record | {"reason": {"ranked_passages": passages}}) + "\n"


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """The folder of the run, and what it printed."""
    folder = tmp_path_factory.mktemp("real")
    lines = (data / "teacher-gpt4" / "msmarco_500.jsonl").read_text().splitlines(keepends=True)
    (folder / "few.jsonl").write_text("".join(map(shorter, sorted(lines, key=len)[:ANNOTATIONS])))
    listed = json.loads((data / "msmarco-dl19" / "bm25-top100.json").read_text())[:QUERIES]
    (folder / "few.json").write_text(json.dumps([one | {"hits": one["hits"][:DEPTH]} for one in listed]))
    command = [sys.executable, ROOT / "benchmarks" / "real.py", "--annotations", f"teacher:{folder / 'few.jsonl'}"]
    command += ["--collection", f"few=rankgpt:{folder / 'few.json'},{data / 'msmarco-dl19' / 'qrels.txt'}"]
    command += ["--learn", "reasons", "--steps", str(STEPS), "--out", folder / "run"]
    env = os.environ | {"RAY_ADDRESS": "local", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "run", done.stdout


def rows(folder, table):
    return pq.read_table(folder / table).to_pylist()


def test_every_way_to_rank_has_a_row(run):
    out, said = run
    metrics = json.loads((out / "few" / "evaluate" / "metrics.json").read_text())
    assert list(metrics["systems"]) == [
        *("bm25", "zero-shot-labels", "zero-shot-likelihood", "distilled-reasons", "random", "oracle")
    ]
    assert set(metrics["tests"]["systems"]) == {"zero-shot-labels", "zero-shot-likelihood", "distilled-reasons"}
    assert "system" in said and "distilled" in said
    for way in ("zero-shot-labels", "zero-shot-likelihood", "distilled-reasons"):
        ranked = rows(out / "few" / way, "rankings")
        assert len(ranked) == QUERIES and all(len(set(row["docids"])) == DEPTH for row in ranked)


def test_the_engine_finds_the_likelihoods_that_transformers_finds(run):
    out, _ = run
    student = REAL["bring"](Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reason-to-rank")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(student, dtype="float32").eval(), load_tokenizer(student)
    settings = REAL["rank_settings"]()
    ranked = {row["qid"]: row["docids"] for row in rows(out / "few" / "zero-shot-likelihood", "rankings")}
    row = rows(out / "few" / "retrieve", "candidates")[0]
    scores = {}
    for docid, text in zip(row["docids"], row["texts"], strict=True):
        prompt, written, _ = asked(tokenizer, row["query"], text, 2048, settings.passage_tokens)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1]
        scores[docid] = -torch.nn.functional.cross_entropy(logits, torch.tensor(written), reduction="sum").item()
    best = sorted(scores, key=scores.__getitem__, reverse=True)
    # The engine may calculate in bfloat16, and so exchange two passages that are nearly alike.
    order = [best.index(docid) for docid in ranked[row["qid"]]]
    assert kendall_tau(order, sorted(order)) > 0.8
    assert kendall_tau([best.index(docid) for docid in row["docids"]], sorted(order)) < 0.8


def test_the_student_explains_the_first_three(run):
    out, _ = run
    stats = json.loads((out / "few" / "distilled-reasons" / "stats.json").read_text())["explanations"]
    assert stats["asked"] == 3 * QUERIES and stats["read"] + sum(stats["failed"].values()) == stats["asked"]
    ranked = rows(out / "few" / "distilled-reasons", "rankings")
    assert any(any(row["direct"][:3]) for row in ranked) and not any(any(row["direct"][3:]) for row in ranked)
    record = json.loads((out / "distill-reasons" / "model" / "r2r.json").read_text())
    assert (record["scores"], record["reasoning"], record["window"]) == ("likelihood", "direct", PASSAGES)
