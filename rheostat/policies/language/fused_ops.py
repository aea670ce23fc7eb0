"""Three small operators of decoder-only language models with hand-written gradients: norm, rotary embedding, gated MLP.

A tiny model on a CPU spends as long in the chains of element-wise operators around its matrix products as in the products themselves. Each
operator here does in two to five passes over memory what the textbook form (and its autograd graph) does in ten to thirty, and saves at
most one tensor for the backward pass. Statistics of the norm are float32 whatever the input; results have the input's dtype.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """``x / rms(x)`` and ``1 / rms(x)`` (float32, last axis kept as 1)."""
    x = x.float()
    inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return x * inverse, inverse


def _normalise_backward(grad: Tensor, unit: Tensor, inverse: Tensor) -> Tensor:
    """Gradient through :func:`_normalise`: remove the component along the normalised vector, then scale."""
    along = (grad * unit).mean(-1, keepdim=True)
    return torch.addcmul(grad, unit, along, value=-1).mul_(inverse)


def _rotate_into(out: Tensor, x: Tensor, cos: Tensor, sin: Tensor, direction: float) -> None:
    """Write the rotation of ``x`` ``[N, heads, D]`` by the angles ``[N, 1, D / 2]`` into ``out`` (a view is fine)."""
    half = x.shape[-1] // 2
    a, b, left, right = x[..., :half], x[..., half:], out[..., :half], out[..., half:]
    torch.mul(a, cos, out=left)
    left.addcmul_(b, sin, value=-direction)
    torch.mul(b, cos, out=right)
    right.addcmul_(a, sin, value=direction)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        unit, inverse = _normalise(x, eps)
        ctx.save_for_backward(unit, inverse, weight)
        ctx.dtype = x.dtype
        return unit.to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        unit, inverse, weight = ctx.saved_tensors
        grad = grads[0].float()
        grad_weight = (grad * unit).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        return _normalise_backward(grad * weight, unit, inverse).to(ctx.dtype), grad_weight, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last axis of ``[N, C]`` (Zhang and Sennrich, 2019), times ``weight`` ``[C]``."""
    if torch.is_grad_enabled():
        return _RMSNorm.apply(x, weight, eps)
    return _normalise(x, eps)[0].to(x.dtype).mul_(weight)


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, rotated: int, eps: float) -> Tensor:
        out = torch.empty_like(qkv)
        x = qkv[:, :rotated]
        unit = inverse = None
        if weight is not None:
            unit, inverse = _normalise(x, eps)
            x = unit.to(qkv.dtype) * weight
        _rotate_into(out[:, :rotated], x, cos, sin, 1.0)
        out[:, rotated:] = qkv[:, rotated:]
        ctx.save_for_backward(weight, cos, sin, unit, inverse)
        ctx.rotated = rotated
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, cos, sin, unit, inverse = ctx.saved_tensors
        grad, rotated, grad_weight = grads[0], ctx.rotated, None
        out = torch.empty_like(grad)
        _rotate_into(out[:, :rotated], grad[:, :rotated], cos, sin, -1.0)
        out[:, rotated:] = grad[:, rotated:]
        if weight is not None:
            turned = out[:, :rotated].float()
            grad_weight = (turned * unit).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
            out[:, :rotated] = _normalise_backward(turned * weight, unit, inverse)
        return out, grad_weight, None, None, None, None


def rotary(qkv: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, rotated: int, eps: float) -> Tensor:
    """Norm (Qwen3) and rotary position embedding (Su et al., 2021, half-split layout) of the query and key heads.

    Args:
        qkv: ``[N, heads, D]``, query heads, then key heads, then value heads.
        weight: ``[rotated, D]`` of the per-head norm, or None for models without one.
        cos, sin: ``[N, 1, D / 2]`` of the angles of each token's position, in the dtype of ``qkv``.
        rotated: number of query and key heads; the value heads pass through.
        eps: of the norm.

    Returns:
        ``[N, heads, D]``, a new tensor.
    """
    if torch.is_grad_enabled():
        return _Rotary.apply(qkv, weight, cos, sin, rotated, eps)
    out = torch.empty_like(qkv)
    x = qkv[:, :rotated]
    if weight is not None:
        x = _normalise(x, eps)[0].to(qkv.dtype).mul_(weight)
    _rotate_into(out[:, :rotated], x, cos, sin, 1.0)
    out[:, rotated:] = qkv[:, rotated:]
    return out


class _GatedSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grads[0] * up, gate), F.silu(gate).mul_(grads[0])


def gated_silu(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) * up`` (Shazeer, 2020); the activation is computed again in the backward pass instead of kept."""
    return _GatedSilu.apply(gate, up) if torch.is_grad_enabled() else F.silu(gate).mul_(up)
