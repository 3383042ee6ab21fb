"""The annotate job, compared with vLLM's own LLM.generate on the same prompts with the same engine settings.

    python benchmarks/annotate.py --work DIR [--rows 96] [--max-tokens 128] [--threads 1] [--rounds 3]

The script makes the teacher: a Qwen3 of about 90 million random weights, large enough that the engine takes most of the
time. Every reply has the JSON schema and runs to its longest length. The figure is reply tokens per second, from the
engine's start to the last reply. The script also measures the share of prompt tokens from the prefix cache, and, with
one more job, how long the same command takes to its next row after the whole job was killed.
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

JOB = Path(__file__).resolve().parents[1] / "jobs" / "annotate.py"
PASSAGES, REASONING = 3, "both"


def make_model(folder: Path) -> None:
    """Write a Qwen3 of random weights, with the tokenizer of the demo's teacher."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    from r2r import builtin

    tokenizer = AutoTokenizer.from_pretrained(builtin.model("demo", "teacher"))
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    print(f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.0f} million weights", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_candidates(folder: Path, rows: int) -> None:
    """Write candidates of random passages of the built-in collection."""
    import random

    from r2r import tables
    from r2r.datasets import corpus_parts

    (part,) = corpus_parts("demo", 1)
    texts = [document.text for _, document in part.read()]
    draw = random.Random(0)
    found: list[dict[str, Any]] = []
    for number in range(rows):
        passages = draw.sample(texts, PASSAGES)
        query = " ".join(draw.sample(passages[0].split(), 6))
        docids, scores = [str(place) for place in range(PASSAGES)], [1.0] * PASSAGES
        found.append({"qid": str(number), "query": query, "docids": docids, "texts": passages, "scores": scores})
    tables.write(found, folder, "candidates")


def flags(work: Path, settings: argparse.Namespace) -> list[str]:
    """Return the flags of the annotate job."""
    given: dict[str, Any] = {"candidates": work, "teacher": work / "model", "passages": PASSAGES}
    given |= {"reasoning": REASONING, "attempts": 1, "max-tokens": settings.max_tokens, "max-reject-rate": 1}
    given |= {"cpus": settings.threads, "in-flight": settings.rows}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def run_ours(work: Path, out: Path, settings: argparse.Namespace) -> dict[str, Any]:
    """Run one job; return its stats.json."""
    command = [sys.executable, str(JOB), *flags(work, settings), "--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads((out / "stats.json").read_text())


def run_theirs(work: str, max_tokens: int) -> None:
    """Write the reply tokens and the seconds of LLM.generate into theirs.json. Runs in its own process."""
    from r2r.config import AnnotateSettings
    from r2r.datasets import read_candidates
    from r2r.llm.engine import engine_arguments
    from r2r.teacher import ask
    from r2r.teacher import prompt as asking

    settings = AnnotateSettings(
        teacher=f"{work}/model", passages=PASSAGES, reasoning=REASONING, attempts=1, max_tokens=max_tokens
    )
    given = engine_arguments(settings.teacher, {})
    from vllm import LLM, SamplingParams, TokensPrompt
    from vllm.sampling_params import StructuredOutputsParams

    prompter, rows = ask.Prompter(settings), read_candidates(work).to_pylist()
    prompts = [prompter.ids(prompter.message(row["query"], row["texts"])[0]) for row in rows]
    schema = asking.schema(PASSAGES, REASONING, settings.reason_chars)
    sampling = SamplingParams(
        max_tokens=max_tokens, temperature=0.0, seed=1, structured_outputs=StructuredOutputsParams(json=schema)
    )
    llm = LLM(**given)
    start = time.perf_counter()
    outputs = llm.generate([TokensPrompt(prompt_token_ids=ids) for ids in prompts], sampling, use_tqdm=False)
    seconds = time.perf_counter() - start
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    Path(work, "theirs.json").write_text(json.dumps([tokens, seconds]))
    llm.llm_engine.engine_core.shutdown()


def restart(work: Path, out: Path, settings: argparse.Namespace) -> tuple[int, float]:
    """Kill a job, driver and workers, after some rows, and run the same command again.

    Returns the number of finished rows, and the seconds until the second job's first row.
    """
    # Fewer rows at a time, or all would finish at once.
    more = ["--in-flight", str(max(1, settings.rows // 8))]
    command = [sys.executable, str(JOB), *flags(work, settings), *more, "--out", str(out)]

    def start() -> subprocess.Popen:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def wait(rows: int) -> int:
        while (found := sum(file.read_bytes().count(b"\n") for file in out.glob("rows/*/*.jsonl"))) < rows:
            time.sleep(0.05)
        return found

    job = start()
    wait(settings.rows // 4)
    job.kill()
    job.wait()
    # Ray ends the workers after it notices that their driver is gone.
    time.sleep(10)
    before = wait(0)
    started = time.perf_counter()
    job = start()
    wait(before + 1)
    seconds = time.perf_counter() - started
    if job.wait():
        raise RuntimeError("the resumed job failed")
    return before, seconds


def main(given: list[str]) -> None:
    """Run the benchmark and print the table."""
    if given[:1] == ["theirs"]:
        return run_theirs(given[1], int(given[2]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=lambda name: Path(name).resolve(), help="folder to write to")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of the engine; Ray's processes need some CPU too"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median counts")
    settings = parser.parse_args(given)
    work = settings.work
    make_model(work / "model")
    make_candidates(work, settings.rows)

    # Ray gives a worker as many threads as it reserves CPUs for it.
    env = os.environ | {"OMP_NUM_THREADS": str(settings.threads)}
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(settings.rounds):
        stats = run_ours(work, work / f"out-{number}-{time.time():.0f}", settings)
        ours.append(stats["tokens"]["completion_per_second"])
        command = [sys.executable, __file__, "theirs", str(work), str(settings.max_tokens)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        tokens, seconds = json.loads((work / "theirs.json").read_text())
        if tokens != stats["tokens"]["completion"]:
            raise RuntimeError(f"LLM.generate wrote {tokens} tokens, the job {stats['tokens']['completion']}")
        theirs.append(tokens / seconds)
        print(f"round {number}: ours {ours[-1]:.1f}, LLM.generate {theirs[-1]:.1f} reply tokens/s", flush=True)
    before, seconds = restart(work, work / f"killed-{time.time():.0f}", settings)

    mine, others = statistics.median(ours), statistics.median(theirs)
    prompt = stats["tokens"]["prompt"] // settings.rows
    print(f"\n{settings.rows} rows of {prompt} prompt tokens; load {os.getloadavg()[0]:.1f}")
    print("\n| reply tokens per second | LLM.generate | the job | ratio |\n| --- | --- | --- | --- |")
    print(f"| {settings.threads} threads | {others:.0f} | {mine:.0f} | {mine / others:.2f} |")
    print(f"\nPrompt tokens from the prefix cache: {stats['tokens']['cached_share']:.0%}.")
    print(f"Killed after {before} rows: the same command had its next row after {seconds:.0f} s.")


if __name__ == "__main__":
    main(sys.argv[1:])
