"""Speed of off-policy and offline control beside its peers, in turn in one process: ``python -m benchmarks.off_policy``.

SAC and TD3 on HalfCheetah-v5 run beside Stable-Baselines3's: one environment, one gradient step per environment step, batches of 256,
hidden layers of 256-256, both after the same uniform steps; the unit is environment steps (and so gradient steps) per second. Gradient
steps of IQL and CQL run beside d3rlpy's on the same random data of HalfCheetah's shape: batches of 256 drawn from the data set, hidden
layers of 256-256, ten actions per source and a learned multiplier in CQL; the unit is gradient steps per second, with drawing.

Every side runs with one PyTorch thread and with as many as there are cores, whichever is faster for it (measured first). Numbers are
medians over turns, and the ratio is the median of the turns' ratios: a busy machine slows both. d3rlpy comes with an old ``gym``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import Row, dump, machine, median, table
from rheostat.errors import MissingExtra

TASK = "HalfCheetah-v5"
BATCH, HIDDEN = 256, (256, 256)
START = 1_000
ROWS = 100_000

Advance = Callable[[int], int]
"""Makes at least so many gradient steps (with an environment step each, online); returns how many it were."""


@dataclass(frozen=True)
class Comparison:
    """One row: how each side is made."""

    work: str
    unit: str
    peer: str
    ours: Callable[[], Advance]
    theirs: Callable[[], Advance]
    share: float = 1.0
    """Of the steps of a turn; CQL's take ten times as long."""


def method_of(name: str, **options: Any) -> Any:
    """One of our methods, built as the command line would."""
    from rheostat.api import settings_for
    from rheostat.training.run import build_method

    settings = settings_for(name, TASK, hidden=HIDDEN, batch_size=BATCH, **options)
    return build_method(settings, settings.task)


def advance(method: Any, steps: int) -> int:
    """Turns of the training loop; offline, a turn makes many gradient steps."""
    before = method.updates
    while method.updates < before + steps:
        method.turn()
    return method.updates - before


def ours_online(name: str) -> Advance:
    """Our SAC or TD3, past its uniform steps."""
    method = method_of(name, steps=10**7, start_steps=START, replay_capacity=ROWS)
    while method.steps < START:
        method.turn()
    return lambda steps: advance(method, steps)


def theirs_online(name: str) -> Advance:
    """Stable-Baselines3's."""
    try:
        import stable_baselines3
    except ImportError as error:
        raise MissingExtra("stable-baselines3", "bench", "This benchmark") from error
    from benchmarks.control import quiet

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
    model: Any = getattr(stable_baselines3, name.upper())("MlpPolicy", TASK, **common)
    model.learn(START)

    def learn(steps: int) -> int:
        model.learn(steps, reset_num_timesteps=False)
        return steps

    return learn


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


def ours_offline(name: str, **options: Any) -> Advance:
    """Our gradient steps on the data set."""
    method = method_of(name, steps=10**7, offline=random_data()[1], normalise_states=False, **options)

    return lambda steps: advance(method, steps)


def theirs_offline(name: str) -> Advance:
    """d3rlpy's, on the same rows."""
    try:
        with quietly():
            import d3rlpy
    except ImportError as error:
        raise MissingExtra("d3rlpy", "bench", "This benchmark") from error
    observation, action, reward, terminals, timeouts = random_data()[0]
    with quietly():
        data = d3rlpy.dataset.MDPDataset(observation, action, reward, terminals, timeouts)
        config: Any = {"iql": d3rlpy.algos.IQLConfig, "cql": d3rlpy.algos.CQLConfig}[name]
        algorithm: Any = config(batch_size=BATCH).create(device="cpu:0")
        algorithm.build_with_dataset(data)

    def update(steps: int) -> int:
        for _ in range(steps):
            algorithm.update(data.sample_transition_batch(BATCH))
        return steps

    return update


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


