"""vLLM in this process, on GPUs or on a CPU.

Owns the engine's start and its calls. Does not own what is asked: a prompt comes as text or as token ids.

    scores = await Engine("Qwen/Qwen2.5-7B-Instruct", {}).label_logprobs(prompt_ids, label_ids)
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

from r2r.errors import BadInput
from r2r.llm import Died, Refused, Reply
from r2r.llm.prompt import chat_ids, load_tokenizer

# Ranks that vLLM's LoRA kernels are built for.
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class Engine:
    """An asynchronous vLLM engine with at most one LoRA adapter. Raises BadInput where an engine argument is wrong."""

    def __init__(self, model: str, engine: dict[str, Any], adapter: str | None = None):
        given = arguments(model, engine, adapter)
        from vllm import AsyncEngineArgs
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            given = AsyncEngineArgs(**given)
        except TypeError as error:
            raise BadInput(f"engine: {str(error).partition(' ')[2]}; see vLLM's engine arguments") from None
        self.tokenizer = load_tokenizer(model)
        self._llm = AsyncLLM.from_engine_args(given)
        self._lora = LoRARequest("student", 1, adapter) if adapter else None
        self._ids = itertools.count()
        self.max_length = self._llm.model_config.max_model_len

    async def complete(
        self,
        prompt: str,
        *,
        max_tokens: int,
        schema: dict | None = None,
        grammar: str | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
        start: str = "",
    ) -> Reply:
        """Answer one user message; `schema` forces the reply into JSON of that schema, `grammar` into what an EBNF
        grammar allows; `start` is how it begins."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        forced = StructuredOutputsParams(json=schema, grammar=grammar) if schema or grammar else None
        sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed, structured_outputs=forced)
        ids = chat_ids(self.tokenizer, prompt, start)
        output = await self._generate(ids, sampling)
        reply = output.outputs[0]
        cached = output.num_cached_tokens or 0
        return Reply(reply.text, reply.finish_reason == "stop", len(ids), len(reply.token_ids), cached)

    async def label_logprobs(self, ids: list[int], labels: list[int]) -> tuple[list[float], int]:
        """Return the log-probability of each label as the token that follows the prompt `ids`, and how many tokens of
        that the engine had read before."""
        from vllm import SamplingParams

        sampling = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=labels, detokenize=False)
        output = await self._generate(ids, sampling)
        found = output.outputs[0].logprobs[0]
        return [found[label].logprob for label in labels], output.num_cached_tokens or 0

    def close(self) -> None:
        """End the engine's processes, or what is left of them."""
        self._llm.shutdown()

    async def _generate(self, ids: list[int], sampling):
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        if len(ids) + sampling.max_tokens > self.max_length:
            raise Refused(f"prompt of {len(ids)} and reply of {sampling.max_tokens} tokens exceed {self.max_length}")
        # Not every token's output on its way: nobody waits for a part of a reply.
        sampling.output_kind = RequestOutputKind.FINAL_ONLY
        request = f"r{next(self._ids)}"
        prompt = {"prompt_token_ids": ids}
        final = None
        try:
            async for output in self._llm.generate(prompt, sampling, request, lora_request=self._lora):
                final = output
        except EngineDeadError as error:
            raise Died(str(error)) from error
        except EngineGenerateError as error:
            raise Refused(str(error.__cause__ or error)) from error
        return final


def arguments(model: str, engine: dict[str, Any], adapter: str | None = None) -> dict[str, Any]:
    """Return the engine arguments for a model: those that hold for all of them, and over them `engine`, the user's."""
    # Without these, a CPU engine takes most of the memory, and all engines of a machine bind the same cores.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    from vllm.platforms import current_platform

    found: dict[str, Any] = {
        "model": model,
        "enable_prefix_caching": True,
        # Nobody reads them, and they are gathered at every step.
        "disable_log_stats": True,
        # A model that may put any white space into its JSON may write nothing else.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    if current_platform.is_cpu():
        found |= _cpu_arguments(model, engine)
    if adapter:
        found |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _lora_rank(adapter)}
    return found | engine


def _cpu_arguments(model: str, engine: dict[str, Any]) -> dict[str, Any]:
    from transformers import AutoConfig
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    # A second process for the model would pin threads to cores, which is switched off here, and start more slowly.
    alone = engine.keys().isdisjoint(("tensor_parallel_size", "pipeline_parallel_size"))
    return {
        **({"distributed_executor_backend": UniProcExecutor} if alone else {}),
        # Compiling takes longer than a small model's whole job.
        "enforce_eager": True,
        # A prompt that is read in chunks ends the engine when its request has a seed: vLLM 0.32 then turns back the
        # random generator, which torch cannot do on a CPU.
        "enable_chunked_prefill": False,
        # vLLM would turn float32 into bfloat16, which few CPUs are faster at.
        "dtype": str(AutoConfig.from_pretrained(model).dtype or "float32").removeprefix("torch."),
    }


def _lora_rank(adapter: str) -> int:
    import json

    rank = json.loads((Path(adapter) / "adapter_config.json").read_text())["r"]
    fitting = [kernel for kernel in _LORA_RANKS if kernel >= rank]
    if not fitting:
        raise BadInput(f"{adapter}: LoRA rank {rank} is more than the {_LORA_RANKS[-1]} that vLLM can serve")
    return fitting[0]
