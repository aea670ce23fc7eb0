"""What the training of tiny base models shares: a new network, one supervised step, and a plain loop that samples from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rheostat.streams import derive_seed
from rheostat.tasks.language.recipes import ModelSize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

IGNORED = -100
"""The label of a token that is no target."""
POSITIONS = 512
"""Of a tiny base model."""

Report = Callable[[int, int, float], None]
"""Called with (steps done, steps at most, loss)."""


def new_network(size: ModelSize, tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """A Qwen3 decoder with random weights (the global random streams are left as they were)."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.head_size,
        intermediate_size=size.mlp,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "base model"))
        return Qwen3ForCausalLM(config).train()


def new_optimiser(model: Qwen3ForCausalLM, rate: float = 1e-3) -> torch.optim.Optimizer:
    """AdamW without weight decay, as every phase begins."""
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, betas=(0.9, 0.95), fused=True)


def supervised_step(
    model: Qwen3ForCausalLM, optimiser: torch.optim.Optimizer, buckets: list[tuple[Tensor, Tensor]], rate: float, clip: float
) -> float:
    """One update; the loss is the mean over all targets of the batch, in nats.

    Args:
        model: in training.
        optimiser: of its weights.
        buckets: ids [b, t] int64, padded on the right, and labels [b, t] int64, :data:`IGNORED` where there is no target.
        rate: learning rate of this step.
        clip: largest norm of the gradient.
    """
    for group in optimiser.param_groups:
        group["lr"] = rate
    targets = sum(int((labels != IGNORED).sum()) for _, labels in buckets)
    loss = 0.0
    for ids, labels in buckets:  # padding is on the right, so the causal mask alone hides it
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
        share = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum") / targets
        share.backward()
        loss += share.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimiser.step()
    optimiser.zero_grad()
    return loss


@torch.no_grad()
def sample_text(
    model: Any, tokenizer: PreTrainedTokenizerFast, prompts: list[str], max_new_tokens: int, generator: torch.Generator
) -> list[str]:
    """One completion per prompt at temperature 1, without special tokens: a plain loop for measuring a base, no engine."""
    batch = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    drawn = sample_ids(model, tokenizer, batch["input_ids"], batch["attention_mask"], max_new_tokens, generator)
    return tokenizer.batch_decode(drawn, skip_special_tokens=True)


@torch.no_grad()
def sample_ids(
    model: Any, tokenizer: PreTrainedTokenizerFast, ids: Tensor, attention: Tensor, max_new_tokens: int, generator: torch.Generator
) -> Tensor:
    """The same from token ids ``[B, T]``, padded on the left; returns ids ``[B, t]`` with the ending token, padded behind it."""
    from transformers import DynamicCache

    positions = (attention.cumsum(1) - 1).clamp(min=0)
    cache, finished = DynamicCache(), torch.zeros(len(ids), dtype=torch.bool)
    drawn = []
    for _ in range(max_new_tokens):
        logits = model(input_ids=ids, attention_mask=attention, position_ids=positions, past_key_values=cache, use_cache=True).logits[:, -1]
        ids = torch.multinomial(logits.float().softmax(-1), 1, generator=generator)
        ids[finished] = tokenizer.pad_token_id
        drawn.append(ids)
        finished |= ids[:, 0] == tokenizer.eos_token_id
        if finished.all():
            break
        attention = torch.cat([attention, torch.ones_like(ids)], 1)
        positions = positions[:, -1:] + 1
    return torch.cat(drawn, 1)
