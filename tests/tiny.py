"""An untrained model for tests of the code around a model: made on the spot, and kept in a cache.

As a teacher it has random preferences and writes random letters as reasons, so that replies are rejected. Of the demo's
own teacher, few are.

    tiny_model()  # '/home/me/.cache/r2r-tests-5f0c…/model'

vLLM's own commands run it with VLLM_FLAGS and VLLM_ENV, as an engine in process does.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import tempfile
from pathlib import Path

from demo_models import grammar, untrained
from demo_models import world as worlds
from demo_models.world import world

# In one process: a second one would only pin threads.
VLLM_FLAGS = ["--dtype", "float32", "--enforce-eager", "--no-enable-chunked-prefill", "--distributed-executor-backend"]
VLLM_FLAGS += ["vllm.v1.executor.uniproc_executor.UniProcExecutor"]
VLLM_ENV = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}

# The weights' standard deviation: large enough that the replies depend on the passages.
_SPREAD = 0.1
_VOCABULARY = 1024


def tiny_model() -> str:
    """Return the model's folder. Make the model if it is not in the cache yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / f"r2r-tests-{_recipe()}"
    folder = cache / "model"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # The rename keeps a folder in the cache whole. If two processes build it at once, the first one's stays: the
        # bytes are the same.
        with tempfile.TemporaryDirectory(dir=cache, prefix=".model-") as aside:
            _build(Path(aside) / "model")
            try:
                os.rename(Path(aside) / "model", folder)
            except OSError:
                if not folder.exists():
                    raise
    return str(folder)


def _recipe() -> str:
    """Return a hash of everything that decides the model's bytes: the code, the world and the libraries."""
    files = (__file__, untrained.__file__, worlds.__file__, grammar.__file__)
    digest = hashlib.sha256(b"".join(Path(file).read_bytes() for file in files))
    for package in ("tokenizers", "torch", "transformers"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()[:16]


def _build(folder: Path) -> None:
    tokenizer = untrained.byte_level_bpe((passage.shown for passage in world().world.passages), _VOCABULARY)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    sizes |= {"vocab_size": _VOCABULARY, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = untrained.qwen3(tokenizer, 2, _SPREAD, **sizes)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
