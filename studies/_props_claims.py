"""What the parts of the PROPS study share: sizes, settings, and the form of a claim (see :mod:`studies.props`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rheostat.experiments.studies import Cell, Results

SOURCES = (
    "rheostat.methods.control.ppo",
    "rheostat.methods.control.ppo_buffer",
    "rheostat.methods.control.props",
    "rheostat.methods.control.ros",
)
TABLES = (*SOURCES, "rheostat.tasks.control.registration", "rheostat.tasks.control.gridworld")
FIXED, TRAIN = "studies._fixed_target:sampling_error", "studies._fixed_target:train_target"

FACTOR = 1.1
"""Ratios of sampling errors within it do not matter."""

Config = dict[str, Any]
Values = dict[int, float]


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form, and can be set from the command line."""

    seeds_a: int = 8
    runs_b: int = 300
    seeds_c: int = 8
    seeds_d: int = 8
    grid_at: tuple[int, ...] = (128, 256, 512, 1024)
    cartpole_rows: int = 1024
    cartpole_windows: int = 4
    target_steps: int = 50_000
    fit_epochs: int = 1000
    updates_b: int = 40
    steps_c: tuple[int, ...] = (100_000, 100_000)
    batch_c: tuple[int, ...] = (1024, 2048)
    evaluations: int = 12
    episodes: int = 10
    batch_d: int = 1024
    batches_d: int = 16
    tasks_c: int = 2
    tasks_d: int = 3
    first_seed: int = 0


SMOKE = Sizes(
    seeds_a=2,
    runs_b=4,
    seeds_c=1,
    seeds_d=2,
    grid_at=(32, 64),
    cartpole_rows=128,
    cartpole_windows=1,
    target_steps=256,
    fit_epochs=5,
    updates_b=3,
    steps_c=(512,),
    batch_c=(256,),
    evaluations=1,
    episodes=1,
    batch_d=64,
    batches_d=2,
    tasks_c=1,
    tasks_d=1,
)


SHARED: Config = {
    "num_envs": 8,
    "epochs": 10,
    "minibatches": 32,
    "learning_rate": 3e-4,
    "anneal": True,
    "gamma": 0.99,
    "lam": 0.95,
    "clip": 0.2,
    "entropy_coefficient": 0.01,
    "value_coefficient": 0.5,
    "max_grad_norm": 0.5,
    "target_kl": 0.03,
    "kl_stop": "before-step",
}
"""Equal in all arms. The learning rate is the library's default for PPO: the authors tuned it for each arm by itself."""


def behaviour(m: int, lr: float, delta: float, coefficient: float, minibatches: int) -> Config:
    """PROPS's own settings; the clip is 0.3 and there are 16 epochs everywhere, as in all the authors' runs used here."""
    return {
        "behaviour_steps": m,
        "behaviour_learning_rate": lr,
        "behaviour_target_kl": delta,
        "behaviour_kl_coefficient": coefficient,
        "behaviour_minibatches": minibatches,
        "behaviour_clip": 0.3,
        "behaviour_epochs": 16,
    }


def ros(m: int, lr: float) -> Config:
    """ROS's settings; its step is not limited (the authors of ROS do not)."""
    return {"behaviour_steps": m, "behaviour_learning_rate": lr, "max_grad_norm": 1e9}


def by_seed(cells: dict[int, Cell], of: Callable[[Any], float], result: Results) -> Values:
    """One number per seed."""
    return {seed: of(result(cell)) for seed, cell in cells.items()}


def mean(values: list[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)
