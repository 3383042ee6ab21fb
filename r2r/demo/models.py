"""The demo's models: a tiny teacher and a tiny student, made on the spot from the built-in collection.

Owns their architecture, their tokenizer and the cache folder that they lie in. Does not own how they are run or
trained: to the stages they are folders like any other, which transformers and vLLM load as they are.

The weights are random. Such a model prefers one passage to another for no reason and writes letters for reasons: it
proves that every stage works and hands on what the next one needs, and says nothing about quality.

    demo_model("teacher")  # '/home/me/.cache/r2r-demo-5f0c…/teacher'
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import tempfile
from pathlib import Path

from r2r.demo import untrained
from r2r.demo.untrained import LENGTH, byte_level_bpe

_CORPUS = Path(__file__).parent / "collection" / "corpus.jsonl"
# Seed and spread of the weights. The teacher's even out its choices, so that a reply that is asked for again has a fair
# chance of naming every passage once; the student's are wide enough for its scores to depend on the passages.
_WEIGHTS = {"teacher": (1, 0.02), "student": (2, 0.1)}
_VOCABULARY = 1024


def demo_model(role: str) -> str:
    """Return the folder of the demo's "teacher" or "student", which is made if it is not in the cache yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / f"r2r-demo-{_recipe()}"
    folder = cache / role
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Built aside and renamed, so that a folder in the cache is always whole. Of two processes that build the same
        # model at once the first one's stays: the bytes are the same.
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{role}-") as aside:
            _build(*_WEIGHTS[role], Path(aside) / role)
            try:
                os.rename(Path(aside) / role, folder)
            except OSError:
                if not folder.exists():
                    raise
    return str(folder)


def _recipe() -> str:
    """Return a hash of all that decides the models' bytes: the code, the corpus, and the libraries that write them."""
    digest = hashlib.sha256(b"".join(Path(file).read_bytes() for file in (__file__, untrained.__file__, _CORPUS)))
    for package in ("tokenizers", "torch", "transformers"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()[:16]


def _build(seed: int, spread: float, folder: Path) -> None:
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    tokenizer = _tokenizer()
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen3Config(
        vocab_size=_VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,  # the smallest that vLLM's attention takes on a CPU
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        initializer_range=spread,
        dtype="float32",
        **ends,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer():
    documents = [json.loads(line) for line in _CORPUS.read_text(encoding="utf-8").splitlines()]
    return byte_level_bpe((f"{document['title']}\n{document['text']}" for document in documents), _VOCABULARY)
