"""Causal attention over many short rows on a CPU, where the fused kernel of PyTorch spends its time on blocks the rows do not fill.

Plain batched products with a hand-written gradient: a tenth faster on rows of up to a hundred tokens (docs/speed-language.md). The
probabilities ``[rows, heads, T, T]`` are kept for the backward pass, which is why long rows go to the fused kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LONGEST = 128


class _ShortAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: Tensor, query_heads: int, key_heads: int, future: Tensor) -> Tensor:
        rows, width, _, size = block.shape
        heads = block.transpose(1, 2)
        # the query heads that share a key head are laid one after another along the axis of positions
        query = (heads[:, :query_heads] * size**-0.5).reshape(rows * key_heads, -1, size)
        key = heads[:, query_heads : query_heads + key_heads].reshape(-1, width, size)
        value = heads[:, query_heads + key_heads :].reshape(-1, width, size)
        scores = torch.bmm(query, key.transpose(1, 2))
        scores.view(-1, width, width).add_(future)
        p = torch.softmax(scores, -1)
        ctx.save_for_backward(query, key, value, p)
        ctx.query_heads, ctx.key_heads = query_heads, key_heads
        return torch.bmm(p, value).view(rows, query_heads, width, size).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, p = ctx.saved_tensors
        rows, width, query_heads, size = grads[0].shape
        grad = grads[0].transpose(1, 2).reshape(len(key), -1, size)
        block = grad.new_empty(rows, width, query_heads + 2 * ctx.key_heads, size)
        of_query, of_key, of_value = block.transpose(1, 2).split([query_heads, ctx.key_heads, ctx.key_heads], 1)
        of_scores = torch.ops.aten._softmax_backward_data(torch.bmm(grad, value.transpose(1, 2)), p, -1, p.dtype)
        torch.mul(torch.bmm(of_scores, key).view(of_query.shape), size**-0.5, out=of_query)
        of_key.copy_(torch.bmm(of_scores.transpose(1, 2), query).view(of_key.shape))
        of_value.copy_(torch.bmm(p.transpose(1, 2), grad).view(of_value.shape))
        return block, None, None, None


def future_mask(width: int, device: torch.device) -> Tensor:
    """``[width, width]``: minus infinity where a key lies after its query, else 0."""
    return torch.full((width, width), -torch.inf, device=device).triu_(1)


def short_attention(block: Tensor, query_heads: int, key_heads: int, future: Tensor) -> Tensor:
    """Causal attention inside each row.

    Args:
        block: ``[rows, T, query + key + value heads, D]`` float32; padding lies to the right of a row's tokens.
        query_heads, key_heads: how the heads are divided; there are as many value heads as key heads.
        future: from :func:`future_mask`.

    Returns:
        ``[rows, T, query heads, D]``.
    """
    return _ShortAttention.apply(block, query_heads, key_heads, future)
