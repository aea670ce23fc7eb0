"""PPO side by side with Stable-Baselines3: ``python -m benchmarks.control [--json] [--quick] [--learning]``.

Both sides train with 10 epochs of minibatches of 256 on rollouts of 2048 steps, with separate 64-64 tanh networks, in one process, taking
turns; each number is the median over the turns. Stable-Baselines3 gets the fastest of its usual ways of running 8 environments (measured
first: in one process with one PyTorch thread or with the default number, or in worker processes) and no normalisation wrapper, which would
slow it down. We run 64 EnvPool environments on as many threads as there are cores, with observation and reward normalisation and all
metrics on, and one PyTorch thread. The raw rate is EnvPool alone with the same environments and threads, taking its turns too.

Peak memory is the largest resident size of a child process that does nothing but train one side for three updates.

``--off-policy`` runs :mod:`benchmarks.off_policy`: SAC and TD3 beside Stable-Baselines3, gradient steps of IQL and CQL beside d3rlpy.

``--learning`` compares the training returns (mean of the last 100 episodes) at equal numbers of steps, over several seeds; there both
sides normalise in the same way and keep their learning rate.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from benchmarks.rows import Row, dump, machine, median, table
from rheostat.errors import MissingExtra
from rheostat.learner import control
from rheostat.learner.learner import Learner
from rheostat.streams import Streams
from rheostat.tasks.control.environments import make
from rheostat.training.settings import configure

TASKS = ("CartPole-v1", "HalfCheetah-v5")
ROLLOUT, MINIBATCH, EPOCHS, HIDDEN = 2048, 256, 10, (64, 64)
OUR_ENVIRONMENTS, THEIR_ENVIRONMENTS = 64, 8
LEARNING_STEPS = {"CartPole-v1": 102_400, "HalfCheetah-v5": 307_200}
POINTS = 4  # of the learning curve
DEFAULT_THREADS = torch.get_num_threads()

Advance = Callable[[int], Any]
"""Trains for a number of environment steps."""


def ours(task: str, *, seed: int = 0, **options: Any) -> Learner:
    """Our PPO."""
    sizes = {"num_envs": OUR_ENVIRONMENTS, "batch_steps": ROLLOUT, "minibatches": ROLLOUT // MINIBATCH, "epochs": EPOCHS, "hidden": HIDDEN}
    config = configure("ppo", sizes | options)
    found = control.build(config, "ppo", lambda count, pool_seed: make(task, num_envs=count, seed=pool_seed), Streams(seed), 10**9)
    assert isinstance(found, Learner)
    return found


def train_ours(method: Learner) -> Advance:
    """Turns of the training loop. A turn's steps without the rows that only begin an episode are its steps."""

    def advance(steps: int) -> None:
        goal = method.steps + steps
        while method.steps < goal:
            method.turn()

    return advance


def theirs(task: str, *, seed: int = 0, workers: bool = False, normalise: bool = False) -> Any:
    """Stable-Baselines3's PPO."""
    try:
        from stable_baselines3 import PPO as TheirPPO
        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
    except ImportError as error:
        raise MissingExtra("stable-baselines3", "bench", "This benchmark") from error
    quiet()
    vector: Any = make_vec_env(task, n_envs=THEIR_ENVIRONMENTS, seed=seed, vec_env_cls=SubprocVecEnv if workers else DummyVecEnv)
    if normalise:
        vector = VecNormalize(vector)
    layers = {"net_arch": {"pi": list(HIDDEN), "vf": list(HIDDEN)}}
    steps = ROLLOUT // THEIR_ENVIRONMENTS
    return TheirPPO(
        "MlpPolicy", vector, n_steps=steps, batch_size=MINIBATCH, n_epochs=EPOCHS, policy_kwargs=layers, seed=seed, device="cpu"
    )


def quiet() -> None:
    """MuJoCo repeats the same remark about Gymnasium's model files for every environment that is made."""
    try:
        import mujoco
    except ImportError:
        return
    mujoco.set_mju_user_warning(lambda message: None)


