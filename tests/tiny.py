"""A model that has learned nothing, for tests of what surrounds a model: made on the spot, and kept in a cache.

As a teacher it prefers one passage to another for no reason and writes letters for reasons, so that replies are
refused; the demo's own models seldom let that happen.

    tiny_model()  # '/home/me/.cache/r2r-tests-5f0c…/model'
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import tempfile
from pathlib import Path

from r2r.demo import grammar, untrained
from r2r.demo import world as worlds
from r2r.demo.untrained import byte_level_bpe, qwen3
from r2r.demo.world import world

# Of the weights: wide enough for what it says to depend on the passages.
_SPREAD = 0.1
_VOCABULARY = 1024


def tiny_model() -> str:
    """Return the model's folder, which is made if it is not in the cache yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / f"r2r-tests-{_recipe()}"
    folder = cache / "model"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Built aside and renamed, so that a folder in the cache is always whole. Of two processes that build it at
        # once the first one's stays: the bytes are the same.
        with tempfile.TemporaryDirectory(dir=cache, prefix=".model-") as aside:
            _build(Path(aside) / "model")
            try:
                os.rename(Path(aside) / "model", folder)
            except OSError:
                if not folder.exists():
                    raise
    return str(folder)


def _recipe() -> str:
    """Return a hash of all that decides its bytes: the code, the world, and the libraries that write them."""
    files = (__file__, untrained.__file__, worlds.__file__, grammar.__file__)
    digest = hashlib.sha256(b"".join(Path(file).read_bytes() for file in files))
    for package in ("tokenizers", "torch", "transformers"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()[:16]


def _build(folder: Path) -> None:
    tokenizer = byte_level_bpe((passage.shown for passage in world().world.passages), _VOCABULARY)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    model = qwen3(tokenizer, 2, _SPREAD, vocab_size=_VOCABULARY, num_attention_heads=2, num_key_value_heads=1, **sizes)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
