"""The paper's own kinds of input, real and small: recorded annotations of MS MARCO, distilled into a tiny student that
reranks TREC DL 2019. The student's random weights learn nothing of use; the published figures are BM25's and
RankVicuna's."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from r2r.config import DistillSettings
from r2r.demo.models import demo_model
from r2r.llm.prompt import load_tokenizer
from r2r.student.examples import example
from r2r.student.prompt import label_ids

RUN_FILE = """
out: {out}
candidates: rankgpt:{data}/msmarco-dl19/bm25-top100.json
qrels: {data}/msmarco-dl19/qrels.txt
annotate:
  teacher: teacher:{data}/teacher-gpt4/msmarco_500.jsonl
distill:
  student: demo
  steps: 20
  workers: 2
  batch: 4
  learning_rate: 0.01
rerank:
  passage_tokens: 64
  engine: {{dtype: float32}}
evaluate:
  measures: ["nDCG@10"]
runs:
  rankvicuna: {data}/msmarco-dl19/rankvicuna.run.txt
"""


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dl19")
    file = folder / "run.yaml"
    file.write_text(RUN_FILE.format(out=folder / "run", data=data))
    done = subprocess.run(
        [Path(sys.executable).parent / "r2r", "run", file],
        env=os.environ | {"RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run"


def test_all_sound_annotations_are_taken(run):
    assert pq.read_table(run / "annotate" / "annotations").num_rows == 500
    assert pq.read_table(run / "annotate" / "rejects").num_rows == 0


def test_the_three_losses_fall(run):
    steps = [json.loads(line) for line in (run / "distill" / "steps.jsonl").read_text().splitlines()]
    assert len(steps) == 20
    for part in ("pairwise", "listwise", "generation"):
        first, last = (sum(step[part] for step in some) / 5 for some in (steps[:5], steps[-5:]))
        assert last < first, part


def test_every_query_is_reranked_at_depth_100(run):
    rows = pq.read_table(run / "rerank" / "rankings").to_pylist()
    assert len(rows) == 43 and max(len(row["docids"]) for row in rows) == 100
    assert all(len(set(row["docids"])) == len(row["docids"]) for row in rows)


def test_published_figures(run):
    metrics = json.loads((run / "evaluate" / "metrics.json").read_text())
    measured = {name: round(row["nDCG@10"], 4) for name, row in metrics["systems"].items()}
    assert metrics["queries"] == 43
    assert measured["bm25"] == 0.5058 and measured["rankvicuna"] == 0.6682
    assert 0 < measured["random"] < measured["bm25"] < measured["oracle"]


def test_peft_and_vllm_read_the_adapter_alike(run):
    """With nothing of ours between them and the adapter, on prompts of real annotations."""
    folder, base = str(run / "distill" / "adapter"), demo_model("student")
    tokenizer = load_tokenizer(base)
    labels = label_ids(tokenizer, "demo")[:5]
    rows = pq.read_table(run / "annotate" / "annotations").slice(0, 8).to_pylist()
    prompts = [example(tokenizer, row, DistillSettings(student="demo"), 0).prompt for row in rows]
    with_peft, without = peft_logprobs(base, folder, prompts, labels)
    with_vllm = asyncio.run(vllm_logprobs(base, folder, prompts, labels))
    for peft, vllm, plain in zip(with_peft, with_vllm, without, strict=True):
        assert vllm == pytest.approx(peft, abs=1e-3)
        assert plain != pytest.approx(peft, abs=1e-2)


def peft_logprobs(base, folder, prompts, labels):
    """Return the label log-probabilities of each prompt, with the adapter and without it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="float32"), folder)

    def read():
        with torch.no_grad():
            logits = [model(torch.tensor([prompt])).logits[0, -1] for prompt in prompts]
        return [one.log_softmax(-1)[labels].tolist() for one in logits]

    adapted = read()
    with model.disable_adapter():
        return adapted, read()


async def vllm_logprobs(base, folder, prompts, labels):
    from vllm import AsyncEngineArgs, SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(model=base, dtype="float32", enforce_eager=True, enable_lora=True, max_lora_rank=16)
    )
    sampling = SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=labels)
    found = []
    try:
        for number, prompt in enumerate(prompts):
            stream = engine.generate(
                {"prompt_token_ids": prompt}, sampling, str(number), lora_request=LoRARequest("student", 1, folder)
            )
            async for output in stream:
                final = output
            found.append([final.outputs[0].logprobs[0][label].logprob for label in labels])
    finally:
        engine.shutdown()
    return found
