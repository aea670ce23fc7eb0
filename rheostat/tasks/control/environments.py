"""One adapter over EnvPool and Gymnasium vector environments.

Every environment becomes the same stream of rows, whatever its autoreset convention:

| mode | the step that ends an episode returns | the next step | what the adapter does |
|---|---|---|---|
| next-step | the final observation | ignores the action, returns the reset observation | marks that row ``valid=False`` |
| same-step | the reset observation, the final one in ``info`` | is normal | puts the final observation into ``next_observation`` |
| disabled | the final observation | is refused | resets the ended environments at once |

EnvPool is next-step, and so is Gymnasium by default. Where an environment ends and its time limit strikes in the same step, the
end counts and ``truncated`` is False; EnvPool, however, reports such a step as a truncation only, and the end cannot be recovered.

Seeds: environment ``i`` is seeded with ``seed + i`` by both backends, so two pools whose seeds differ by less than ``num_envs`` share
episodes. Space the seeds of runs, and of training and evaluation, by more than the number of environments (by 10,000 in this library).
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
from rheostat.options import whole
from rheostat.tasks.control.actions import ActionDecoder
from rheostat.tasks.control.backends import Backend, Envs, GymnasiumEnvs, Outcome
from rheostat.tasks.control.cursor import Cursor
from rheostat.tasks.control.environment_list import find
from rheostat.tasks.control.facts import Facts
from rheostat.tasks.control.registration import known_tasks
from rheostat.tasks.control.restoring import Open, Restorable, cursor_for
from rheostat.tasks.control.spaces import ObservationEncoder

if TYPE_CHECKING:
    import gymnasium

__all__ = ["Environments", "Step", "asleep", "check_seed", "known_tasks", "make"]


MOST_ENVIRONMENTS, MOST_THREADS = 1_000_000, 4_096
"""Most environments that are made."""


@dataclass(slots=True)
class Step:
    """One step of ``E`` environments, CPU tensors with the leading axis ``E``."""

    observation: Tensor  # the policy's next observation: float32 [E, n], or uint8 [E, C, H, W]
    next_observation: Tensor  # the true successor of the step just taken: the final observation where an episode ended
    reward: Tensor  # float32 [E]
    terminated: Tensor  # bool [E]: the environment ended, nothing to bootstrap from
    truncated: Tensor  # bool [E]: a time limit, and the environment did not end; bootstrap from the value of next_observation
    valid: Tensor  # bool [E]: False where this row only started a new episode: not a transition, not counted
    info: dict[str, Any] = field(default_factory=dict)  # the backend's own extras (success flags, ...), as it returns them

    @property
    def ended(self) -> Tensor:
        """Bool ``[E]``: the next observation begins a new episode, so the memory of a policy must be reset."""
        return self.terminated | self.truncated | ~self.valid


class Environments(Restorable):
    """``num_envs`` copies of one task, stepped together. Make it with :func:`make`.

    Environments are opened when they are first needed, if ``facts`` describe them: a run can act in their units, and be saved
    again, without ever opening them.

    Attributes:
        name: the task's id.
        backend: ``envpool`` or ``gymnasium``.
        num_envs: number of environments E.
        autoreset: the convention of the environment underneath (see the module's table).
        observation_space: a Box, float32 ``[n]`` or uint8 ``[C, H, W]``, of one encoded observation.
        action_space: Box float32, Discrete, MultiDiscrete or MultiBinary of one action, with one axis.
        seed: the seed of the present pool.
        steps: steps taken since the pool was made, counted per environment, fake rows included.
        can_save: False where a saved state could not be restored, until new episodes begin.
        warnings: sentences about state that a resume could not restore.
    """

    def __init__(
        self,
        envs: Envs | None,
        name: str,
        seed: int,
        fields: tuple[str, ...] | None = None,
        *,
        facts: Facts | None = None,
        num_envs: int = 0,
        open: Open | None = None,
    ) -> None:
        assert envs is not None or (facts is not None and open is not None)
        facts = facts if envs is None else Facts.of(envs, name)
        assert facts is not None
        self.facts = facts
        self._opened, self._open = envs, open
        self.name = facts.name
        self.backend: Backend = facts.backend
        self.num_envs = num_envs if envs is None else envs.num_envs
        self.autoreset = facts.autoreset
        self._encode = ObservationEncoder(facts.observation_space, self.name, fields=fields, copy=facts.reuses_buffers)
        self._decode = ActionDecoder(facts.action_space, self.name, self.num_envs)
        self.observation_space: gymnasium.spaces.Box = self._encode.space
        self.action_space: gymnasium.Space = self._decode.space
        self.seed = seed
        self.steps = 0
        self.can_save = True
        self.warnings: list[str] = []
        self._observation: Tensor | None = None
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._cursor: Cursor | None = None
        self._pending: dict[str, Any] | None = None  # a state that is loaded when the environments are opened
        if envs is not None:
            self._cursor = cursor_for(envs, seed)

    # -- beginning --------------------------------------------------------------------------------------------------------------

    def reset(self) -> Tensor:
        """Begin a new episode in every environment; returns the observations ``[E, ...]``."""
        self.wake()
        if self._observation is not None and self._cursor is not None:
            self._cursor.record_reset()
        return self._reset()

    @property
    def upcoming(self) -> Tensor:
        """Bool ``[E]``: False where the next step will only begin a new episode, so that the action is ignored."""
        return torch.from_numpy(~self._ended) if self.autoreset == "next-step" else torch.ones(self.num_envs, dtype=torch.bool)

    def restart(self, seed: int) -> Tensor:
        """Start over with another seed, as if just made; returns the first observations ``[E, ...]``."""
        self.seed = check_seed(seed, self.num_envs)
        self._pending = None
        self._envs.start(seed)
        self._cursor = cursor_for(self._envs, seed)
        self.steps = 0
        self.can_save = True
        return self._reset()

    def copies_for(self, episodes: int) -> int:
        """How many environments an evaluation of so many episodes takes: never more than there are, where each may be a simulator of its
        own; up to 10 of EnvPool's, which are cheap."""
        return max(1, min(episodes, 10) if self.backend == "envpool" else min(episodes, 10, self.num_envs))

    def seed_episodes(self) -> None:
        """Give every episode a seed of its own (``seed + i + j * num_envs``), where this library seeds the copies of the environment.

        Call it before the reset of an evaluation.
        """
        envs = self._envs
        if isinstance(envs, GymnasiumEnvs):
            envs.seed_episodes()

    def hold_out(self) -> None:
        """Draw tasks that training never has from the next restart on, where the environments have such tasks.

        Call it before the restart of an evaluation.
        """
        vector: Any = getattr(self._envs, "vector", None)
        if hasattr(vector, "hold_out"):
            vector.hold_out()

    # -- acting -----------------------------------------------------------------------------------------------------------------

    def encode(self, raw: Any) -> tuple[Tensor, bool]:
        """Raw observations as the policy reads them, ``[N, ...]``, and whether ``raw`` was a single one.

        Args:
            raw: one observation as the environment gives it, or several with a leading axis in every array; or as :class:`Step` gives them.

        Raises:
            RheostatError: neither.
        """
        return self._encode.any(raw)

    def decode(self, action: Tensor) -> np.ndarray:
        """Actions of the policy ``[N, k]`` as the environment takes them: clipped, in its dtype and shape, from its first category."""
        return self._decode(action, len(action))

    def step(self, action: Tensor) -> Step:
        """Take the policy's raw action in every environment.

        Args:
            action: ``[E]`` integers for Discrete, ``[E, k]`` for MultiDiscrete and MultiBinary, ``[E, k]`` floats for Box (k numbers,
                whatever its shape). Box actions are clipped to the bounds for the environment; the caller keeps the raw action.

        Raises:
            RheostatError: no reset before, a malformed action, or an observation or reward that is not finite or has the wrong shape.
        """
        if self._observation is None:
            raise RheostatError(f"Call reset() before the first step() of {self.name}.")
        self.wake()
        command = self._decode(action)
        step = self._advance(command)
        if self._cursor is not None:
            self._cursor.record(command, step.observation, step.reward)
        return step

    def _reset(self) -> Tensor:
        self._observation = self._encode(self._envs.reset(), self.num_envs)
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._require_finite(self._observation, None)
        return self._observation

    def _advance(self, command: np.ndarray) -> Step:
        outcome = self._envs.step(command)
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
        """The policy's next observations and the true successors, where the environment does not spend a row on the reset."""
        if not isinstance(self._envs, GymnasiumEnvs):
            raise RheostatError(f"These environments do not restart as the run says ({self.autoreset}): its config.json was changed.")
        rows = np.flatnonzero(ended)
        if self.autoreset == "same-step":
            final = self._encode(self._envs.final_observation(outcome.info, rows), len(rows))
            return encoded, encoded.index_copy(0, torch.from_numpy(rows), final)
        fresh = self._encode(self._envs.reset_ended(ended), self.num_envs)
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


def check_seed(seed: int, num_envs: int) -> int:
    """``seed`` itself, if every environment's seed fits (EnvPool keeps seeds in 31 bits).

    Raises:
        RheostatError: it does not.
    """
    return whole("The environment seed", seed, at_least=0, at_most=2**31 - 1 - num_envs)


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

    A Gymnasium environment that defines ``save_state()`` (plain data: numbers, strings, arrays, lists, dicts) and ``load_state(state)`` is
    saved directly. Any other is recorded: it resumes exactly if it is deterministic given its seed, its attributes and its actions.
    ``replayable = False`` in its class marks it as not repeatable (hardware): then a resume begins new episodes.
    """
    num_envs = whole("num_envs", num_envs, at_least=1, at_most=MOST_ENVIRONMENTS)
    threads = None if threads is None else whole("threads", threads, at_least=1, at_most=MOST_THREADS)
    seed = check_seed(seed, num_envs)

    def open(rows: int, seed: int) -> tuple[Envs, str]:
        return find(task, num_envs=rows, seed=seed, backend=backend, threads=threads, options=env_kwargs)

    envs, name = open(num_envs, seed)
    return Environments(envs, name, seed, fields, open=open)


def asleep(
    facts: Facts, task: Any, *, num_envs: int, seed: int, backend: Backend | Literal["auto"] = "auto", **env_kwargs: Any
) -> Environments:
    """As :func:`make`, but the environments are opened only when they are needed.

    Args:
        facts: their description.
        task: as for :func:`make`, or None: needing the environments is an error then.
        num_envs: number of environments E.
        seed: environment i is seeded with ``seed + i``.
        backend: as for :func:`make`.
        env_kwargs: options of the environment.

    Raises:
        RheostatError: when the environments are needed and there is no task, or as :func:`make`.
    """

    def open(rows: int, seed: int) -> tuple[Envs, str]:
        if task is None:
            raise RheostatError(
                f"This run was trained on a Python environment ({facts.name}) and is open without it, which is enough for its policy and "
                "its records: to step it, open the run with rheostat.load(directory, task=...), or resume(directory, task=...)."
            )
        return find(task, num_envs=rows, seed=check_seed(seed, rows), backend=backend, threads=None, options=env_kwargs)

    return Environments(None, facts.name, seed, facts=facts, num_envs=num_envs, open=open)
