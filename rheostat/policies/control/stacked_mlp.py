"""K multilayer perceptrons with ReLU between their layers as one operation: batched products forward, and backward by hand.

Networks of this size spend as much time between the products as in them. One node of the graph instead of three per layer and network keeps
every activation once, and ReLU works in place. Gradients of gradients are not offered.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def _forward(x: Tensor, weights: tuple[Tensor, ...], biases: tuple[Tensor, ...]) -> list[Tensor]:
    """The input and the output of every layer, each ``[K, B, width]``."""
    found = [x.expand(len(weights[0]), -1, -1) if x.dim() == 2 else x]
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        made = torch.baddbmm(bias, found[-1], weight.transpose(1, 2))
        found.append(made.relu_() if index < len(weights) - 1 else made)
    return found


class _Perceptrons(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: int, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[:layers], parameters[layers:]
        *inputs, found = _forward(x, weights, biases)
        ctx.save_for_backward(*inputs, *weights)
        ctx.layers, ctx.shared = layers, x.dim() == 2
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), layers = grads, ctx.layers
        inputs, weights = ctx.saved_tensors[:layers], ctx.saved_tensors[layers:]
        wanted_x, wanted = ctx.needs_input_grad[0], ctx.needs_input_grad[2:]
        found: list[Tensor | None] = [None] * (2 * layers)
        for index in reversed(range(layers)):
            if wanted[index]:
                found[index] = torch.bmm(grad.transpose(1, 2), inputs[index])
            if wanted[layers + index]:
                found[layers + index] = grad.sum(1, keepdim=True)
            if index or wanted_x:
                grad = torch.bmm(grad, weights[index])
            if index:
                torch.ops.aten.threshold_backward.grad_input(grad, inputs[index], 0, grad_input=grad)
        if not wanted_x:
            return None, None, *found
        return grad.sum(0) if ctx.shared else grad, None, *found


def perceptrons(x: Tensor, weights: tuple[Tensor, ...], biases: tuple[Tensor, ...]) -> Tensor:
    """All networks on the same rows, or each on rows of its own.

    Args:
        x: ``[B, inputs]``, or ``[K, B, inputs]``.
        weights: per layer ``[K, after, before]``.
        biases: per layer ``[K, 1, after]``.

    Returns:
        ``[K, B, outputs]``.
    """
    if torch.is_grad_enabled():
        return _Perceptrons.apply(x, len(weights), *weights, *biases)
    return _forward(x, weights, biases)[-1]
