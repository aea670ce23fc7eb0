"""Networks that users hand over in the place of those that a method makes: what is asked of them, tried before anything is spent.

A user's network is in evaluation mode (dropout off, batch statistics fixed) whenever somebody acts, is measured or is a target, and in
training mode while something moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rheostat.errors import RheostatError, shown_error
from rheostat.policies.control.distributions import Categorical, Gaussian, MultiCategorical
from rheostat.policies.control.squashed import DeterministicAction, SquashedGaussian

Adapt = Callable[[nn.Module, Any], nn.Module]
"""From a user's network and the learner's context to what the method uses.

Raises:
    RheostatError: it does not give what is asked of it.
"""
ROWS = 2
"""Observations that a network is tried with."""


def named_networks(policy: Any, models: Mapping[str, Any], who: str) -> dict[str, nn.Module]:
    """What was handed over as ``policy``, by the names of the models that take it.

    Args:
        policy: a module, or modules by name.
        models: of the method.
        who: its name.

    Raises:
        RheostatError: the method makes its own networks, has none of such a name, or something is no module of float32.
    """
    if policy is None:
        return {}
    takes = [name for name, model in models.items() if getattr(model, "takes_network", False)]
    if not takes:
        raise RheostatError(f"{who} makes its own actor and critics: set hidden instead of handing over a network.")
    given = dict(policy) if isinstance(policy, Mapping) else {"policy": policy}
    for name, network in given.items():
        if name not in takes:
            raise RheostatError(f"{who} takes no network {name!r}: hand over {' or '.join(map(repr, takes))}.")
        if not isinstance(network, nn.Module):
            kind = f"the class {network.__name__}" if isinstance(network, type) else f"a {type(network).__name__}"
            raise RheostatError(f"The network {name!r} is {kind}: hand over an object of a torch.nn.Module.")
        wrong = {str(each.dtype) for each in network.parameters() if each.dtype != torch.float32}
        if wrong:
            raise RheostatError(f"The network {name!r} has weights of {', '.join(sorted(wrong))}: convert it to float32 with .float().")
    return given


def described(policy: Any) -> str | None:
    """What a run says of the networks that it was given; None where it was given none."""
    if isinstance(policy, nn.Module):
        return f"{type(policy).__module__}.{type(policy).__qualname__}"
    if not isinstance(policy, Mapping):
        return None
    return ", ".join(f"{name}: {described(network)}" for name, network in policy.items())


def own_policy(network: nn.Module, context: Any) -> nn.Module:
    """A policy and its values, for methods that learn from fresh data: ``distribution(observation)`` and ``value(observation)``."""
    found = _tried("policy", network, "distribution", context)
    if not isinstance(found, Categorical | MultiCategorical | Gaussian):
        raise _other_distribution("policy", found, "Categorical, MultiCategorical or Gaussian")
    _require_actions(found, context)
    _require_shape("policy", "value(observation)", _tried("policy", network, "value", context), (ROWS,))
    return network


def own_likelihood(network: nn.Module, context: Any) -> nn.Module:
    """A policy that imitates: ``distribution(observation)`` of unit actions, or of choices."""
    found = _tried("policy", network, "distribution", context)
    if not isinstance(found, Gaussian if context.continuous else Categorical):
        raise _other_distribution("policy", found, "Gaussian of actions from -1 to 1" if context.continuous else "Categorical")
    _require_actions(found, context)
    return network


def own_soft_policy(network: nn.Module, context: Any) -> nn.Module:
    """A policy that is differentiated through its draws: ``distribution(observation)`` is a squashed Gaussian, or of choices."""
    found = _tried("policy", network, "distribution", context)
    if not isinstance(found, SquashedGaussian if context.continuous else Categorical):
        raise _other_distribution("policy", found, "SquashedGaussian" if context.continuous else "Categorical")
    _require_actions(found, context)
    return network


class OwnDeterministicPolicy(nn.Module):
    """A user's network of unit actions ``[N, D]``, with what the methods ask of one."""

    def __init__(self, network: nn.Module, context: Any) -> None:
        super().__init__()
        self.network = network
        found = _tried("policy", network, "forward", context)
        _require_shape("policy", "forward(observation)", found, (ROWS, context.action_size))
        if float(found.abs().max()) > 1:
            raise RheostatError("forward(observation) of the network 'policy' leaves [-1, 1]: end it with a tanh.")

    def forward(self, observation: Tensor) -> Tensor:
        """Unit actions ``[N, D]``."""
        found: Tensor = self.network(observation)
        return found

    def distribution(self, observation: Tensor) -> DeterministicAction:
        """Without noise."""
        return DeterministicAction(self(observation))


def own_values_of_choices(network: nn.Module, context: Any) -> nn.Module:
    """Values of all choices, ``forward(observation)`` ``[N, A]``."""
    _require_shape("policy", "forward(observation)", _tried("policy", network, "forward", context), (ROWS, int(context.action_space.n)))
    return network


class OwnStateValue(nn.Module):
    """A user's values of states, ``forward(observation)`` ``[N]``; columns beyond the observation's own are not read."""

    def __init__(self, network: nn.Module, context: Any) -> None:
        super().__init__()
        self.network, self.columns = network, _columns(context)
        _require_shape("value", "forward(observation)", _tried("value", network, "forward", context), (ROWS,))

    def forward(self, observation: Tensor) -> Tensor:
        """``[N]``."""
        found: Tensor = self.network(observation[..., : self.columns])
        return found


def own_critics(network: nn.Module, context: Any) -> nn.Module:
    """Critics: ``forward(observation, action)`` ``[K, N]`` or ``[N]``; of choices, ``forward(observation)`` ``[K, N, A]`` or ``[N, A]``."""
    return OwnCritics(network, context) if context.continuous else OwnDiscreteCritics(network, context)


