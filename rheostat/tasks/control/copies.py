"""Several copies of one Gymnasium environment, stepped in turn: like Gymnasium's synchronous vector, but without its failures in long runs.

The ``info`` of an environment is passed on unchanged, one dict per environment, and never merged: Gymnasium's own vector makes
arrays of it, which fails as soon as a value changes its type or its length. The return values of an environment are checked where they are
returned, so that the error can name the environment and the entry; an error of the environment's own code stays that error and names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import Env, Space
from gymnasium.vector import SyncVectorEnv, VectorEnv

from rheostat.errors import RheostatError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "rheostat_environment"


def whose(error: BaseException) -> str:
    """The environment whose code raised this error; empty where it was not an environment's."""
    return str(getattr(error, MARK, ""))


@contextmanager
def code_of(index: int, name: str, call: str) -> Iterator[None]:
    """Context for the code of an environment: its errors get a note that names it and keep their type."""
    try:
        yield
    except RheostatError:
        raise
    except Exception as error:
        if not whose(error):
            error.add_note(f"Raised by environment {index} of {name}, in its {call}.")
            setattr(error, MARK, name)
        raise


def like(made: Any) -> str:
    """A hint for an object that is no Gymnasium environment but looks like another kind; empty for everything else."""
    if isinstance(made, VectorEnv):
        return ", a vector environment: hand it over as it is"
    if hasattr(made, "possible_agents"):
        return ", but an environment of several agents: ippo trains those"
    if callable(getattr(made, "reset", None)) and callable(getattr(made, "step", None)):
        return ", which has reset and step: derive its class from gymnasium.Env (the classes of the older gym are others)"
    return ""


def _require_environment(made: Any, name: str) -> None:
    """Refuse an object that is no environment, or has no spaces."""
    if not isinstance(made, Env):
        raise RheostatError(f"{name} made {shown(made)}, which is no gymnasium.Env{like(made)}.")
    for field in ("observation_space", "action_space"):
        space = getattr(made, field, None)
        if not isinstance(space, Space):
            raise RheostatError(f"The {field} of {name} is {shown(space)}: set it to a space of gymnasium.spaces, in the constructor.")


class Copies(SyncVectorEnv):
    """Copies of one environment with next-step autoreset.

    Args:
        makers: one function per copy.
        name: of the task, for error messages.
        owned: whether closing closes the environments; an object that the user passed stays open.
    """

    def __init__(self, makers: Sequence[Callable[[], Env]], name: str, *, owned: bool = True) -> None:
        def guarded(index: int) -> Callable[[], Env]:
            def make() -> Env:
                with code_of(index, name, "constructor"):
                    made = makers[index]()
                _require_environment(made, name)
                return made

            return make

        try:
            super().__init__([guarded(index) for index in range(len(makers))], copy=False)
        except RuntimeError as error:
            if whose(error):
                raise
            raise RheostatError(f"The copies of {name} do not have the same spaces: {error}") from error
        self.name, self.owned = name, owned
        self.seeds: list[int | None] = [None] * self.num_envs  # of the next episode, where every episode has one
        self.stride = 0

    def seed_episodes(self) -> None:
        """From the next ``reset(seed=...)`` on, episode j of environment i is seeded with ``seed + i + j * num_envs``, so that the episodes
        of an evaluation do not depend on how many copies take part in it."""
        self.stride = self.num_envs

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset all environments, seeded with ``seed + i``."""
        self._autoreset_envs[:] = False
        infos: list[Any] = [{}] * self.num_envs
        for index in range(self.num_envs):
            self.seeds[index] = None if seed is None else seed + index
            self._env_obs[index], infos[index] = self._begin(index)
        return self._stack(), {"infos": infos}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of each; an environment whose episode ended is reset and its action ignored."""
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, dtype=bool), np.zeros(self.num_envs, dtype=bool)
        infos: list[Any] = [{}] * self.num_envs
        for index in range(self.num_envs):
            if self._autoreset_envs[index]:
                self._env_obs[index], infos[index] = self._begin(index)
                continue
            with code_of(index, self.name, "step()"):
                answer = self.envs[index].step(actions[index])
            if not isinstance(answer, tuple | list) or len(answer) != 5:
                count = f"{len(answer)} values" if isinstance(answer, tuple | list) else f"a {type(answer).__name__}"
                raise RheostatError(
                    f"Environment {index} of {self.name} returned something malformed from step(), {count}: it must be (observation, "
                    "reward, terminated, truncated, info)."
                )
            self._env_obs[index], reward, over, cut, infos[index] = answer
            rewards[index] = self._number(index, reward)
            terminated[index], truncated[index] = self._flag(index, "terminated", over), self._flag(index, "truncated", cut)
        self._autoreset_envs = terminated | truncated
        return self._stack(), rewards, terminated, truncated, {"infos": infos}

    def _begin(self, index: int) -> tuple[Any, Any]:
        """A new episode of one environment."""
        seed = self.seeds[index]
        self.seeds[index] = None if seed is None or not self.stride else seed + self.stride
        with code_of(index, self.name, "reset()"):
            answer = self.envs[index].reset(seed=seed)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise RheostatError(
                f"Environment {index} of {self.name} returned something malformed from reset(): it must be (observation, info)."
            )
        return answer[0], answer[1]

    def _number(self, index: int, reward: Any) -> float:
        try:
            value = np.asarray(reward.detach().cpu() if hasattr(reward, "detach") else reward)
            if value.size == 1 and value.dtype.kind in "fiub":
                return float(value.reshape(-1)[0])
        except (TypeError, ValueError):
            pass
        raise RheostatError(f"The reward of environment {index} of {self.name} is {reward!r}: one finite number is needed.")

    def _flag(self, index: int, field: str, value: Any) -> bool:
        if value is None or isinstance(value, bool):
            return bool(value)
        flag = np.asarray(value)
        if flag.size != 1 or flag.dtype.kind not in "biu":
            raise RheostatError(f"{field} of environment {index} of {self.name} is {value!r}: True or False is needed.")
        return bool(flag.reshape(-1)[0])

    def _stack(self) -> Any:
        try:
            self._observations = put(self.single_observation_space, self._env_obs, self._observations, (), self.name)
        except RheostatError:
            raise
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise RheostatError(
                f"The observations of {self.name} do not fit its observation_space {self.single_observation_space}: {error}."
            ) from error
        return self._observations

    def close_extras(self, **options: Any) -> None:
        """Close the environments, unless the user made them."""
        if self.owned:
            super().close_extras(**options)


