"""Rules of termination against the worlds themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rheostat.tasks.control.environments import make
from rheostat.tasks.control.terminations import termination_of

ENDING = ("Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5", "InvertedPendulum-v5", "InvertedDoublePendulum-v5")


@pytest.mark.parametrize("task", ENDING)
def test_the_rule_ends_where_the_world_does(task: str) -> None:
    """Uniform actions in Gymnasium's world: both agree at every step, and both kinds of step occur."""
    rule = termination_of(task)
    assert rule is not None
    worlds = make(task, num_envs=4, seed=3, backend="gymnasium")
    worlds.action_space.seed(0)
    worlds.reset()
    said, did = [], []
    for _ in range(150):
        step = worlds.step(torch.as_tensor(np.stack([worlds.action_space.sample() for _ in range(4)])))
        said.append(rule(step.next_observation)[step.valid])
        did.append(step.terminated[step.valid])
    worlds.close()
    ended = torch.cat(did)
    assert 0 < ended.sum() < len(ended)
    assert torch.equal(torch.cat(said), ended)


def test_the_goal_of_the_mountain_car() -> None:
    rule = termination_of("MountainCarContinuous-v0")
    assert rule is not None
    assert rule(torch.tensor([[0.46, 0.0], [0.46, -0.01], [0.4, 0.05]])).tolist() == [True, False, False]


@pytest.mark.parametrize("task", ["Pendulum-v1", "HalfCheetah-v5", "Swimmer-v5", "my/World-v0", "Hopper-v3", "custom:Hopper"])
def test_other_worlds_have_no_rule(task: str) -> None:
    assert termination_of(task) is None


def test_the_name_of_a_backend_changes_nothing() -> None:
    assert termination_of("gymnasium:Hopper-v5") is termination_of("Hopper-v5") is not None
