"""The engine in process with an adapter: what it says of labels and of a query is what PEFT says."""

import asyncio

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from r2r.llm.engine import LocalModel
from tests.tiny import tiny_model

pytestmark = pytest.mark.slow


def test_an_adapter_counts_for_labels_and_for_likelihood(tmp_path):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_model(), dtype="float32")
    lora = LoraConfig(r=4, target_modules=["q_proj", "o_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_model(), dtype="float32").eval()
    prompts, written, labels = [list(range(100, 100 + length)) for length in (90, 40, 7)], [7, 8, 9], [11, 12, 13]

    async def engine():
        model = LocalModel(tiny_model(), {}, str(tmp_path))
        try:
            # At once, so that prompts of several lengths are in one step.
            likely = await asyncio.gather(*(model.likelihood(prompt, written) for prompt in prompts))
            return likely, (await model.label_logprobs(prompts[0], labels))[0]
        finally:
            model.close()

    def expected(model):
        with torch.no_grad():
            found = [model(torch.tensor([prompt + written])).logits[0].log_softmax(-1) for prompt in prompts]
        likely = [
            sum(logprobs[len(prompt) - 1 + at, token].item() for at, token in enumerate(written))
            for prompt, logprobs in zip(prompts, found, strict=True)
        ]
        return likely, found[0][len(prompts[0]) - 1, labels].tolist()

    plain = expected(base)
    likely, label = expected(PeftModel.from_pretrained(base, tmp_path).eval())
    found = asyncio.run(engine())
    assert found[0] == pytest.approx(likely, abs=1e-3) and found[1] == pytest.approx(label, abs=1e-3)
    assert max(abs(a - b) for a, b in zip(likely, plain[0], strict=True)) > 0.1