def comparisons() -> dict[str, Comparison]:
    """What can be compared, by name."""
    found = {}
    for name in ("sac", "td3"):
        peer = f"Stable-Baselines3 {installed('stable-baselines3')}"
        found[name] = Comparison(
            f"{name.upper()} {TASK}",
            "steps/s",
            peer,
            lambda name=name: ours_online(name),
            lambda name=name: theirs_online(name),  # type: ignore[misc]
        )
    options: dict[str, dict[str, Any]] = {"iql": {}, "cql": {"gap_threshold": 10.0, "penalty_actions": 10}}
    for name in ("iql", "cql"):
        peer = f"d3rlpy {installed('d3rlpy')}"
        found[name] = Comparison(
            f"{name.upper()} gradient steps",
            "gradient steps/s",
            peer,
            lambda name=name: ours_offline(name, **options[name]),  # type: ignore[misc]
            lambda name=name: theirs_offline(name),  # type: ignore[misc]
            0.2 if name == "cql" else 1.0,
        )
    return found


def installed(package: str) -> str:
    """The version of a peer; empty where it is missing."""
    try:
        return version(package)
    except ModuleNotFoundError:
        return ""


def rate(side: Advance, steps: int, threads: int) -> float:
    """Steps per second of wall-clock time."""
    torch.set_num_threads(threads)
    began = time.perf_counter()
    return side(steps) / (time.perf_counter() - began)


def fastest(side: Advance, steps: int) -> int:
    """The better number of threads for one side, after a warm-up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rate(side, max(1, steps // 2), 1)
    return max(dict.fromkeys((1, cores)), key=lambda threads: rate(side, steps, threads))


def compare(comparison: Comparison, *, turns: int, steps: int, say: Callable[[str], None]) -> Row:
    """Both sides in turn."""
    steps = max(1, round(steps * comparison.share))
    sides = {"ours": comparison.ours(), "theirs": comparison.theirs()}
    threads = {name: fastest(side, steps) for name, side in sides.items()}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, side in sides.items():
            rates[name].append(rate(side, steps, threads[name]))
    for name, values in rates.items():
        say(f"  {name:7} {', '.join(f'{value:,.0f}' for value in values)} {comparison.unit}, {threads[name]} threads")
    ratios = tuple(a / b for a, b in zip(rates["ours"], rates["theirs"], strict=True))
    return Row(comparison.work, comparison.peer, median(rates["ours"]), median(rates["theirs"]), comparison.unit, peak_mb(), turns=ratios)


def peak_mb() -> float:
    """Largest resident size of this process, both sides together."""
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.off_policy", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--quick", action="store_true", help="a smoke run: everything once, short")
    parser.add_argument("--turns", type=int, default=5, help="turns of every side")
    parser.add_argument("--steps", type=int, default=500, help="gradient steps per turn")
    parser.add_argument("--only", nargs="+", choices=("sac", "td3", "iql", "cql"), help="some comparisons only")
    arguments = parser.parse_args()
    turns, steps = (1, 20) if arguments.quick else (arguments.turns, arguments.steps)
    report(turns=turns, steps=steps, only=arguments.only, as_json=arguments.json)


def report(*, turns: int, steps: int, only: list[str] | None = None, as_json: bool = False) -> None:
    """Run the comparisons and print them."""

    def say(line: str) -> None:
        if not as_json:
            print(line, flush=True)

    say(machine())
    rows = []
    for name, comparison in comparisons().items():
        if only and name not in only:
            continue
        say(comparison.work)
        rows.append(compare(comparison, turns=turns, steps=steps, say=say))
    if as_json:
        print(dump(rows))
        return
    lines = [[r.work, f"{r.ours:,.0f}", f"{r.theirs:,.0f}", r.unit, f"{r.ratio:.2f}", r.peer] for r in rows]
    print(table(["work", "ours", "theirs", "unit", "ratio", "peer"], lines))
    print(machine())


if __name__ == "__main__":
    main()
