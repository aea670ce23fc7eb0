"""Opening environments when they are needed, and restoring their state: base class of ``Environments``, which steps them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.control.backends import EnvPoolEnvs, Envs, GymnasiumEnvs
from rheostat.tasks.control.cursor import Cursor, Lost
from rheostat.tasks.control.facts import Facts

Open = Callable[[int, int], tuple[Envs, str]]
"""``(num_envs, seed)`` to opened environments and their name."""


class Restorable(ABC):
    """Environments that may not be open yet, and their exact state."""

    facts: Facts
    name: str
    backend: str
    num_envs: int
    seed: int
    steps: int
    can_save: bool
    warnings: list[str]
    _opened: Envs | None
    _open: Open | None
    _cursor: Cursor | None
    _pending: dict[str, Any] | None
    _observation: Tensor | None
    _ended: np.ndarray
    _encode: Any

    @abstractmethod
    def _reset(self) -> Tensor:
        """Begin new episodes; returns the first observations ``[E, ...]``."""

    @abstractmethod
    def _advance(self, command: np.ndarray) -> Any:
        """Take the environment's actions ``[E, ...]``; returns the step."""

    @abstractmethod
    def restart(self, seed: int) -> Tensor:
        """Start over with another seed."""

    # -- opening and closing ----------------------------------------------------------------------------------------------------

    @property
    def _envs(self) -> Envs:
        if self._opened is None:
            assert self._open is not None
            self._opened, name = self._open(self.num_envs, self.seed)
            found, mine = Facts.of(self._opened, name), self.facts
            if (found.observation_space, found.action_space) != (mine.observation_space, mine.action_space):
                raise RheostatError(
                    f"{name} now has the observations {found.observation_space} and actions {found.action_space}; the run knows "
                    f"{mine.observation_space} and {mine.action_space}: open it with the environment it was trained on."
                )
            self._cursor = cursor_for(self._opened, self.seed)
        return self._opened

    @property
    def opened(self) -> bool:
        """Whether environments exist."""
        return self._opened is not None

    def wake(self) -> None:
        """Open the environments and restore the loaded state, unless that has been done."""
        if self._pending is not None:
            state, self._pending = self._pending, None
            self._load(state)

    def park(self) -> None:
        """Close the environments and keep their state; they open again when they are needed."""
        if self._opened is None or self._open is None:
            return
        if self._observation is not None:
            self._pending = self.state_dict()
        self._opened.close()
        self._opened = None

    # -- exact state ------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue bit for bit: nested dicts and lists of tensors, numbers and strings.

        Nothing is restarted for it. EnvPool's pools and recorded Gymnasium environments store what restores them
        (:mod:`rheostat.tasks.control.pools`, :mod:`rheostat.tasks.control.recording`); environments that can be saved are saved.
        """
        if self._observation is None:
            raise RheostatError(f"Call reset() before saving the state of {self.name}: there is no state yet.")
        if self._pending is not None:
            return self._pending
        state: dict[str, Any] = {
            "name": self.name,
            "backend": self.backend,
            "num_envs": self.num_envs,
            "seed": self.seed,
            "steps": self.steps,
            "observation": self._observation.clone(),
            "ended": torch.from_numpy(self._ended.copy()),
        }
        envs = self._envs
        if self._cursor is not None:
            state["cursor"] = self._cursor.state_dict()
        elif isinstance(envs, EnvPoolEnvs):
            state["pools"] = envs.save()
        else:
            from rheostat.tasks.control.state import save_envs

            state["worlds"] = save_envs(envs)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> Tensor:
        """Continue where ``state`` was saved; returns the current observation ``[E, ...]``.

        Environments that are not open yet are restored when they are first needed (:meth:`wake`). An environment that cannot be
        restored (it is not deterministic given its seed, or is declared not repeatable) begins new episodes: ``warnings`` gives the reason,
        ``can_save`` is False until :meth:`restart`.

        Raises:
            RheostatError: the state is of another task, backend or number of environments.
        """
        for key, mine in (("name", self.name), ("backend", self.backend), ("num_envs", self.num_envs)):
            if state[key] != mine:
                raise RheostatError(f"The saved environments have {key} {state[key]!r}, these have {mine!r}: make them as they were.")
        if self._opened is not None:
            return self._load(state)
        self._pending = state
        self._place(state)
        assert self._observation is not None
        return self._observation

    def _place(self, state: dict[str, Any]) -> None:
        """The numbers that belong to no single environment."""
        self.seed, self.steps = state["seed"], state["steps"]
        self._ended = state["ended"].numpy().copy()
        self._observation = state["observation"].clone()

    def _load(self, state: dict[str, Any]) -> Tensor:
        """Restore a state in opened environments."""
        self.seed, self._observation = state["seed"], None
        envs = self._envs
        try:
            self._bring(envs, state)
        except Lost as reason:
            self.warnings.append(
                f"The environments of {self.name} could not be brought back to where they were, because {reason}: every environment begins "
                "a new episode, and what it keeps across episodes begins anew. Give it save_state() and load_state(state) to make it "
                "resumable."
            )
            observation = self.restart(derive_seed(state["seed"], "after", state["steps"]))
            self.can_save = False
            return observation
        self._place(state)
        assert self._observation is not None
        return self._observation

    def _bring(self, envs: Envs, state: dict[str, Any]) -> None:
        if "pools" in state:
            assert isinstance(envs, EnvPoolEnvs)
            arrived = self._encode(envs.load(state["pools"]), self.num_envs)
            if not torch.equal(arrived, state["observation"]):
                raise Lost("repeating the steps since their episodes began did not arrive at the saved observation: another version of it?")
        elif "worlds" in state:
            from rheostat.tasks.control.state import load_envs

            assert isinstance(envs, GymnasiumEnvs)
            envs.start(self.seed)
            if "own" in state["worlds"]:
                self._reset()  # lets a batched environment make its arrays
            said = load_envs(envs, state["worlds"])
            self.warnings += [f"The environments of {self.name} were brought back, but {sentence}." for sentence in said]
            envs.started()
        else:
            envs.start(self.seed)
            self._cursor = Cursor.from_state_dict(state["cursor"])
            self._cursor.replay(self._reset, self._advance)

    def close(self) -> None:
        """Free the environments."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None if self._open is not None else self._opened


def cursor_for(envs: Envs, seed: int) -> Cursor | None:
    """A replay from the seed, for batched environments that cannot be saved."""
    from rheostat.tasks.control.state import savable

    return None if isinstance(envs, EnvPoolEnvs) or savable(envs) else Cursor(seed)
