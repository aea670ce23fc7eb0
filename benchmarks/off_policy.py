"""Speed of off-policy and offline control beside its peers: ``python -m benchmarks.off_policy``.

SAC and TD3 on HalfCheetah-v5 run beside those of Stable-Baselines3 and SBX: one environment, one gradient step per environment step,
batches of 256, hidden layers of 256-256, all after the same uniform steps; the unit is environment steps (and so gradient steps). Gradient
steps of IQL and CQL run beside d3rlpy's on the same random data of HalfCheetah's shape: batches of 256 drawn from the data set, hidden
layers of 256-256, ten actions per source and a learned multiplier in CQL; the unit is gradient steps, with drawing. CORL's scripts run on
the same rows from a checkout (``--checkouts``).

Every side is a process on one thread, and all of them take turns (:mod:`benchmarks.race`). The ceiling is the time of the matrix products
alone. d3rlpy comes with an old ``gym``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import checkouts, race
from benchmarks.ceilings import PRODUCTS, Pass, Products, sizes_of
from benchmarks.control import ONE_XLA_THREAD, quiet
from benchmarks.race import Side, Trainer, Work
from benchmarks.rows import machine

TASK = "HalfCheetah-v5"
BATCH, HIDDEN = 256, (256, 256)
START = 1_000
ROWS = 100_000
PENALTY_ACTIONS = 10
ONLINE, OFFLINE = ("sac", "td3"), ("iql", "cql")
OFFLINE_OPTIONS: dict[str, dict[str, Any]] = {"iql": {}, "cql": {"gap_threshold": 10.0, "penalty_actions": PENALTY_ACTIONS}}
SLOWER = {"cql": 0.2}
"""Share of the steps of a turn, of what takes much longer."""


def method_of(name: str, **options: Any) -> Any:
    """One of our methods, built as the command line would."""
    from rheostat.api import settings_for
    from rheostat.training.run import build_method

    settings = settings_for(name, TASK, hidden=HIDDEN, batch_size=BATCH, **options)
    return build_method(settings, settings.task)


class Ours:
    """One of our methods."""

    def __init__(self, method: Any) -> None:
        self.method = method

    def advance(self, steps: int) -> int:
        """Turns of the training loop; offline, a turn makes many gradient steps."""
        before = self.method.updates
        while self.method.updates < before + steps:
            self.method.turn()
        return int(self.method.updates - before)

    def episode_return(self) -> float:
        """Of training; NaN offline."""
        return float(self.method.context.collector.metrics().get("episode_return", float("nan")))


class Theirs:
    """Somebody else's steps."""

    def __init__(self, steps: Callable[[int], Any]) -> None:
        self.steps = steps

    def advance(self, steps: int) -> int:
        """As many as are asked for."""
        self.steps(steps)
        return steps

    def episode_return(self) -> float:
        """Not asked."""
        return float("nan")


def ours_online(name: str) -> Trainer:
    """Our SAC or TD3, past its uniform steps."""
    method = method_of(name, steps=10**7, start_steps=START, replay_capacity=ROWS)
    while method.steps < START:
        method.turn()
    return Ours(method)


def baselines(library: str, name: str) -> Trainer:
    """Stable-Baselines3's, or SBX's."""
    quiet()
    common: dict[str, Any] = {
        "learning_rate": 3e-4,
        "buffer_size": ROWS,
        "learning_starts": START,
        "batch_size": BATCH,
        "train_freq": 1,
        "gradient_steps": 1,
        "policy_kwargs": {"net_arch": list(HIDDEN)},
        "seed": 0,
        "device": "cpu",
    }
    model: Any = getattr(import_module(library), name.upper())("MlpPolicy", TASK, **common)
    model.learn(START)
    return Theirs(lambda steps: model.learn(steps, reset_num_timesteps=False))


def stable_baselines(name: str) -> Trainer:
    """Stable-Baselines3's."""
    return baselines("stable_baselines3", name)


def sbx(name: str) -> Trainer:
    """SBX's."""
    return baselines("sbx", name)


@cache
def random_data() -> tuple[Any, str]:
    """Random rows of the task's shape, as d3rlpy's data set and as a folder of ours: episodes of 1000 steps."""
    from rheostat.buffers.offline import OfflineData
    from rheostat.tasks.control.environments import make
    from rheostat.trajectories import Transitions

    environments = make(TASK, num_envs=1, seed=0)
    observed, acted = environments.observation_space, environments.action_space
    environments.close()
    draw = torch.Generator().manual_seed(0)
    observation = torch.randn(ROWS, *observed.shape, generator=draw)
    action = 2 * torch.rand(ROWS, *acted.shape, generator=draw) - 1  # type: ignore[misc]
    reward = torch.randn(ROWS, generator=draw)
    breaks = (torch.arange(ROWS) + 1) % 1000 == 0
    following = observation.roll(-1, 0)
    never = torch.zeros(ROWS, dtype=torch.bool)
    rows = Transitions(
        observation=observation,
        next_observation=following,
        action=action,
        reward=reward,
        terminated=never,
        truncated=breaks,
        sampler_logp=torch.full((ROWS,), float("nan")),
        batch_size=[ROWS],
    )  # type: ignore[call-arg]
    data = OfflineData(rows, breaks, observation_space=observed, action_space=acted, task=TASK)
    folder = Path(tempfile.mkdtemp(prefix="rheostat-bench-")) / "data-set"
    return (observation.numpy(), action.numpy(), reward.numpy(), never.numpy(), breaks.numpy()), str(data.save(folder))


def ours_offline(name: str) -> Trainer:
    """Our gradient steps on the data set."""
    return Ours(method_of(name, steps=10**7, offline=random_data()[1], normalise_states=False, **OFFLINE_OPTIONS[name]))


