"""Matrix products on the faster of the two CPU libraries inside PyTorch.

PyTorch sends float32 products to Intel's MKL, which does not use AVX-512 on processors of other makers: on a Zen 5 core it reaches 90
GFLOP/s on the shapes of a small language model, where oneDNN (in the same PyTorch, used by ``torch.compile``) reaches 215. On a Zen 3 core,
which has no AVX-512, both reach about 65, and MKL's calls are shorter. The choice depends on the processor only, never on a timing, so a
run repeats bit for bit on its machine.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 2**19  # multiply-adds below which oneDNN's longer call costs more than its faster product saves
WIDEST = 256  # width of a weight gradient beyond which MKL is the faster one again (its long inner axis falls out of oneDNN's cache)


def usual_above(count: int) -> int:
    """The smallest usual number of rows that is not below ``count``: there are sixteen between a power of two and the next.

    oneDNN compiles a kernel of a quarter to half a megabyte for every new shape and never frees it, so the number of shapes must be bounded
    however long a run is. Callers on the hot path round their sizes up (:mod:`~rheostat.policies.language.packing`, decoding); what is
    left over elsewhere goes to MKL.
    """
    step = 1 << max(4, count.bit_length() - 5)
    return -(-count // step) * step


def usual_below(count: int) -> int:
    """The largest usual number of rows that is not above ``count``; 0 below 16."""
    step = 1 << max(4, count.bit_length() - 5)
    return count // step * step


@cache
def onednn_is_faster() -> bool:
    """Whether this is an x86 processor with AVX-512 that MKL does not favour, under a PyTorch that offers oneDNN's product."""
    try:
        processor = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    offered = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return offered and "AuthenticAMD" in processor and "avx512f" in processor


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` by oneDNN, which needs dense matrices: strided ones go to a reference loop, 1000 times slower."""
    if not weight.is_contiguous() and not weight.t().is_contiguous():
        weight = weight.contiguous()
    most = usual_below(len(x))
    if most == len(x):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    rest = F.linear(x[most:], weight, bias)  # at most a sixteenth, by MKL
    return torch.cat([torch.ops.mkldnn._linear_pointwise(x[:most], weight, bias, "none", [], ""), rest]) if most else rest


def _outer(narrow: Tensor, wide: Tensor) -> Tensor:
    """``narrow.T @ wide`` of ``[N, a]`` and ``[N, b]``."""
    most = usual_below(len(wide))
    if wide.shape[1] > WIDEST or not most:
        return narrow.t() @ wide
    found = torch.ops.mkldnn._linear_pointwise(narrow[:most].t(), wide[:most].t(), None, "none", [], "")
    return found if most == len(wide) else found.addmm_(narrow[most:].t(), wide[most:])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        grad_x = _product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        grad_weight = None
        if ctx.needs_input_grad[1]:  # the narrow factor goes first
            narrow, wide = (grad, x) if grad.shape[1] <= x.shape[1] else (x, grad)
            grad_weight = _outer(narrow, wide)
            grad_weight = grad_weight if narrow is grad else grad_weight.t()
        return grad_x, grad_weight, grad.sum(0) if ctx.needs_input_grad[2] else None


def by_onednn(rows: int, weights: int, x: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    """Whether the product of ``rows`` rows like ``x`` with a matrix of so many weights goes to oneDNN."""
    return rows * weights >= SMALLEST and x.dtype == dtype == torch.float32 and x.device.type == "cpu" and onednn_is_faster()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` of ``x`` ``[N, in]`` and ``weight`` ``[out, in]``, by whichever library is faster here."""
    if not by_onednn(x.shape[0], weight.numel(), x, weight.dtype):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias) if torch.is_grad_enabled() else _product(x, weight, bias)