def put(space: Space, rows: Sequence[Any], buffer: Any, path: tuple[Any, ...], name: str) -> Any:
    """Write single observations into the batched buffer of their space; returns the buffer.

    Raises:
        RheostatError: an entry that is missing, or that has another shape or kind than its space.
    """
    inner = getattr(space, "spaces", None)
    if isinstance(inner, dict):
        for row, value in enumerate(rows):
            missing = [key for key in inner if key not in value] if hasattr(value, "keys") else list(inner)
            if missing:
                have = ", ".join(map(str, value)) if hasattr(value, "keys") else f"it is a {type(value).__name__}"
                raise RheostatError(
                    f"The observation{_where(path)} of environment {row} of {name} lacks {', '.join(map(repr, missing))}, which its "
                    f"observation_space has ({have}): return every entry."
                )
        return {key: put(part, [value[key] for value in rows], buffer[key], (*path, key), name) for key, part in inner.items()}
    if inner is not None:
        for row, value in enumerate(rows):
            if not isinstance(value, tuple | list) or len(value) != len(inner):
                raise RheostatError(
                    f"The observation{_where(path)} of environment {row} of {name} is {value!r}; its space is a Tuple of {len(inner)} "
                    "entries."
                )
        return tuple(put(part, [value[index] for value in rows], buffer[index], (*path, index), name) for index, part in enumerate(inner))
    if not isinstance(buffer, np.ndarray):  # no fixed size: the encoder refuses these
        return tuple(rows)
    for row, value in enumerate(rows):
        found = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        integers = found.dtype.kind in "biu" and buffer.dtype.kind in "biu"
        if found.shape != space.shape or not (integers or np.can_cast(found.dtype, buffer.dtype, "same_kind")):
            raise RheostatError(
                f"The observation{_where(path)} of environment {row} of {name} has shape {list(found.shape)} and dtype {found.dtype}; its "
                f"observation_space says {list(space.shape or ())} {space.dtype}: correct one of the two."
            )
        if integers and found.dtype != buffer.dtype and not _holds(buffer.dtype, found):
            raise RheostatError(
                f"The observation{_where(path)} of environment {row} of {name} has values from {found.min()} to {found.max()}, which its "
                f"observation_space of {space.dtype} cannot hold: correct one of the two."
            )
        buffer[row] = found
    return buffer


def _holds(dtype: np.dtype, integers: np.ndarray) -> bool:
    """Whether every integer (or truth value) of an array exists in another type of integers, where numpy would wrap it around."""
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return not integers.size or (int(integers.min()) >= least and int(integers.max()) <= most)


def _where(path: tuple[Any, ...]) -> str:
    return "".join(f"[{key!r}]" for key in path)
