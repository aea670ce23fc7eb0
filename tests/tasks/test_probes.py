"""The probes' answers follow from the worlds themselves, and the check tells right from wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tasks.control import make
from rheostat.tasks.control.probes import CLASSES, check, expected, task_id, value_if_cuts_were_deaths

GAMMA = 0.8
EVERY = [(name, continuous) for name in CLASSES for continuous in (False, True)]


def best_action(name: str, continuous: bool, observation: Tensor) -> Tensor:
    """The right action at each observation, and an arbitrary one where it does not matter."""
    answer = expected(name, GAMMA, continuous)
    if answer.action is None:
        return torch.zeros((len(observation), 1)) if continuous else torch.zeros(len(observation), dtype=torch.int64)
    which = (observation == answer.observation.T).int().argmax(1)
    return answer.action[which]


def learned_values(name: str, continuous: bool, *, cuts_are_deaths: bool = False) -> dict[float, float]:
    """Expected returns of the best policy by repeated Bellman backups over real transitions."""
    environments = make(task_id(name, continuous), num_envs=8, seed=0)
    observation = environments.reset()
    rows: list[tuple[float, float, bool, float]] = []
    for _ in range(60):
        step = environments.step(best_action(name, continuous, observation))
        over = step.terminated | step.truncated if cuts_are_deaths else step.terminated
        for row in step.valid.nonzero().flatten().tolist():
            rows.append((observation[row].item(), step.reward[row].item(), bool(over[row]), step.next_observation[row].item()))
        observation = step.observation
    values: dict[float, float] = dict.fromkeys((row[0] for row in rows), 0.0)
    for _ in range(200):
        targets: dict[float, list[float]] = {seen: [] for seen in values}
        for seen, reward, ended, following in rows:
            targets[seen].append(reward + (0.0 if ended else GAMMA * values.get(following, 0.0)))
        values = {seen: sum(target) / len(target) for seen, target in targets.items()}
    return values


@pytest.mark.parametrize(("name", "continuous"), EVERY)
def test_the_right_values_solve_the_bellman_equation_of_the_world(name: str, continuous: bool) -> None:
    answer = expected(name, GAMMA, continuous)
    values = learned_values(name, continuous)
    assert set(values) == set(answer.observation[:, 0].tolist())
    for seen, value in zip(answer.observation[:, 0].tolist(), answer.value.tolist(), strict=True):
        assert values[seen] == pytest.approx(value, abs=1e-5)


def test_taking_cuts_for_deaths_gives_the_value_that_the_check_recognises() -> None:
    wrong = learned_values("TimeLimit", False, cuts_are_deaths=True)[0.0]
    assert wrong == pytest.approx(value_if_cuts_were_deaths(GAMMA), rel=0.05)
    assert wrong < 0.6 * expected("TimeLimit", GAMMA).value.item()
    (sentence,) = check("TimeLimit", gamma=GAMMA, value=lambda observation: torch.full((len(observation),), wrong))
    assert "time limits for deaths" in sentence


@pytest.mark.parametrize(("name", "continuous"), [(name, continuous) for name, continuous in EVERY if "Action" in name or "Both" in name])
def test_other_actions_earn_less(name: str, continuous: bool) -> None:
    environments = make(task_id(name, continuous), num_envs=16, seed=0)
    observation = environments.reset()
    right = best_action(name, continuous, observation)
    assert environments.step(right).reward.tolist() == pytest.approx([1.0] * 16)
    observation = environments.restart(0)
    wrong = right + 0.4 if continuous else 1 - right
    assert environments.step(wrong).reward.tolist() == pytest.approx([1 - 0.4**2 if continuous else -1.0] * 16, abs=1e-5)


@pytest.mark.parametrize(("name", "continuous"), EVERY)
def test_the_check_passes_right_answers_and_names_wrong_ones(name: str, continuous: bool) -> None:
    answer = expected(name, GAMMA, continuous)
    assert (
        check(
            name,
            gamma=GAMMA,
            continuous=continuous,
            value=lambda observation: answer.value + 0.05,
            act=lambda observation: best_action(name, continuous, observation),
        )
        == []
    )
    wrong = check(name, gamma=GAMMA, continuous=continuous, value=lambda observation: answer.value - 0.3 * answer.value.abs().clamp(min=1))
    assert len(wrong) == 1 and wrong[0].startswith(name)
    assert len(check(name, gamma=GAMMA, continuous=continuous, value=lambda observation: answer.value * torch.nan)) == 1
    if answer.action is not None:
        action = answer.action
        (sentence,) = check(name, gamma=GAMMA, continuous=continuous, act=lambda observation: action + 0.2 if continuous else 1 - action)
        assert "actions" in sentence


def test_misuse_is_refused() -> None:
    with pytest.raises(RheostatError, match="ConstantReward"):
        expected("ConstantRewards", 0.9)
    with pytest.raises(RheostatError, match="gamma"):
        expected("TimeLimit", 1.0)
    with pytest.raises(RheostatError, match=r"\[1\], not \[1, 1\]"):
        check("ConstantReward", gamma=0.9, value=lambda observation: torch.ones(1, 1))
    with pytest.raises(RheostatError, match=r"\[1\], not \[\]"):
        check("RewardFromAction", gamma=0.9, act=lambda observation: torch.tensor(1))
