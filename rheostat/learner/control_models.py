"""Models of control by name: networks with their optimisers, target networks, who acted some updates ago, behaviour policies.

A learner binds its models in order. A model that is built here takes its network from ``context.networks`` where the user brings one,
else from a function of the context. What acts, is evaluated or is put on the meter answers three questions about observations as its
network reads them: ``distribution`` (the policy), ``exploring`` (the policy as it collects) and ``evaluated`` (the policy as it is
measured).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from rheostat.collect.control.behaviour_policy import BehaviourPolicy, LaggedActor
from rheostat.collect.control.normalise import RunningStatistics
from rheostat.errors import RheostatError
from rheostat.policies.control.fast_control import fast
from rheostat.policies.control.recurrent import EpisodeMemory, RecurrentActorCritic
from rheostat.policies.flops import matrix_weights
from rheostat.policies.parameters import (
    Adam,
    OptimizedNetwork,
    Optimizer,
    ParameterVector,
    PolyakCopy,
    load_optimizer_state,
    optimizer_state,
)

OWN_NETWORK = "the network that was handed over is as it is, so leave it alone"
"""Why an option of a network that the method makes cannot act."""
CONVOLUTIONS = "images are read by convolutions of a fixed shape, so leave it alone"
"""Why an option of hidden layers cannot act."""
Build = Callable[[Any], nn.Module]
"""From the learner's context to an untrained network."""


class TrainableNetwork(OptimizedNetwork[Any]):
    """A network whose parameters are one vector, and the Adam that moves it by autograd.

    Args:
        build: the untrained network.
        learning_rate: Adam step size.
        eps: added to the root of Adam's second moment.
    """

    def __init__(self, build: Build, learning_rate: float, *, eps: float = 1e-8) -> None:
        self._build, self._start = build, (learning_rate, eps)

    def bind(self, context: Any, name: str) -> None:
        """Build the network and lay its parameters out."""
        rate, eps = self._start
        super().__init__(self._build(context), rate, eps=eps)

    def distribution(self, seen: Tensor) -> Any:
        """The policy of unit actions, or of choices."""
        return self.network.distribution(seen)

    def exploring(self, seen: Tensor) -> Any:
        """The policy as it collects."""
        return self.distribution(seen)

    def evaluated(self, context: Any) -> Callable[[Tensor], Any]:
        """The policy as it is measured."""
        return self.distribution


class TargetNetwork(PolyakCopy[Any]):
    """A slow copy, which losses take as a constant: it follows by ``tau`` after every so many updates of the model.

    Args:
        of: name of the model.
        tau: share of the model in the copy when it follows; 1 copies.
        every: updates of the model per step of the copy.
    """

    begins_as_copy: ClassVar[bool] = True

    def __init__(self, of: str, tau: float, every: int = 1) -> None:
        self.of, self.tau, self.every = of, tau, every

    def bind(self, context: Any, name: str) -> None:
        """Begin with the model as it is now."""
        super().__init__(context.models[self.of])

    def after_update(self, context: Any) -> None:
        """The model has moved."""
        if context.updates_of(self.of) % self.every == 0:
            self.update_target(self.tau)


