"""The demo's models before training: their architecture and their tokenizer.

Does not own what they learn (`lessons.py`) nor how (`train.py`).

    new_model(make_tokenizer(), seed=1)
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

from demo_models.lessons import JUDGE_WORDS, shown_list, student_example, teacher_example, unseen_world

_VOCABULARY = 2048
_LENGTH = 16384
_CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""


def new_model(tokenizer: Any, seed: int) -> Any:
    """Return an untrained Qwen3 of under two million parameters."""
    import torch

    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6}
    model = qwen3(tokenizer, seed, 0.06, vocab_size=_VOCABULARY, num_attention_heads=4, num_key_value_heads=4, **sizes)
    # A layer that adds nothing at first does not disturb the others while they learn.
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model


def qwen3(tokenizer: Any, seed: int, spread: float, **sizes: int) -> Any:
    """Return a Qwen3 with random weights of standard deviation `spread`. `sizes` are fields of `Qwen3Config`."""
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen3Config(
        head_dim=32,  # the smallest that vLLM's attention allows on a CPU
        max_position_embeddings=_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        initializer_range=spread,
        dtype="float32",
        **ends,
        **sizes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(**ends)
    return model


def make_tokenizer() -> Any:
    """Return the tokenizer of both models, always the same one.

    It is trained on a world that does not ship, and on the prompts and replies of both models, so that their fixed
    wording takes few tokens.
    """
    return byte_level_bpe(_texts(), _VOCABULARY)


def byte_level_bpe(texts: Iterable[str], vocabulary: int) -> Any:
    """Return a byte-level BPE with `vocabulary` tokens, trained on the texts. It encodes any text; every letter is one
    token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    # No space is added before a text, so a reply that begins with a letter begins with that letter's token.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
        chat_template=_CHAT_TEMPLATE,
        model_max_length=_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def _texts() -> Iterator[str]:
    rng = random.Random(0)
    world = unseen_world(0)
    for name in (entity.name for entity in world.entities):
        yield f"{name}\nthe {name}"
    for passage in world.passages[:4000]:
        yield passage.shown
    for _ in range(600):
        query, passages = shown_list(rng, world, 8)
        yield query.text
        yield "\n".join(teacher_example(query, passages, "both"))
        yield "\n".join(student_example(query, passages))
        yield "".join(JUDGE_WORDS)
