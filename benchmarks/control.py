"""PPO side by side with its peers at equal work: ``python -m benchmarks.control [--json] [--quick] [--to-return] [--learning]``.

All sides train with 10 epochs of minibatches of 256 on rollouts of 2048 steps, with separate 64-64 tanh networks, and on equally many
environments (64, and any other number with ``--environments``). Each side is a process of its own, on one thread where nothing else is
said, and all of them take turns; numbers are medians over turns (:mod:`benchmarks.race`). Ours runs with observation and reward
normalisation and all metrics on, and without a clip of the value, which the peers do not have.

=========================  ===============================================================================================================
Rheostat, compiled         ``compute="fast"``
Rheostat                   ``compute="plain"``
Stable-Baselines3          in one process; with its normalisation where its users normalise (HalfCheetah)
Stable-Baselines3, workers the same with an environment process per core
SBX                        the same library on JAX
rejax                      compiled on JAX with an environment of its own (CartPole), so nothing leaves the compiled program
CleanRL                    its script for the task, from a checkout (``--checkouts``), with the environments that it makes
CleanRL, EnvPool           the same script on EnvPool
LeanRL, compiled           its PPO for continuous actions under ``torch.compile``, from a checkout, on EnvPool
=========================  ===============================================================================================================

The ceiling of a row is the time that EnvPool alone needs for as many steps with random actions, and the time of the matrix products of
acting and of the gradient steps alone, one after the other; both are sides that take their turns too. ``--to-return`` also measures what
every side spends, in a new process, until the mean return of the last 100 episodes of training is the stated one.

``--off-policy`` runs :mod:`benchmarks.off_policy`: SAC and TD3, gradient steps of IQL and CQL. ``--learning`` compares the training returns
(mean of the last 100 episodes) at equal numbers of steps, over several seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch

from benchmarks import checkouts, race
from benchmarks.ceilings import PRODUCTS, STEPPING, Pass, Products, Stepping, sizes_of
from benchmarks.race import Side, Work
from benchmarks.rows import machine, table
from rheostat.learner import control
from rheostat.learner.compute import Asked
from rheostat.learner.learner import Learner
from rheostat.streams import Streams
from rheostat.tasks.control.environments import make
from rheostat.training.settings import configure

TASKS = ("CartPole-v1", "HalfCheetah-v5")
ENVIRONMENTS, ROLLOUT, MINIBATCH, EPOCHS, HIDDEN = 64, 2048, 256, 10, (64, 64)
TARGETS = {"CartPole-v1": 475.0, "HalfCheetah-v5": 500.0}
LIMIT = 600_000
LEARNING_STEPS = {"CartPole-v1": 102_400, "HalfCheetah-v5": 307_200}
POINTS = 4  # of the learning curve
NORMALISED = frozenset({"HalfCheetah-v5"})
"""Tasks on which users of Stable-Baselines3 normalise."""


# --- sides --------------------------------------------------------------------------------------------------------------------------------


class Ours:
    """Our PPO."""

    def __init__(self, task: str, environments: int, *, compute: Asked = "plain", seed: int = 0, **options: Any) -> None:
        self.learner = ours(task, environments, compute=compute, seed=seed, **options)

    def advance(self, steps: int) -> int:
        """Turns of the training loop. A turn's steps without the rows that only begin an episode are its steps."""
        before = self.learner.steps
        while self.learner.steps < before + steps:
            self.learner.turn()
        return self.learner.steps - before

    def episode_return(self) -> float:
        """Of training."""
        return float(self.learner.context.collector.metrics().get("episode_return", float("nan")))