class OwnCritics(nn.Module):
    """A user's critics Q_k(s, a), with what the methods ask of an :class:`~rheostat.policies.control.critics.EnsembleQ`."""

    def __init__(self, network: nn.Module, context: Any) -> None:
        super().__init__()
        self.network, self.columns = network, _columns(context)
        found = _tried("critics", network, "forward", context, torch.zeros(ROWS, context.action_size))
        self.networks = _critics_in(found, (ROWS,), "forward(observation, action)")

    def forward(self, observation: Tensor, action: Tensor, *, frozen: bool = False, subset: Tensor | None = None) -> Tensor:
        """``[K, B]``; ``frozen`` takes the weights as constants, ``subset`` chooses some of the K."""
        found = _called(self.network, (observation[..., : self.columns], action), frozen)
        found = found if found.dim() == 2 else found.unsqueeze(0)
        return found if subset is None else found[subset]

    def of_many(self, observation: Tensor, action: Tensor, *, frozen: bool = False) -> Tensor:
        """Several actions per observation: ``[B, ...]`` and ``[B, N, actions]`` to ``[K, B, N]``."""
        rows, count = action.shape[:2]
        found = self(observation.repeat_interleave(count, 0), action.flatten(0, 1), frozen=frozen)
        return found.view(len(found), rows, count)


class OwnDiscreteCritics(nn.Module):
    """A user's critics of choices, with what the methods ask of a :class:`~rheostat.policies.control.discrete_q.DiscreteEnsembleQ`."""

    def __init__(self, network: nn.Module, context: Any) -> None:
        super().__init__()
        self.network = network
        found = _tried("critics", network, "forward", context)
        self.networks = _critics_in(found, (ROWS, int(context.action_space.n)), "forward(observation)")

    def of_all(self, observation: Tensor, *, frozen: bool = False) -> Tensor:
        """``[K, B, A]``."""
        found = _called(self.network, (observation,), frozen)
        return found if found.dim() == 3 else found.unsqueeze(0)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """``[K, B]`` of choices int64 ``[B]``."""
        values = self.of_all(observation)
        return values.gather(-1, action.expand(len(values), -1).unsqueeze(-1)).squeeze(-1)


def _columns(context: Any) -> int | None:
    """Numbers of an observation that is a vector; None of an image, which is read whole."""
    return None if len(context.observation_space.shape) == 3 else int(context.observation_space.shape[0])


def _called(network: nn.Module, inputs: tuple[Tensor, ...], frozen: bool) -> Tensor:
    """The network's answer, of weights that are constants where ``frozen``."""
    if not frozen:
        found: Tensor = network(*inputs)
        return found
    return functional_call(network, {name: each.detach() for name, each in network.named_parameters()}, inputs)


@torch.no_grad()
def _tried(name: str, network: nn.Module, method: str, context: Any, *others: Tensor) -> Any:
    """What a network answers to observations of zeros.

    Raises:
        RheostatError: it has no such method, or it fails.
    """
    ask = getattr(network, method, None)
    if ask is None:
        raise RheostatError(f"The network {name!r} ({type(network).__name__}) has no {method}(observation): add it.")
    space = context.observation_space
    zeros = torch.zeros(ROWS, *space.shape, dtype=torch.uint8 if space.dtype == "uint8" else torch.float32)
    try:
        return (network if method == "forward" else ask)(zeros, *others)
    except Exception as error:
        raise RheostatError(
            f"{method} of the network {name!r} fails with observations {list(zeros.shape)} of {str(zeros.dtype).removeprefix('torch.')}: "
            f"{shown_error(error)}."
        ) from error


def _require_shape(name: str, what: str, found: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(found, Tensor) or tuple(found.shape) != shape:
        seen = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        asked = ", ".join(["N", *map(str, shape[1:])])
        raise RheostatError(f"{what} of the network {name!r} gives {seen} for {ROWS} observations: it must be [{asked}].")


def _require_actions(found: Any, context: Any) -> None:
    """Refuse distributions of another number of actions."""
    sizes = found.parameters if hasattr(found, "parameters") else found.mean
    wanted = _numbers_of(found, context)
    if sizes.shape != (ROWS, wanted):
        raise RheostatError(
            f"distribution(observation) of the network 'policy' has {sizes.shape[-1]} numbers per observation, and {context.action_space} "
            f"needs {wanted}."
        )


def _numbers_of(found: Any, context: Any) -> int:
    """Parameters of a distribution of one action."""
    space = context.action_space
    if context.continuous:
        size = int(torch.tensor(space.shape).prod())
        return 2 * size if isinstance(found, Gaussian) else size
    if isinstance(found, Categorical):
        return int(getattr(space, "n", 0))
    return int(torch.as_tensor(getattr(space, "nvec", 2 * space.n if hasattr(space, "n") else 0)).sum())


def _critics_in(found: Any, shape: tuple[int, ...], what: str) -> int:
    """K of an answer ``[K, *shape]``, or 1 of ``[*shape]``."""
    if isinstance(found, Tensor) and found.dim() == len(shape) + 1 and tuple(found.shape[1:]) == shape:
        return len(found)
    _require_shape("critics", what, found, shape)
    return 1


def _other_distribution(name: str, found: Any, wanted: str) -> RheostatError:
    kind = f"{type(found).__module__}.{type(found).__qualname__}"
    return RheostatError(
        f"distribution(observation) of the network {name!r} returns a {kind}: return a {wanted} of rheostat.policies.control "
        "(distributions, squashed)."
    )
