"""Reranking TREC DL 2019: r2r in its modes score and generate, compared with castorini/rank_llm.

    python benchmarks/rerank.py --work DIR --data DIR --rank-llm PYTHON [--queries 43] [--threads 2] [--rounds 3]

`--data` is a folder with RankGPT's candidates, `msmarco-dl19/bm25-top100.json`, and a tokenizer of Qwen 2.5,
`tokenizers/qwen2.5/tokenizer.json`. `--rank-llm` is the Python of an environment with rank_llm 0.25.7 and the same
vLLM as this one. The script makes the model, of random weights. The figure is seconds, from the engine's start to the
last query's ranking. All sides have the same model in bfloat16, the same windows (20 passages, stride 10, over 100
passages), the same vLLM with compilation, and the same number of threads. rank_llm is called as in its README:
`RankListwiseOSLLM(...).rerank_batch(...)`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

JOB = Path(__file__).resolve().parents[1] / "jobs" / "rerank.py"
CHAT = (
    "{%- for message in messages -%}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{% endif -%}"
)


def make_model(folder: Path, tokenizer_file: Path, width: int, layers: int) -> None:
    """Write a Qwen3 of random weights with this tokenizer."""
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file), eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT
    )
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=max(1, width // 128),
        head_dim=64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config).bfloat16()
    inner = sum(weight.numel() for name, weight in model.named_parameters() if "embed" not in name)
    print(f"{inner / 1e6:.0f} million weights without embeddings, {len(tokenizer):,} tokens, width {width}", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def run_ours(work: Path, mode: str, number: int, settings: argparse.Namespace) -> float:
    """Run one job; return the seconds from its engine's start to its last answer."""
    out = work / f"{mode}-{number}-{time.time():.0f}"
    command = [sys.executable, str(JOB), "--candidates", str(work), "--student", str(work / "model"), "--out", str(out)]
    command += ["--mode", mode, "--cpus", str(settings.threads), "--stride", "10"]
    # Compiled, as in rank_llm. Our default on a CPU starts faster and runs slower.
    command += ["--engine", '{"enforce_eager": false}']
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stats = json.loads((out / "stats.json").read_text())
    assert stats["rows"] == {"rankings": settings.queries, "rejects": 0}
    tokens = stats["tokens"]
    prompt, reply = tokens["prompt"], tokens["completion"]
    print(f"  {mode}: {stats['windows']} windows, {prompt:,} prompt tokens, {reply:,} reply tokens")
    return reply / tokens["completion_per_second"]


def run_theirs(work: str) -> None:
    """Write rank_llm's seconds into theirs.json. Runs in rank_llm's environment, which has no r2r."""
    import types

    # The import of its T5 models fails with transformers 5.
    stub: Any = types.ModuleType("rank_llm.rerank.listwise.lit5.model")
    stub.FiD = stub.FiDCrossAttentionScore = object
    sys.modules["rank_llm.rerank.listwise.lit5.model"] = stub
    from rank_llm.data import Candidate, Query, Request
    from rank_llm.rerank.listwise import RankListwiseOSLLM

    rows = json.loads((Path(work) / "rows.json").read_text())
    requests = [
        Request(
            Query(row["query"], row["qid"]),
            [
                Candidate(docid, score, {"contents": text})
                for docid, text, score in zip(row["docids"], row["texts"], row["scores"], strict=True)
            ],
        )
        for row in rows
    ]
    ranker = RankListwiseOSLLM(model=f"{work}/model", variable_passages=True)
    # rank_llm's vLLM compiles at its first requests. These have other prompts, so that none is in the cache later.
    ranker.rerank_batch([Request(one.query, one.candidates[::-1]) for one in requests[:2]], rank_end=100)
    start = time.perf_counter()
    ranked = ranker.rerank_batch(requests, rank_end=100, populate_invocations_history=True)
    seconds = time.perf_counter() - start
    asked = [one for result in ranked for one in result.invocations_history]
    tokens = [sum(getattr(one, f"{side}_token_count") for one in asked) for side in ("input", "output")]
    (Path(work) / "theirs.json").write_text(json.dumps([seconds, len(asked), *tokens]))
    ranker._vllm_handler._vllm.llm_engine.engine_core.shutdown()


def main(given: list[str]) -> None:
    """Run the benchmark and print the table."""
    if given[:1] == ["theirs"]:
        return run_theirs(given[1])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, what in (("work", "folder to write to"), ("data", "folder with the candidates and the tokenizer")):
        parser.add_argument(f"--{name}", required=True, type=lambda given: Path(given).resolve(), help=what)
    parser.add_argument("--rank-llm", required=True, help="Python of an environment with rank_llm")
    parser.add_argument("--queries", type=int, default=43)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median counts")
    parser.add_argument("--width", type=int, default=256, help="width of the model")
    parser.add_argument("--layers", type=int, default=4)
    settings = parser.parse_args(given)
    work, data = settings.work, settings.data

    from r2r import tables
    from r2r.datasets import read_candidates

    make_model(work / "model", data / "tokenizers/qwen2.5/tokenizer.json", settings.width, settings.layers)
    rows = read_candidates(f"rankgpt:{data}/msmarco-dl19/bm25-top100.json").to_pylist()
    # rank_llm needs lists of one length.
    rows = [row for row in rows if len(row["docids"]) == 100][: settings.queries]
    settings.queries = len(rows)
    tables.write(rows, work, "candidates")
    (work / "rows.json").write_text(json.dumps(rows))

    env = os.environ | {"OMP_NUM_THREADS": str(settings.threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    env |= {"VLLM_CPU_KVCACHE_SPACE": "2"}
    took: dict[str, list[float]] = {"rank_llm": [], "score": [], "generate": []}
    for number in range(settings.rounds):
        for mode in ("score", "generate"):
            took[mode].append(run_ours(work, mode, number, settings))
        command = [settings.rank_llm, __file__, "theirs", str(work)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        seconds, windows, prompt, reply = json.loads((work / "theirs.json").read_text())
        print(f"  rank_llm: {windows} windows, {prompt:,} prompt tokens, {reply:,} reply tokens")
        took["rank_llm"].append(seconds)
        print(f"round {number}: {', '.join(f'{name} {times[-1]:.1f} s' for name, times in took.items())}", flush=True)

    theirs = statistics.median(took["rank_llm"])
    print(f"\n{settings.queries} queries at depth 100, {settings.threads} threads; load {os.getloadavg()[0]:.1f}")
    print("\n| | seconds | of rank_llm's |\n| --- | --- | --- |")
    names = {"rank_llm": "rank_llm 0.25.7", "score": "r2r rerank", "generate": "r2r rerank --mode generate"}
    for name, times in took.items():
        print(f"| {names[name]} | {statistics.median(times):.1f} | {statistics.median(times) / theirs:.2f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
