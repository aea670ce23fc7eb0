"""Vectorised worlds whose task is hidden and stays the same from one episode to the next: Darkroom, and keys and doors.

A policy that remembers its earlier episodes can find out what the task is; one that does not begins from nothing every time.

    reset(seed=s)   draws a task for every environment: that of environment i depends on ``s + i`` alone
    reset()         begins another episode of the same tasks, and so does the end of an episode

Tasks are split once and for all into those that are trained on and those that are held out, a fifth of them, which an evaluation draws
from (:meth:`HiddenTasks.hold_out`).

With ``trial_episodes`` K, one episode of the environment is a whole trial of K episodes of one task, and the next has another task. The
observation then also holds the last action, the last reward and whether an episode of the task begins. So a recurrent policy that knows
nothing of trials learns across episodes (RL^2: Duan et al. 2016, arXiv 1611.02779).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from rheostat.errors import RheostatError
from rheostat.options import whole

HELD_OUT = 0.2
"""Share of the tasks that no training episode ever has, rounded up."""
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]])
"""``[5, 2]``: up, down, left, right, stay."""
SPLIT_SEED = 20_241_002
LARGEST = 64
"""Most rows and columns of a grid."""


class HiddenTasks(VectorEnv, ABC):
    """Grid worlds with a hidden task; a subclass says what the task is.

    An observation is one-hot: the row, then the column (then what a subclass adds). Actions are the five :data:`MOVES`; walls stop. An
    ended episode begins again within the same step, and ``info`` holds ``final_obs`` ``[E, n]`` and ``episode_ended`` bool ``[E]``.

    Args:
        num_envs: number of environments E.
        size: rows, and columns, of the grid.
        horizon: steps after which an episode is truncated.
        trial_episodes: episodes of a trial that is one episode of the environment; 0: there are no such trials.

    Attributes:
        tasks: number of tasks that are trained on.
        held_out_tasks: number of tasks that are not.
        horizon: longest episode of the environment, in steps.
        task: int64 ``[E]``, the number of the present task.
        position: int64 ``[E, 2]``, row and column.

    Raises:
        RheostatError: a size, horizon or number of episodes that makes no world.
    """

    extra: ClassVar[int] = 0
    """Numbers of an observation beyond the position."""

    def __init__(self, num_envs: int = 1, *, size: int, horizon: int, trial_episodes: int = 0) -> None:
        self.size = whole("size", size, at_least=1, at_most=LARGEST)
        self.episode_horizon = whole("horizon", horizon, at_least=1)
        self.trial_episodes = whole("trial_episodes", trial_episodes, at_least=0)
        self.horizon = self.episode_horizon * max(1, self.trial_episodes)
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        width = 2 * self.size + self.extra + (len(MOVES) + 2 if self.trial_episodes else 0)
        self.single_observation_space = gymnasium.spaces.Box(0.0, 1.0, (width,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(len(MOVES))
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        order = np.random.default_rng(SPLIT_SEED).permutation(self.count_tasks())
        held_out = int(np.ceil(HELD_OUT * len(order))) if len(order) > 1 else 0
        self._split = {False: np.sort(order[held_out:]), True: np.sort(order[:held_out])}
        self.tasks, self.held_out_tasks = len(order) - held_out, held_out
        self._held_out = False
        self._seed, self._trials = 0, np.zeros(num_envs, dtype=np.int64)
        self.task, self.position = np.zeros(num_envs, dtype=np.int64), np.zeros((num_envs, 2), dtype=np.int64)
        self._elapsed, self._episode = np.zeros(num_envs, dtype=np.int64), np.zeros(num_envs, dtype=np.int64)
        self._last, self._reward = np.full(num_envs, -1, dtype=np.int64), np.zeros(num_envs)

    # --- what a subclass says ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    def count_tasks(self) -> int:
        """Number of tasks, held-out ones included."""

    @abstractmethod
    def arrive(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The rewards ``[E]`` at the present positions, and whether the episode ends there ``[E]``."""

    def begin(self, rows: NDArray[np.bool_]) -> None:
        """Forget what a subclass keeps of the episode, in these environments ``[E]``."""

    def carried(self) -> NDArray[np.float32]:
        """What a subclass adds to the observation, ``[E, extra]``."""
        return np.zeros((self.num_envs, 0), dtype=np.float32)

    # --- tasks ------------------------------------------------------------------------------------------------------------------------

    def hold_out(self) -> None:
        """Draw held-out tasks from the next seeded reset on; where none is held out, those that are trained on."""
        self._held_out = bool(self.held_out_tasks)

    def _draw_tasks(self, rows: NDArray[np.bool_]) -> None:
        among = self._split[self._held_out]
        for row in np.flatnonzero(rows):
            chance = np.random.default_rng([self._seed + int(row), int(self._trials[row])])
            self.task[row] = among[chance.integers(len(among))]

    # --- episodes ---------------------------------------------------------------------------------------------------------------------

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode in every environment; with a seed, of new tasks."""
        everywhere = np.ones(self.num_envs, dtype=bool)
        if seed is not None:
            self._seed, self._trials = int(seed), np.zeros(self.num_envs, dtype=np.int64)
            self._draw_tasks(everywhere)
        elif self.trial_episodes:
            self._next_trial(everywhere)
        self._clear(everywhere)
        return self._observe(), {}

    def step(self, actions: Any) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One step of every environment; returns observations ``[E, n]``, rewards, terminated and truncated ``[E]``, and the info."""
        actions = np.asarray(actions, dtype=np.int64)
        self.position = np.clip(self.position + MOVES[actions], 0, self.size - 1)
        reward, over = self.arrive()
        self._elapsed += 1
        cut = (self._elapsed >= self.episode_horizon) & ~over
        ended = over | cut
        self._last = np.where(ended, -1, actions)  # an episode of the task begins with no last action
        self._reward = reward
        if not self.trial_episodes:
            successor = self._observe()
            self._clear(ended)
            return self._observe(), reward, over, cut, {"final_obs": successor, "episode_ended": ended}
        self._episode += ended
        self._begin_episode(ended)
        successor = self._observe()
        finished = self._episode >= self.trial_episodes
        self._next_trial(finished)
        self._clear(finished)
        return self._observe(), reward, np.zeros_like(finished), finished, {"final_obs": successor, "episode_ended": ended}

    def _next_trial(self, rows: NDArray[np.bool_]) -> None:
        self._trials += rows
        self._draw_tasks(rows)

    def _begin_episode(self, rows: NDArray[np.bool_]) -> None:
        self.position = np.where(rows[:, None], 0, self.position)
        self._elapsed = np.where(rows, 0, self._elapsed)
        self.begin(rows)

    def _clear(self, rows: NDArray[np.bool_]) -> None:
        """Begin from nothing in these environments."""
        self._begin_episode(rows)
        self._episode, self._last = np.where(rows, 0, self._episode), np.where(rows, -1, self._last)
        self._reward = np.where(rows, 0.0, self._reward)

    def _observe(self) -> NDArray[np.float32]:
        cells = np.eye(self.size, dtype=np.float32)
        parts = [cells[self.position[:, 0]], cells[self.position[:, 1]], self.carried()]
        if self.trial_episodes:
            moves = np.concatenate([np.eye(len(MOVES), dtype=np.float32), np.zeros((1, len(MOVES)), dtype=np.float32)])
            flags = np.stack([self._reward, self._last < 0], 1).astype(np.float32)
            parts += [moves[self._last], flags]
        return np.concatenate(parts, 1)

    # --- state ------------------------------------------------------------------------------------------------------------------------

    KEPT: ClassVar[tuple[str, ...]] = ("_seed", "_held_out", "_trials", "task", "position", "_elapsed", "_episode", "_last", "_reward")

    def save_state(self) -> dict[str, Any]:
        """What :meth:`load_state` needs."""
        return copy.deepcopy({name: getattr(self, name) for name in self.KEPT})

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was saved."""
        for name in self.KEPT:
            setattr(self, name, state[name])


class Darkroom(HiddenTasks):
    """An unmarked goal on a grid: reward 1 for every step that ends on it. Tasks are the cells; every episode begins in a corner.

    Laskin et al. 2022, arXiv 2210.14215; sizes of ReLIC's example, arXiv 2410.02751: 10 x 10 cells, 100 steps, 80 goals to train on and 20
    held out.
    """

    def __init__(self, num_envs: int = 1, *, size: int = 10, horizon: int = 100, trial_episodes: int = 0) -> None:
        super().__init__(num_envs, size=size, horizon=horizon, trial_episodes=trial_episodes)

    def count_tasks(self) -> int:
        return self.size**2

    def arrive(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        there = self.position @ np.array([self.size, 1]) == self.task
        return there.astype(np.float64), np.zeros(self.num_envs, dtype=bool)


class KeysAndDoors(HiddenTasks):
    """An unmarked key and an unmarked door: reward 1 for the key, then reward 1 for the door, where the episode ends.

    Tasks are the ordered pairs of two cells; the policy sees whether it carries the key. After "dark key to door" of Laskin et al. 2022.
    """

    extra: ClassVar[int] = 1
    KEPT: ClassVar[tuple[str, ...]] = (*HiddenTasks.KEPT, "carries")

    def __init__(self, num_envs: int = 1, *, size: int = 6, horizon: int = 40, trial_episodes: int = 0) -> None:
        self.carries = np.zeros(num_envs, dtype=bool)
        super().__init__(num_envs, size=size, horizon=horizon, trial_episodes=trial_episodes)

    def count_tasks(self) -> int:
        if self.size < 2:
            raise RheostatError(f"keys-and-doors of size {self.size} has no two cells for a key and a door: use at least 2.")
        cells = self.size**2
        return cells * (cells - 1)

    def arrive(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        key, door = np.divmod(self.task, self.size**2 - 1)
        door = door + (door >= key)  # the pairs leave out those of a cell with itself
        here = self.position @ np.array([self.size, 1])
        found, through = ~self.carries & (here == key), self.carries & (here == door)
        self.carries = self.carries | found
        return (found | through).astype(np.float64), through

    def begin(self, rows: NDArray[np.bool_]) -> None:
        self.carries = self.carries & ~rows

    def carried(self) -> NDArray[np.float32]:
        return self.carries[:, None].astype(np.float32)
