"""Models of control methods: networks with their optimisers, target networks, lagged policies and behaviour policies.

A learner binds its models in order. Each model takes its network from ``context.networks`` if the user has given one, and builds it
otherwise. A model that acts or is evaluated has three methods, all of normalised observations: ``distribution`` returns the policy,
``exploring`` the policy that collects data, and ``evaluated`` the policy that is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from rheostat.collect.control.behaviour_policy import BehaviourPolicy, LaggedActor
from rheostat.collect.control.normalise import RunningStatistics
from rheostat.errors import RheostatError
from rheostat.learner.own_networks import Adapt, own_policy
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


def own_hidden(context: Any, *names: str) -> dict[str, str]:
    """``hidden`` as an option that cannot act, where every network that it shapes was handed over."""
    return {"hidden": OWN_NETWORK} if set(names) <= set(context.networks) else {}


CONVOLUTIONS = "images are read by convolutions of a fixed shape, so leave it alone"
"""Why an option of hidden layers cannot act."""
Build = Callable[[Any], nn.Module]
"""From the learner's context to an untrained network."""


class TrainableNetwork(OptimizedNetwork[Any]):
    """A network whose parameters are one vector, and the Adam optimiser that updates it.

    Args:
        build: the untrained network.
        learning_rate: Adam step size.
        eps: added to the root of Adam's second moment.
        own: makes what is needed of a network of the user's; None where the method makes its own.
    """

    def __init__(self, build: Build, learning_rate: float, *, eps: float = 1e-8, own: Adapt | None = None) -> None:
        self._build, self._start, self._own = build, (learning_rate, eps), own

    @property
    def takes_network(self) -> bool:
        """Whether a network of the user's may take the place of the method's."""
        return self._own is not None

    def bind(self, context: Any, name: str) -> None:
        """Take the user's network or build one, and gather its parameters in one vector."""
        rate, eps = self._start
        given = context.networks.get(name)
        network = self._build(context) if given is None or self._own is None else self._own(given, context)
        super().__init__(network, rate, eps=eps)

    def distribution(self, seen: Tensor) -> Any:
        """The policy: a distribution of unit actions, or of discrete actions."""
        return self.network.distribution(seen)

    def exploring(self, seen: Tensor) -> Any:
        """The policy that collects data."""
        return self.distribution(seen)

    def evaluated(self, context: Any) -> Callable[[Tensor], Any]:
        """The policy that is evaluated."""
        return self.distribution


class TargetNetwork(PolyakCopy[Any]):
    """A target network: a copy of the model that is updated by Polyak averaging and carries no gradient.

    Args:
        of: name of the model.
        tau: weight of the model in each Polyak step; 1 copies the model.
        every: updates of the model per Polyak step.
    """

    begins_as_copy: ClassVar[bool] = True

    def __init__(self, of: str, tau: float, every: int = 1) -> None:
        self.of, self.tau, self.every = of, tau, every

    def bind(self, context: Any, name: str) -> None:
        """Start as a copy of the model."""
        super().__init__(context.models[self.of])

    def after_update(self, context: Any) -> None:
        """Update the target after an update of the model, if one is due."""
        if context.updates_of(self.of) % self.every == 0:
            self.update_target(self.tau)


