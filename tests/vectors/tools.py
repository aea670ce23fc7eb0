"""What adapters share: JSON to float64 tensors and back, gradients, and the way to say that a case is not supported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Unsupported(Exception):
    """Raised by an adapter for a case the library does not cover (yet); its message says what is missing."""


def tensor(x: Any) -> Tensor:
    """Nested lists of numbers as a float64 constant."""
    return torch.tensor(x, dtype=torch.float64)


def boolean(x: Any) -> Tensor:
    """Nested lists of 0/1 or true/false as a mask."""
    return torch.tensor(x, dtype=torch.float64) != 0


def integer(x: Any) -> Tensor:
    """Nested lists as int64, for indices and group ids."""
    return torch.tensor(x, dtype=torch.int64)


def leaf(x: Any) -> Tensor:
    """Nested lists of numbers as a float64 tensor whose gradient is wanted."""
    return tensor(x).requires_grad_()


def gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    """Gradient of a scalar with respect to every leaf; zeros for a leaf it does not depend on."""
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return tuple(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True))


def plain(x: Any) -> Any:
    """Tensors, arrays and their containers as what JSON holds."""
    if isinstance(x, Tensor):
        return x.detach().tolist()
    if isinstance(x, Mapping):
        return {key: plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [plain(value) for value in x]
    return x.tolist() if hasattr(x, "tolist") else x  # numpy arrays and scalars
