"""The two kinds of environments behind the adapter ``Environments``: EnvPool pools and Gymnasium vector environments.

Both have ``start(seed)`` (drop all state; the next reset gives the first observations), ``reset()``, ``step(action)`` and ``close()``,
and hold the raw spaces of one environment. Where they differ (when the next episode starts, where the final observation is, what can be
saved) is handled in :mod:`rheostat.tasks.control.environments`.
"""

from __future__ import annotations

import functools
import json
import os
import types
import warnings
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rheostat.errors import RheostatError, unknown
from rheostat.tasks.control.pools import RollingPools, draws_only_in_reset, replay_bounds

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

Autoreset = Literal["next-step", "same-step", "disabled"]
Backend = Literal["envpool", "gymnasium"]


class Outcome(NamedTuple):
    """The result of one raw step of all environments, as numpy arrays with a leading axis of environments."""

    observation: Any
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    info: dict[str, Any]


class EnvPoolEnvs:
    """EnvPool pools. A pool is seeded when it is made and only then: ``reset(seed=...)`` is accepted by EnvPool and ignored."""

    backend: Backend = "envpool"
    autoreset: Autoreset = "next-step"
    reuses_buffers = False  # arrays of earlier steps keep their values

    def __init__(self, task: str, num_envs: int, seed: int, threads: int | None, options: dict[str, Any]) -> None:
        self.num_envs = num_envs
        self._task = task
        self._options = options
        self._threads = min(num_envs, threads or _usable_cores())
        self._pools = RollingPools(self._make, num_envs, seed, replay_bounds(task), self._draws_only_in_reset)
        pool = self._pools.pools[0]
        self.observation_space = pool.observation_space
        self.action_space = pool.action_space
        config = pool.config
        if config.get("max_num_players", 1) > 1:
            raise RheostatError(
                f"The EnvPool task {task} has up to {config['max_num_players']} players per environment; "
                "only single-player tasks are supported."
            )

    @property
    def longest_episode(self) -> int | None:
        """Steps after which an episode is cut; None where the task does not say."""
        return self._pools.pools[0].config.get("max_episode_steps")

    def _make(self, rows: int, seed: int) -> Any:
        import envpool

        try:
            pool = envpool.make(
                self._task, env_type="gymnasium", num_envs=rows, seed=seed, num_threads=min(rows, self._threads), **self._options
            )
            with warnings.catch_warnings():  # the first access to the spaces casts their float64 bounds, with a warning users cannot avoid
                warnings.simplefilter("ignore")
                _ = pool.observation_space, pool.action_space
            return pool
        except ImportError as error:
            raise RheostatError(f"The EnvPool task {self._task} lacks something this machine does not have: {error}") from error
        except (AssertionError, TypeError, ValueError, RuntimeError) as error:
            known = envpool.make_spec(self._task).config._fields
            for option in self._options:
                if option not in known:
                    raise unknown(f"option of the EnvPool task {self._task}", option, known) from error
            raise RheostatError(f"EnvPool could not make {self._task} with options {self._options}: {error}") from error

    def _draws_only_in_reset(self) -> bool:
        return _verdict(self._task, json.dumps(self._options, sort_keys=True, default=str), self._make)

    def start(self, seed: int) -> None:
        self._pools.start(seed)

    def reset(self) -> Any:
        return self._pools.reset()

    def step(self, action: np.ndarray) -> Outcome:
        return Outcome(*self._pools.step(action))

    def save(self) -> dict[str, Any]:
        """The state that restores the pools; see :mod:`rheostat.tasks.control.pools`."""
        return self._pools.state_dict()

    def load(self, state: dict[str, Any]) -> Any:
        """Restore the pools; returns their raw observations."""
        return self._pools.load_state_dict(state)

    def close(self) -> None:
        self._pools.close()


@functools.cache
def _asked() -> dict[tuple[str, str], bool]:
    return {}


