"""CQL: its step against a plain one in all forms, whom the penalty moves and whereto, the multiplier, the warm-up."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from rheostat.errors import RheostatError
from rheostat.learner.actor_critic_updates import SoftActorStep
from rheostat.learner.conservative_critics import ConservativeCriticStep
from rheostat.trajectories import Transitions
from tests.methods.plain import DELAYED, LIMITED, Twin, agree, follow, same_parameters, slow_copy
from tests.tiny_control import built, one_batch


def plain_cql(method: Any) -> Any:
    """A step written out, after CORL's code; ``simultaneous`` or with the critics first."""
    config = method.config
    actor, critics, slow = Twin(method.actor), Twin(method.critics), slow_copy(method.targets)
    heat = Twin(method.thermostat)
    constraint = None if config.gap_threshold is None else Twin(method.constraint)
    chance = torch.Generator()
    chance.set_state(method.streams["updates"].get_state())

    def draw(observation: Tensor, *count: int) -> tuple[Tensor, Tensor]:
        """``[count, B, d]`` and ``[count, B]``."""
        mean, log_std = actor.network.stack(observation)[0].chunk(2, -1)
        base = Normal(mean, log_std.clamp(-20, 2).exp())
        squashed = TransformedDistribution(base, TanhTransform(cache_size=1))
        action = squashed.transforms[0](base.loc + base.scale * torch.randn((*count, *mean.shape), generator=chance))
        return action, squashed.log_prob(action).sum(-1)

    def many(network: Any, observation: Tensor, actions: Tensor) -> Tensor:
        """``[K, count, B]``."""
        return torch.stack([network(observation, action) for action in actions], 1)

    def soft_target(rows: Transitions, alpha: Tensor) -> Tensor:
        count = config.penalty_actions if config.best_next_action else 1
        action, log_prob = draw(rows.next_observation, *([count] if config.best_next_action else []))
        value = torch.minimum(*many(slow, rows.next_observation, action.view(count, *action.shape[-2:])))
        best = value.argmax(0, keepdim=True)
        value = value.gather(0, best)[0]
        if config.entropy_in_backup:
            value = value - alpha * log_prob.view(count, -1).gather(0, best)[0]
        return rows.reward + config.gamma * (1 - rows.terminated.double()) * value

    def step(rows: Transitions) -> None:
        alpha, n = heat.network.log.exp().detach(), config.penalty_actions
        with torch.no_grad():
            target = soft_target(rows, alpha)
            here, here_density = draw(rows.observation, n)
            there, there_density = draw(rows.next_observation, n)
            anywhere = 2 * torch.rand(here.transpose(0, 1).shape, generator=chance).transpose(0, 1) - 1
        steps = [lambda: move_critics(), lambda: move_policy()]

        def move_critics() -> None:
            data = critics(rows.observation, rows.action)
            q = [many(critics.network, rows.observation, action) for action in (anywhere, here, there)]
            if config.gap_form == "importance":
                flat = here.shape[-1] * torch.log(torch.tensor(0.5))
                height = torch.cat([q[0] - flat, q[1] - here_density, q[2] - there_density], 1).logsumexp(1)
                height = height if config.sum_over_actions else height - torch.log(torch.tensor(3.0 * n))
            else:
                height = torch.cat([*q, data.unsqueeze(1)], 1).logsumexp(1)
            gap = (height - data).clamp(config.smallest_gap or -math.inf, config.largest_gap or math.inf).mean(1)
            error = ((data - target) ** 2).mean(1).sum()
            if constraint is None:
                critics.step(error + config.conservative_weight * gap.sum())
                return
            excess = config.conservative_weight * (gap - config.gap_threshold)
            multiplier = constraint.network.log.exp().detach()
            critics.step(error + multiplier * excess.sum())
            constraint.step((-constraint.network.log.exp() * excess.detach().mean()).sum())

        def move_policy() -> None:
            action, log_prob = draw(rows.observation)
            actor.step((alpha * log_prob - torch.minimum(*critics(rows.observation, action))).mean())
            heat.step(-(heat.network.log * (log_prob.detach() - action.shape[-1]).mean()).sum())

        for move in reversed(steps) if config.simultaneous else steps:
            move()
        follow(slow, critics, config.tau)

    def compare() -> dict[str, bool]:
        pairs = {"actor": (method.policy, actor.network), "critics": (method.critics.network, critics.network)}
        pairs |= {"slow critics": (method.targets.network, slow), "temperature": (method.temperature, heat.network)}
        pairs |= {"multiplier": (method.multiplier, constraint.network)} if constraint else {}
        return {name: same_parameters(*pair) for name, pair in pairs.items()}

    return step, compare


