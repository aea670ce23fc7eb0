"""Models of language methods: trainable, frozen, refreshed and lagged ones.

A learner holds ``{name: model}``. Every model is bound once to the context, in order, so that later ones may be copies of earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.parts import Context
from rheostat.policies.lagged import LaggedPolicy, ParameterHistory, RefreshedParameters
from rheostat.policies.optimizers import language_optimizer, load_many, save_many


class Trainable:
    """A language model and its optimiser; bound to the network that the context was built with.

    Args:
        learning_rate: AdamW step size.
        weight_decay: of matrices.
        max_grad_norm: global gradient norm limit.
    """

    def __init__(self, learning_rate: float, weight_decay: float = 0.0, max_grad_norm: float = 1.0) -> None:
        self.learning_rate, self.weight_decay, self.max_grad_norm = learning_rate, weight_decay, max_grad_norm
        self.network: Any = None
        self.optimizer: Any = None

    def bind(self, context: Any, name: str) -> None:
        """Take the network of this name and build its optimiser."""
        self.network = context.networks[name]
        self.optimizer = language_optimizer(self.network, self.learning_rate, self.weight_decay)

    @property
    def parameters(self) -> list[Tensor]:
        """The trained network."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def set_learning_rate(self, rate: float) -> None:
        """Learning rate of the next steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def step(self) -> Tensor:
        """Clip the gradient norm and take an optimiser step, unless the norm is not finite; returns the norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        if bool(norm.isfinite()):
            self.optimizer.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimiser state."""
        return {"network": dict(self.network.state_dict()), "optimizer": save_many(self.optimizer)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load weights and optimiser state."""
        self.network.load_state_dict(state["network"])
        load_many(self.optimizer, state["optimizer"])


class Frozen:
    """A language model as it was: at the start, or at an update where it is refreshed.

    Args:
        of: name of the model it is a copy of.
        refresh: of the number of updates made, whether the copy is taken anew now; None never does.
    """

    begins_as_copy: ClassVar[bool] = True

    def __init__(self, of: str = "policy", refresh: Callable[[int], bool] | None = None) -> None:
        self.of, self.refresh = of, refresh
        self.network: Any = None
        self._source: Any = None
        self._refreshed = False

    def bind(self, context: Any, name: str) -> None:
        """Copy the model (with adapters: the base model below them), or take the reference that the run names."""
        self._source = context.models[self.of].network
        named = context.setup.reference if name == "reference" and self.refresh is None else None
        self.network = (self._source if named is None else named).reference()

    def after_update(self, context: Context) -> None:
        """Copy the model again where a refresh is due."""
        if self.refresh is not None and self.refresh(context.updates):
            self._copy_whole()

    def _copy_whole(self) -> None:
        self.network, self._refreshed = self._source.reference(whole=True), True

    def state_dict(self) -> dict[str, Any]:
        """Weights of the copy."""
        return {"refreshed": self._refreshed, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load saved weights."""
        if state["refreshed"]:
            self._copy_whole()
        self.network.load_state_dict(state["network"])


class Lagged:
    """A language model with earlier trainable weights.

    Args:
        updates: of so many updates ago; 0 with a refresh.
        of: name of the model that moves.
        refresh: instead, of the last update that this divides; 0: of the start. None: as ``updates`` says.
    """

    begins_as_copy: ClassVar[bool] = True

    def __init__(self, updates: int, of: str = "policy", refresh: int | None = None) -> None:
        self.updates, self.of, self.refresh = updates, of, refresh
        self._policy: Any = None
        self._source: Any = None

    def bind(self, context: Any, name: str) -> None:
        """Start as a copy of the model."""
        self._source = context.models[self.of].network
        history = partial(ParameterHistory, self.updates) if self.refresh is None else partial(RefreshedParameters, self.refresh)
        self._policy = LaggedPolicy(self._source, history)

    @property
    def age(self) -> int:
        """Updates between these weights and the present ones."""
        return int(self._policy.history.age)

    @property
    def network(self) -> Any:
        """The model of some updates ago."""
        return self._policy.acting()

    def after_update(self, context: Context) -> None:
        """Remember the weights after an update of the model."""
        self._policy.remember(self._source)

    def state_dict(self) -> dict[str, Any]:
        """The weights of the updates in between."""
        return self._policy.history.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load saved weights."""
        self._policy.history.load_state_dict(state)
