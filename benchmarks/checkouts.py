"""Peers that are scripts and not packages: CleanRL, LeanRL and CORL, run from a checkout of their repositories.

A script trains in a thread of its side's process, by its own loop and as its users call it. What it steps or draws from is counted, and
waits there whenever the steps that were asked for are done: before a step of its environments, so that the update of the last whole rollout
is part of its turn, or before it draws a batch. What such a script imports only to write to services (wandb), to parse a command line
(pyrallis) or to load data (d4rl and the old gym, of whose data we put ours in place) is replaced by a stand-in.

``--checkouts DIR`` names the folder that holds them (``git clone https://github.com/vwxyzjn/cleanrl`` and so on), as :data:`FOLDER` says
inside a side's process.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import numpy as np

FOLDER = "RHEOSTAT_CHECKOUTS"
"""Variable of the environment: the folder of the checkouts."""
ENDLESS = 10**9
"""Steps that a script is told to train for."""


def found_in(folder: str | None) -> None:
    """Name the folder of the checkouts; None leaves the variable as it is."""
    if folder is not None:
        os.environ[FOLDER] = str(Path(folder).resolve())


def script(path: str) -> Path:
    """A file of a checkout.

    Raises:
        FileNotFoundError: it is not there.
    """
    found = Path(os.environ[FOLDER], path) if FOLDER in os.environ else None
    if found is None or not found.is_file():
        raise FileNotFoundError(f"no checkout with {path} (--checkouts DIR)")
    return found


def why_missing(path: str) -> str:
    """What a side without its script says; empty where the script is there."""
    try:
        script(path)
    except FileNotFoundError as error:
        return str(error)
    return ""


def commit(path: str) -> str:
    """The commit of a checkout; empty where it has none."""
    if why_missing(path):
        return ""
    done = subprocess.run(
        ["git", "-C", str(script(path).parent), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


class Gate:
    """Counts what a script does, and lets it go on only as far as it was asked to."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.done = self.allowed = 0
        self.waiting = self.ended = False
        self.error: BaseException | None = None

    def pass_through(self, steps: int) -> None:
        """In the script's thread, before so many steps."""
        with self.changed:
            while self.done + steps > self.allowed:
                self.waiting = True
                self.changed.notify_all()
                self.changed.wait()
            self.waiting = False
            self.done += steps

    def advance(self, steps: int) -> int:
        """Let the script make so many steps, and wait until it asks for more.

        Raises:
            RuntimeError: it ended instead.
        """
        with self.changed:
            before = self.done
            self.allowed = max(self.allowed, self.done + steps)
            self.waiting = False
            self.changed.notify_all()
            while not (self.waiting or self.ended):
                self.changed.wait()
            if self.ended:
                raise RuntimeError("the script ended") from self.error
            return self.done - before

    def run(self, work: Callable[[], Any]) -> None:
        """The script's thread."""
        try:
            work()
        except BaseException as error:
            self.error = error
        with self.changed:
            self.ended = True
            self.changed.notify_all()


class Script:
    """A script that trains in its own thread.

    Args:
        work: runs it; of the gate.

    Raises:
        Exception: what the script raised before its first step.
    """

    def __init__(self, work: Callable[[Gate, deque[float]], Any]) -> None:
        self.gate, self.returns = Gate(), deque[float](maxlen=100)
        os.chdir(tempfile.mkdtemp(prefix="rheostat-bench-"))  # scripts write logs where they stand
        threading.Thread(target=self.gate.run, args=(lambda: work(self.gate, self.returns),), daemon=True).start()

    def advance(self, steps: int) -> int:
        """As many steps as the script's own units allow."""
        try:
            return self.gate.advance(steps)
        except RuntimeError:
            if self.gate.error is not None:
                raise self.gate.error from None
            raise

    def episode_return(self) -> float:
        """Of training."""
        return float(np.mean(self.returns)) if self.returns else float("nan")


# --- online: scripts over vector environments of Gymnasium --------------------------------------------------------------------------------


def counted(vector: Any, gate: Gate, returns: deque[float]) -> Any:
    """Vector environments whose steps go through the gate; returns of episodes are kept before anything is normalised."""
    step, summed = vector.step, np.zeros(vector.num_envs)

    def gated(actions: Any) -> Any:
        nonlocal summed
        gate.pass_through(vector.num_envs)
        observed, reward, terminated, truncated, info = step(actions)
        ended = np.logical_or(terminated, truncated)
        summed = summed + reward
        returns.extend(float(value) for value in summed[ended])
        summed[ended] = 0.0
        return observed, reward, terminated, truncated, info

    vector.step = gated
    return vector


