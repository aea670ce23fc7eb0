"""Tiny random models with the tokenizers, templates and configurations that people's models have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
THINKS = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")


@cache
def tokenizer(
    eos: str = "<|im_end|>",
    pad: str | None = "<|endoftext|>",
    bos: str | None = None,
    template: str | None = CHATML,
    extra: Sequence[str] = (),
    post: str | None = None,
) -> Any:
    """Bytes and a few pairs; ids 0 to 2 are <|endoftext|>, <|im_start|> and <|im_end|>, then the bos and what is extra."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *([bos] if bos else []), *extra]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    inner.train_from_iterator(["What is 12 + 7? the answer is 19"] * 20, trainer)
    if post:
        inner.post_processor = processors.TemplateProcessing(single=post, special_tokens=[("<bos>", 3), ("<|im_end|>", 2)])
    names = {"eos_token": eos, "pad_token": pad, "bos_token": bos}
    found = PreTrainedTokenizerFast(tokenizer_object=inner, **{key: value for key, value in names.items() if value})
    if extra:
        found.add_special_tokens({"additional_special_tokens": list(extra)})
    found.chat_template = template
    return found


TOKENIZERS: dict[str, dict[str, Any]] = {
    "tags": {"extra": ("<think>", "</think>", "<answer>", "</answer>")},
    "nosystem": {"template": NO_SYSTEM},
    "thinks": {"template": THINKS},
    "two_ends": {"eos": "<|endoftext|>"},
    "bos": {"bos": "<bos>", "post": "<bos> $A", "template": "{{ bos_token }}" + CHATML},
    "adds_eos": {"bos": "<bos>", "post": "<bos> $A <|im_end|>"},
    "nopad": {"pad": None},
}
LINEAR = {
    "head_dim": 16, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "num_hidden_layers": 4,
}  # fmt: skip
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_5": ("Qwen3_5TextConfig", LINEAR),
    "qwen3_next": (
        "Qwen3NextConfig",
        LINEAR | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    ),
    "lfm2": ("Lfm2Config", {"full_attn_idxs": [1]}),
    "mamba": ("MambaConfig", {"state_size": 8}),
    "mamba2": ("Mamba2Config", {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "expand": 2}),
    "falcon_h1": (
        "FalconH1Config",
        {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16},
    ),
    "minimax": (
        "MiniMaxConfig",
        {"num_local_experts": 2, "block_size": 8, "head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
    ),
    "bos": ("LlamaConfig", {}),
    "adds_eos": ("LlamaConfig", {}),
    "nopad": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "pad_token_id": None}),
}


def build(folder: Path, kind: str = "qwen3", seed: int = 0) -> str:
    """A folder with the model and tokenizer of this kind."""
    import transformers

    words = tokenizer(**TOKENIZERS.get(kind, {}))
    name, changes = CONFIGS.get(kind, ("Qwen3Config", {"head_dim": 16, "tie_word_embeddings": True}))
    sizes = {
        "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**(sizes | changes)))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    if kind == "two_ends":
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2], "pad_token_id": 0}))
    return str(folder)


SMALL: dict[str, Any] = {
    "threads": 1, "steps": 2, "prompts_per_batch": 4, "group_size": 4, "max_new_tokens": 12, "evaluate_every": 0, "evaluation_episodes": 0,
    "progress": False,
}  # fmt: skip


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def sums(count: int = 20, **columns: Any) -> list[dict[str, Any]]:
    """Rows of chat prompts with answers, all different."""
    return [{"prompt": [{"role": "user", "content": f"What is {n} + {n % 7}?"}], "answer": str(n + n % 7), **columns} for n in range(count)]
