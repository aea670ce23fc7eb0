"""Speed and memory of PPO for control, ours and Stable-Baselines3's in turn on one machine: ``python -m benchmarks.control``.

Both sides learn with the same epochs (10), minibatch size (256), networks (64-64 tanh, actor and critic apart), rollout (2048 steps) and
step size. Each side steps its worlds in its own best ordinary way: ours 64 EnvPool environments x 32 steps, Stable-Baselines3 8
environments x 256 steps in a ``DummyVecEnv``. Ours also normalises observations and rewards; theirs is measured without
``VecNormalize``, which would slow it down.

Each side is a process of its own, so that its peak memory is its own. Both are warmed up, then take turns: a few rollouts here, a few
there, so that a busy machine slows both. One row per comparison:

    work, peer, ours, theirs, unit, ratio, peak_memory_mb {ours, theirs}

``ratio`` is ours over theirs, the median of the turns' ratios. A last row per task compares ours with the raw rate of EnvPool stepping
random actions in the same number of environments (a share below 1: what learning costs). ``--learning`` compares returns at equal steps
instead, over seeds, with normalisation on both sides.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rheostat.errors import MissingExtra

TASKS = ("CartPole-v1", "HalfCheetah-v5")
ROLLOUT, EPOCHS, MINIBATCH, RATE = 2048, 10, 256, 3e-4
OUR_ENVS, THEIR_ENVS = 64, 8
Row = dict[str, Any]


def our_options() -> dict[str, Any]:
    """Our PPO with the shared settings."""
    return {
        "num_envs": OUR_ENVS,
        "batch_steps": ROLLOUT,
        "epochs": EPOCHS,
        "minibatches": ROLLOUT // MINIBATCH,
        "learning_rate": RATE,
        "anneal": False,
        "clip_value": False,
    }


def peak_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1024 if sys.platform != "darwin" else 1024**2)


# --- the sides: processes that learn from as many rollouts as they are told, and say how many steps a second that was --------------------


def serve(pipe: Connection, work: Callable[[int], int]) -> None:
    """Answer every number of rollouts with (steps per second, peak memory), until told 0."""
    while rollouts := pipe.recv():
        began = time.perf_counter()
        steps = work(rollouts)
        pipe.send((steps / (time.perf_counter() - began), peak_mb()))


def ours(pipe: Connection, task: str) -> None:
    """Our side."""
    import torch

    from rheostat import api
    from rheostat.methods.method import iterate
    from rheostat.training.run import build_method

    torch.set_num_threads(1)
    settings = api.settings_for("ppo", task, steps=10**9, **our_options())
    method = build_method(settings, task)

    def work(rollouts: int) -> int:
        before = method.steps
        for _ in range(rollouts):
            json.dumps(iterate(method))
        return method.steps - before

    serve(pipe, work)


def theirs(pipe: Connection, task: str) -> None:
    """Stable-Baselines3."""
    import torch

    model = peer(task, seed=0)
    torch.set_num_threads(1)

    def work(rollouts: int) -> int:
        model.learn(rollouts * ROLLOUT, reset_num_timesteps=False)
        return rollouts * ROLLOUT

    serve(pipe, work)


def raw(pipe: Connection, task: str) -> None:
    """EnvPool alone, with actions drawn beforehand; counts real steps, as we do."""
    import torch

    from rheostat.tasks.control.environments import make

    environments = make(task, num_envs=OUR_ENVS, seed=0, backend="envpool")
    environments.action_space.seed(0)
    actions = [torch.as_tensor([environments.action_space.sample() for _ in range(OUR_ENVS)]) for _ in range(64)]
    environments.close()
    import envpool

    pool = envpool.make(task, env_type="gymnasium", num_envs=OUR_ENVS, seed=0)
    pool.reset()
    dtype = pool.action_space.dtype
    commands = [action.numpy().astype(dtype) for action in actions]

    def work(rollouts: int) -> int:
        for index in range(rollouts * ROLLOUT // OUR_ENVS):
            pool.step(commands[index % len(commands)])
        return rollouts * ROLLOUT

    serve(pipe, work)


def peer(task: str, *, seed: int, normalise: bool = False) -> Any:
    """Stable-Baselines3's PPO with the shared settings."""
    try:
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.vec_env import VecNormalize
    except ImportError as error:
        raise MissingExtra("stable-baselines3", "bench", "The control benchmark") from error
    worlds: Any = make_vec_env(task, n_envs=THEIR_ENVS, seed=seed)
    if normalise:
        worlds = VecNormalize(worlds, gamma=0.99)
    options = {"n_steps": ROLLOUT // THEIR_ENVS, "batch_size": MINIBATCH, "n_epochs": EPOCHS, "learning_rate": RATE}
    return PPO("MlpPolicy", worlds, **options, seed=seed, device="cpu")  # 64-64 tanh, actor and critic apart, is its default


# --- taking turns ------------------------------------------------------------------------------------


def take_turns(task: str, turns: int, rollouts: int, say: Callable[[str], None]) -> list[Row]:
    """All rows of one task."""
    context = multiprocessing.get_context("spawn")
    sides: dict[str, tuple[Connection, Any]] = {}
    for side in (ours, theirs, raw):
        here, there = context.Pipe()
        process = context.Process(target=side, args=(there, task), daemon=True)
        process.start()
        sides[side.__name__] = (here, process)

    def ask(name: str, count: int) -> tuple[float, float]:
        sides[name][0].send(count)
        return sides[name][0].recv()

    for name in sides:
        ask(name, 2)  # warm up
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    memory: dict[str, float] = {}
    for turn in range(turns):
        for name in sides:
            speed, memory[name] = ask(name, rollouts if name != "raw" else 4 * rollouts)
            speeds[name].append(speed)
        say(f"{task}, turn {turn + 1} of {turns}: " + ", ".join(f"{name} {values[-1]:,.0f} steps/s" for name, values in speeds.items()))
    for pipe, process in sides.values():
        pipe.send(0)
        process.join()

    def row(peer_name: str, other: str) -> Row:
        return {
            "work": f"PPO {task}",
            "peer": peer_name,
            "ours": round(statistics.median(speeds["ours"])),
            "theirs": round(statistics.median(speeds[other])),
            "unit": "steps per second",
            "ratio": round(statistics.median(a / b for a, b in zip(speeds["ours"], speeds[other], strict=True)), 3),
            "peak_memory_mb": {"ours": round(memory["ours"]), "theirs": round(memory[other])},
        }

    return [row("Stable-Baselines3", "theirs"), row("raw EnvPool stepping", "raw")]


def learning(task: str, steps: int, seeds: int, say: Callable[[str], None]) -> Row:
    """Training return of both sides after equal steps (mean of the last 100 episodes), over seeds."""
    import torch

    from rheostat import api
    from rheostat.evaluation.statistics import iqm
    from rheostat.training.run import Run

    torch.set_num_threads(1)
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            settings = api.settings_for("ppo", task, steps=steps, seed=seed, evaluation_episodes=0, **our_options())
            run = Run.create(Path(folder) / "run", settings).train()
            found["ours"].append(run.metrics[-1]["episode_return"])
            run.close()
        model = peer(task, seed=seed, normalise=True)
        model.learn(steps)
        found["theirs"].append(statistics.mean(episode["r"] for episode in model.ep_info_buffer))
        say(f"{task}, seed {seed}: ours {found['ours'][-1]:.1f}, theirs {found['theirs'][-1]:.1f}")
    a, b = (float(iqm(values)) if seeds >= 4 else statistics.mean(values) for values in found.values())
    unit = f"training return at {steps:,} steps, {'interquartile ' if seeds >= 4 else ''}mean of {seeds} seeds"
    return {"work": f"PPO {task}", "peer": "Stable-Baselines3", "ours": round(a, 1), "theirs": round(b, 1), "unit": unit, "per_seed": found}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    parser.add_argument("--quick", action="store_true", help="one short turn: does it work?")
    parser.add_argument("--turns", type=int, default=5, help="turns of each side")
    parser.add_argument("--rollouts", type=int, default=12, help="rollouts of 2048 steps per turn")
    parser.add_argument("--learning", action="store_true", help="compare returns at equal steps instead of speed")
    parser.add_argument("--steps", type=int, default=200_000, help="steps of --learning")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of --learning")
    options = parser.parse_args()
    turns, rollouts = (1, 1) if options.quick else (options.turns, options.rollouts)

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    say(f"load of the machine when it began: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if options.learning:
        rows = [learning(task, options.steps, options.seeds, say) for task in TASKS]
    else:
        rows = [row for task in TASKS for row in take_turns(task, turns, rollouts, say)]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    columns = [name for name in rows[0] if name != "per_seed"]
    table = Table(title="PPO for control", title_justify="left", header_style="bold")
    for name in columns:
        table.add_column(name.replace("_", " "), justify="left" if name in ("work", "peer", "unit") else "right")
    for row in rows:
        cells = [row[name] for name in columns]
        table.add_row(
            *(f"{c['ours']} / {c['theirs']}" if isinstance(c, dict) else f"{c:,}" if isinstance(c, int) else str(c) for c in cells)
        )
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


if __name__ == "__main__":
    main()
