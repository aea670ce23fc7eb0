"""IQL, CQL and AWAC where actions are discrete: steps against plain ones, from data to acting, exact resume, and the command line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import rheostat
from rheostat.buffers.offline import OfflineData
from rheostat.cli.entry import main
from rheostat.errors import RheostatError
from rheostat.training.checkpoint import split_state
from rheostat.trajectories import Transitions
from tests.border.test_checkpoints import halted
from tests.methods.plain import Twin, agree, follow, same_parameters, slow_copy
from tests.tiny_control import built, one_batch, random_data

DELAYED, LIMITED = "rheostat/Probe-DelayedReward-v0", "rheostat/Probe-TimeLimit-v0"
METHODS = ("awac", "cql", "iql")
SMALL: dict[str, Any] = {"hidden": (16,), "batch_size": 32, "log_every": 50, "evaluation_episodes": 4, "progress": False}


def networks(method: Any) -> Any:
    """Actor, critics, and slow critics, apart, and how to compare them."""
    actor, critics, slow = Twin(method.actor), Twin(method.critics), slow_copy(method.targets)
    pairs = {"actor": (method.policy, actor.network), "critics": (method.critics.network, critics.network)}
    pairs |= {"slow critics": (method.targets.network, slow)}
    return actor, critics, slow, pairs


def values(network: Any, observation: Tensor) -> Tensor:
    """``[K, B, A]``."""
    return getattr(network, "network", network).stack(observation)


def taken(values: Tensor, action: Tensor) -> Tensor:
    """``[K, B]``."""
    return torch.stack([each[torch.arange(len(action)), action] for each in values])


def comparing(pairs: dict[str, Any]) -> Any:
    return lambda: {name: same_parameters(*pair) for name, pair in pairs.items()}


def plain_iql(method: Any) -> Any:
    """A step written out, after the paper's equations and CORL's order, with a softmax for the policy."""
    config = method.config
    actor, critics, slow, pairs = networks(method)
    state = Twin(method.values)

    def step(rows: Transitions) -> None:
        with torch.no_grad():
            best = taken(values(slow, rows.observation), rows.action).amin(0)
            value, following = state(rows.observation), state(rows.next_observation)
        u = best - state(rows.observation)
        state.step((torch.where(u < 0, 1 - config.expectile, config.expectile) * u**2).mean())
        target = rows.reward + config.gamma * (1 - rows.terminated.double()) * following
        critics.step(((taken(values(critics, rows.observation), rows.action) - target) ** 2).mean())
        weight = (config.inverse_temperature * (best - value)).exp().clamp(max=config.weight_cap)
        loss = torch.nn.functional.cross_entropy(actor.network.stack(rows.observation)[0], rows.action, reduction="none")
        actor.step((weight * loss).mean())
        follow(slow, critics, config.tau)

    return step, comparing(pairs | {"values": (method.values.network, state.network)})


def plain_awac(method: Any) -> Any:
    """A step written out: what a continuous policy estimates by one action is the mean over all of them."""
    config = method.config
    actor, critics, slow, pairs = networks(method)

    def mean(network: Any, observation: Tensor) -> Tensor:
        return (actor.network.stack(observation)[0].softmax(-1) * values(network, observation).amin(0)).sum(-1)

    def step(rows: Transitions) -> None:
        with torch.no_grad():
            target = rows.reward + config.gamma * (1 - rows.terminated.double()) * mean(slow, rows.next_observation)
        critics.step(((taken(values(critics, rows.observation), rows.action) - target) ** 2).mean(1).sum())
        with torch.no_grad():
            advantage = taken(values(critics, rows.observation), rows.action).amin(0) - mean(critics, rows.observation)
        weight = (advantage / config.advantage_temperature).exp().clamp(max=config.weight_cap)
        loss = torch.nn.functional.cross_entropy(actor.network.stack(rows.observation)[0], rows.action, reduction="none")
        actor.step((weight * loss).mean())
        follow(slow, critics, config.tau)

    return step, comparing(pairs)


def plain_cql(method: Any) -> Any:
    """A step written out: the exact gap of the paper on the discrete soft actor-critic of Christodoulou (2019)."""
    config = method.config
    actor, critics, slow, pairs = networks(method)
    heat = Twin(method.thermostat)
    held = 0.98 * math.log(method.context.action_space.n)
    done = 0

    def step(rows: Transitions) -> None:
        nonlocal done
        alpha = heat.network.log.exp().detach()
        with torch.no_grad():
            log_pi, least = actor.network.stack(rows.next_observation)[0].log_softmax(-1), values(slow, rows.next_observation).amin(0)
            if config.best_next_action:
                following, best = least.max(-1)
                bonus = log_pi[torch.arange(len(best)), best]
            else:
                following, bonus = (log_pi.exp() * least).sum(-1), (log_pi.exp() * log_pi).sum(-1)
            following = following - alpha * bonus if config.entropy_in_backup else following
            target = rows.reward + config.gamma * (1 - rows.terminated.double()) * following

        def move_critics() -> None:
            everything = values(critics, rows.observation)
            data = taken(everything, rows.action)
            height = config.gap_temperature * (everything / config.gap_temperature).logsumexp(-1)
            critics.step(((data - target) ** 2).mean(1).sum() + config.conservative_weight * (height - data).mean(1).sum())

        def move_policy() -> None:
            log_pi = actor.network.stack(rows.observation)[0].log_softmax(-1)
            good = (log_pi.exp() * values(critics, rows.observation).amin(0).detach()).sum(-1)
            if done < config.imitation_steps:
                good = log_pi[torch.arange(len(rows)), rows.action]
            surprise = (log_pi.exp() * log_pi).sum(-1)
            actor.step((alpha * surprise - good).mean())
            heat.step(-(heat.network.log * (surprise.detach() + held).mean()).sum())

        for move in (move_policy, move_critics) if config.simultaneous else (move_critics, move_policy):
            move()
        follow(slow, critics, config.tau)
        done += 1

    return step, comparing(pairs | {"temperature": (method.temperature, heat.network)})


PLAIN = {"awac": plain_awac, "cql": plain_cql, "iql": plain_iql}
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("iql", {"inverse_temperature": 8.0, "anneal": False}),
    ("awac", {"advantage_temperature": 0.2, "weight_cap": 1.2}),
    ("cql", {"critic_learning_rate": 1e-2}),
    ("cql", {"critic_learning_rate": 1e-2, "entropy_in_backup": True, "gap_temperature": 0.5, "simultaneous": True}),
    ("cql", {"critic_learning_rate": 1e-2, "best_next_action": True, "entropy_in_backup": True, "imitation_steps": 1}),
]


@pytest.mark.parametrize("task", [DELAYED, LIMITED])
@pytest.mark.parametrize(("method", "options"), FORMS, ids=lambda part: part if isinstance(part, str) else ", ".join(part))
def test_a_step_is_the_plain_one(method: str, options: dict[str, Any], task: str) -> None:
    agree(method, PLAIN[method], task, **options)


def test_a_wrong_step_is_seen() -> None:
    """The comparison would notice a mean over critics in the place of the smallest."""
    with pytest.raises(AssertionError, match="critics"):
        agree("cql", lambda method: plain_cql(method), DELAYED, critic_learning_rate=1e-2, over_critics="mean")


@pytest.mark.parametrize("method", METHODS)
def test_good_choices_of_random_data_are_found(method: str, tmp_path: Path) -> None:
    """Half of the actions of the data are wrong; what is learned earns everything."""
    task = "rheostat/Probe-RewardFromBoth-v0"
    options = SMALL | {"steps": 600, "learning_rate": 3e-3, "evaluation_episodes": 30}
    own = {"awac": {"advantage_temperature": 0.1}, "cql": {"critic_learning_rate": 3e-3, "target_entropy": 0.1}, "iql": {}}[method]
    run = rheostat.train(method, task, offline=random_data(task), directory=tmp_path / "run", **options, **own)
    data = OfflineData.load(random_data(task))
    assert data.returns.mean() < 0.3 * data.returns.max()
    assert run.summary["evaluation_return"] == pytest.approx(float(data.returns.max()))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_from_the_command_line_is_opened_and_acts(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--steps", "40", "--online-steps", "60", "--hidden", "8", "--batch-size", "16", "--evaluation-episodes", "1"]
    data = random_data("CartPole-v1")
    main(["train", method, "CartPole-v1", "--offline", data, *flags, "--directory", str(tmp_path / "run")])
    run = rheostat.load(tmp_path / "run")
    action = run.policy(np.array([0.1, 0.2, 0.05, -0.1], np.float32))
    assert spaces.Discrete(2).contains(action) and run.method.steps == 100
    assert {"meter/replay/ess", "policy_loss", "critic_loss"} <= set(run.metrics[-1])
    capsys.readouterr()
    main(["ope", str(tmp_path / "run"), "--offline", data, "--estimators", "data", "--json"])
    assert "estimates" in capsys.readouterr().out


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_stopped_ends_where_the_other_one_does(method: str, tmp_path: Path) -> None:
    data = random_data("CartPole-v1")
    options = {key: value for key, value in SMALL.items() if key != "progress"} | {"offline": data, "backend": "gymnasium"}
    options |= {"steps": 150, "online_steps": 60, "checkpoint_every": 40, "num_envs": 2}
    whole = rheostat.train(method, "CartPole-v1", directory=tmp_path / "whole", progress=False, **options)
    halted(method, "CartPole-v1", tmp_path / "halted", after=8, **options)
    again = rheostat.resume(tmp_path / "halted", progress=False)
    assert again.metrics == whole.metrics
    one, other = (split_state(run.method.state_dict())[1] for run in (whole, again))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("method", "option", "why"),
    [
        ("iql", {"log_std": (-5.0, 2.0)}, "has no deviation"),
        ("awac", {"log_std": (-6.0, 0.0)}, "has no deviation"),
        ("cql", {"penalty_actions": 5}, "all summed"),
        ("cql", {"gap_form": "plain"}, "all summed"),
        ("cql", {"sum_over_actions": True}, "all summed"),
    ],
)
def test_options_of_continuous_actions_are_refused(method: str, option: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=why):
        rheostat.train(method, "CartPole-v1", offline=random_data("CartPole-v1"), directory=tmp_path / "run", **(SMALL | option))


def test_critics_of_choices_know_all_of_them() -> None:
    method = built("cql", "CartPole-v1")
    rows = one_batch(method)
    network = method.critics.network
    everything = network.of_all(rows.observation)
    assert everything.shape == (2, len(rows), 2)
    for action in (0, 1):
        assert torch.equal(network(rows.observation, torch.full((len(rows),), action)), everything[..., action])
    assert not network.of_all(rows.observation, frozen=True).requires_grad
    method.close()


@pytest.mark.parametrize("method", ["famo2o", "famo2o-cql", "td3-bc", "uni-o4", "rlpd"])
def test_methods_of_continuous_actions_say_so(method: str) -> None:
    with pytest.raises(RheostatError, match=f"{method} .*Discrete.* iql, cql, awac or bc where such choices come from a data set"):
        built(method, "CartPole-v1", offline=random_data("CartPole-v1"))
