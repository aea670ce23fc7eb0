"""TD-JEPA and its baselines: what they are asked for later, bad input, and what the policies of tasks do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rheostat
from rheostat.buffers.offline import OfflineData
from rheostat.errors import RheostatError
from rheostat.learner.zero_shot import goal_of, noisy, reached, returns_for, task_of, task_of_goal
from rheostat.objectives.latent_prediction import on_sphere
from rheostat.tasks.control.state_rewards import StateReward
from rheostat.training.building import build_method
from tests.tiny_control import built, gather, random_data, small

MAZE = "point-maze"
METHODS = ("td-jepa", "forward-backward", "laplacian")
RIGHT = StateReward(lambda x: x[:, 0], "right")
CONSTANT = StateReward(lambda x: 0 * x[:, 0] + 3, "three")


@pytest.fixture(scope="module")
def maze() -> OfflineData:
    return gather(MAZE, 300)


def with_rewards(data: OfflineData, reward: torch.Tensor) -> OfflineData:
    """The same steps with other recorded rewards."""
    rows = data.transitions.clone()
    rows.reward = reward
    spaces: dict[str, Any] = {"observation_space": data.observation_space, "action_space": data.action_space}
    return OfflineData(rows, data.breaks, task=data.task, **spaces)


@pytest.mark.parametrize("method", METHODS)
def test_a_policy_for_a_reward_that_was_never_seen(method: str) -> None:
    one = built(method, MAZE, steps=5, offline=random_data(MAZE))
    one.learner.turn()
    context, policy = one.context, one.context.models["policy"]
    z = task_of(RIGHT)(context)
    assert float(z.square().mean()) == pytest.approx(1, rel=1e-4)
    before = policy.task.clone()
    returns = returns_for(context, RIGHT, 3)
    assert len(returns) == 3 and torch.equal(policy.task, before)  # what was pursued is pursued again
    assert returns == returns_for(context, RIGHT, 3)
    goal = goal_of(context, (0.5, -0.5))
    policy.pursue(task_of_goal(goal))
    psi = context.models[policy.psi].network(context.see(goal).unsqueeze(0))[0]
    torch.testing.assert_close(policy.task, on_sphere(psi))
    assert set(reached(context, goal, 0.3, 4)) <= {0.0, 1.0} and reached(context, goal, 10.0, 2) == [1.0, 1.0]


def test_the_task_follows_the_encoder() -> None:
    one = built("td-jepa", MAZE, steps=5, offline=random_data(MAZE), learning_rate=1e-2)
    policy = one.context.models["policy"]
    policy.pursue(task_of(RIGHT))
    before = policy.task
    assert policy.task is before
    one.learner.turn()
    assert not torch.equal(policy.task, before)


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_reward_has_no_direction(method: str) -> None:
    context = built(method, MAZE, steps=5, offline=random_data(MAZE)).context
    with pytest.raises(RheostatError, match=r"The reward three is 3 for all 100 states of .* so the direction of its task is arbitrary"):
        returns_for(context, CONSTANT, 2)


def test_recorded_rewards_that_are_constant_are_not_measured(maze: OfflineData, tmp_path: Path) -> None:
    data = with_rewards(maze, torch.zeros(len(maze)))
    options = {"steps": 20, "batch_size": 8, "hidden": (8,), "task_hidden": (8,), "task_features": 4, "state_features": 4}
    run = rheostat.train("td-jepa", MAZE, offline=data, directory=tmp_path / "run", progress=False, **options)
    assert run.finished and "evaluation_return" not in run.summary
    with pytest.raises(RheostatError, match=r"The recorded reward is 0 for all 300 states .* arbitrary"):
        run.policy(maze.transitions.observation[0].numpy())


def test_a_reward_that_cannot_be_recomputed() -> None:
    context = built("td-jepa", MAZE, steps=5, offline=random_data(MAZE)).context
    with pytest.raises(RheostatError, match="The reward far cannot be computed from observations"):
        returns_for(context, StateReward(lambda x: x[:, 7], "far"), 2)
    with pytest.raises(RheostatError, match="A goal of rheostat/PointMaze-v0 is an observation of 2 finite numbers; 3 were given"):
        goal_of(context, (0.0, 1.0, 2.0))
    with pytest.raises(RheostatError, match="2 finite numbers"):
        goal_of(context, (0.0, float("nan")))


@pytest.mark.parametrize(
    ("method", "task", "options", "sentence"),
    [
        ("td-jepa", MAZE, {"offline": None}, "learns from a data set first: name one with --offline"),
        ("td-jepa", "CartPole-v1", {}, "has Discrete"),
        ("td-jepa", MAZE, {"online_steps": 50}, "learns from a data set alone: leave online_steps out"),
        ("td-jepa", MAZE, {"actor": "flow"}, "set imitation above 0"),
        ("td-jepa", MAZE, {"predictors": 1, "pessimism": 0.5}, "One predictor has no disagreement"),
        ("laplacian", MAZE, {"hidden": (7,)}, "an even number of units"),
        ("td-jepa", MAZE, {"form": "symmetric", "task_features": 7}, "the symmetric form has one encoder"),
        ("td-jepa", MAZE, {"goal_share": 0.0, "scale_goals": True}, "there are no goals to scale"),
        ("td-jepa", MAZE, {"flow_steps": 5}, "the plain actor has no flow"),
        ("td-jepa", MAZE, {"actor": "flow", "imitation": 1.0, "actor_noise": 0.1}, "draws noise as an input"),
    ],
)
def test_what_cannot_be_is_refused(method: str, task: str, options: dict[str, Any], sentence: str) -> None:
    given = {"offline": random_data(task)} | options
    if given["offline"] is None:
        with pytest.raises(RheostatError, match=sentence):
            build_method(replace(small(method, task), offline=None), task)
        return
    with pytest.raises(RheostatError, match=sentence):
        built(method, task, **given)


def test_without_the_next_observation_there_is_nothing_to_predict(tmp_path: Path) -> None:
    rows = {"observations": np.zeros((4, 2), np.float32), "actions": np.zeros((4, 2), np.float32), "rewards": np.arange(4.0)}
    ends = {"terminals": np.zeros(4, bool), "timeouts": np.array([0, 0, 0, 1], bool)}
    np.savez(tmp_path / "data.npz", **rows, **ends)
    with pytest.raises(RheostatError, match="observation"):
        built("td-jepa", MAZE, offline=str(tmp_path / "data.npz"))


def test_noisy_actions_stay_inside_and_pass_the_gradient_on() -> None:
    action = torch.tensor([[0.95, -0.2]], requires_grad=True)
    found = noisy(action, torch.tensor([[0.5, -5.0]]), 0.3)
    torch.testing.assert_close(found.detach(), torch.tensor([[1 - 1e-6, -0.5]]))
    found.sum().backward()
    assert torch.equal(action.grad, torch.ones(1, 2))  # type: ignore[arg-type]


def test_frozen_encoders_do_not_move() -> None:
    one = built("td-jepa", MAZE, steps=5, offline=random_data(MAZE), task_learning_rate=0.0, state_learning_rate=0.0)
    before = {name: one.context.models[name].parameters.vector.detach().clone() for name in ("task encoder", "state encoder", "predictor")}
    one.learner.turn()
    same = {name: torch.equal(one.context.models[name].parameters.vector, each) for name, each in before.items()}
    assert same == {"task encoder": True, "state encoder": True, "predictor": False}


def test_a_flow_policy_acts_by_noise_and_deterministically_without() -> None:
    one = built("td-jepa", MAZE, steps=5, offline=random_data(MAZE), actor="flow", imitation=1.0)
    policy = one.context.models["policy"].distribution(torch.zeros(3, 2))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(policy.mode(), policy.mode()) and not torch.equal(policy.sample(generator), policy.sample(generator))
    assert bool(policy.log_prob(policy.mode()).isnan().all())