class Pool(gymnasium.vector.VectorEnv):  # type: ignore[type-arg]
    """EnvPool as a vector environment of Gymnasium."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}

    def __init__(self, task: str, environments: int) -> None:
        import envpool

        self.pool: Any = envpool.make(task, env_type="gymnasium", num_envs=environments)
        self.num_envs = environments
        self.single_observation_space, self.single_action_space = self.pool.observation_space, self.pool.action_space
        batched = gymnasium.vector.utils.batch_space
        self.observation_space, self.action_space = (
            batched(self.single_observation_space, environments),
            batched(self.single_action_space, environments),
        )

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        """EnvPool takes its seed when it is made."""
        return self.pool.reset()[0], {}

    def step(self, actions: Any) -> Any:
        """Of all environments; what EnvPool tells besides is left out."""
        observed, reward, terminated, truncated, _ = self.pool.step(np.asarray(actions, self.single_action_space.dtype))
        return observed, np.asarray(reward, np.float64), terminated, truncated, {}


def pooled(task: str, environments: int, gate: Gate, returns: deque[float], *, normalise: bool) -> Any:
    """EnvPool behind the wrappers that the script puts around every environment (normalised and clipped observations and rewards)."""
    wrap: Any = gymnasium.wrappers.vector
    vector: Any = counted(Pool(task, environments), gate, returns)
    if normalise:
        vector = wrap.NormalizeObservation(wrap.ClipAction(vector))
        vector = wrap.TransformObservation(vector, lambda observed: np.clip(observed, -10, 10))
        vector = wrap.TransformReward(wrap.NormalizeReward(vector), lambda reward: np.clip(reward, -10, 10))
    return vector


def online(path: str, arguments: Sequence[str], make: Callable[[Gate, deque[float], Any], Any]) -> Script:
    """A script that makes its environments by ``gymnasium.vector.SyncVectorEnv``.

    Args:
        path: of the script, in the folder of checkouts.
        arguments: of its command line.
        make: makes the environments instead: of the gate, the returns, and the constructors that the script passes.
    """
    file = script(path)

    def work(gate: Gate, returns: deque[float]) -> None:
        gymnasium.vector.SyncVectorEnv = lambda functions, *_, **__: make(gate, returns, functions)  # type: ignore[misc, assignment]
        sys.argv = [file.name, *arguments]
        with stand_ins("wandb"):
            runpy.run_path(str(file), run_name="__main__")

    return Script(work)


def ppo_arguments(task: str, environments: int, rollout: int, minibatches: int, epochs: int) -> list[str]:
    """CleanRL's and LeanRL's PPO with the sizes of all sides, a constant learning rate and no clip of the value."""
    sizes = {"num-envs": environments, "num-steps": rollout // environments, "num-minibatches": minibatches, "update-epochs": epochs}
    named = {"env-id": task, "total-timesteps": ENDLESS, "learning-rate": 3e-4} | sizes
    return [*(word for name, value in named.items() for word in (f"--{name}", str(value))), "--no-anneal-lr", "--no-clip-vloss"]


# --- offline: CORL ------------------------------------------------------------------------------------------------------------------------


def corl(path: str, data: dict[str, np.ndarray], seen: int, acted: int, options: dict[str, Any]) -> Script:
    """A script of CORL on our rows; it waits before it draws a batch.

    Args:
        path: of the script, in the folder of checkouts.
        data: what ``d4rl.qlearning_dataset`` would return.
        seen: number of inputs.
        acted: number of actions, each in [-1, 1].
        options: of its configuration.
    """
    file = script(path)
    spaces = {"observation_space": SimpleNamespace(shape=(seen,)), "action_space": SimpleNamespace(shape=(acted,), high=np.ones(acted))}
    environment = SimpleNamespace(**spaces, seed=lambda seed: None)
    environment.action_space.seed = lambda seed: None

    def work(gate: Gate, _: deque[float]) -> None:
        with stand_ins("wandb", "pyrallis", "d4rl", "gym") as modules:
            modules["pyrallis"].wrap = lambda: lambda function: function
            modules["d4rl"].qlearning_dataset = lambda environment: dict(data)
            modules["gym"].make = lambda name: environment
            modules["gym"].wrappers.TransformObservation = lambda env, function: env
            names = runpy.run_path(str(file), run_name="script")
            buffer = names["ReplayBuffer"]
            sample = buffer.sample

            def gated(self: Any, rows: int) -> Any:
                gate.pass_through(1)
                return sample(self, rows)

            buffer.sample = gated
            asked = {"device": "cpu", "buffer_size": len(data["rewards"]), "eval_freq": ENDLESS, "max_timesteps": ENDLESS}
            names["train"](names["TrainConfig"](**asked | options))

    return Script(work)


class Standing(ModuleType):
    """A module that has every name: each is a call that does nothing, or a namespace of such."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = Standing(name)
        setattr(self, name, found)
        return found

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Nothing."""
        return self


class stand_ins:
    """Inside, these modules are stand-ins."""

    def __init__(self, *names: str) -> None:
        self.modules: dict[str, Any] = {name: Standing(name) for name in names}

    def __enter__(self) -> dict[str, Any]:
        self.before = {name: sys.modules.get(name) for name in self.modules}
        sys.modules.update(self.modules)
        return self.modules

    def __exit__(self, *_: object) -> None:
        for name, module in self.before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