def _verdict(task: str, options: str, make: Any) -> bool:
    """Whether a task uses its random generator in ``reset`` alone, tried once per process, task and options."""
    known = _asked()
    if (task, options) not in known:
        known[task, options] = draws_only_in_reset(make)
    return known[task, options]


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class GymnasiumEnvs:
    """A Gymnasium vector environment in any of its three autoreset modes."""

    backend: Backend = "gymnasium"
    reuses_buffers = True  # the arrays it returns may be overwritten by the next step

    def __init__(self, vector: VectorEnv, task: str, seed: int, *, owned: bool = True) -> None:
        from gymnasium.vector import SyncVectorEnv

        from rheostat.tasks.control.state import record

        self.vector, self._owned = vector, owned
        if type(vector) is SyncVectorEnv:  # its merging of infos fails where a value changes its type
            vector._add_info = types.MethodType(_collect, vector)  # type: ignore[method-assign]
        if isinstance(vector, SyncVectorEnv):
            vector.envs = [record(environment) for environment in vector.envs]
        self.num_envs = vector.num_envs
        self.autoreset = _autoreset_mode(vector, task)
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space
        self._task = task
        self.start(seed)

    def start(self, seed: int) -> None:
        self._seed: int | None = seed

    @property
    def longest_episode(self) -> int | None:
        """Steps after which an episode is cut; None where the environment does not say."""
        spec = getattr(self.vector, "spec", None) or getattr(next(iter(getattr(self.vector, "envs", ())), None), "spec", None)
        found: int | None = getattr(self.vector, "horizon", None) or getattr(spec, "max_episode_steps", None)
        return found

    def started(self) -> None:
        """Note that the first reset is done: the next one does not seed."""
        self._seed = None

    def reset(self) -> Any:
        seed, self._seed = self._seed, None
        try:
            return self.vector.reset(seed=seed)[0]
        except (ValueError, TypeError, KeyError) as error:
            self._explain(error)
            raise

    def seed_episodes(self) -> None:
        """Seed every episode from the next ``start`` on, where the copies are Rheostat's own; see
        :class:`rheostat.tasks.control.copies.Copies`."""
        if hasattr(self.vector, "seed_episodes"):
            self.vector.seed_episodes()

    def reset_ended(self, ended: np.ndarray) -> Any:
        """Begin new episodes where ``ended``, in DISABLED autoreset mode; returns raw observations of all environments."""
        return self.vector.reset(options={"reset_mask": ended})[0]

    def step(self, action: np.ndarray) -> Outcome:
        try:
            observation, reward, terminated, truncated, info = self.vector.step(action)
        except (ValueError, TypeError, KeyError) as error:
            self._explain(error)
            raise
        outcome = Outcome(observation, np.asarray(reward), np.array(terminated, dtype=bool), np.array(truncated, dtype=bool), info)
        for field in ("reward", "terminated", "truncated"):
            shape = getattr(outcome, field).shape
            if shape != (self.num_envs,):
                raise RheostatError(f"The {field} of {self._task} has shape {list(shape)}; [{self.num_envs}] is needed.")
        return outcome

    def final_observation(self, info: dict[str, Any], rows: np.ndarray) -> Any:
        """The true last observations of the environments ``rows`` that ended, in SAME_STEP mode, raw and stacked.

        Raises:
            RheostatError: the vector environment does not report them.
        """
        final = info.get("final_obs", info.get("final_observation"))
        if final is None:
            raise RheostatError(
                f"{self._task} resets in the same step but reports no info['final_obs'], so the true final observation is lost: "
                "add it, or make the vector environment with autoreset_mode=NEXT_STEP."
            )
        return _take(final, self.observation_space, rows)

    def close(self) -> None:
        if self._owned:  # the user's own environments stay open
            self.vector.close()

    def _explain(self, error: Exception) -> None:
        """Turn gymnasium's errors about an environment's return values into one sentence; errors of the environment's own code stay."""
        from rheostat.tasks.control.copies import whose

        if isinstance(error, RheostatError) or whose(error):
            return
        index = None
        trace = error.__traceback__
        while trace is not None:
            path = trace.tb_frame.f_code.co_filename.replace("\\", "/")
            if path.endswith("gymnasium/vector/sync_vector_env.py"):
                index = trace.tb_frame.f_locals.get("i")
            elif not any(part in path for part in ("/gymnasium/vector/", "/numpy/", "/tasks/control/", "/functools.py")):
                return
            trace = trace.tb_next
        space = self.observation_space
        for place, value in enumerate(getattr(self.vector, "_env_obs", ())):
            if value is None:
                continue
            if type(space).__name__ in ("Dict", "Tuple"):
                if not space.contains(value):
                    raise RheostatError(
                        f"The observation of environment {place} of {self._task} is not in its observation_space {space}: {value!r}."
                    ) from error
                continue
            found = np.asarray(value)
            if found.shape != space.shape or not np.can_cast(found.dtype, space.dtype or found.dtype, "same_kind"):
                raise RheostatError(
                    f"The observation of environment {place} of {self._task} has shape {list(found.shape)} and dtype {found.dtype}; its "
                    f"observation_space says {list(space.shape or ())} {space.dtype}: correct one of the two."
                ) from error
        raise RheostatError(
            f"Environment {index} of {self._task} returned something malformed ({error}): reset() must return (observation, info) and "
            "step() (observation, reward, terminated, truncated, info) with a number for the reward and booleans for the two flags."
        ) from error


Envs = EnvPoolEnvs | GymnasiumEnvs


def _collect(vector: Any, infos: dict[str, Any], info: dict[str, Any], index: int) -> dict[str, Any]:
    """In place of Gymnasium's ``_add_info``: one dict per environment as it is, and the final observations where they are needed."""
    infos.setdefault("infos", [{}] * vector.num_envs)[index] = info
    if "final_obs" in info:
        if "final_obs" not in infos:
            infos["final_obs"] = np.full(vector.num_envs, None, dtype=object)
        infos["final_obs"][index] = info["final_obs"]
    return infos


def _autoreset_mode(vector: VectorEnv, task: str) -> Autoreset:
    mode = vector.metadata.get("autoreset_mode")
    if mode is None:
        raise RheostatError(
            f"The vector environment {task} does not state when it resets: set metadata['autoreset_mode'] to one of "
            "gymnasium.vector.AutoresetMode."
        )
    name = str(getattr(mode, "name", mode)).lower().replace("_", "-")
    if name not in ("next-step", "same-step", "disabled"):
        raise RheostatError(
            f"The vector environment {task} has the autoreset mode {mode!r}, which is none of gymnasium.vector.AutoresetMode."
        )
    return name  # type: ignore[return-value]


def _take(final: Any, space: Any, rows: np.ndarray) -> Any:
    """Rows of ``info['final_obs']``, which is an object array of single observations or already batched (per entry)."""
    if isinstance(final, dict):
        return {key: _take(final[key], part, rows) for key, part in space.spaces.items()}
    if isinstance(final, tuple):
        return tuple(_take(entry, part, rows) for entry, part in zip(final, space.spaces, strict=True))
    final = np.asarray(final)
    if final.dtype != object:
        return final[rows]
    from gymnasium.vector.utils import concatenate, create_empty_array

    buffers: Any = create_empty_array(space, n=len(rows), fn=np.zeros)
    return concatenate(space, list(final[rows]), buffers)
