"""A model in this process: vLLM, on GPUs or on a CPU.

Owns the engine's arguments, start and calls. Does not own prompts: they come as text or as token ids.

    logprobs, cached = await LocalModel("Qwen/Qwen2.5-7B-Instruct", {}).label_logprobs(prompt_ids, label_ids)
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import itertools
import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from r2r.errors import BadInput
from r2r.llm import Died, Refused, Reply
from r2r.llm.prompt import chat_ids, load_tokenizer

# The ranks that vLLM has LoRA kernels for.
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class LocalModel:
    """A vLLM engine, with one LoRA adapter or none: the LabelModel of `r2r.llm`.

    `engine` holds vLLM's engine arguments. Raises BadInput if one of them is wrong, or there is no such model.
    """

    tokenizer: Any
    max_length: int

    def __init__(self, model: str, engine: dict[str, Any], adapter: str | None = None) -> None:
        arguments = engine_arguments(model, engine, adapter)
        from vllm import AsyncEngineArgs
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            checked = AsyncEngineArgs(**arguments)
        except TypeError as error:
            raise BadInput(f"engine: {str(error).partition(' ')[2]}; see vLLM's engine arguments") from None
        self.tokenizer = load_tokenizer(model)
        self._llm = AsyncLLM.from_engine_args(checked)
        self._lora = LoRARequest("student", 1, adapter) if adapter else None
        self._request_numbers = itertools.count()
        self.max_length = self._llm.model_config.max_model_len

    async def complete(
        self,
        prompt: str,
        *,
        max_tokens: int,
        schema: dict[str, Any] | None = None,
        grammar: str | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
        start: str = "",
    ) -> Reply:
        """Answer one user message; see `r2r.llm.Model`."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        forced = StructuredOutputsParams(json=schema, grammar=grammar) if schema or grammar else None
        sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed, structured_outputs=forced)
        ids = chat_ids(self.tokenizer, prompt, start)
        return _reply(ids, await self._generate(ids, sampling))

    async def growing(
        self, prompt: str, *, max_tokens: int, grammar: str, start: str = ""
    ) -> AsyncGenerator[Reply, None]:
        """Answer as `complete` does, and yield the reply each time it has grown; see `r2r.llm.LabelModel`."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        forced = StructuredOutputsParams(grammar=grammar)
        sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0, structured_outputs=forced)
        ids = chat_ids(self.tokenizer, prompt, start)
        async with aclosing(self._outputs(ids, sampling)) as outputs:
            async for output in outputs:
                yield _reply(ids, output)

    async def label_logprobs(self, ids: list[int], labels: list[int]) -> tuple[list[float], int]:
        """Return each label's log-probability as the next token, and the cached tokens; see `r2r.llm.LabelModel`."""
        from vllm import SamplingParams

        sampling = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=labels, detokenize=False)
        output = await self._generate(ids, sampling)
        logprobs = output.outputs[0].logprobs[0]
        return [logprobs[label].logprob for label in labels], output.num_cached_tokens or 0

    async def likelihood(self, ids: list[int], written: list[int]) -> float:
        """Return the log-probability of `written` after the prompt; see `r2r.llm.LabelModel`."""
        from vllm import SamplingParams

        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        output = await self._generate(ids + written, sampling)
        logprobs = output.prompt_logprobs[len(ids) :]
        return sum(found[token].logprob for found, token in zip(logprobs, written, strict=True))

    def in_writing(self) -> int:
        """Return the tokens so far of all replies that are not finished."""
        states = self._llm.output_processor.request_states.values()
        return sum(state.detokenizer.num_output_tokens() for state in states if state.detokenizer)

    def check_alive(self) -> None:
        """Raise Died if the engine has died; see `r2r.llm.LabelModel`."""
        if self._llm.errored:
            raise Died("the engine has died")

    def close(self) -> None:
        """Stop the engine's processes; also when some of them have died. Requests in flight raise Died."""
        from vllm.utils.async_utils import cancel_task_threadsafe, run_in_loop
        from vllm.v1.engine.exceptions import EngineDeadError

        # A task of vLLM's that still listened would print the engine's end as an error.
        if listening := self._llm.output_handler:
            cancel_task_threadsafe(listening)
            run_in_loop(listening.get_loop(), self._llm.output_processor.propagate_error, EngineDeadError())
        self._llm.shutdown()
        # vLLM does it again when Python ends, and then lacks what it needs for it.
        self._llm.shutdown = lambda timeout=None: None

    async def _generate(self, ids: list[int], sampling: Any) -> Any:
        """Return vLLM's final RequestOutput. Raises Refused and Died as `r2r.llm.Model` says."""
        from vllm.sampling_params import RequestOutputKind

        # Only the finished reply: each partial one would cost a message between processes.
        sampling.output_kind = RequestOutputKind.FINAL_ONLY
        final = None
        async for output in self._outputs(ids, sampling):
            final = output
        return final

    async def _outputs(self, ids: list[int], sampling: Any) -> AsyncGenerator[Any, None]:
        """Yield vLLM's RequestOutputs. Raises Refused and Died as `r2r.llm.Model` says."""
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        if len(ids) + sampling.max_tokens > self.max_length:
            raise Refused(f"prompt of {len(ids)} and reply of {sampling.max_tokens} tokens exceed {self.max_length}")
        request = f"r{next(self._request_numbers)}"
        prompt = {"prompt_token_ids": ids}
        try:
            # Closed at once if nobody waits for the reply any more: then vLLM ends the request.
            async with aclosing(self._llm.generate(prompt, sampling, request, lora_request=self._lora)) as outputs:
                async for output in outputs:
                    yield output
        except EngineDeadError as error:
            raise Died(str(error)) from error
        except EngineGenerateError as error:
            raise Refused(str(error.__cause__ or error)) from error