def ours(task: str, environments: int = ENVIRONMENTS, *, compute: Asked = "plain", seed: int = 0, **options: Any) -> Learner:
    """Our learner.

    Raises:
        RuntimeError: compiled kernels were asked for, and there are none.
    """
    sizes = {"num_envs": environments, "batch_steps": ROLLOUT, "minibatches": ROLLOUT // MINIBATCH, "epochs": EPOCHS, "hidden": HIDDEN}
    config = configure("ppo", sizes | {"clip_value": False} | options)
    pool: Any = lambda count, pool_seed: make(task, num_envs=count, seed=pool_seed)  # noqa: E731
    found = control.build(config, "ppo", pool, Streams(seed), 10**9, compute=compute)
    assert isinstance(found, Learner)
    if compute == "fast" and not found.context.compute.fast:
        raise RuntimeError(found.context.compute.why_plain)
    return found


def ours_compiled(task: str, environments: int) -> Ours:
    """With compiled gradient steps."""
    return Ours(task, environments, compute="fast")


class Baselines:
    """PPO of Stable-Baselines3, or of SBX, which has its interface."""

    def __init__(self, library: str, task: str, environments: int, *, workers: bool = False, normalise: bool, seed: int = 0) -> None:
        from importlib import import_module

        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

        quiet()
        vector: Any = make_vec_env(task, n_envs=environments, seed=seed, vec_env_cls=SubprocVecEnv if workers else DummyVecEnv)
        if normalise:
            vector = VecNormalize(vector)
        layers: dict[str, Any] = {"net_arch": {"pi": list(HIDDEN), "vf": list(HIDDEN)}}
        sizes = {"n_steps": ROLLOUT // environments, "batch_size": MINIBATCH, "n_epochs": EPOCHS}
        self.model = import_module(library).PPO("MlpPolicy", vector, **sizes, policy_kwargs=layers, seed=seed, device="cpu")

    def advance(self, steps: int) -> int:
        """Their own loop, without output."""
        before = self.model.num_timesteps
        self.model.learn(steps, reset_num_timesteps=False)
        return int(self.model.num_timesteps - before)

    def episode_return(self) -> float:
        """Of training."""
        found = self.model.ep_info_buffer
        return float(np.mean([episode["r"] for episode in found])) if found else float("nan")


def baselines(task: str, environments: int) -> Baselines:
    """Stable-Baselines3 in one process."""
    return Baselines("stable_baselines3", task, environments, normalise=task in NORMALISED)


def baselines_workers(task: str, environments: int) -> Baselines:
    """Stable-Baselines3 with its environments in processes."""
    return Baselines("stable_baselines3", task, environments, workers=True, normalise=task in NORMALISED)


def sbx(task: str, environments: int) -> Baselines:
    """SBX."""
    return Baselines("sbx", task, environments, normalise=task in NORMALISED)


class Rejax:
    """PPO of rejax: some updates at once are one compiled program, environments included."""

    UPDATES = 5

    def __init__(self, task: str, environments: int) -> None:
        import jax
        import rejax

        sizes = {
            "num_envs": environments,
            "num_steps": ROLLOUT // environments,
            "num_epochs": EPOCHS,
            "num_minibatches": ROLLOUT // MINIBATCH,
        }
        layers = {"activation": "tanh", "hidden_layer_sizes": HIDDEN}
        self.algorithm: Any = rejax.get_algo("ppo").create(env=task, agent_kwargs=layers, learning_rate=3e-4, max_grad_norm=0.5, **sizes)
        self.state = self.algorithm.init_state(jax.random.PRNGKey(0))
        self.block = jax.block_until_ready
        one: Any = lambda state, _: (self.algorithm.train_iteration(state), None)  # noqa: E731
        self.updates = jax.jit(lambda state: jax.lax.scan(one, state, None, self.UPDATES)[0])

    def advance(self, steps: int) -> int:
        """Whole programs."""
        programs = -(-steps // (self.UPDATES * ROLLOUT))
        for _ in range(programs):
            self.state = self.updates(self.state)
        self.block(self.state)
        return programs * self.UPDATES * ROLLOUT

    def episode_return(self) -> float:
        """Of 128 episodes of evaluation: it does not keep those of training."""
        return float(self.algorithm.eval_callback(self.algorithm, self.state, self.state.rng)[1].mean())


CLEAN = {"CartPole-v1": "cleanrl/cleanrl/ppo.py", "HalfCheetah-v5": "cleanrl/cleanrl/ppo_continuous_action.py"}
LEAN = {"HalfCheetah-v5": "LeanRL/leanrl/ppo_continuous_action_torchcompile.py"}


def scripted(scripts: dict[str, str], task: str, environments: int, *words: str, pool: bool = False) -> checkouts.Script:
    """A peer's script for the task.

    Raises:
        LookupError: it has none.
    """
    if task not in scripts:
        raise LookupError(f"no script for {task}")
    arguments = checkouts.ppo_arguments(task, environments, ROLLOUT, ROLLOUT // MINIBATCH, EPOCHS)
    theirs = gymnasium.vector.SyncVectorEnv
    quiet()

    def make(gate: Any, returns: Any, functions: Any) -> Any:
        if pool:
            return checkouts.pooled(task, environments, gate, returns, normalise=task in NORMALISED)
        return checkouts.counted(theirs(functions), gate, returns)

    return checkouts.online(scripts[task], [*arguments, *words], make)


def cleanrl(task: str, environments: int) -> checkouts.Script:
    """CleanRL as it is."""
    return scripted(CLEAN, task, environments)


def cleanrl_pool(task: str, environments: int) -> checkouts.Script:
    """CleanRL on EnvPool."""
    return scripted(CLEAN, task, environments, pool=True)


def leanrl(task: str, environments: int) -> checkouts.Script:
    """LeanRL, compiled, on EnvPool.

    It acts by a copy of its networks whose weights are tensors without gradients; later versions of tensordict than the script's turn them
    into parameters that have some, and then its own update fails. Here they have none, as it was written.
    """
    import tensordict

    put_in = tensordict.TensorDict.to_module

    def without_gradients(self: Any, module: torch.nn.Module, *arguments: Any, **named: Any) -> Any:
        found = put_in(self, module, *arguments, **named)
        module.requires_grad_(False)
        return found

    tensordict.TensorDict.to_module = without_gradients  # type: ignore[method-assign]
    return scripted(LEAN, task, environments, "--compile", pool=True)


def quiet() -> None:
    """MuJoCo repeats the same remark about Gymnasium's model files for every environment that is made."""
    try:
        import mujoco
    except ImportError:
        return
    mujoco.set_mju_user_warning(lambda message: None)


def products(task: str, environments: int) -> Products:
    """Those of our PPO: of acting, of values and log-probabilities, and of the gradient steps."""
    inputs, outputs = sizes_of(task)
    actor, critic = (inputs, *HIDDEN, outputs), (inputs, *HIDDEN, 1)
    steps = EPOCHS * ROLLOUT // MINIBATCH
    passes = [Pass(actor, environments, times=ROLLOUT // environments), Pass(actor, ROLLOUT), Pass(critic, ROLLOUT)]
    return Products([*passes, *(Pass(each, MINIBATCH, "train", times=steps) for each in (actor, critic))], ROLLOUT)


ONE_XLA_THREAD = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1", "JAX_PLATFORMS": "cpu"}
SIDES = (
    Side("Rheostat, compiled", "rheostat", ours_compiled, modules=("numba", "threadpoolctl")),
    Side("Rheostat", "rheostat", Ours),
    Side("Stable-Baselines3", "stable-baselines3", baselines, modules=("stable_baselines3",)),
    Side("Stable-Baselines3, workers", "stable-baselines3", baselines_workers, modules=("stable_baselines3",)),
    Side("SBX", "sbx-rl", sbx, modules=("sbx", "jax"), variables=ONE_XLA_THREAD),
    Side("rejax", "rejax", Rejax, modules=("rejax", "jax"), variables=ONE_XLA_THREAD),
    Side("CleanRL", "cleanrl", cleanrl, modules=("tyro", "tensorboard"), script=CLEAN["CartPole-v1"]),
    Side("CleanRL, EnvPool", "cleanrl", cleanrl_pool, modules=("tyro", "tensorboard"), script=CLEAN["CartPole-v1"]),
    Side("LeanRL, compiled", "leanrl", leanrl, modules=("tyro",), script=LEAN["HalfCheetah-v5"]),
    Side(STEPPING, "envpool", Stepping),
    Side(PRODUCTS, "numpy", products),
)


# --- speed --------------------------------------------------------------------------------------------------------------------------------


def compare(task: str, environments: int, *, turns: int, updates: int, to_return: bool, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for every side, with its share of the ceiling."""
    options = {"task": task, "environments": environments}
    target, limit = TARGETS.get(task, float("nan")), LIMIT
    work = Work(f"PPO {task}, {environments} environments", "steps", options, updates * ROLLOUT, 2 * ROLLOUT, target, limit)
    rows = race.race(work, SIDES, turns=turns, to_return=to_return, say=say)
    return race.with_ceiling(rows, (STEPPING, PRODUCTS))


# --- learning -----------------------------------------------------------------------------------------------------------------------------


def learning_curve(side: str, task: str, environments: int, seed: int, steps: int) -> list[float]:
    """Mean return of the last 100 training episodes at a few equally spaced numbers of steps; both sides normalise."""
    torch.set_num_threads(1)
    trainer: Any
    if side == "ours":
        trainer = Ours(task, environments, seed=seed, anneal=False)
    else:
        trainer = Baselines("stable_baselines3", task, environments, normalise=True, seed=seed)
    curve, done = [], 0
    for point in range(1, POINTS + 1):
        done += trainer.advance(point * steps // POINTS - done)
        curve.append(trainer.episode_return())
    return curve


def compare_learning(task: str, environments: int, *, seeds: int, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Learning curves of both sides over seeds."""
    curves = {side: [learning_curve(side, task, environments, seed, steps) for seed in range(seeds)] for side in ("ours", "theirs")}
    means = {side: [statistics.fmean(column) for column in zip(*rows, strict=True)] for side, rows in curves.items()}
    spread = {side: statistics.stdev([row[-1] for row in rows]) if seeds > 1 else 0.0 for side, rows in curves.items()}
    points = [f"{point * steps // POINTS:,}" for point in range(1, POINTS + 1)]
    header = [f"{task}, {environments} environments: return after", *points, "deviation"]
    say(table(header, [[side, *(f"{value:,.1f}" for value in means[side]), f"{spread[side]:,.1f}"] for side in curves]))
    facts = {"work": f"PPO {task}", "environments": environments, "steps": steps, "seeds": seeds}
    return facts | {"curves": curves, "final": {side: means[side][-1] for side in means}}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--quick", action="store_true", help="a smoke run: everything once, short")
    parser.add_argument("--to-return", action="store_true", help="also measure seconds to a stated return")
    parser.add_argument("--learning", action="store_true", help="compare learning curves at equal steps instead of speed")
    parser.add_argument("--environments", type=int, nargs="+", default=[ENVIRONMENTS], help="of every side")
    parser.add_argument("--turns", type=int, default=5, help="turns of every side")
    parser.add_argument("--updates", type=int, default=5, help="updates of 2048 steps per turn")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the learning curves")
    parser.add_argument("--tasks", nargs="+", default=TASKS, metavar="TASK")
    parser.add_argument("--checkouts", metavar="DIR", help="folder of the checkouts of CleanRL, LeanRL and CORL")
    parser.add_argument("--off-policy", action="store_true", help="SAC, TD3, IQL and CQL instead (python -m benchmarks.off_policy)")
    arguments = parser.parse_args()
    checkouts.found_in(arguments.checkouts)
    if arguments.off_policy:
        from benchmarks import off_policy

        return off_policy.report(
            turns=1 if arguments.quick else arguments.turns, steps=20 if arguments.quick else 200, as_json=arguments.json
        )

    def say(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    say(machine())
    works = [(task, count) for task in arguments.tasks for count in arguments.environments]
    if arguments.learning:
        seeds = 1 if arguments.quick else arguments.seeds
        found = [
            compare_learning(task, count, seeds=seeds, steps=4 * ROLLOUT if arguments.quick else LEARNING_STEPS[task], say=say)
            for task, count in works
        ]
        if arguments.json:
            print(json.dumps(found, indent=2))
        return
    size = {"turns": 1, "updates": 1} if arguments.quick else {"turns": arguments.turns, "updates": arguments.updates}
    rows = []
    for task, count in works:
        say(f"PPO {task}, {count} environments")
        rows.append(compare(task, count, **size, to_return=arguments.to_return, say=say))
        say(race.shown(rows[-1]))
    print(race.dump(rows) if arguments.json else machine())


if __name__ == "__main__":
    main()
