"""Every control method of the table on every probe environment: the right values and actions are known in closed form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rheostat import api
from rheostat.methods import table
from rheostat.methods.dqn import DQN
from rheostat.tasks.control import probes
from rheostat.training.run import Run
from rheostat.trajectories import Transitions
from tests.tiny_control import CONTINUOUS, CONTROL, random_data, reads_data, replays

GAMMA = 0.9
FAST = {
    "num_envs": 8,
    "batch_steps": 128,
    "epochs": 4,
    "minibatches": 2,
    "learning_rate": 1e-2,
    "gamma": GAMMA,
    "hidden": (16,),
    "normalise_observations": False,
    "normalise_rewards": False,
    "clip_value": False,
    "anneal": True,
}
OWN = {
    "a2c": {"batch_steps": 64, "epochs": 1, "minibatches": 1, "normalise_advantage": True},
    "props": {"behaviour_steps": 64, "behaviour_epochs": 2, "behaviour_minibatches": 2, "target_kl": None},
    "ros": {"behaviour_steps": 64, "behaviour_learning_rate": 0.01},
    "robust-acting": {"repair_probability": 0.1},
}
STEPS = {"TimeLimit": 16_000}
REPLAY = {
    "num_envs": 8,
    "batch_size": 64,
    "start_steps": 400,
    "update_to_data": 0.125,
    "replay_capacity": 10_000,
    "learning_rate": 3e-3,
    "gamma": GAMMA,
    "tau": 0.1,
    "hidden": (32, 32),
    "log_every": 100_000,
    "checkpoint_every": 100_000,
}
"""One gradient step per step of the eight environments."""
REPLAY_OWN: dict[str, dict[str, object]] = {
    "awac": {"advantage_temperature": 0.1},
    "bc": {"best_share": 0.1},
    "cql": {"temperature": 0.01, "conservative_weight": 0.1, "penalty_actions": 5, "critic_learning_rate": 1e-2},
    "dqn": {"tau": 1.0, "target_every": 20},
    "famo2o": {"coefficient_low": 5.0, "coefficient_high": 15.0, "expectile": 0.9},
    "famo2o-cql": {"temperature": 0.01, "conservative_weight": 0.1, "penalty_actions": 5, "critic_learning_rate": 1e-2},
    "iql": {"inverse_temperature": 10.0, "expectile": 0.9},
    "pmoe": {"temperature": 0.01},
    "rlpd": {"temperature": 0.01},
    "sac": {"temperature": 0.01},
    "td3-bc": {"alpha": 25.0},  # the data's mean action is 0, and imitation pulls there
    "uni-o4": {
        "critic_part": 3.0,
        "model_part": 1.0,
        "cloning_part": 1.0,
        "policy_part": 3.0,
        "critic_learning_rate": 1e-2,
        "policy_learning_rate": 1e-2,
        "critic_hidden": (32, 32),
        "value_hidden": (32, 32),
        "model_hidden": (16,),
        "model_networks": 2,
        "model_elites": 2,
        "members": 2,
        "gate_every": 10,
        "horizon": 1,
        "starts": 32,
    },
}
GRADIENT_STEPS = {"TimeLimit": 1_200}
DATA_STEPS = 600
NO_VALUE = {"bc"}
"""Methods without a critic."""
PESSIMISTIC = {"cql", "famo2o", "famo2o-cql", "iql", "uni-o4"}
"""Methods whose critics judge the data's actions, or push values down: their actions are checked, and values where no action matters."""


def train_on(method: str, task: str, steps: int, directory: Path, **options: object) -> Run:
    settings = api.settings_for(method, task, steps=steps, evaluation_episodes=0, **(FAST | OWN.get(method, {}) | options))
    return Run.create(directory, settings).train()


def train_replay_on(method: str, task: str, updates: int, directory: Path, **options: object) -> Run:
    """A method with a replay; those that begin with a data set learn from uniform actions alone."""
    options = REPLAY | REPLAY_OWN.get(method, {}) | options
    data = {} if reads_data(method) == "no" else {"offline": random_data(task, DATA_STEPS)}
    steps = updates if reads_data(method) == "first" else int(REPLAY["start_steps"] + REPLAY["num_envs"] * updates)  # type: ignore[operator]
    return Run.create(directory, api.settings_for(method, task, steps=steps, evaluation_episodes=0, **data, **options)).train()


