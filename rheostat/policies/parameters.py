"""All parameters of a network as one vector.

Small control networks spend their time in per-tensor overhead: one flat vector makes the optimiser step, the gradient norm and the copy of
one policy into another a handful of operations, whatever the number of layers.
"""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from rheostat.errors import RheostatError

Network = TypeVar("Network", bound=nn.Module)


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

    def clip_gradient(self, max_norm: float) -> float:
        """Scale the gradient to a global norm of at most ``max_norm``; returns the norm before clipping."""
        norm = torch.linalg.vector_norm(self.gradient).item()
        if not norm + 1e-6 <= max_norm:
            self.gradient.mul_(max_norm / (norm + 1e-6))
        return norm

    def copy_from(self, other: ParameterVector) -> None:
        """Copy the other network's parameters (not its gradient)."""
        with torch.no_grad():
            self.vector.copy_(other.vector)


class Adam:
    """``torch.optim.Adam(..., fused=True)`` over one vector, without the bookkeeping that costs three times as much as the step itself.

    The numbers, ``param_groups`` and ``state`` are those of PyTorch's optimiser.

    Args:
        vector: the parameter to move, with a gradient.
        lr: step size.
        eps: added to the root of the second moment.
    """

    def __init__(self, vector: nn.Parameter, lr: float, eps: float = 1e-5) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": [vector], "lr": lr, "eps": eps}]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}

    @property
    def moments(self) -> dict[str, Tensor]:
        """``step``, ``exp_avg`` and ``exp_avg_sq``; zeros before the first step."""
        (vector,) = self.param_groups[0]["params"]
        if not self.state:
            moments = {"exp_avg": torch.zeros_like(vector.data), "exp_avg_sq": torch.zeros_like(vector.data)}
            self.state[vector] = {"step": torch.zeros((), device=vector.device)} | moments
        return self.state[vector]

    @torch.no_grad()
    def step(self) -> None:
        """Move down the gradient."""
        group, state = self.param_groups[0], self.moments
        (vector,) = group["params"]
        adam(
            [vector],
            [vector.grad],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )


Optimizer = torch.optim.Optimizer | Adam


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """The moments of an optimiser over one :class:`ParameterVector`, as plain tensors (the learning rate belongs to the schedule)."""
    (parameter,) = optimizer.param_groups[0]["params"]
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in optimizer.state.get(parameter, {}).items()}


def load_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Continue an optimiser from :func:`optimizer_state`."""
    (parameter,) = optimizer.param_groups[0]["params"]
    optimizer.state[parameter] = {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}
    if not state:
        del optimizer.state[parameter]


def buffers_of(network: nn.Module) -> dict[str, Any]:
    """What a network keeps besides its parameters (the statistics of a batch normalisation), as an entry of a state; empty without any."""
    names = {name for name, _ in network.named_parameters()}
    found = {name: value.clone() for name, value in network.state_dict().items() if name not in names}
    return {"buffers": found} if found else {}


def load_buffers(network: nn.Module, state: dict[str, Any]) -> None:
    """Continue from :func:`buffers_of`."""
    network.load_state_dict(state.get("buffers", {}), strict=False)


class OptimizedNetwork(Generic[Network]):
    """A network with its parameters in one vector, and the Adam that moves it.

    Args:
        network: whose parameters are laid out anew.
        learning_rate: Adam step size.
        eps: added to the root of the second moment; 1e-8 in the codes of SAC and its relatives.
    """

    def __init__(self, network: Network, learning_rate: float, *, eps: float = 1e-8) -> None:
        self.network = network
        self.parameters = ParameterVector(network)
        self.optimizer = Adam(self.parameters.vector, learning_rate, eps=eps)

    def step(self, loss: Tensor, *, max_grad_norm: float | None = None) -> float:
        """One step down a loss of this network alone, a scalar; returns the gradient norm before clipping (NaN where not clipped)."""
        self.parameters.gradient.zero_()
        loss.backward()
        norm = float("nan") if max_grad_norm is None else self.parameters.clip_gradient(max_grad_norm)
        self.optimizer.step()
        return norm

    @property
    def learning_rate(self) -> float:
        """Of the next step; schedules set it."""
        return float(self.optimizer.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.optimizer.param_groups[0]["lr"] = value

    def state_dict(self) -> dict[str, Any]:
        """Parameters, moments and learning rate."""
        return {
            "parameters": self.parameters.vector.detach(),
            "optimizer": optimizer_state(self.optimizer),
            "learning_rate": self.learning_rate,
        } | buffers_of(self.network)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        with torch.no_grad():
            self.parameters.vector.copy_(state["parameters"])
        load_buffers(self.network, state)
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.learning_rate = state["learning_rate"]


class PolyakCopy(Generic[Network]):
    """A target network: a slowly moving copy, which losses take as a constant.

    Args:
        source: what it follows.
    """

    def __init__(self, source: OptimizedNetwork[Network]) -> None:
        self.source = source
        self.network: Network = copy.deepcopy(source.network).requires_grad_(True)
        self.parameters = ParameterVector(self.network)
        self.parameters.vector.requires_grad_(False)
        self.network.requires_grad_(False)

    def update_target(self, tau: float) -> None:
        """``target <- (1 - tau) target + tau source`` (Polyak averaging); 1 copies."""
        with torch.no_grad():
            self.parameters.vector.lerp_(self.source.parameters.vector, tau)
            for mine, theirs in zip(self.network.buffers(), self.source.network.buffers(), strict=True):
                mine.copy_(theirs)  # statistics of a batch normalisation are no weights: they are taken over

    def state_dict(self) -> dict[str, Any]:
        """Its parameters and buffers."""
        return {"parameters": self.parameters.vector.detach()} | buffers_of(self.network)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        with torch.no_grad():
            self.parameters.vector.copy_(state["parameters"])
        load_buffers(self.network, state)
