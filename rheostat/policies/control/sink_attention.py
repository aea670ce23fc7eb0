"""Attention with a sink: one more key and value per head, so that a head can attend to nothing (Sink-KV of arXiv 2410.02751).

    weights = softmax([q . k_0, q . k_1, ..., q . k_S] / sqrt(d)),      output = a_0 v_0 + sum_j a_j v_j

With k_0 = v_0 = 0 this is softmax-plus-one: ``exp(z_j) / (1 + sum_i exp(z_i))``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

Sink = tuple[Tensor, Tensor]
"""Key and value ``[H, 1, d]`` each."""


def sink_attention(query: Tensor, key: Tensor, value: Tensor, visible: Tensor, sink: Sink | None = None) -> Tensor:
    """The output of every query, ``[B, H, T, d]``.

    Args:
        query: ``[B, H, T, d]``.
        key: ``[B, H, S, d]``.
        value: ``[B, H, S, d]``.
        visible: bool ``[B or 1, T, S]``, which keys a query sees; every query sees the sink. Without a sink each must see a key.
        sink: one key and value more.
    """
    if sink is not None:
        (k0, v0), rows = sink, len(key)
        key = torch.cat([k0.expand(rows, -1, -1, -1), key], 2)
        value = torch.cat([v0.expand(rows, -1, -1, -1), value], 2)
        visible = pad(visible, (1, 0), value=True)
    return scaled_dot_product_attention(query, key, value, attn_mask=visible.unsqueeze(1))


def visible_steps(seen: Tensor, episode: Tensor | None = None) -> Tensor:
    """Which steps each step sees: itself, and all before it that count. Always causal.

    Args:
        seen: bool ``[B, T]``, False for steps that no other sees.
        episode: int64 ``[B, T]``, the number of the episode; given, steps see those of their own alone.

    Returns:
        Bool ``[B or 1, T, T]``, query by key.
    """
    steps = seen.shape[1]
    causal = torch.ones(steps, steps, dtype=torch.bool, device=seen.device).tril()
    if episode is None and bool(seen.all()):
        return causal.unsqueeze(0)
    found = causal & seen.unsqueeze(1)
    if episode is not None:
        found = found & (episode.unsqueeze(2) == episode.unsqueeze(1))
    return found | torch.eye(steps, dtype=torch.bool, device=seen.device)


def counters(begins: Tensor, shift: int = 0) -> tuple[Tensor, Tensor]:
    """The number of every step in its episode, and of its episode in the trial, from 0 (a beginning in the first step is not counted).

    Args:
        begins: bool ``[B, T]``, the first step of an episode.
        shift: added to both; 1 where a sink holds index 0.

    Returns:
        int64 ``[B, T]`` each.
    """
    time = torch.arange(begins.shape[1], device=begins.device).expand(begins.shape)
    position = time - torch.where(begins, time, 0).cummax(1).values
    episode = pad(begins[:, 1:].long().cumsum(1), (1, 0)) if begins.shape[1] else begins.long()
    return position + shift, episode + shift


def rotated(x: Tensor, episode: Tensor, base: float = 10_000.0) -> Tensor:
    """Queries or keys turned by the angle of their episode (rotary embedding, Su et al. 2021): halves of the head are the two axes.

    Args:
        x: ``[B, H, T, d]``, d even.
        episode: int64 ``[B, T]``.
        base: of the wavelengths.
    """
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, dtype=torch.float32, device=x.device) / half)
    angle = (episode.unsqueeze(-1) * frequency).unsqueeze(1).to(x.dtype)  # [B, 1, T, d / 2]
    cosine, sine = angle.cos(), angle.sin()
    first, second = x.split(half, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