def d3rlpy_offline(name: str) -> Trainer:
    """d3rlpy's, on the same rows."""
    with quietly():
        import d3rlpy
    observation, action, reward, terminals, timeouts = random_data()[0]
    with quietly():
        data = d3rlpy.dataset.MDPDataset(observation, action, reward, terminals, timeouts)
        config: Any = {"iql": d3rlpy.algos.IQLConfig, "cql": d3rlpy.algos.CQLConfig}[name]
        algorithm: Any = config(batch_size=BATCH).create(device="cpu:0")
        algorithm.build_with_dataset(data)

    def update(steps: int) -> None:
        for _ in range(steps):
            algorithm.update(data.sample_transition_batch(BATCH))

    return Theirs(update)


CORL = {name: f"CORL/algorithms/offline/{name}.py" for name in OFFLINE}
CORL_OPTIONS: dict[str, dict[str, Any]] = {"iql": {}, "cql": {"q_n_hidden_layers": 2, "cql_lagrange": True, "cql_target_action_gap": 10.0}}


def corl_offline(name: str) -> Trainer:
    """CORL's script, on the same rows."""
    observation, action, reward, terminals, _ = random_data()[0]
    data = {"observations": observation, "actions": action, "rewards": reward, "terminals": terminals}
    options = {"batch_size": BATCH, "normalize": False} | CORL_OPTIONS[name]
    following = np.roll(observation, -1, 0)
    return checkouts.corl(CORL[name], data | {"next_observations": following}, observation.shape[1], action.shape[1], options)


@contextmanager
def quietly() -> Iterator[None]:
    """Old packages speak while they are imported."""
    with (
        warnings.catch_warnings(),
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        yield


def products(name: str) -> Products:
    """Those of one gradient step (and of acting once, online)."""
    seen, acted = sizes_of(TASK)
    both = 2 * acted if name in ("sac", "cql") else acted
    actor, critic, value = (seen, *HIDDEN, both), (seen + acted, *HIDDEN, 1), (seen, *HIDDEN, 1)
    many = PENALTY_ACTIONS * BATCH
    plans = {
        "sac": [
            *(Pass(actor, 1), Pass(actor, BATCH), Pass(critic, BATCH, times=2), Pass(critic, BATCH, "train", times=2)),
            *(Pass(critic, BATCH, "input", times=2), Pass(actor, BATCH, "train")),
        ],
        "td3": [
            *(Pass(actor, 1), Pass(actor, BATCH), Pass(critic, BATCH, times=2), Pass(critic, BATCH, "train", times=2)),
            *(Pass(critic, BATCH, "input", times=0.5), Pass(actor, BATCH, "train", times=0.5)),
        ],
        "iql": [
            *(Pass(critic, BATCH, times=2), Pass(value, BATCH, "train"), Pass(value, BATCH)),
            *(Pass(critic, BATCH, "train", times=2), Pass(actor, BATCH, "train")),
        ],
        "cql": [
            *(Pass(actor, BATCH, times=2), Pass(critic, BATCH, times=2), Pass(critic, BATCH, "train", times=2)),
            *(Pass(critic, many, "train", times=6), Pass(critic, BATCH, "input", times=2), Pass(actor, BATCH, "train")),
        ],
    }
    return Products(plans[name], 1)


def sides_of(name: str) -> list[Side]:
    """Who makes such steps."""
    if name in ONLINE:
        found = [
            Side("Rheostat", "rheostat", ours_online),
            Side("Stable-Baselines3", "stable-baselines3", stable_baselines, modules=("stable_baselines3",)),
            Side("SBX", "sbx-rl", sbx, modules=("sbx", "jax"), variables=ONE_XLA_THREAD),
        ]
    else:
        found = [
            Side("Rheostat", "rheostat", ours_offline),
            Side("d3rlpy", "d3rlpy", d3rlpy_offline, modules=("d3rlpy",)),
            Side("CORL", "corl", corl_offline, script=CORL[name]),
        ]
    return [*found, Side(PRODUCTS, "numpy", products)]


def compare(name: str, *, turns: int, steps: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for every side, with its share of the ceiling."""
    steps = max(1, round(steps * SLOWER.get(name, 1.0)))
    title, unit = (f"{name.upper()} {TASK}", "steps") if name in ONLINE else (f"{name.upper()} on a data set", "gradient steps")
    rows = race.race(Work(title, unit, {"name": name}, steps, max(1, steps // 2)), sides_of(name), turns=turns, to_return=False, say=say)
    return race.with_ceiling(rows, (PRODUCTS,))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.off_policy", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--quick", action="store_true", help="a smoke run: everything once, short")
    parser.add_argument("--turns", type=int, default=5, help="turns of every side")
    parser.add_argument("--steps", type=int, default=200, help="gradient steps per turn")
    parser.add_argument("--only", nargs="+", choices=(*ONLINE, *OFFLINE), help="some comparisons only")
    parser.add_argument("--checkouts", metavar="DIR", help="folder of the checkout of CORL")
    arguments = parser.parse_args()
    checkouts.found_in(arguments.checkouts)
    turns, steps = (1, 20) if arguments.quick else (arguments.turns, arguments.steps)
    report(turns=turns, steps=steps, only=arguments.only, as_json=arguments.json)


def report(*, turns: int, steps: int, only: list[str] | None = None, as_json: bool = False) -> None:
    """Run the comparisons and print them."""

    def say(line: str) -> None:
        if not as_json:
            print(line, flush=True)

    say(machine())
    rows = []
    for name in only or (*ONLINE, *OFFLINE):
        say(name.upper())
        rows.append(compare(name, turns=turns, steps=steps, say=say))
        say(race.shown(rows[-1]))
    print(race.dump(rows) if as_json else machine())


if __name__ == "__main__":
    main()
