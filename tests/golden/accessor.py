"""The networks of a method by role. The only place of the golden runs that knows how a method keeps them.

When methods keep their networks elsewhere, this file changes and the hashes stay. A role's tensors are hashed one by one and the digests
are sorted, so that names and order inside a role do not matter; roles, shapes and bytes do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rheostat.learner.context import LanguageContext

CONTROL: dict[str, str] = {
    "policy": "policy",
    "target policy": "target policy",
    "critics": "critics",
    "target critics": "target critics",
    "value": "value",
    "temperature": "temperature",
    "multiplier": "multiplier",
    "balance": "balance",
    "balance temperature": "balance temperature",
    "removal": "removal",
    "shrinkage": "shrinkage",
}
"""Roles of the models of control methods, and of those that compress."""
CRITIC = ("critic", "judge", "value_head")
"""How the names of a critic's weights begin in a network that it shares with the policy."""


def weights(method: Any) -> list[tuple[str, Tensor]]:
    """Every weight that learns, and those of target, old and reference networks, each with its role."""
    control_method = not isinstance(method.context, LanguageContext)
    conservative = hasattr(method.config, "penalty") and control_method
    found = list(control(method.context.models, conservative) if control_method else language(method))
    student = getattr(getattr(method.context, "student", None), "network", None)
    return found + ([] if student is None else [("student", tensor) for tensor in student.state_dict().values()])


def control(models: dict[str, Any], conservative: bool) -> Iterator[tuple[str, Tensor]]:
    """Models by name; conservative critics have a multiplier."""
    if "behaviour critics" in models:
        yield from uni_o4(models)
        return
    for name, model in models.items():
        if hasattr(model, "policy"):
            yield from shared(model.policy)
        elif name == "behaviour":
            policy, vector, offset = models["policy"].policy, model.parameters.vector.detach(), 0
            for own, parameter in policy.named_parameters():
                part = vector[offset : offset + parameter.numel()].view_as(parameter)
                offset += parameter.numel()
                if not own.startswith(CRITIC):
                    yield "behaviour", part
        elif name in CONTROL:
            role = CONTROL[name]
            if name in ("policy", "target policy") and hasattr(models["policy"], "exploration"):  # dqn: the policy is the critics
                role = {"policy": "critics", "target policy": "target critics"}[name]
            for tensor in of(model.network):
                yield role, tensor
    if conservative and "multiplier" not in models:  # the weight of a penalty without a threshold is multiplied by exp(0)
        yield "multiplier", torch.zeros(1)


def of(module: nn.Module) -> list[Tensor]:
    """The weights of a network."""
    return [parameter.detach() for parameter in module.parameters()]


def shared(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Those of a network that holds policy and critic."""
    for name, parameter in module.named_parameters():
        yield "value" if name.startswith(CRITIC) else "policy", parameter.detach()


def uni_o4(models: Any) -> Iterator[tuple[str, Tensor]]:
    """Critics of the behaviour, a model, the ensemble with its old policies, and what acts."""
    networks = {
        "behaviour critics": models["behaviour critics"].critics,
        "target behaviour critics": models["behaviour critics"].targets,
        "behaviour value": models["behaviour critics"].values,
        "ensemble": models["members"].learner,
        "old ensemble": models["members"].target,
        "policy": models["online policy"],
        "value": models["value"],
    }
    for role, part in networks.items():
        for tensor in of(part.network):
            yield role, tensor
    if "world model" in models:
        for tensor in of(models["world model"].ensemble):
            yield "model", tensor


def language(method: Any) -> Iterator[tuple[str, Tensor]]:
    """The model, its value head, and the model of the KL, which needs no value head (with adapters it is the model itself)."""
    yield from shared(method.policy)
    reference = method.context.models.get("reference")
    copy = None if reference is None else reference.network._copy
    if copy is not None:
        yield from (("reference", tensor) for role, tensor in shared(copy) if role == "policy")
    for name, role in (("flow", "flow field"), ("reward", "reward model"), ("states", "states"), ("transition", "transition policy")):
        if name in method.context.models:
            yield from ((role, tensor) for tensor in of(method.context.models[name].network))