class PolicyNetwork:
    """Actor and critic in one vector with their fast form: what PPO's update moves with derivatives by hand.

    Args:
        build: the untrained network; a network of the user's (a module with ``distribution`` and ``value``) takes its place.
        learning_rate: step size.
        optimizer: Adam (epsilon 1e-5), or RMSprop as Stable-Baselines3's A2C configures it (alpha 0.99, epsilon 1e-5).
    """

    takes_network: ClassVar[bool] = True

    def __init__(self, build: Build, learning_rate: float, optimizer: Literal["adam", "rmsprop"] = "adam") -> None:
        self._build, self._rate, self._kind = build, learning_rate, optimizer

    def bind(self, context: Any, name: str) -> None:
        """Take the user's network or build one; count its weights."""
        self.policy: Any = context.networks.get(name) or self._build(context)
        self.parameters = ParameterVector(cast(nn.Module, self.policy))
        self.network: Any = fast(cast(Any, self.policy), self.parameters)
        self.optimizer: Optimizer
        if self._kind == "adam":
            self.optimizer = Adam(self.parameters.vector, self._rate, eps=1e-5)
        else:
            self.optimizer = torch.optim.RMSprop([self.parameters.vector], lr=self._rate, alpha=0.99, eps=1e-5)
        self.weights = matrix_weights(self.policy)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.optimizer.param_groups[0]["lr"] = value

    def distribution(self, seen: Tensor) -> Any:
        """The policy."""
        return self.network.distribution(seen)

    exploring = distribution

    def evaluated(self, context: Any) -> Callable[[Tensor], Any]:
        """The policy as it is measured."""
        return self.distribution

    def state_dict(self) -> dict[str, Any]:
        """Network and moments."""
        return {"network": dict(self.policy.state_dict()), "optimizer": optimizer_state(self.optimizer)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.policy.load_state_dict(state["network"])
        load_optimizer_state(self.optimizer, state["optimizer"])


class RecurrentPolicyNetwork(PolicyNetwork):
    """The same with a memory; a network of the user's is a :class:`~rheostat.policies.control.recurrent.RecurrentActorCritic`."""

    def bind(self, context: Any, name: str) -> None:
        """Take the user's network or build one.

        Raises:
            RheostatError: the user's network has no memory.
        """
        given = context.networks.get(name)
        if given is not None and not isinstance(given, RecurrentActorCritic):
            raise RheostatError(
                f"{context.who} trains a policy with a memory, and {type(given).__name__} has none: hand over a RecurrentActorCritic, or a "
                "subclass of it."
            )
        super().bind(context, name)

    def evaluated(self, context: Any) -> Callable[[Tensor], Any]:
        """The policy as it is measured: it begins with nothing to remember, and is told where to forget."""
        return EpisodeMemory(self.network)


class LaggedActorModel:
    """The policy of some updates ago with the observation statistics it read by.

    Args:
        updates: how many.
        of: name of the model that moves.
    """

    begins_as_copy: ClassVar[bool] = True

    def __init__(self, updates: int, of: str = "policy") -> None:
        self.lag, self.of = updates, of

    def bind(self, context: Any, name: str) -> None:
        """Begin with the model as it is now."""
        self._source = context.models[self.of]
        own = context.stores.get("observations")
        self._statistics = RunningStatistics(context.observation_space.shape) if own is None else own
        self.actor = LaggedActor(self._source.policy, self._source.parameters, self._statistics, self.lag)
        self.statistics = None if own is None else self.actor.statistics

    @property
    def network(self) -> Any:
        """The older policy's."""
        return self.actor.network

    def after_update(self, context: Any) -> None:
        """The policy has moved."""
        self.actor.remember(self._source.parameters, self._statistics)

    def exploring(self, seen: Tensor) -> Any:
        """The older policy."""
        return self.network.distribution(seen)

    def state_dict(self) -> dict[str, Any]:
        """Parameters and statistics of the updates in between."""
        return self.actor.history.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over saved copies."""
        self.actor.load_state_dict(state)


class Behaviour(BehaviourPolicy):
    """A copy of a policy that acts in its place and is moved by an update of its own (ROS, PROPS).

    Args:
        learning_rate: Adam step size, whose moments outlive restarts from the policy; None is plain gradient descent.
        of: name of the policy.
    """

    begins_as_copy: ClassVar[bool] = True

    def __init__(self, learning_rate: float | None = None, of: str = "policy") -> None:
        self._rate, self._of = learning_rate, of

    def bind(self, context: Any, name: str) -> None:
        """Begin as a copy."""
        super().__init__(context.models[self._of].policy, self._rate)

    def exploring(self, seen: Tensor) -> Any:
        """Who acts."""
        return self.network.distribution(seen)
