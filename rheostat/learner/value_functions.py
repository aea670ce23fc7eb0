"""The critics of a soft policy as functions of the state, and their gradients: what a value-aware model is judged by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

Which = Literal["all", "targets"]
CHUNK = 4096
"""Rows whose gradients are computed at once."""


class ValueFunctions:
    """``V_k(s) = Q_k(s, the policy's deterministic action at s)`` of raw observations, critics first, then target critics.

    Weights of critics and policy are constants, and so is the action: the gradient flows to the observation through the critics alone.

    Args:
        context: of the learner.
        which: critics and target critics, or these alone.
    """

    def __init__(self, context: Any, which: Which) -> None:
        self.context = context
        self.names = ("critics", "target critics") if which == "all" else ("target critics",)

    def __call__(self, observation: Tensor) -> Tensor:
        """Values ``[K, N]`` of ``[N, n]``."""
        seen = self.context.see(observation)
        with torch.no_grad():
            action = self.context.models["policy"].distribution(seen).mode()
        networks = [self.context.models[name].network for name in self.names]
        with constant(networks):
            return torch.cat([network(seen, action) for network in networks])

    def gradients(self, observation: Tensor) -> Tensor:
        """``dV_k/ds`` at ``[N, n]``, ``[K, N, n]``; constants."""
        return torch.cat([self._gradients(part) for part in observation.split(CHUNK)], 1)

    def _gradients(self, observation: Tensor) -> Tensor:
        inputs = observation.detach().requires_grad_()
        with torch.enable_grad():
            values = self(inputs)
            found = [torch.autograd.grad(value.sum(), inputs, retain_graph=k + 1 < len(values))[0] for k, value in enumerate(values)]
        return torch.stack(found)


@contextmanager
def constant(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, the weights of networks are constants and their inputs are not (the critics' own ``frozen`` fixes observations, too)."""
    learned = [parameter for network in networks for parameter in network.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_()
