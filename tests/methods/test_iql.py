"""IQL: its step against a plain one in both orders, what it must never ask, step sizes, rewards, and the way from data to acting."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from rheostat.errors import RheostatError
from rheostat.learner.actor_critic_updates import WeightedImitation
from rheostat.learner.stages import Stages
from rheostat.parts import Batch
from rheostat.training.run import Run
from rheostat.trajectories import Source, Transitions
from tests.by_hand import ByHand
from tests.methods.plain import DELAYED, LIMITED, Twin, agree, follow, same_parameters, slow_copy
from tests.tiny_control import built, gather, one_batch, random_data, small


def plain_iql(method: Any) -> Any:
    """A step written out, after the paper's equations and CORL's order."""
    config = method.config
    actor, critics, values, slow = Twin(method.actor), Twin(method.critics), Twin(method.values), slow_copy(method.targets)

    def step(rows: Transitions) -> None:
        with torch.no_grad():
            best = torch.minimum(*slow(rows.observation, rows.action))
            value, next_value = values(rows.observation), values(rows.next_observation)
        u = best - values(rows.observation)
        values.step((torch.where(u < 0, 1 - config.expectile, config.expectile) * u**2).mean())
        if config.values_in_use == "after":
            with torch.no_grad():
                value, next_value = values(rows.observation), values(rows.next_observation)
        target = rows.reward + config.gamma * (1 - rows.terminated.double()) * next_value
        errors = ((critics(rows.observation, rows.action) - target) ** 2).mean(1)
        critics.step(errors.sum() if config.over_critics == "sum" else errors.mean())
        weight = (config.inverse_temperature * (best - value)).exp().clamp(max=config.weight_cap)
        policy = Normal(actor.network.stack(rows.observation)[0].tanh(), actor.network.log_std.exp())
        actor.step(-(weight * policy.log_prob(rows.action).sum(-1)).mean())
        follow(slow, critics, config.tau)

    def compare() -> dict[str, bool]:
        pairs = {"actor": (method.policy, actor.network), "critics": (method.critics.network, critics.network)}
        pairs |= {"values": (method.values.network, values.network), "slow critics": (method.targets.network, slow)}
        return {name: same_parameters(*pair) for name, pair in pairs.items()}

    return step, compare


@pytest.mark.parametrize("task", [DELAYED, LIMITED])
@pytest.mark.parametrize(("order", "over_critics"), [("before", "mean"), ("after", "sum")])
def test_a_step_is_the_plain_one(order: str, over_critics: str, task: str) -> None:
    agree("iql", plain_iql, task, values_in_use=order, over_critics=over_critics, inverse_temperature=8.0, anneal=False)


def test_the_two_orders_differ() -> None:
    with pytest.raises(AssertionError, match="critics"):
        agree("iql", lambda method: plain_iql(Disguised(method)), DELAYED, values_in_use="after", anneal=False)


class Disguised:
    """A method that says of itself that it uses V from before its step."""

    def __init__(self, method: Any) -> None:
        self.method = method
        self.config = type("Config", (), {**vars(method.config), "values_in_use": "before"})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)


def test_critics_are_never_asked_about_other_actions() -> None:
    """All that reaches the critics are the data's own actions."""
    method = built("iql", "Pendulum-v1")
    asked: list[Tensor] = []
    for network in (method.critics.network, method.targets.network):
        network.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[1]))
    rows = one_batch(method)
    method.gradient_step(rows)
    assert len(asked) == 2 and all(action is rows.action for action in asked)


def test_without_a_temperature_it_imitates_all_data_alike() -> None:
    method = built("iql", inverse_temperature=0.0)
    found = method.gradient_step(one_batch(method))
    assert found["action_weight"] == 1.0 and found["capped_share"] == 0.0


def test_huge_advantages_are_capped() -> None:
    method = built("iql", reward_scale=1e6, inverse_temperature=10.0)
    for _ in range(3):
        rows = one_batch(method)
        found = method.gradient_step(rows)
        assert torch.isfinite(torch.as_tensor(found["policy_loss"])) and float(found["action_weight"]) <= method.config.weight_cap
    weight = method.part(WeightedImitation).weight(method.context, Batch(rows), torch.tensor([-1e30, 0.0, 1e30]))
    assert weight.tolist() == [0.0, 1.0, method.config.weight_cap]


