"""The networks of a method by role. The only place of the golden runs that knows how a method keeps them.

When methods keep their networks elsewhere, this file changes and the hashes stay. A role's tensors are hashed one by one and the digests
are sorted, so that names and order inside a role do not matter; roles, shapes and bytes do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

PARTS: dict[str, str] = {
    "actor": "policy",
    "actor_target": "target policy",
    "critics": "critics",
    "targets": "target critics",
    "critic": "critics",
    "slow": "target critics",
    "values": "value",
    "temperature": "temperature",
    "multiplier": "multiplier",
    "balance": "balance",
    "balance_temperature": "balance temperature",
}
"""Roles of the parts of methods with a replay."""
CRITIC = ("critic", "judge", "value_head")
"""How the names of a critic's weights begin in a network that it shares with the policy."""


def weights(method: Any) -> list[tuple[str, Tensor]]:
    """Every weight that learns, and those of target, old and reference networks, each with its role."""
    if hasattr(method, "composition"):
        return list(language(method))
    if hasattr(method, "online"):
        return list(uni_o4(method))
    if hasattr(method, "parts"):
        return [(PARTS[name], tensor) for name, part in method.parts().items() for tensor in of(part.network)]
    return list(on_policy(method))


def of(module: nn.Module) -> list[Tensor]:
    """The weights of a network."""
    return [parameter.detach() for parameter in module.parameters()]


def shared(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Those of a network that holds policy and critic."""
    for name, parameter in module.named_parameters():
        yield "value" if name.startswith(CRITIC) else "policy", parameter.detach()


def uni_o4(method: Any) -> Iterator[tuple[str, Tensor]]:
    """Critics of the behaviour, a model, the ensemble with its old policies, and what acts."""
    networks = {
        "behaviour critics": method.critics.critics,
        "target behaviour critics": method.critics.targets,
        "behaviour value": method.critics.values,
        "ensemble": method.members.learner,
        "old ensemble": method.members.target,
        "policy": method.online.actor,
        "value": method.online.values,
    }
    for role, part in networks.items():
        for tensor in of(part.network):
            yield role, tensor
    if method.model is not None:
        for tensor in of(method.model.ensemble):
            yield "model", tensor


def language(method: Any) -> Iterator[tuple[str, Tensor]]:
    """The model, its value head, and the model of the KL, which needs no value head (with adapters it is the model itself)."""
    yield from shared(method.policy)
    reference = method.context.models.get("reference")
    copy = None if reference is None else reference.network._copy
    if copy is not None:
        yield from (("reference", tensor) for role, tensor in shared(copy) if role == "policy")


def on_policy(method: Any) -> Iterator[tuple[str, Tensor]]:
    """PPO's network, and the behaviour policy of those that have one, whose weights are one vector in the order of the learned policy's."""
    yield from shared(method.policy)
    if hasattr(method, "behaviour"):
        vector, offset = method.behaviour.parameters.vector.detach(), 0
        for name, parameter in method.policy.named_parameters():
            part = vector[offset : offset + parameter.numel()].view_as(parameter)
            offset += parameter.numel()
            if not name.startswith(CRITIC):
                yield "behaviour", part