class PolicyNetwork:
    """Actor and critic with their parameters in one vector, and a fast form whose gradients PPO's update computes by hand.

    Args:
        build: the untrained network; a network that the user has given (a module with ``distribution`` and ``value``) replaces it.
        learning_rate: step size.
        optimizer: Adam (epsilon 1e-5), or RMSprop as Stable-Baselines3's A2C configures it (alpha 0.99, epsilon 1e-5).
    """

    takes_network: ClassVar[bool] = True

    def __init__(self, build: Build, learning_rate: float, optimizer: Literal["adam", "rmsprop"] = "adam") -> None:
        self._build, self._rate, self._kind = build, learning_rate, optimizer

    def bind(self, context: Any, name: str) -> None:
        """Take the user's network or build one, and count its weights."""
        given = context.networks.get(name)
        self.policy: Any = self._build(context) if given is None else self.adapted(given, context)
        self.parameters = ParameterVector(self.policy)
        self.network: Any = fast(cast(Any, self.policy), self.parameters)
        self.optimizer: Optimizer
        if self._kind == "adam":
            self.optimizer = Adam(self.parameters.vector, self._rate, eps=1e-5)
        else:
            self.optimizer = torch.optim.RMSprop([self.parameters.vector], lr=self._rate, alpha=0.99, eps=1e-5)
        self.weights = matrix_weights(self.policy)

    def adapted(self, given: nn.Module, context: Any) -> nn.Module:
        """The user's network, tried."""
        return own_policy(given, context)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.optimizer.param_groups[0]["lr"] = value

    def distribution(self, seen: Tensor) -> Any:
        """The policy."""
        return self.network.distribution(seen)

    exploring = distribution

    def evaluated(self, context: Any) -> Callable[[Tensor], Any]:
        """The policy that is evaluated."""
        return self.distribution

    def state_dict(self) -> dict[str, Any]:
        """State of the network and of the optimiser."""
        return {"network": dict(self.policy.state_dict()), "optimizer": optimizer_state(self.optimizer)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.policy.load_state_dict(state["network"])
        load_optimizer_state(self.optimizer, state["optimizer"])


class SequencePolicyNetwork(PolicyNetwork):
    """The same for policies that read sequences; the user's network must be one, and is not adapted. Subclasses say of which class."""

    reads: ClassVar[type[nn.Module]]
    trains: ClassVar[str]
    """What the method trains, and what a network of another class does or has not, for an error."""
    lacks: ClassVar[str]

    def bind(self, context: Any, name: str) -> None:
        """Take the user's network or build one.

        Raises:
            RheostatError: the user's network is of another class.
        """
        given = context.networks.get(name)
        if given is not None and not isinstance(given, self.reads):
            raise RheostatError(
                f"{context.who} trains {self.trains}, and {type(given).__name__} {self.lacks}: hand over a {self.reads.__name__}, or a "
                "subclass of it."
            )
        super().bind(context, name)

    def adapted(self, given: nn.Module, context: Any) -> nn.Module:
        """The user's network; what it must be is checked by its class."""
        return given


class RecurrentPolicyNetwork(SequencePolicyNetwork):
    """Recurrent policies: a :class:`~rheostat.policies.control.recurrent.RecurrentActorCritic`."""

    reads, trains, lacks = RecurrentActorCritic, "a policy with a memory", "has none"

    def evaluated(self, context: Any) -> Callable[[Tensor], Any]:
        """The policy that is evaluated, with an empty memory that is reset where an episode begins."""
        return EpisodeMemory(self.network)


class LaggedActorModel:
    """The policy of some updates ago, with the observation statistics of that time.

    Args:
        updates: how many.
        of: name of the model that moves.
    """

    begins_as_copy: ClassVar[bool] = True

    def __init__(self, updates: int, of: str = "policy") -> None:
        self.lag, self.of = updates, of

    def bind(self, context: Any, name: str) -> None:
        """Start as a copy of the model."""
        self._source = context.models[self.of]
        own = context.stores.get("observations")
        self._statistics = RunningStatistics(context.observation_space.shape) if own is None else own
        self.actor = LaggedActor(self._source.policy, self._source.parameters, self._statistics, self.lag)
        self.statistics = None if own is None else self.actor.statistics

    @property
    def network(self) -> Any:
        """Network of the older policy."""
        return self.actor.network

    def after_update(self, context: Any) -> None:
        """Remember the parameters after an update of the policy."""
        self.actor.remember(self._source.parameters, self._statistics)

    def exploring(self, seen: Tensor) -> Any:
        """The older policy."""
        return self.network.distribution(seen)

    def state_dict(self) -> dict[str, Any]:
        """Parameters and statistics of the updates between the older policy and the present one."""
        return self.actor.history.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over saved copies."""
        self.actor.load_state_dict(state)


class Behaviour(BehaviourPolicy):
    """A behaviour policy: a copy of the policy that collects data and has an update of its own (ROS, PROPS).

    Args:
        learning_rate: Adam step size; the moments are kept when the copy is reset to the policy. None is plain gradient descent.
        of: name of the policy.
    """

    begins_as_copy: ClassVar[bool] = True

    def __init__(self, learning_rate: float | None = None, of: str = "policy") -> None:
        self._rate, self._of = learning_rate, of

    def bind(self, context: Any, name: str) -> None:
        """Start as a copy of the policy."""
        super().__init__(context.models[self._of].policy, self._rate)

    def exploring(self, seen: Tensor) -> Any:
        """The policy that collects data."""
        return self.network.distribution(seen)