def rates(**options: Any) -> list[float]:
    """Step sizes of the policy, relative to the first, at the start, at update 50 and at the end."""
    method = built("iql", steps=100, update_to_data=1.0, learning_rate=0.01, **options)
    found = []
    for updates in (0, 50, 100 + options["online_steps"]):
        method.context.updates = updates
        found.append(method.part(WeightedImitation).learning_rate(method.context) / 0.01)
    return found


def test_the_policy_slows_down_by_a_cosine_where_nothing_follows() -> None:
    assert rates(online_steps=0) == pytest.approx([1.0, 0.5, 0.0], abs=1e-12)
    assert rates(online_steps=40) == [1.0, 1.0, 1.0]
    assert rates(online_steps=40, anneal=True) == pytest.approx([1.0, 0.5 * (1 + math.cos(math.pi * 50 / 140)), 0.0], abs=1e-12)


def test_rewards_are_rescaled_for_learning_and_reported_as_they_are(tmp_path: Path) -> None:
    settings = small(
        "iql", reward_scale=0.5, reward_shift=-1.0, log_every=1, online_steps=210, num_envs=1, replay_capacity=500, checkpoint_every=1000
    )
    run = Run.create(tmp_path / "run", settings).train()
    assert isinstance(run.method, Stages)
    method = ByHand(run.method)
    kept = method.replay.sample(400, torch.Generator().manual_seed(0))
    assert kept.reward.max() <= -1.0  # Pendulum's rewards are at most 0
    raw = gather("Pendulum-v1", 200).transitions.reward
    offline = kept.reward[kept.source == int(Source.OFFLINE)]
    assert set(offline.tolist()) <= set((0.5 * raw - 1.0).tolist())
    (episode,) = {row["episode_return"] for row in run.metrics if "episode_return" in row}
    replayed = method.replay.sample(5_000, torch.Generator().manual_seed(1))
    own = {int(i): r for i, r, s in zip(replayed.index, replayed.reward.tolist(), replayed.source, strict=True) if s == int(Source.REPLAY)}
    assert len(own) == 210
    first_episode = [own[index] for index in sorted(own)][:200]
    assert sum(2 * (reward + 1.0) for reward in first_episode) == pytest.approx(episode, rel=1e-4)


def test_returns_can_be_given_a_range(tmp_path: Path) -> None:
    task = "rheostat/Probe-RewardFromObservation-Continuous-v0"  # returns of -1 and 1
    method = built("iql", task, scale_returns_to=1000.0)
    assert method.context.stores["learned rewards"].scale == 500.0
    assert set(one_batch(method).reward.abs().tolist()) == {500.0}


def test_the_replay_begins_with_the_data_and_the_meter_sees_both_sources(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("iql", steps=60, online_steps=60, log_every=20, batch_size=64)).train()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    offline, online = [row for row in rows if row["steps"] <= 60], [row for row in rows if row["steps"] > 60]
    assert all(row["meter/share_offline"] == 1.0 and row["replay"] == 200 for row in offline) and len(offline) == 1
    assert online[-1]["replay"] == 260 and 0 < online[-1]["meter/share_replay"] < 1
    assert "meter/replay/ess" in online[-1] and "meter/offline/logp" in online[-1] and "meter/offline/ess" not in online[-1]
    assert run.method.steps == 120


def test_a_fixed_share_keeps_data_and_replay_apart(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("iql", offline_share=0.25, log_every=10)).train()
    assert run.metrics[-1]["meter/share_offline"] == 0.25
    method = ByHand(run.method)
    assert len(method.replay) == 100 and len(method.data) == 200


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"offline": None}, "learns from a data set first"),
        ({"expectile": 1.0}, "above 0 and below 1"),
        ({"inverse_temperature": -1.0}, "at least 0"),
        ({"weight_cap": 0.0}, "above 0"),
        ({"replay_capacity": 100}, "raise replay_capacity"),
        ({"scale_returns_to": 1000.0, "task": LIMITED}, "same return"),
        ({"task": "CartPole-v1"}, "belong to another task"),
    ],
)
def test_refusals(options: dict[str, Any], sentence: str) -> None:
    task = options.pop("task", None)
    if task == "CartPole-v1":
        options["offline"] = random_data("Pendulum-v1")
    with pytest.raises(RheostatError, match=sentence):
        built("iql", task, **options)
