"""All parameters of a network as one vector.

Small control networks spend their time in per-tensor overhead: one flat vector makes the optimiser step, the gradient norm and the copy of
one policy into another a handful of operations, whatever the number of layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rheostat.errors import RheostatError


class ParameterVector:
    """The parameters of ``module`` laid out in one vector ``[P]``; the module keeps working, its tensors are views of it.

    Args:
        module: all of whose parameters are float32 (or all float64) on one device.

    Raises:
        RheostatError: no parameters, or mixed dtypes or devices.
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not parameters:
            raise RheostatError(f"The network {type(module).__name__} has no trainable parameters: there is nothing to learn.")
        kinds = {(parameter.dtype, parameter.device) for parameter in parameters}
        if len(kinds) > 1:
            raise RheostatError(f"The network {type(module).__name__} mixes dtypes or devices {sorted(map(str, kinds))}: use one of each.")
        values = torch.cat([parameter.detach().flatten() for parameter in parameters])
        self.vector = nn.Parameter(values)
        self.vector.grad = torch.zeros_like(values)
        offset = 0
        for parameter in parameters:
            end = offset + parameter.numel()
            parameter.data = self.vector.data[offset:end].view_as(parameter)
            parameter.grad = self.vector.grad[offset:end].view_as(parameter)
            offset = end

    def part(self, flat: Tensor, parameter: Tensor) -> Tensor:
        """The part of a vector ``[P]`` that belongs to one parameter of the module, in its shape: a view."""
        start = parameter.storage_offset()
        return flat[start : start + parameter.numel()].view_as(parameter)

    @property
    def gradient(self) -> Tensor:
        """``[P]``, where ``backward`` accumulates."""
        assert self.vector.grad is not None
        return self.vector.grad

    def clip_gradient(self, max_norm: float) -> Tensor:
        """Scale the gradient to a global norm of at most ``max_norm``; returns the norm before clipping (scalar tensor)."""
        norm = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def copy_from(self, other: ParameterVector) -> None:
        """Take over the other network's parameters (not its gradient)."""
        with torch.no_grad():
            self.vector.copy_(other.vector)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The moments of an optimiser over one :class:`ParameterVector`, as plain tensors (the learning rate belongs to the schedule)."""
    (parameter,) = optimizer.param_groups[0]["params"]
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in optimizer.state.get(parameter, {}).items()}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Continue an optimiser from :func:`optimizer_state`."""
    (parameter,) = optimizer.param_groups[0]["params"]
    optimizer.state[parameter] = {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}
    if not state:
        del optimizer.state[parameter]
