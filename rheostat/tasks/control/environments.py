"""One adapter over EnvPool and Gymnasium vector environments.

Every world becomes the same stream of rows, whatever its autoreset convention:

| mode | the step that ends an episode returns | the next step | what the adapter does |
|---|---|---|---|
| next-step | the final observation | ignores the action, returns the reset observation | marks that row ``valid=False`` |
| same-step | the reset observation, the final one in ``info`` | is normal | puts the final observation into ``next_observation`` |
| disabled | the final observation | is refused | resets the ended environments at once |

EnvPool is next-step, and so is Gymnasium unless told otherwise. Where a world ends and its time limit strikes in the same step, the end
counts and ``truncated`` is False; EnvPool, however, reports such a step as a truncation only, and the end cannot be recovered.

Seeds: environment ``i`` is seeded with ``seed + i`` by both backends, so two pools whose seeds differ by less than ``num_envs`` share
episodes. Space the seeds of runs, and of training and evaluation, by more than the number of environments (10,000 is the custom here).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tasks.control.backends import Autoreset, Backend, GymnasiumWorlds, Outcome, Worlds
from rheostat.tasks.control.environment_list import find, known_tasks
from rheostat.tasks.control.spaces import ActionDecoder, ObservationEncoder
from rheostat.tasks.control.state import Cursor, load_worlds, savable, save_worlds

if TYPE_CHECKING:
    import gymnasium

__all__ = ["Environments", "Step", "check_seed", "known_tasks", "make"]


@dataclass(slots=True)
class Step:
    """One step of ``E`` environments, CPU tensors with the leading axis ``E``."""

    observation: Tensor  # what the policy sees next: float32 [E, n], or uint8 [E, C, H, W]
    next_observation: Tensor  # the true successor of the step just taken: the final observation where an episode ended
    reward: Tensor  # float32 [E]
    terminated: Tensor  # bool [E]: the world ended, nothing to bootstrap from
    truncated: Tensor  # bool [E]: a time limit, and the world did not end; bootstrap from the value of next_observation
    valid: Tensor  # bool [E]: False where this row only started a new episode: not a transition, not counted
    info: dict[str, Any] = field(default_factory=dict)  # the backend's own extras (success flags, ...), as it returns them


class Environments:
    """``num_envs`` copies of one task, stepped together. Make it with :func:`make`.

    Attributes:
        name: the task's id.
        backend: ``envpool`` or ``gymnasium``.
        num_envs: number of environments E.
        autoreset: the convention of the world underneath (see the module's table).
        observation_space: a Box, float32 ``[n]`` or uint8 ``[C, H, W]``, of one encoded observation.
        action_space: Box float32, Discrete, MultiDiscrete or MultiBinary of one action.
        seed: the seed of the present pool.
        steps: steps taken since the pool was made, counted per environment, fake rows included.
    """

    def __init__(self, worlds: Worlds, name: str, seed: int, fields: tuple[str, ...] | None = None) -> None:
        self._worlds = worlds
        self.name = name
        self.backend: Backend = worlds.backend
        self.num_envs = worlds.num_envs
        self.autoreset: Autoreset = worlds.autoreset
        self._encode = ObservationEncoder(worlds.observation_space, name, fields=fields, copy=worlds.reuses_buffers)
        self._decode = ActionDecoder(worlds.action_space, name, worlds.num_envs)
        self.observation_space: gymnasium.spaces.Box = self._encode.space
        self.action_space: gymnasium.Space = self._decode.space
        self.seed = seed
        self.steps = 0
        self._observation: Tensor | None = None
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self.can_save = savable(worlds)
        self._cursor = Cursor(seed)

    def reset(self) -> Tensor:
        """Begin a new episode in every environment; returns the observations ``[E, ...]``."""
        if self._observation is not None and not self.can_save:
            self._cursor.record_reset()
        return self._reset()

    @property
    def upcoming(self) -> Tensor:
        """Bool ``[E]``: False where the next step will only begin a new episode, so that the action is ignored."""
        return torch.from_numpy(~self._ended) if self.autoreset == "next-step" else torch.ones(self.num_envs, dtype=torch.bool)

    def restart(self, seed: int) -> Tensor:
        """Begin anew with another seed, as if just made; returns the first observations ``[E, ...]``."""
        self.seed = check_seed(seed, self.num_envs)
        self._worlds.start(seed)
        self._cursor = Cursor(seed)
        self.steps = 0
        return self._reset()

    def step(self, action: Tensor) -> Step:
        """Take the policy's raw action in every environment.

        Args:
            action: ``[E]`` integers for Discrete, ``[E, k]`` for MultiDiscrete and MultiBinary, ``[E, *shape]`` floats for Box. Box actions
                are clipped to the bounds for the world; the caller keeps the raw action.

        Raises:
            RheostatError: no reset before, a malformed action, or an observation or reward that is not finite or has the wrong shape.
        """
        if self._observation is None:
            raise RheostatError(f"Call reset() before the first step() of {self.name}.")
        command = self._decode(action)
        if not self.can_save:
            self._cursor.record(command)
        return self._advance(command)

    def _reset(self) -> Tensor:
        self._observation = self._encode(self._worlds.reset(), self.num_envs)
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._require_finite(self._observation, None)
        return self._observation

    def _advance(self, command: np.ndarray) -> Step:
        outcome = self._worlds.step(command)
        observation = successor = self._encode(outcome.observation, self.num_envs)
        ended = outcome.terminated | outcome.truncated
        if self.autoreset == "next-step":
            valid, self._ended = ~self._ended, ended
        else:
            valid = np.ones(self.num_envs, dtype=bool)
            if ended.any():
                observation, successor = self._start_next_episodes(outcome, observation, ended)
        reward = torch.from_numpy(outcome.reward.astype(np.float32))
        self._require_finite(successor, reward)
        self.steps += 1
        self._observation = observation
        return Step(
            observation,
            successor,
            reward,
            torch.from_numpy(outcome.terminated),
            torch.from_numpy(outcome.truncated & ~outcome.terminated),
            torch.from_numpy(valid),
            outcome.info,
        )

    def _start_next_episodes(self, outcome: Outcome, encoded: Tensor, ended: np.ndarray) -> tuple[Tensor, Tensor]:
        """What the policy sees next and the true successors, where the world does not spend a row on the reset."""
        assert isinstance(self._worlds, GymnasiumWorlds)
        rows = np.flatnonzero(ended)
        if self.autoreset == "same-step":
            final = self._encode(self._worlds.final_observation(outcome.info, rows), len(rows))
            return encoded, encoded.index_copy(0, torch.from_numpy(rows), final)
        fresh = self._encode(self._worlds.reset_ended(ended), self.num_envs)
        mask = torch.from_numpy(ended).view(-1, *[1] * (encoded.ndim - 1))
        return torch.where(mask, fresh, encoded), encoded

    def _require_finite(self, observation: Tensor, reward: Tensor | None) -> None:
        """Refuse NaN and infinity. The scalar product with itself is finite for all but absurd numbers, and costs a microsecond."""
        for name, value in (("observation", observation), ("reward", reward)):
            if value is None or value.dtype == torch.uint8:
                continue
            flat = value.numpy().reshape(-1)
            if not math.isfinite(np.vdot(flat, flat)) and not torch.isfinite(value).all():
                row = int((~torch.isfinite(value)).nonzero()[0, 0])
                raise RheostatError(
                    f"The {name} of environment {row} of {self.name} is not finite at step {self.steps + 1} of the pool with seed "
                    f"{self.seed}: {value[row].flatten()[:8].tolist()}. Correct the environment."
                )

    # -- exact state ------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue bit for bit: nested dicts and lists of tensors, numbers and strings.

        Worlds that can be saved are saved (``can_save``). The others, EnvPool among them, are described by a rewindable cursor: the seed of
        the pool and every action since it was made. Call :meth:`restart` at checkpoints to keep it short.
        """
        if self._observation is None:
            raise RheostatError(f"Call reset() before saving the state of {self.name}: there is no state yet.")
        state: dict[str, Any] = {
            "name": self.name,
            "backend": self.backend,
            "num_envs": self.num_envs,
            "seed": self.seed,
            "steps": self.steps,
            "observation": self._observation.clone(),
            "ended": torch.from_numpy(self._ended.copy()),
        }
        if self.can_save:
            state["worlds"] = save_worlds(self._worlds)
        else:
            state["cursor"] = self._cursor.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> Tensor:
        """Continue where ``state`` was saved; returns the current observation ``[E, ...]``.

        Raises:
            RheostatError: the state is of another task, backend or number of environments, or a replay did not arrive at the saved
                observation (an environment that is not deterministic given its seed, or another version of it).
        """
        for key, mine in (("name", self.name), ("backend", self.backend), ("num_envs", self.num_envs)):
            if state[key] != mine:
                raise RheostatError(f"The saved environments have {key} {state[key]!r}, these have {mine!r}: make them as they were.")
        self.seed = state["seed"]
        self._worlds.start(self.seed)
        if "worlds" in state:
            self._reset()  # allocates the buffers of the vector environment
            load_worlds(self._worlds, state["worlds"])
        else:
            self._cursor = Cursor.from_state_dict(state["cursor"])
            self._cursor.replay(self._reset, self._advance)
            assert self._observation is not None
            if not torch.equal(self._observation, state["observation"]):
                raise RheostatError(
                    f"Replaying {len(self._cursor.actions)} steps of {self.name} did not arrive at the saved observation: it is not "
                    "deterministic given its seed, or its version changed. Give it save_state() and load_state(state) to make it resumable."
                )
        self.steps = state["steps"]
        self._ended = state["ended"].numpy().copy()
        self._observation = state["observation"].clone()
        return self._observation

    def close(self) -> None:
        """Free the worlds."""
        self._worlds.close()


def check_seed(seed: int, num_envs: int) -> int:
    """``seed`` itself, if every environment's seed fits (EnvPool keeps seeds in 31 bits)."""
    if not 0 <= seed < 2**31 - num_envs:
        raise RheostatError(f"The environment seed {seed} must lie between 0 and 2^31 - 1 - num_envs ({2**31 - 1 - num_envs}).")
    return seed


def make(
    task: str | gymnasium.Env | Callable[..., gymnasium.Env] | gymnasium.vector.VectorEnv,
    *,
    num_envs: int,
    seed: int,
    backend: Backend | Literal["auto"] = "auto",
    threads: int | None = None,
    fields: tuple[str, ...] | None = None,
    **env_kwargs: Any,
) -> Environments:
    """The environments of a task.

    Args:
        task: an id of EnvPool or Gymnasium (EnvPool's if both have it; the prefix ``gymnasium:`` or ``envpool:`` forces one), a Gymnasium
            environment (then ``num_envs`` is 1), a function that makes one, or a Gymnasium vector environment.
        num_envs: number of environments E.
        seed: environment i is seeded with ``seed + i``.
        backend: the same choice as the prefix.
        threads: EnvPool's threads; by default as many as the process may use. Results do not depend on it.
        fields: entries of a Dict observation to keep; all by default. A single image entry stays an image.
        env_kwargs: options of the environment.

    Raises:
        RheostatError: unknown id (with the nearest ones), unsupported spaces, impossible options.
        MissingExtra: the environment needs a package that is not installed.

    A Gymnasium environment resumes exactly if it is deterministic given its seed; one that defines ``save_state()`` (plain data: numbers,
    strings, arrays, lists, dicts) and ``load_state(state)`` is saved directly, which is faster and needs no determinism.
    """
    if num_envs < 1:
        raise RheostatError(f"num_envs must be at least 1, not {num_envs}.")
    check_seed(seed, num_envs)
    worlds, name = find(task, num_envs=num_envs, seed=seed, backend=backend, threads=threads, options=env_kwargs)
    return Environments(worlds, name, seed, fields)
