"""RLPD: its step against a plain one, rows of both sources in every slice, how often the policy moves, and when learning begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from rheostat.errors import RheostatError
from rheostat.learner.actor_critic_updates import TemperatureStep
from rheostat.training.run import Run
from rheostat.trajectories import Source, Transitions
from tests.methods.plain import DELAYED, LIMITED, Twin, agree, follow, same_parameters, slow_copy
from tests.tiny_control import built, one_batch, small


def plain_rlpd(method: Any) -> Any:
    """A step written out, after the authors' order: critics, slow critics; then, now and then, policy and temperature."""
    config = method.config
    actor, critics, slow, heat = Twin(method.actor), Twin(method.critics), slow_copy(method.targets), Twin(method.thermostat)
    chance = torch.Generator()
    chance.set_state(method.streams["updates"].get_state())
    subsets: set[tuple[int, ...]] = set()

    def policy(observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = actor.network.stack(observation)[0].chunk(2, -1)
        base = Normal(mean, log_std.clamp(-20, 2).exp())
        squashed = TransformedDistribution(base, TanhTransform(cache_size=1))
        u = base.loc + base.scale * torch.randn(mean.shape, generator=chance)
        action = squashed.transforms[0](u)
        return action, squashed.log_prob(action).sum(-1)

    def step(rows: Transitions) -> None:
        alpha = heat.network.log.exp().detach()
        with torch.no_grad():
            action, log_prob = policy(rows.next_observation)
            chosen = torch.randperm(config.critics, generator=chance)[: config.target_critics]
            subsets.add(tuple(sorted(chosen.tolist())))
            value = slow(rows.next_observation, action)[chosen].min(0).values
            value = value - alpha * log_prob if config.entropy_in_backup else value
        target = rows.reward + config.gamma * (1 - rows.terminated.double()) * value
        critics.step(((critics(rows.observation, rows.action) - target) ** 2).mean())
        follow(slow, critics, config.tau)
        if method.updates % config.policy_delay == config.policy_delay - 1:
            action, log_prob = policy(rows.observation)
            actor.step((alpha * log_prob - critics(rows.observation, action).mean(0)).mean())
            entropy = -log_prob.detach().mean()
            heat.step((heat.network.log.exp() * (entropy - (-action.shape[-1] / 2))).sum())

    def compare() -> dict[str, bool]:
        pairs = {"actor": (method.policy, actor.network), "critics": (method.critics.network, critics.network)}
        pairs |= {"slow critics": (method.targets.network, slow), "temperature": (method.temperature, heat.network)}
        found = {name: same_parameters(*pair) for name, pair in pairs.items()}
        return found | {"subsets change": method.updates < 3 or len(subsets) > 1}

    return step, compare


@pytest.mark.parametrize("task", [DELAYED, LIMITED])
@pytest.mark.parametrize("entropy_in_backup", [True, False])
def test_a_step_is_the_plain_one(entropy_in_backup: bool, task: str) -> None:
    agree("rlpd", plain_rlpd, task, policy_delay=2, entropy_in_backup=entropy_in_backup, critics=10)


def test_every_slice_holds_offline_rows_at_even_places_and_online_ones_at_odd_places() -> None:
    method = built("rlpd", num_envs=1, start_steps=0, batch_size=16, update_to_data=4.0)
    batches = method.retain(method.collect()).rows
    assert len(batches) == 4 * 16
    for start in range(0, len(batches), 16):
        source = batches[start : start + 16].source
        assert bool((source[0::2] == int(Source.OFFLINE)).all()) and bool((source[1::2] == int(Source.REPLAY)).all())


def test_the_policy_moves_once_per_environment_step_and_last() -> None:
    method = built("rlpd", num_envs=1, start_steps=0, update_to_data=4.0)
    moved, present = [], method.actor.parameters.vector.detach().clone()
    for _ in range(8):
        found = method.gradient_step(one_batch(method))
        after = method.actor.parameters.vector.detach().clone()
        moved.append(not torch.equal(after, present))
        assert ("policy_loss" in found) == moved[-1]
        present = after
    assert moved == [False, False, False, True] * 2


def test_nothing_is_learned_before_the_uniform_actions_are_over() -> None:
    """No steps on the data alone: not in the first steps of the budget either."""
    method = built("rlpd", num_envs=1, start_steps=5, update_to_data=2.0)
    due = []
    for _ in range(7):
        assert (method.collector.steps < 5) == (len(due) < 5)
        due.append(len(method.retain(method.collect())) // method.config.batch_size)
    assert due == [0, 0, 0, 0, 0, 2, 2]


def test_it_also_learns_without_a_data_set(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("rlpd", offline=None, log_every=40)).train()
    assert run.metrics[-1]["meter/share_replay"] == 1.0 and "meter/share_offline" not in run.metrics[-1]


def test_the_meter_sees_half_of_each(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("rlpd", log_every=40)).train()
    assert run.metrics[-1]["meter/share_offline"] == run.metrics[-1]["meter/share_replay"] == 0.5


def test_the_held_entropy_is_half_of_sacs() -> None:
    def held(name: str, **options: Any) -> float:
        method = built(name, **options)
        return float(method.part(TemperatureStep).target_entropy(method.context))

    assert held("rlpd") == -0.5 and held("sac") == -1.0 and held("rlpd", target_entropy=-3.0) == -3.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target_critics": 11}, "at most all of the 10"),
        ({"target_critics": 0}, "at least 1"),
        ({"policy_delay": 0}, "at least 1"),
        ({"online_steps": 5}, "does not begin with one"),
    ],
)
def test_refusals(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        built("rlpd", **options)
