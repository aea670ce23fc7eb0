"""Every control method of the table on every probe environment: the right values and actions are known in closed form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rheostat import api
from rheostat.methods import table
from rheostat.tasks.control import probes
from rheostat.training.run import Run

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
CONTROL = [name for name, row in table.METHODS.items() if row.domain == "control"]


def train_on(method: str, task: str, steps: int, directory: Path, **options: object) -> Run:
    settings = api.settings_for(method, task, steps=steps, evaluation_episodes=0, **(FAST | OWN.get(method, {}) | options))
    return Run.create(directory, settings).train()


def cases() -> list[object]:
    """Every method on every probe; the children of PPO keep two quick ones, and the rest runs every night."""
    found = []
    for method in CONTROL:
        for probe in probes.CLASSES:
            for continuous in (False, True):
                quick = method in ("ppo", "a2c") or (
                    method in ("ppo-buffer", "props", "ros") and (probe, continuous) in (("RewardFromBoth", False), ("DelayedReward", True))
                )
                name = f"{method}-{'continuous' if continuous else 'discrete'}-{probe}"
                found.append(pytest.param(method, continuous, probe, id=name, marks=() if quick else pytest.mark.slow))
    return found


@pytest.mark.parametrize(("method", "continuous", "probe"), cases())
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
