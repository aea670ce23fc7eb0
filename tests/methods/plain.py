"""What the tests of replay and offline methods compare with: networks taken apart into ordinary tensors, moved by PyTorch's own Adam."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rheostat.trajectories import Transitions
from tests.tiny_control import built, one_batch, random_data

DELAYED = "rheostat/Probe-DelayedReward-Continuous-v0"
"""Every second step terminates."""
LIMITED = "rheostat/Probe-TimeLimit-Continuous-v0"
"""Nothing terminates, every fifth step is cut."""


class Twin:
    """A copy of a :class:`~rheostat.policies.parameters.OptimizedNetwork` with parameters of its own and ``torch.optim.Adam``."""

    def __init__(self, trained: Any) -> None:
        self.network: Any = copy.deepcopy(trained.network)
        for parameter in self.network.parameters():
            parameter.data = parameter.data.clone()
        self.adam = torch.optim.Adam(self.network.parameters(), lr=trained.learning_rate, eps=1e-8)

    def __call__(self, *inputs: Tensor) -> Tensor:
        found: Tensor = self.network(*inputs)
        return found

    def step(self, loss: Tensor) -> None:
        """Down a loss."""
        self.adam.zero_grad()
        loss.backward(inputs=list(self.network.parameters()))
        self.adam.step()


def slow_copy(target: Any) -> nn.Module:
    """Of a :class:`~rheostat.policies.parameters.PolyakCopy`."""
    network: nn.Module = copy.deepcopy(target.network)
    for parameter in network.parameters():
        parameter.data = parameter.data.clone()
    return network


def follow(slow: nn.Module, fast: Any, tau: float) -> None:
    """Polyak averaging."""
    with torch.no_grad():
        for old, new in zip(slow.parameters(), fast.network.parameters(), strict=True):
            old.copy_((1 - tau) * old + tau * new)


@contextmanager
def precise() -> Iterator[None]:
    """Double precision, where a step that agrees agrees to the last digits but few."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def same_parameters(network: Any, other: Any) -> bool:
    """Whether two networks agree to double precision."""
    pairs = zip(network.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(one, two, rtol=1e-8, atol=1e-8) for one, two in pairs)


def agree(
    slug: str, reference: Callable[[Any], tuple[Callable[[Transitions], None], Callable[[], dict[str, bool]]]], task: str, **options: Any
) -> None:
    """Three gradient steps of a method against a plain one.

    Args:
        slug: the method.
        reference: from the method, before it moves: a plain gradient step, and what agrees afterwards by name.
        task: where.
        options: of the method.
    """
    random_data(task)  # written in single precision, as the replay is: gamma is exact in it
    with precise():
        method = built(slug, task, batch_size=16, hidden=(8, 8), learning_rate=1e-2, tau=0.1, gamma=0.75, **options)
        step, compare = reference(method)
        for _ in range(3):
            rows = one_batch(method)
            step(rows)
            method.gradient_step(rows)
            found = compare()
            assert all(found.values()), found
        method.close()
