"""Critics of a behaviour: what they converge to, in which order they move, and that they resume exactly."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.policies.control.behaviour_critics import BehaviourCritics
from rheostat.trajectories import Transitions

GAMMA = 0.5


def chain() -> tuple[Transitions, Tensor]:
    """Two states; the behaviour takes 1 or -1 with equal chance in the first (reward: the action) and then 0 in the second (reward 2),
    where the world ends. Q(first, a) = a + gamma 2, V(first) = gamma 2, Q and V of the second = 2."""
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    rows = [(first, 1.0, 1.0, second, 0.0, False), (first, -1.0, -1.0, second, 0.0, False), (second, 0.0, 2.0, second, 0.0, True)]
    terminated = torch.tensor([row[5] for row in rows])
    data = Transitions(
        observation=torch.cat([row[0] for row in rows]),
        action=torch.tensor([[row[1]] for row in rows]),
        reward=torch.tensor([row[2] for row in rows]),
        next_observation=torch.cat([row[3] for row in rows]),
        next_action=torch.tensor([[row[4]] for row in rows]),
        terminated=terminated,
        truncated=torch.zeros(3, dtype=torch.bool),
        sampler_logp=torch.zeros(3),
        discount=GAMMA * (~terminated).float(),
        batch_size=[3],
    )  # type: ignore[call-arg]
    return data, torch.tensor([1.0 + GAMMA * 2, -1.0 + GAMMA * 2, 2.0])


def critics(kind: str, **options: Any) -> BehaviourCritics:
    settings = {"critic_hidden": (16,), "value_hidden": (16,), "learning_rate": 1e-2, "tau": 0.5, "target_every": 2, "expectile": 0.5}
    return BehaviourCritics(2, 1, kind=kind, generator=torch.Generator().manual_seed(0), **(settings | options))  # type: ignore[arg-type]


def test_sarsa_finds_the_values_of_the_behaviour() -> None:
    rows, returns = chain()
    one = critics("sarsa")
    for _ in range(300):
        one.step(rows, returns)
    torch.testing.assert_close(one.q(rows.observation, rows.action), torch.tensor([2.0, 0.0, 2.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(one.value(rows.observation), torch.tensor([1.0, 1.0, 2.0]), atol=0.05, rtol=0)


@pytest.mark.parametrize(("expectile", "value"), [(0.5, 1.0), (0.9, 1.8)])
def test_iql_finds_an_expectile_of_the_values_of_the_data(expectile: float, value: float) -> None:
    """Of 2 and 0 with equal chance, the expectile tau is 2 tau."""
    rows, _ = chain()
    one = critics("iql", expectile=expectile)
    for _ in range(400):
        one.step(rows)
    torch.testing.assert_close(one.q(rows.observation, rows.action), torch.tensor([2.0, 0.0, 2.0]), atol=0.06, rtol=0)
    assert one.value(rows.observation)[0].item() == pytest.approx(value, abs=0.06)


def test_slow_critics_move_every_second_step() -> None:
    rows, returns = chain()
    one = critics("sarsa")
    seen = [one.targets.parameters.vector.clone()]
    for _ in range(4):
        one.step(rows, returns)
        seen.append(one.targets.parameters.vector.clone())
    assert [not torch.equal(a, b) for a, b in itertools.pairwise(seen)] == [False, True, False, True]


def test_the_second_critic_exists_for_iql_only() -> None:
    rows, _ = chain()
    assert critics("sarsa").critics.network(rows.observation, rows.action).shape == (1, 3)
    assert critics("iql").critics.network(rows.observation, rows.action).shape == (2, 3)


@pytest.mark.parametrize("kind", ["sarsa", "iql"])
def test_it_resumes_exactly(kind: str) -> None:
    rows, returns = chain()
    whole, halted = critics(kind), critics(kind)
    for one in (whole, halted):
        for _ in range(3):
            one.step(rows, returns)
    continued = critics(kind)
    continued.load_state_dict(halted.state_dict())
    for one in (whole, continued):
        for _ in range(3):
            one.step(rows, returns)
    for name in ("critics", "targets", "values"):
        assert torch.equal(getattr(whole, name).parameters.vector, getattr(continued, name).parameters.vector)