FORMS: dict[str, dict[str, Any]] = {
    "the paper": {},
    "CORL": {"sum_over_actions": True, "simultaneous": True, "conservative_weight": 10.0},
    "plain": {"gap_form": "plain", "entropy_in_backup": True},
    "constraint": {"gap_threshold": 0.4, "sum_over_actions": True, "initial_multiplier": 2.0, "smallest_gap": 0.1, "largest_gap": 9.0},
    "best next action": {"best_next_action": True, "entropy_in_backup": True},
}


@pytest.mark.parametrize(("form", "task"), [*((form, DELAYED) for form in FORMS), ("the paper", LIMITED)])
def test_a_step_is_the_plain_one(form: str, task: str) -> None:
    agree("cql", plain_cql, task, penalty_actions=3, critic_learning_rate=1e-2, **FORMS[form])


def test_the_penalty_lowers_the_gap_and_moves_no_policy() -> None:
    method = built("cql", conservative_weight=1e3, critic_learning_rate=1e-3)
    rows = one_batch(method)
    batch = method.credited(rows)
    before = method.actor.parameters.vector.detach().clone(), method.temperature.value
    found = [method.step(ConservativeCriticStep, batch) for _ in range(4)]
    assert all(later["gap"] < earlier["gap"] for earlier, later in itertools.pairwise(found))
    assert torch.equal(method.actor.parameters.vector, before[0]) and method.temperature.value == before[1]


@pytest.mark.parametrize(("threshold", "grows"), [(-5.0, True), (50.0, False)])
def test_the_multiplier_grows_while_the_gap_is_too_large(threshold: float, grows: bool) -> None:
    method = built("cql", gap_threshold=threshold)
    for _ in range(3):
        method.gradient_step(one_batch(method))
    assert (method.multiplier.value > 1.0) == grows and method.multiplier.value != 1.0


def test_the_weight_may_change_once_the_policy_acts() -> None:
    method = built("cql", conservative_weight=4.0, conservative_weight_online=1.0)
    gap = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    rows = one_batch(method)[:2]

    def loss() -> float:
        return float(method.part(ConservativeCriticStep).penalty.loss(method.context, gap, rows, "sum"))

    assert not method.acting and loss() == 4.0 * (1.5 + 3.5)
    while not method.acting:
        method.turn()
    assert loss() == 1.5 + 3.5


def test_the_warm_up_reads_the_data_and_not_the_critics() -> None:
    def actor_after(action: float | None, warm: bool) -> Tensor:
        method = built("cql", imitation_steps=1 if warm else 0, learning_rate=1e-2)
        rows = one_batch(method)
        if action is not None:
            rows.action = torch.full_like(rows.action, action)
        else:
            with torch.no_grad():
                method.critics.parameters.vector.mul_(-1.0)
        method.step(SoftActorStep, rows, alpha=0.1)
        found: Tensor = method.actor.parameters.vector.detach().clone()
        return found

    assert torch.equal(actor_after(0.5, warm=True), actor_after(0.5, warm=True))
    assert not torch.equal(actor_after(0.5, warm=True), actor_after(-0.5, warm=True))
    assert torch.equal(actor_after(0.5, warm=False), actor_after(-0.5, warm=False))
    assert not torch.equal(actor_after(None, warm=False), actor_after(0.5, warm=False))
    method = built("cql", imitation_steps=1, learning_rate=1e-2)
    rows = one_batch(method)
    method.step(SoftActorStep, rows, alpha=0.1)
    assert torch.equal(method.actor.parameters.vector, actor_after(None, warm=True))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"penalty_actions": 0}, "at least 1"),
        ({"conservative_weight": -1.0}, "at least 0"),
        ({"gap_temperature": 0.0}, "above 0"),
        ({"smallest_gap": 1.0, "largest_gap": 0.0}, "must be below"),
        ({"gap_form": "plain", "sum_over_actions": True}, "sums already"),
        ({"initial_multiplier": 0.0}, "above 0"),
        ({"temperature": 0.0}, "above 0"),
        ({"offline": None}, "learns from a data set first"),
    ],
)
def test_refusals(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        built("cql", **options)
