"""The facts about an environment that are needed to act in its units without opening it: name, conventions and spaces, as plain JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rheostat.errors import RheostatError, shown_error

if TYPE_CHECKING:
    from gymnasium import Space

    from rheostat.tasks.control.backends import Autoreset, Backend, Envs


@dataclass(frozen=True)
class Facts:
    """Facts of a task, saved with a run."""

    name: str
    backend: Backend
    autoreset: Autoreset
    reuses_buffers: bool
    observation_space: Space
    action_space: Space
    longest_episode: int | None = None
    """Steps after which an episode is cut; None where the environment does not say."""
    tasks: int | None = None
    """Number of tasks that the environments draw theirs from; None where they do not say."""

    @classmethod
    def of(cls, envs: Envs, name: str) -> Facts:
        """Facts of opened environments."""
        tasks = getattr(getattr(envs, "vector", None), "tasks", None)
        spaces = (envs.observation_space, envs.action_space)
        return cls(name, envs.backend, envs.autoreset, envs.reuses_buffers, *spaces, envs.longest_episode, tasks)

    def to_json(self) -> dict[str, Any] | None:
        """Plain JSON; None where a space has no such form."""
        try:
            spaces = {name: space_to_json(getattr(self, name)) for name in ("observation_space", "action_space")}
        except RheostatError:
            return None
        names = ("name", "backend", "autoreset", "reuses_buffers", "longest_episode", "tasks")
        return {name: getattr(self, name) for name in names} | spaces

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Facts:
        """The inverse of :meth:`to_json`.

        Raises:
            RheostatError: it describes no environment.
        """
        try:
            spaces = {name: space_from_json(saved[name]) for name in ("observation_space", "action_space")}
            return cls(**(saved | spaces))
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError, OverflowError, MemoryError) as error:
            raise RheostatError(f"What a run's config.json says of its environment is damaged: {shown_error(error)}.") from error


def space_to_json(space: Any) -> dict[str, Any]:
    """A Gymnasium space as JSON; the entries of a Dict keep their order.

    Raises:
        RheostatError: a space without a fixed size, such as text.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        bounds = {name: _bound(getattr(space, name)) for name in ("low", "high")}
        return {"kind": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist(), "dtype": str(space.dtype)}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "entries": [[key, space_to_json(part)] for key, part in space.spaces.items()]}
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "entries": [space_to_json(part) for part in space.spaces]}
    raise RheostatError(f"{space} cannot be written down as JSON.")


def space_from_json(saved: dict[str, Any]) -> Any:
    """The inverse of :func:`space_to_json`."""
    from gymnasium import spaces

    kind = saved["kind"]
    if kind == "Box":
        dtype = np.dtype(saved["dtype"])
        low, high = (_array(saved[name], saved["shape"], dtype) for name in ("low", "high"))
        return spaces.Box(low, high, dtype=dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(saved["n"], start=saved["start"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.array(saved["nvec"]), dtype=np.dtype(saved["dtype"]).type, start=np.array(saved["start"]))
    if kind == "MultiBinary":
        return spaces.MultiBinary(saved["shape"])
    if kind == "Dict":
        return spaces.Dict([(key, space_from_json(part)) for key, part in saved["entries"]])
    return spaces.Tuple([space_from_json(part) for part in saved["entries"]])


def _array(value: Any, shape: list[int], dtype: Any) -> np.ndarray:
    values = [float(each) if isinstance(each, str) else each for each in (value if isinstance(value, list) else [value])]
    return (
        np.broadcast_to(np.array(values, dtype=dtype), (len(values),)).reshape(shape)
        if len(values) > 1
        else np.full(shape, values[0], dtype)
    )


def _bound(bound: np.ndarray) -> Any:
    """One number where all are equal, else nested lists; infinity as text, because JSON has none."""
    values: Any = bound.reshape(-1)
    if len(values) and (values == values[0]).all():
        return _plain(values[0])
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    number = value.item()
    return number if isinstance(number, int) or np.isfinite(number) else str(number)
