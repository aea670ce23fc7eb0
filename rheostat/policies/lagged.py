"""A policy as it was some updates ago, and the copies of parameters that it needs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rheostat.policies.language.model import LanguagePolicy


class ParameterHistory:
    """Copies of the parameters of the last ``lag`` + 1 policies.

    Args:
        lag: updates to look back.
        first: tensors of the policy at the start.
    """

    def __init__(self, lag: int, first: Sequence[Tensor]) -> None:
        self.lag = lag
        self.kept: list[list[Tensor]] = []
        self.push(first)

    def push(self, parts: Sequence[Tensor]) -> None:
        """Remember the tensors of a new policy (copied)."""
        self.kept = [*self.kept, [part.detach().clone() for part in parts]][-(self.lag + 1) :]

    @property
    def oldest(self) -> list[Tensor]:
        """The tensors of ``lag`` updates ago, or of the start while there were fewer updates."""
        return self.kept[0]

    @torch.no_grad()
    def write_oldest(self, parts: Sequence[Tensor]) -> None:
        """Copy the oldest tensors into other tensors of the same shapes."""
        for target, source in zip(parts, self.oldest, strict=True):
            target.copy_(source)

    @property
    def age(self) -> int:
        """Updates between the oldest tensors and those of the present policy."""
        return len(self.kept) - 1

    def state_dict(self) -> dict[str, Any]:
        """All copies."""
        return {"kept": [list(parts) for parts in self.kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load saved copies."""
        self.kept = [list(parts) for parts in state["kept"]]


class RefreshedParameters(ParameterHistory):
    """One copy of the parameters, which is taken anew after every so many updates.

    Args:
        every: updates between two copies; 0 keeps the first.
        first: tensors of the policy at the start.
    """

    def __init__(self, every: int, first: Sequence[Tensor]) -> None:
        self.every, self._age = every, -1
        super().__init__(0, first)

    def push(self, parts: Sequence[Tensor]) -> None:
        """Count a new policy, and copy its tensors where a copy is due."""
        self._age += 1
        if not self.kept or (self.every and self._age == self.every):
            self._age = 0
            super().push(parts)

    @property
    def age(self) -> int:
        """Updates since the copy was taken."""
        return self._age

    def state_dict(self) -> dict[str, Any]:
        """The copy and its age."""
        return super().state_dict() | {"age": self._age}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved copy."""
        super().load_state_dict(state)
        self._age = state["age"]


class LaggedPolicy:
    """A second copy of a language policy, with earlier trainable weights.

    Args:
        policy: the learned one, at its start.
        history: from its first weights to those that are kept.
    """

    def __init__(self, policy: LanguagePolicy, history: Callable[[Sequence[Tensor]], ParameterHistory]) -> None:
        self.copy = copy.deepcopy(policy).requires_grad_(False)
        self.names = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
        self.history = history(self._weights(policy))

    def _weights(self, policy: LanguagePolicy) -> list[Tensor]:
        parameters = dict(policy.named_parameters())
        return [parameters[name] for name in self.names]

    def remember(self, policy: LanguagePolicy) -> None:
        """Remember the parameters after an update of the policy."""
        self.history.push(self._weights(policy))

    def acting(self) -> LanguagePolicy:
        """The policy that acts now."""
        self.history.write_oldest(self._weights(self.copy))
        return self.copy