def _reply(ids: list[int], output: Any) -> Reply:
    reply = output.outputs[0]
    finished, cached = reply.finish_reason == "stop", output.num_cached_tokens or 0
    return Reply(reply.text, finished, len(ids), len(reply.token_ids), cached)


def check_arguments(engine: dict[str, Any]) -> None:
    """Raise BadInput for an engine argument that vLLM does not have. Reads vLLM's source: importing it takes long."""
    spec = importlib.util.find_spec("vllm")
    source = Path(spec.origin).parent / "engine" / "arg_utils.py" if spec and spec.origin else None
    if source is None or not source.exists():
        return
    classes = [one for one in ast.parse(source.read_text()).body if isinstance(one, ast.ClassDef)]
    known = {
        field.target.id
        for one in classes
        if one.name in ("EngineArgs", "AsyncEngineArgs")
        for field in one.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }
    for name in engine:
        if known and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "see vLLM's engine arguments"
            raise BadInput(f"engine: {name}: no engine argument of vLLM; {hint}")


def engine_arguments(model: str, engine: dict[str, Any], adapter: str | None = None) -> dict[str, Any]:
    """Return vLLM's engine arguments for a model: our defaults, overridden by the user's `engine`.

    Also sets defaults for vLLM's environment variables. Raises BadInput if vLLM cannot serve the adapter's rank.
    """
    # Without the first two, a CPU engine takes most of the memory, and all engines of a machine bind the same cores.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    from vllm.platforms import current_platform

    arguments: dict[str, Any] = {
        "model": model,
        "enable_prefix_caching": True,
        # vLLM would collect statistics at each step, and nobody reads them.
        "disable_log_stats": True,
        # With free white space in JSON, a model may write white space without end.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    if current_platform.is_cpu():
        arguments |= _cpu_arguments(model, engine)
        # vLLM compiles some small functions all the same, at the first request, with a C++ compiler.
        if engine.get("enforce_eager", True):
            os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    if adapter:
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _lora_rank(adapter)}
        # By default vLLM wraps all layers. With a wrapped output layer, vLLM 0.32 dies at log-probabilities of a
        # prompt, and takes no vocabulary over 258,048.
        arguments["lora_target_modules"] = lora_layers(adapter)
    return arguments | engine


def with_short_steps(engine: dict[str, Any]) -> dict[str, Any]:
    """Return the engine arguments for requests that people wait for: on a CPU, a step reads at most 512 tokens.

    A new request waits until the step at work ends, and one whose client has gone is at work until then: over 15
    seconds with vLLM's own steps. Arguments of `engine` win. Not for requests with a seed.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or not engine.get("enable_chunked_prefill", True):
        return engine
    return {"enable_chunked_prefill": True, "max_num_batched_tokens": 512} | engine


def _cpu_arguments(model: str, engine: dict[str, Any]) -> dict[str, Any]:
    from transformers import AutoConfig
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    # One process starts faster than two, and the second would only be there to pin threads, which is off.
    one_process = engine.keys().isdisjoint(("tensor_parallel_size", "pipeline_parallel_size"))
    return {
        **({"distributed_executor_backend": UniProcExecutor} if one_process else {}),
        # Compilation takes longer than a whole job with a small model.
        "enforce_eager": True,
        # vLLM 0.32 dies on a chunked prompt with a seed: it resets the random generator, which torch cannot on a CPU.
        "enable_chunked_prefill": False,
        # vLLM would convert float32 to bfloat16, which most CPUs do not run faster.
        "dtype": str(AutoConfig.from_pretrained(model).dtype or "float32").removeprefix("torch."),
    }


def lora_layers(adapter: str) -> list[str] | None:
    """Return the last part of the name of each layer that an adapter changes, such as "q_proj", as vLLM has them.

    None if they include experts of a mixture, to which vLLM gives other names: all layers are wrapped then.
    """
    from safetensors import safe_open

    with safe_open(Path(adapter) / "adapter_model.safetensors", "np") as tensors:
        layers = {name.partition(".lora_")[0] for name in tensors.keys()}  # noqa: SIM118 - not a dict
    return None if any(".experts" in layer for layer in layers) else sorted({x.rpartition(".")[2] for x in layers})


def _lora_rank(adapter: str) -> int:
    """Return the smallest rank of vLLM's kernels that holds the adapter's."""
    rank = json.loads((Path(adapter) / "adapter_config.json").read_text())["r"]
    fitting = [kernel for kernel in LORA_RANKS if kernel >= rank]
    if not fitting:
        raise BadInput(f"{adapter}: LoRA rank {rank} is more than the {LORA_RANKS[-1]} that vLLM can serve")
    return fitting[0]