def train_theirs(model: Any) -> Advance:
    """Their own loop, without output."""
    return lambda steps: model.learn(steps, reset_num_timesteps=False)


def raw(task: str) -> Advance:
    """EnvPool alone, with random actions and with as many environments and threads as our side uses."""
    environments = make(task, num_envs=OUR_ENVIRONMENTS, seed=1)
    environments.reset()
    pool = environments._envs
    environments.action_space.seed(0)
    actions = [np.stack([environments.action_space.sample() for _ in range(OUR_ENVIRONMENTS)]) for _ in range(32)]

    def advance(steps: int) -> None:
        for index in range(steps // OUR_ENVIRONMENTS):
            pool.step(actions[index % len(actions)])

    return advance


@dataclass(frozen=True)
class Setting:
    """One way of running Stable-Baselines3."""

    name: str
    threads: int
    workers: bool


SETTINGS = (
    Setting("one process, one PyTorch thread", 1, False),
    Setting(f"one process, {DEFAULT_THREADS} PyTorch threads", DEFAULT_THREADS, False),
    Setting("worker processes, one PyTorch thread", 1, True),
)


def rate(advance: Advance, steps: int, threads: int = 1) -> float:
    """Steps per second of wall-clock time."""
    torch.set_num_threads(threads)
    began = time.perf_counter()
    advance(steps)
    return steps / (time.perf_counter() - began)


def fastest(task: str, steps: int) -> tuple[Setting, Any]:
    """The fastest way of running Stable-Baselines3 here, warmed up, and its model."""
    candidates = []
    for setting in dict.fromkeys(SETTINGS):
        torch.set_num_threads(setting.threads)
        model = theirs(task, workers=setting.workers)
        advance = train_theirs(model)
        advance(ROLLOUT)
        candidates.append((rate(advance, steps, setting.threads), setting, model))
    candidates.sort(key=lambda candidate: -candidate[0])
    for _, _, model in candidates[1:]:
        model.get_env().close()
    return candidates[0][1:]


def compare(task: str, *, repeats: int, steps: int, say: Callable[[str], None]) -> Row:
    """All sides in turn."""
    setting, model = fastest(task, ROLLOUT)
    method = ours(task)
    sides: dict[str, tuple[Advance, int]] = {
        "ours": (train_ours(method), 1),
        "theirs": (train_theirs(model), setting.threads),
        "raw": (raw(task), 1),
    }
    for advance, threads in (sides["ours"], sides["raw"]):
        rate(advance, ROLLOUT, threads)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, (advance, threads) in sides.items():
            rates[name].append(rate(advance, steps, threads))
    method.close()
    model.get_env().close()
    memory = {side: peak_memory(side, task) for side in ("ours", "theirs")}
    result = {name: median(values) for name, values in rates.items()}
    for name, values in rates.items():
        say(f"  {name:7} {', '.join(f'{value:,.0f}' for value in values)} steps/s")
    say(f"  Stable-Baselines3 ran fastest in {setting.name}; peak memory {memory['theirs']:,.0f} MB")
    say(f"  we reach {result['ours'] / result['raw']:.0%} of the raw EnvPool rate ({result['raw']:,.0f} steps/s)")
    peer = f"Stable-Baselines3 {version('stable-baselines3')}"
    return Row(f"PPO {task}", peer, result["ours"], result["theirs"], "steps/s", memory["ours"])


def peak_memory(side: str, task: str) -> float:
    """Megabytes at the peak of a child process that trains one side only."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.control", "--memory", side, task]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report_memory(side: str, task: str) -> None:
    """What :func:`peak_memory` runs."""
    import resource

    torch.set_num_threads(1)
    advance = train_ours(ours(task)) if side == "ours" else train_theirs(theirs(task))
    advance(3 * ROLLOUT)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), flush=True)
    os._exit(0)  # nothing after this line is of interest, worker threads included


def learning_curve(side: str, task: str, seed: int, steps: int) -> list[float]:
    """Mean return of the last 100 training episodes at a few equally spaced numbers of steps."""
    torch.set_num_threads(1)
    curve = []
    if side == "ours":
        method = ours(task, seed=seed, anneal=False)
        advance = train_ours(method)
        for point in range(1, POINTS + 1):
            advance(point * steps // POINTS - method.steps)
            curve.append(method.context.collector.metrics().get("episode_return", float("nan")))
        method.close()
        return curve
    model = theirs(task, seed=seed, normalise=True)
    advance = train_theirs(model)
    for point in range(1, POINTS + 1):
        advance(point * steps // POINTS - model.num_timesteps)
        curve.append(float(np.mean([episode["r"] for episode in model.ep_info_buffer])) if model.ep_info_buffer else float("nan"))
    model.get_env().close()
    return curve


def compare_learning(task: str, *, seeds: int, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Learning curves of both sides over seeds."""
    curves = {side: [learning_curve(side, task, seed, steps) for seed in range(seeds)] for side in ("ours", "theirs")}
    means = {side: [statistics.fmean(column) for column in zip(*rows, strict=True)] for side, rows in curves.items()}
    spread = {side: statistics.stdev([row[-1] for row in rows]) if seeds > 1 else 0.0 for side, rows in curves.items()}
    header = [f"{task}: return after", *(f"{point * steps // POINTS:,}" for point in range(1, POINTS + 1)), "deviation"]
    say(table(header, [[side, *(f"{value:,.1f}" for value in means[side]), f"{spread[side]:,.1f}"] for side in curves]))
    return {"work": f"PPO {task}", "steps": steps, "seeds": seeds, "curves": curves, "final": {side: means[side][-1] for side in means}}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control", description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--quick", action="store_true", help="a smoke run: everything once, short")
    parser.add_argument("--learning", action="store_true", help="compare learning curves at equal steps instead of speed")
    parser.add_argument("--repeats", type=int, default=5, help="turns of every side")
    parser.add_argument("--updates", type=int, default=10, help="updates of 2048 steps per turn")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the learning curves")
    parser.add_argument("--tasks", nargs="+", default=TASKS, metavar="TASK")
    parser.add_argument("--off-policy", action="store_true", help="SAC, TD3, IQL and CQL instead (python -m benchmarks.off_policy)")
    parser.add_argument("--memory", nargs=2, metavar=("SIDE", "TASK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        return report_memory(*arguments.memory)
    if arguments.off_policy:
        from benchmarks import off_policy

        return off_policy.report(
            turns=1 if arguments.quick else arguments.repeats, steps=20 if arguments.quick else 500, as_json=arguments.json
        )
    if arguments.quick:
        arguments.repeats, arguments.updates, arguments.seeds = 1, 1, 1

    def say(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    say(machine())
    if arguments.learning:
        results = []
        for task in arguments.tasks:
            steps = POINTS * ROLLOUT if arguments.quick else LEARNING_STEPS.get(task, 204_800)
            results.append(compare_learning(task, seeds=arguments.seeds, steps=steps, say=say))
        if arguments.json:
            print(json.dumps(results, indent=2))
        return None
    rows = []
    for task in arguments.tasks:
        say(f"PPO {task}")
        rows.append(compare(task, repeats=arguments.repeats, steps=arguments.updates * ROLLOUT, say=say))
    if arguments.json:
        print(dump(rows))
    else:
        header = ["work", "ours", "theirs", "unit", "ratio", "peak MB"]
        lines = [[r.work, f"{r.ours:,.0f}", f"{r.theirs:,.0f}", r.unit, f"{r.ratio:.2f}", f"{r.peak_memory_mb:,.0f}"] for r in rows]
        print(table(header, lines))
        print(machine())
    return None


if __name__ == "__main__":
    main()
