"""Tiny random language models of several architectures, a character tokenizer, and rows of tokens to score."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SYMBOLS = "0123456789+-*=;#?: ab"
PAD, BOS, EOS = 0, 1, 2
VOCABULARY = 3 + len(SYMBOLS)


def tokenizer(**special: Any) -> Any:
    """One token per character, after pad (0), bos (1) and end (2)."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({token: i for i, token in enumerate(["<pad>", "<bos>", "<eos>", *SYMBOLS])}))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, **({"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"} | special))


def model(kind: str = "qwen3", *, seed: int = 0, vocabulary: int = VOCABULARY, **changes: Any) -> Any:
    """A random causal LM with weights large enough for its log-probabilities to differ."""
    from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, Qwen2Config, Qwen3Config

    common: dict[str, Any] = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS,
    }  # fmt: skip
    if kind == "qwen3":
        config: Any = Qwen3Config(**(common | {"head_dim": 8, "tie_word_embeddings": True} | changes))
    elif kind == "qwen2":
        config = Qwen2Config(**(common | changes))
    elif kind == "llama":
        config = LlamaConfig(**(common | {"attention_bias": True, "tie_word_embeddings": False} | changes))
    elif kind == "gemma2":  # caps its logits, and half of its layers look through a window
        config = Gemma2Config(**(common | {"head_dim": 8, "sliding_window": 4, "final_logit_softcapping": 2.0} | changes))
    elif kind == "gpt2":
        sizes = {"vocab_size": vocabulary, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
        config = GPT2Config(**(sizes | {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS} | changes))
    else:
        raise AssertionError(kind)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.15)
    return built


def rows(groups: int = 3, group_size: int = 3, *, prompt: int = 6, completion: int = 9, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, attention and mask ``[B, T]``: prompts of different lengths on the left, shared in groups, completions on the right."""
    draw = torch.Generator().manual_seed(seed)
    count = groups * group_size
    lengths = torch.randint(2, prompt + 1, (groups,), generator=draw).repeat_interleave(group_size)
    ends = torch.randint(1, completion + 1, (count,), generator=draw)
    prompts = torch.randint(3, VOCABULARY, (groups, prompt), generator=draw).repeat_interleave(group_size, 0)
    action = torch.cat([prompts, torch.randint(2, VOCABULARY, (count, completion), generator=draw)], 1)
    mask = torch.cat([torch.zeros(count, prompt, dtype=torch.bool), torch.arange(completion) < ends[:, None]], 1)
    attention = torch.cat([torch.arange(prompt) >= prompt - lengths[:, None], mask[:, prompt:]], 1)
    return action, attention, mask


def naive_scores(causal: Any, action: Tensor, attention: Tensor, mask: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of the masked tokens the plain way: one row at a time, all logits at once."""
    logps, entropies = [], []
    for ids, real, chosen in zip(action, attention, mask, strict=True):
        logits = causal(input_ids=ids[real][None], use_cache=False).logits[0].float() / temperature
        logp = torch.log_softmax(logits, -1)
        places = chosen[real].nonzero()[:, 0]
        logps.append(logp[places - 1].gather(-1, ids[real][places, None])[:, 0])
        entropies.append(-(logp.exp() * logp).sum(-1)[places - 1])
    return torch.cat(logps), torch.cat(entropies)