def is_quick(method: str, probe: str, continuous: bool) -> bool:
    """All of PPO, one or two of every other method; the rest runs every night."""
    if method == "ppo":
        return True
    if replays(method):
        return (probe, continuous) == ("RewardFromBoth", not table.entry(method).load().discrete)
    if method == "a2c":
        return (probe, continuous) in (("RewardFromBoth", False), ("TimeLimit", True))
    if method in CONTINUOUS:
        return probe == "RewardFromBoth"
    return method in ("ppo-buffer", "props", "ros") and (probe, continuous) in (("RewardFromBoth", False), ("DelayedReward", True))


def can_fail(method: str, probe: str, continuous: bool) -> bool:
    """Whether a method can take a probe's actions, and has anything to be checked there."""
    if not replays(method):
        return continuous or method not in CONTINUOUS
    discrete = table.entry(method).load().discrete
    return discrete in (None, not continuous) and (method not in NO_VALUE or "Action" in probe or "Both" in probe)


def cases() -> list[object]:
    """Every method on every probe that it can act in."""
    found = []
    for method in CONTROL:
        for probe in probes.CLASSES:
            for continuous in (False, True):
                if can_fail(method, probe, continuous):
                    name = f"{method}-{'continuous' if continuous else 'discrete'}-{probe}"
                    marks = () if is_quick(method, probe, continuous) else pytest.mark.slow
                    found.append(pytest.param(method, continuous, probe, id=name, marks=marks))
    return found


@pytest.mark.parametrize(("method", "continuous", "probe"), [case for case in cases() if replays(case.values[0])])  # type: ignore[attr-defined]
def test_probe_with_a_replay_or_a_data_set(method: str, continuous: bool, probe: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    run = train_replay_on(method, probes.task_id(probe, continuous), GRADIENT_STEPS.get(probe, 400), tmp_path / "run")
    acted = "Action" in probe or "Both" in probe
    wrong = probes.check(
        probe,
        gamma=GAMMA,
        continuous=continuous,
        value=None if method in NO_VALUE or (method in PESSIMISTIC and acted) else run.method.value,  # type: ignore[attr-defined]
        act=lambda observation: run.method.act_on_target(observation).mode(),  # type: ignore[attr-defined]
    )
    assert not wrong, wrong


@pytest.mark.parametrize(("method", "continuous", "probe"), [case for case in cases() if not replays(case.values[0])])  # type: ignore[attr-defined]
def test_probe(method: str, continuous: bool, probe: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    run = train_on(method, probes.task_id(probe, continuous), STEPS.get(probe, 8_000), tmp_path / "run")
    policy = run.method.policy  # type: ignore[attr-defined]
    wrong = probes.check(
        probe,
        gamma=GAMMA,
        continuous=continuous,
        # where the reward depends on a stochastic continuous action, the value is that of the policy as it still explores
        value=None if (continuous and "Action" in probe) or (continuous and "Both" in probe) else policy.value,
        act=lambda observation: policy.distribution(observation).mode(),
    )
    assert not wrong, wrong


def test_the_time_limit_probe_catches_the_wrong_rule(tmp_path: Path) -> None:
    """A method that takes time limits for deaths must fail the probe, and be told so."""
    run = train_on("ppo", probes.task_id("TimeLimit"), STEPS["TimeLimit"], tmp_path / "run", bootstrap_on_truncation=False)
    wrong = probes.check("TimeLimit", gamma=GAMMA, value=run.method.policy.value)  # type: ignore[attr-defined]
    assert wrong and "bootstrapping at time limits" in wrong[0]


@pytest.mark.slow
def test_the_time_limit_probe_catches_the_wrong_rule_in_a_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a method that learns from single transitions."""
    right = DQN.credit

    def wrong(self: DQN, kept: Transitions) -> Transitions:
        seen = right(self, kept)
        seen.discount = seen.discount.masked_fill(seen.truncated, 0.0) if len(seen) else seen.discount
        return seen

    monkeypatch.setattr(DQN, "credit", wrong)
    run = train_replay_on("dqn", probes.task_id("TimeLimit"), GRADIENT_STEPS["TimeLimit"], tmp_path / "run")
    found = probes.check("TimeLimit", gamma=GAMMA, value=run.method.value)  # type: ignore[attr-defined]
    assert found and "bootstrapping at time limits" in found[0]
