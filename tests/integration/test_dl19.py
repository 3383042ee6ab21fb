"""The paper's own kinds of input, real and small: recorded annotations of MS MARCO, distilled into a tiny student that
reranks TREC DL 2019. The student's random weights learn nothing of use; the published figures are BM25's and
RankVicuna's."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from r2r.config import RerankSettings
from r2r.datasets import read_candidates
from r2r.llm import Died
from r2r.llm.prompt import load_tokenizer
from r2r.reasons import is_verbatim
from r2r.student.likelihood import asked
from r2r.student.rank import Ranker
from tests.ending import terminate
from tests.tiny import tiny_model

pytestmark = pytest.mark.slow

R2R = str(Path(sys.executable).parent / "r2r")

RUN_FILE = """
out: {out}
candidates: rankgpt:{data}/msmarco-dl19/bm25-top100.json
qrels: {data}/msmarco-dl19/qrels.txt
annotate:
  teacher: teacher:{data}/teacher-gpt4/msmarco_500.jsonl
distill:
  student: {student}
  steps: 20
  workers: 1
  batch: 2
  held_out: 0.04
  learning_rate: 0.01
rerank:
  window: 20
  stride: 10
  passage_tokens: 8
  engine: {{dtype: float32}}
  cpus: 1
  in_flight: 8
evaluate:
  measures: ["nDCG@10"]
runs:
  rankvicuna: {data}/msmarco-dl19/rankvicuna.run.txt
"""


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dl19")
    file = folder / "run.yaml"
    file.write_text(RUN_FILE.format(out=folder / "run", data=data, student=tiny_model()))
    log, answers = folder / "log", folder / "run" / "rerank" / "rows"

    def start():
        env = os.environ | {"RAY_ADDRESS": "local"}
        with log.open("ab") as both:
            return subprocess.Popen([R2R, "run", file], env=env, stdout=both, stderr=both, start_new_session=True)

    # Terminated while it reranks, and resumed.
    process = start()
    while not any(answers.glob("*/*.jsonl")):
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.05)
    terminate(process, log)
    process = start()
    assert process.wait(timeout=2400) == 0, log.read_text()[-3000:]
    assert "rerank: resumes from the finished rows" in log.read_text()
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
    """Plain PEFT and vLLM, with the folder alone, on prompts of real annotations, which training kept."""
    folder, base = str(run / "distill" / "adapter"), tiny_model()
    known = json.loads((run / "distill" / "check.json").read_text())["prompts"]
    for one, (adapted, plain) in zip(known, peft_logprobs(base, folder, known), strict=True):
        assert one["logprobs"] == pytest.approx(adapted, abs=1e-3)
        assert one["base"] == pytest.approx(plain, abs=1e-3)
        assert plain != pytest.approx(adapted, abs=1e-2)
    # Every engine of rerank compares its own with these.
    assert 0 < json.loads((run / "rerank" / "stats.json").read_text())["adapter_off"] < 1e-3


def peft_logprobs(base, folder, known):
    """Return the label log-probabilities after each prompt, with the adapter and without it."""
    model = peft_model(base, folder)

    def read(one):
        return model(torch.tensor([one["prompt"]])).logits[0, -1].log_softmax(-1)[one["labels"]].tolist()

    adapted = [read(one) for one in known]
    with model.disable_adapter():
        return list(zip(adapted, [read(one) for one in known], strict=True))


def peft_model(base, folder):
    plain = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    return PeftModel.from_pretrained(plain, folder).requires_grad_(False).eval()


def test_one_engine_ranks_in_every_way_and_ends_in_silence(run, data, capfd):
    """The order scored by labels, written, scored after the reasons, and by likelihood; all with the adapter."""
    query, texts = next((row["query"], row["texts"][:8]) for row in candidates_of(data))
    likely = asyncio.run(rank_in_every_way(str(run / "distill"), query, texts))
    assert "Traceback" not in capfd.readouterr().err
    model, tokenizer = peft_model(tiny_model(), str(run / "distill" / "adapter")), load_tokenizer(tiny_model())
    for text, found in zip(texts, likely, strict=True):
        prompt, written, _ = asked(tokenizer, query, text, 1024, 64)
        logprobs = model(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert found == pytest.approx(logprobs.gather(1, torch.tensor(written)[:, None]).mean().item(), abs=1e-3)


def candidates_of(data):
    return read_candidates(f"rankgpt:{data}/msmarco-dl19/bm25-top100.json").to_pylist()


async def rank_in_every_way(adapter, query, texts):
    """Return the value of each passage by likelihood."""
    ranker = Ranker(tiny_model(), adapter, RerankSettings(passage_tokens=64, reason_chars=20, window=4, stride=2))
    try:
        for mode, order_position in (("score", "first"), ("generate", "first"), ("score", "last")):
            ranker.settings = ranker.settings.model_copy(update={"mode": mode})
            ranker.taught = ranker.taught._replace(order_position=order_position)
            ranked = await ranker.rank(query, texts, explain=2)
            assert sorted(ranked.order) == list(range(8)), (mode, order_position)
            assert ranked.counts["windows"] == 3
            assert ranked.counts["explanations"] + sum(ranked.counts[name] for name in failed(ranked)) == 2
            assert ranked.counts["order failed"] + ranked.counts["order repaired"] + ranked.counts["order ok"] == (
                3 if ranker.settings.mode == "generate" else 0
            )
            for index, reason in ranked.reasons.items():
                assert not reason["evidence"] or is_verbatim(reason["evidence"], texts[index])
        ranker.settings = ranker.settings.model_copy(update={"mode": "score"})
        ranker.taught = ranker.taught._replace(scores="likelihood", order_position="first")
        # All passages at once: prompts of several lengths are in one step of the engine.
        order, _, values = await ranker.valued(query, texts, False, Counter())
        waiting = asyncio.create_task(ranker.rank(query, texts, explain=2))
        await asyncio.sleep(0.02)
    finally:
        ranker.model.close()
    with pytest.raises(Died):
        await waiting
    return [value for _, value in sorted(zip(order, values, strict=True))]


def failed(ranked):
    return [name for name in ranked.counts if name.startswith("failed: ")]
