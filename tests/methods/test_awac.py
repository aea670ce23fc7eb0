"""AWAC: its step against a plain one, the two kinds of weights, actions inside the bounds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from rheostat.errors import RheostatError
from rheostat.trajectories import Transitions
from tests.methods.plain import DELAYED, LIMITED, Twin, agree, follow, same_parameters, slow_copy
from tests.tiny_control import built, one_batch


def plain_awac(method: Any) -> Any:
    """A step written out, after CORL's order: critics, policy judged by the new critics, slow critics."""
    config = method.config
    actor, critics, slow = Twin(method.actor), Twin(method.critics), slow_copy(method.targets)
    chance = torch.Generator()
    chance.set_state(method.streams["updates"].get_state())

    def policy(observation: Tensor) -> Normal:
        return Normal(actor.network.stack(observation)[0].tanh(), actor.network.log_std.exp())

    def draw(observation: Tensor) -> Tensor:
        p = policy(observation)
        return (p.loc + p.scale * torch.randn(p.loc.shape, generator=chance)).clamp(-1, 1).detach()

    def step(rows: Transitions) -> None:
        with torch.no_grad():
            following = torch.minimum(*slow(rows.next_observation, draw(rows.next_observation)))
        target = rows.reward + config.gamma * (1 - rows.terminated.double()) * following
        critics.step(((critics(rows.observation, rows.action) - target) ** 2).mean(1).sum())
        with torch.no_grad():
            own = torch.minimum(*critics(rows.observation, draw(rows.observation)))
            advantage = torch.minimum(*critics(rows.observation, rows.action)) - own
        weight = (advantage / config.advantage_temperature).exp()
        weight = weight / weight.mean() if config.weights == "normalised" else weight.clamp(max=config.weight_cap)
        actor.step(-(weight * policy(rows.observation).log_prob(rows.action).sum(-1)).mean())
        follow(slow, critics, config.tau)

    def compare() -> dict[str, bool]:
        pairs = {"actor": (method.policy, actor.network), "critics": (method.critics.network, critics.network)}
        pairs |= {"slow critics": (method.targets.network, slow)}
        return {name: same_parameters(*pair) for name, pair in pairs.items()}

    return step, compare


@pytest.mark.parametrize("task", [DELAYED, LIMITED])
@pytest.mark.parametrize("weights", ["capped", "normalised"])
def test_a_step_is_the_plain_one(weights: str, task: str) -> None:
    agree("awac", plain_awac, task, weights=weights, advantage_temperature=0.2, weight_cap=1.2)


def test_critics_see_actions_inside_the_bounds_only() -> None:
    method = built("awac", "Pendulum-v1")
    with torch.no_grad():
        method.policy.log_std.fill_(2.0)  # most draws leave the bounds
    asked: list[Tensor] = []
    for network in (method.critics.network, method.targets.network):
        network.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[1]))
    method.gradient_step(one_batch(method))
    assert len(asked) == 4 and all(float(action.abs().max()) <= 1.0 for action in asked)
    assert any(float(action.abs().max()) == 1.0 for action in asked)


def test_large_temperatures_imitate_all_data_alike() -> None:
    method = built("awac", advantage_temperature=1e12)
    assert method.gradient_step(one_batch(method))["action_weight"] == pytest.approx(1.0)


@pytest.mark.parametrize("options", [{"advantage_temperature": 0.0}, {"weight_cap": 0.0}])
def test_refusals(options: dict[str, Any]) -> None:
    with pytest.raises(RheostatError, match="must be above 0"):
        built("awac", **options)
