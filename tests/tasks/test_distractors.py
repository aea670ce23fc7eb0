"""Distractors: what they are, that they matter for nothing, and that they are the same in every copy of a task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tasks.control.distracted import Distracted
from rheostat.tasks.control.distractors import LIMIT, DistractorOptions
from rheostat.tasks.control.environments import Environments, make
from rheostat.tasks.control.terminations import known_termination_of, termination_of


def pendulum(seed: int = 0, **options: Any) -> Environments:
    return make("Pendulum-v1", num_envs=2, seed=seed, **{"distractors": 4} | options)


def played(environments: Environments, steps: int = 30) -> tuple[Tensor, Tensor]:
    """Observations ``[steps, E, n]`` and rewards ``[steps, E]`` of fixed actions."""
    environments.reset()
    found = [environments.step(torch.full((2, 1), float(np.sin(t)))) for t in range(steps)]
    environments.close()
    return torch.stack([step.next_observation for step in found]), torch.stack([step.reward for step in found])


@pytest.mark.parametrize("kind", ["linear", "switching", "noise"])
def test_the_task_itself_is_untouched(kind: str) -> None:
    seen, reward = played(pendulum(distractor_kind=kind))
    own, own_reward = played(make("Pendulum-v1", num_envs=2, seed=0, backend="gymnasium"))
    assert seen.shape[-1] == 7
    assert torch.equal(seen[..., :3], own) and torch.equal(reward, own_reward)


def test_linear_distractors_follow_one_map_that_neither_dies_nor_explodes() -> None:
    options = DistractorOptions(6, distractor_map=3)
    mapped = Distracted(make_gym(), options).by_itself
    assert np.abs(np.linalg.eigvals(mapped)).max() == pytest.approx(1.0)
    seen, _ = played(pendulum(distractors=6, distractor_map=3))
    moved = seen[:-1, :, 3:].double() @ torch.from_numpy(mapped).T
    torch.testing.assert_close(moved, seen[1:, :, 3:].double(), atol=1e-5, rtol=1e-4)
    other, _ = played(pendulum(distractors=6, distractor_map=4))
    assert not torch.equal(other[..., 3:], seen[..., 3:])


def make_gym() -> Any:
    import gymnasium

    return gymnasium.make("Pendulum-v1")


def test_correlated_distractors_read_the_task() -> None:
    apart, together = (played(pendulum(distractor_correlated=chosen))[0] for chosen in (False, True))
    assert torch.equal(apart[..., :3], together[..., :3]) and not torch.equal(apart[..., 3:], together[..., 3:])


def test_switching_distractors_are_put_back_and_noise_is_normal() -> None:
    switching, _ = played(pendulum(distractor_kind="switching"), 150)
    assert 1.0 < switching[..., 3:].abs().max() <= LIMIT
    noise, _ = played(pendulum(distractor_kind="noise"), 150)
    assert noise[..., 3:].mean().abs() < 0.15 and 0.9 < noise[..., 3:].std() < 1.1


def test_the_same_seed_gives_the_same_distractors_and_a_saved_state_goes_on() -> None:
    assert torch.equal(played(pendulum(distractor_kind="noise"))[0], played(pendulum(distractor_kind="noise"))[0])
    whole = pendulum(distractor_kind="switching")
    whole.reset()
    for t in range(7):
        whole.step(torch.full((2, 1), float(t)))
    continued = pendulum(distractor_kind="switching")
    continued.load_state_dict(whole.state_dict())
    for _ in range(5):
        one, other = (each.step(torch.ones(2, 1)) for each in (whole, continued))
        assert torch.equal(one.next_observation, other.next_observation)
    whole.close(), continued.close()


def test_the_rule_of_termination_reads_the_tasks_own_numbers() -> None:
    rule, plain = termination_of("Hopper-v5 with 10 distractors"), termination_of("Hopper-v5")
    assert rule is not None and plain is not None
    seen = torch.tensor([[1.2, *[0.0] * 10], [0.5, *[0.0] * 10]])
    far = torch.cat([seen, torch.full((2, 10), 500.0)], -1)
    assert rule(far).tolist() == plain(seen).tolist() == [False, True]
    assert not known_termination_of("HalfCheetah-v5 with 3 distractors")(torch.zeros(2, 20)).any()
    assert not known_termination_of("gymnasium:Pendulum-v1")(torch.zeros(2, 3)).any()


def test_an_unknown_rule_is_refused_in_one_sentence() -> None:
    with pytest.raises(RheostatError, match=r"It is not known when my/World-v0 ends.*imagined_end never"):
        known_termination_of("my/World-v0")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"distractors": 0}, "distractors is 0; it must be at least 1"),
        ({"distractors": 2.5}, "distractors is 2.5; it must be a whole number"),
        ({"distractor_kind": "quadratic"}, "Unknown kind of distractors 'quadratic'"),
        ({"distractor_scale": -1.0}, "distractor_scale is -1.0; it must be a number from 0 to 20"),
        ({"distractor_correlated": 1}, "distractor_correlated is 1; it must be true or false"),
        ({"distractor_kind": "noise", "distractor_map": 2}, "Distractors of noise follow no map"),
        ({"distractors": 2, "backend": "envpool"}, "Pendulum-v1 was asked of EnvPool"),
    ],
)
def test_mistakes_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(RheostatError, match=says):
        pendulum(**options)


def test_distractors_need_their_number_and_a_vector() -> None:
    with pytest.raises(RheostatError, match="distractor_scale is of distractors, and there are none"):
        make("Pendulum-v1", num_envs=1, seed=0, distractor_scale=2.0)
    with pytest.raises(RheostatError, match="the observation of this task is Discrete"):
        make("FrozenLake-v1", num_envs=1, seed=0, distractors=2)
