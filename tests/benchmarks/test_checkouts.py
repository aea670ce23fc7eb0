"""Scripts of peers, by small scripts of our own in their place."""

from __future__ import annotations

import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from benchmarks import checkouts, race

ONLINE = """
import sys
import gymnasium as gym
import wandb

wandb.init(project="none")
environments = int(sys.argv[sys.argv.index("--num-envs") + 1])
envs = gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1") for _ in range(environments)])
envs.reset(seed=1)
updates = 0
while True:
    for step in range(4):
        envs.step(envs.action_space.sample())
    updates += 1
    gym.updates = updates
"""

OFFLINE = """
from dataclasses import dataclass

import d4rl
import gym
import pyrallis


@dataclass
class TrainConfig:
    device: str
    buffer_size: int
    eval_freq: int
    max_timesteps: int
    batch_size: int = 2


class ReplayBuffer:
    def sample(self, rows):
        return rows


@pyrallis.wrap()
def train(config):
    env = gym.wrappers.TransformObservation(gym.make("any"), None)
    env.seed(0)
    assert env.observation_space.shape[0] == 3 and env.action_space.high[0] == 1 and len(d4rl.qlearning_dataset(env)["rewards"]) == 5
    for step in range(config.max_timesteps):
        if ReplayBuffer().sample(config.batch_size) == 7 and step == 6:
            raise ValueError("the script's own fault")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two scripts; what a script changes in its process is put back."""
    (tmp_path / "online.py").write_text(ONLINE)
    (tmp_path / "offline.py").write_text(OFFLINE)
    monkeypatch.setenv(checkouts.FOLDER, str(tmp_path))
    monkeypatch.setattr(gymnasium.vector, "SyncVectorEnv", gymnasium.vector.SyncVectorEnv)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(gymnasium, "updates", 0, raising=False)
    before = Path.cwd()
    yield tmp_path
    os.chdir(before)
    for name in [name for name, module in sys.modules.items() if isinstance(module, checkouts.Standing)]:
        del sys.modules[name]  # the scripts' threads wait for ever, with their stand-ins


@pytest.mark.parametrize("pool", ["", "CartPole-v1", "Pendulum-v1"])
def test_a_script_online_waits_after_the_update_of_its_last_rollout(folder: Path, pool: str) -> None:
    theirs = gymnasium.vector.SyncVectorEnv

    def make(gate: checkouts.Gate, returns: deque[float], functions: Any) -> Any:
        if pool:
            return checkouts.pooled(pool, 8, gate, returns, normalise=pool != "CartPole-v1")
        return checkouts.counted(theirs(functions), gate, returns)

    script = checkouts.online("online.py", checkouts.ppo_arguments("CartPole-v1", 8, 32, 1, 1), make)
    assert script.advance(64) == 64 and gymnasium.updates == 2  # type: ignore[attr-defined]
    assert script.advance(640) == 640 and gymnasium.updates == 22  # type: ignore[attr-defined]
    returns = script.episode_return()  # of random actions, without normalisation; no episode of the pendulum has ended
    assert np.isnan(returns) if pool == "Pendulum-v1" else 8 < returns < 60


def test_a_script_offline_waits_before_it_draws_and_its_error_is_told(folder: Path) -> None:
    data = {"rewards": np.zeros(5)}
    script = checkouts.corl("offline.py", data, 3, 1, {"batch_size": 7})
    assert script.advance(6) == 6
    with pytest.raises(ValueError, match="own fault"):
        script.advance(5)


def test_a_side_without_its_checkout_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = race.Side("theirs", "nobody's", lambda: None, script="online.py")  # type: ignore[arg-type, return-value]
    assert side.missing == "" and side.version == ""
    monkeypatch.delenv(checkouts.FOLDER)
    assert side.missing == "no checkout with online.py (--checkouts DIR)"
    checkouts.found_in(str(folder))
    assert not side.missing and os.environ[checkouts.FOLDER] == str(folder)
