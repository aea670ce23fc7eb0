"""EnvPool pools that can be restored exactly without ever restarting them.

EnvPool cannot save an environment. But an environment's generator is seeded once (seed + i), and most environments use it in
``reset`` alone. Then ``k`` resets bring the generator to where the present episode began, and that episode's actions bring the environment
to its present state: the price is the length of the present episode, not of the run. :func:`draws_only_in_reset` tries that on a small pool
of the same task and options. Where a step uses it too (sticky actions, procedural games, slippery floors), all actions since it entered its
pool are kept and replayed.

The replay of a resume is bounded by counts, never by a clock, so that a resumed run decides the same: beyond the bound a new pool is
made, and every environment moves to it when its episode in the old one ends. No episode is ever cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rheostat.streams import derive_seed

Make = Callable[[int, int], Any]
"""(number of environments, seed) to a raw EnvPool pool with Gymnasium's interface."""

UNDECIDED = 1024
"""Vector steps that are kept before it matters whether a step draws from the generator."""
BOUNDS = {
    "classic_control": (2_000_000, 2_000_000),
    "toy_text": (2_000_000, 2_000_000),
    "box2d": (2_000_000, 300_000),
    "atari": (30_000, 30_000),
}
BOUND = (200_000, 200_000)
"""Bounds of MuJoCo and all other tasks: resets of the generator, and steps where the whole log is replayed."""


def replay_bounds(task: str) -> tuple[int, int]:
    """How many resets, and how many steps of a whole log, a resume of this EnvPool task may have to replay; over all environments."""
    from envpool.registration import registry

    family = registry.specs[task][0].split(".")
    return next((bound for name, bound in BOUNDS.items() if name in family), BOUND)


class RollingPools:
    """``num_envs`` environments with next-step autoreset over one pool and, for a while after a renewal, the one before it.

    Args:
        make: a pool from a number of environments and a seed.
        num_envs: environments E.
        seed: of the first pool.
        bounds: resets, and steps of a whole log, beyond which the pool is renewed.
        draws_only_in_reset: tests whether resets and the present episode's actions restore an environment.

    Attributes:
        whole: all actions since an environment entered its pool are replayed; None while that is undecided, which replays all of them, too.
    """

    def __init__(self, make: Make, num_envs: int, seed: int, bounds: tuple[int, int], draws_only_in_reset: Callable[[], bool]) -> None:
        self.make, self.num_envs, self.bounds, self._ask = make, num_envs, bounds, draws_only_in_reset
        self.whole: bool | None = None
        self.pools: list[Any] = []
        self.start(seed)

    def start(self, seed: int) -> None:
        """Drop all state: a fresh pool, not yet reset."""
        self.close()
        rows = self.num_envs
        self.seeds, self.origin, self.renewals = [seed], seed, 0
        self.pools = [self.make(rows, seed)]
        self.home = np.zeros(rows, dtype=np.int64)  # the pool of each environment
        self.ended = np.zeros(rows, dtype=bool)  # the next step only resets
        self.resets = np.zeros(rows, dtype=np.int64)  # in its pool
        self.entry = np.zeros(rows, dtype=np.int64)  # the vector step with its first action in this pool
        self.begin = np.zeros(rows, dtype=np.int64)  # the vector step with the first action of its present episode
        self.count, self.offset = 0, 0  # vector steps so far, and those of them that were dropped
        self.log: list[np.ndarray] = []
        self.marks: list[tuple[int, np.ndarray]] = []  # resets requested in the middle: before which step, and of which environments

    # --- acting -----------------------------------------------------------------------------------------------------------------------

    def reset(self) -> Any:
        """A new episode in every environment; returns raw observations."""
        if self.resets.any():  # in the middle: every environment that was due to move to the new pool has moved
            self._settle()
            self.marks.append((self.count, np.ones(self.num_envs, dtype=bool)))
        self.resets += 1
        self.begin[:] = self.count
        self.ended[:] = False
        return self.pools[0].reset()[0]

    def _settle(self) -> None:
        """End a renewal in progress: every environment is in the new pool."""
        if len(self.pools) == 1:
            return
        moving = np.flatnonzero(self.home == 0)
        if len(moving):
            self.pools[1].reset(moving.astype(np.int32))
            self._enter(moving)
        self._leave_old()

    def step(self, action: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take actions ``[E, ...]``: raw observations, rewards, terminations, truncations, extras."""
        ended = self.ended
        self.log.append(action)
        self.count += 1
        moving = ended & (self.home == 0) if len(self.pools) == 2 else None
        if ended.any():
            self.resets += ended
            self.begin[ended] = self.count
        if len(self.pools) == 1:
            answer = self.pools[0].step(action)
        else:
            assert moving is not None
            answer = self._step_both(action, moving)
        self.ended = answer[2] | answer[3]
        if len(self.log) >= UNDECIDED:
            self._keep_short()
        return answer

    def _step_both(self, action: np.ndarray, moving: np.ndarray) -> Any:
        """One step during a renewal."""
        parts = []
        for index, pool in enumerate(self.pools):
            who = np.flatnonzero((self.home == index) & ~moving).astype(np.int32)
            if len(who):
                parts.append(pool.step(action[who], who))
        who = np.flatnonzero(moving).astype(np.int32)
        if len(who):
            observation, info = self.pools[1].reset(who)
            parts.append((observation, np.zeros(len(who), np.float32), np.zeros(len(who), bool), np.zeros(len(who), bool), info))
            self._enter(who)
        if not (self.home == 0).any():
            self._leave_old()
        ids = np.concatenate([part[4]["env_id"] for part in parts])
        order = np.argsort(ids, kind="stable")  # a pool returns rows in any order; env_id names the environments
        return tuple(_joined([part[field] for part in parts], order) for field in range(5))

    def _enter(self, who: np.ndarray) -> None:
        self.home[who] = 1
        self.resets[who] = 1
        self.entry[who] = self.begin[who] = self.count

    def _leave_old(self) -> None:
        self.pools.pop(0).close()
        self.seeds.pop(0)
        self.home[:] = 0

    # --- the log of actions -----------------------------------------------------------------------------------------------------------

    def _keep_short(self) -> None:
        """Drop the steps that no resume needs, and renew the pool where a resume would need too many."""
        if self.whole is None:
            self.whole = not self._ask()
        if self.whole:
            cost, bound = self.num_envs * self.count - int(self.entry.sum()), self.bounds[1]
            if len(self.log) >= 2 * UNDECIDED + 2 * (self.count - int(self.entry.min())):
                self.forget()
        else:
            cost, bound = int(self.resets.sum()), self.bounds[0]
            if len(self.log) >= UNDECIDED + 2 * (self.count - int(self.begin.min())):
                self.forget()
        if cost > bound and len(self.pools) == 1:
            self.renew()

    def renew(self) -> None:
        """From now on every environment whose episode ends continues in a new pool. Nothing happens during a renewal."""
        if len(self.pools) == 1:
            self.renewals += 1
            self.seeds.append(derive_seed(self.origin, "renewal", self.renewals))
            self.pools.append(self.make(self.num_envs, self.seeds[-1]))

    def forget(self) -> None:
        """Drop the steps that no environment needs."""
        first = int((self.begin if self.whole is False else self.entry).min())
        del self.log[: first - self.offset]
        self.offset = first
        self.marks = [] if self.whole is False else [mark for mark in self.marks if mark[0] >= first]

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and lists."""
        self.forget()
        return {
            "seeds": list(self.seeds),
            "origin": self.origin,
            "renewals": self.renewals,
            "whole": self.whole,
            "count": self.count,
            "offset": self.offset,
            "log": torch.from_numpy(np.stack(self.log)) if self.log else None,
            "marks": [[step, torch.from_numpy(who.copy())] for step, who in self.marks],
        } | {name: torch.from_numpy(getattr(self, name).copy()) for name in ("home", "ended", "resets", "entry", "begin")}

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Restore ``state`` in fresh pools; returns their raw observations."""
        self.close()
        for name in ("home", "ended", "resets", "entry", "begin"):
            setattr(self, name, state[name].numpy().copy())
        for name in ("origin", "renewals", "whole", "count", "offset"):
            setattr(self, name, state[name])
        self.seeds = list(state["seeds"])
        self.log = [] if state["log"] is None else list(state["log"].numpy())
        self.marks = [(step, who.numpy().copy()) for step, who in state["marks"]]
        self.pools = [self.make(self.num_envs, seed) for seed in self.seeds]
        seen: list[Any] = []
        for index, pool in enumerate(self.pools):
            here = self.home == index
            if here.any():
                seen.append(self._replay(pool, here))
        ids = np.concatenate([each[1] for each in seen])
        return _joined([each[0] for each in seen], np.argsort(ids, kind="stable"))

    def _replay(self, pool: Any, here: np.ndarray) -> tuple[Any, np.ndarray]:
        """Replay the environments ``here`` to their present state; returns the last observations and the environments they belong to."""
        start = self.begin if self.whole is False else self.entry
        last: dict[int, Any] = {}

        def note(answer: Any) -> None:
            for row, index in enumerate(answer[-1]["env_id"]):
                last[int(index)] = (answer[0], row)

        for k in range(int(self.resets[here].max()) if self.whole is False else 1):
            answer = pool.reset(np.flatnonzero(here & (self.resets > k)).astype(np.int32))
            if k == 0 or self.whole is False:
                note(answer)
        marks = [] if self.whole is False else list(self.marks)
        for step in range(int(start[here].min()), self.count + 1):
            while marks and marks[0][0] <= step:
                at, who = marks.pop(0)
                if at == step and (here & who & (self.entry <= at)).any():
                    note(pool.reset(np.flatnonzero(here & who & (self.entry <= at)).astype(np.int32)))
            if step == self.count:
                break
            ids = np.flatnonzero(here & (start <= step)).astype(np.int32)
            if len(ids):
                answer = pool.step(self.log[step - self.offset][ids], ids)
                if step >= self.count - 1:
                    note(answer)
        ids = np.array(sorted(last), dtype=np.int64)
        return _joined([_row(*last[index]) for index in sorted(last)], np.arange(len(ids))), ids

    def close(self) -> None:
        """Free the pools."""
        for pool in self.pools:
            pool.close()
        self.pools = []


def draws_only_in_reset(make: Make, *, episodes: int = 3, after: int = 200, cap: int = 3000) -> bool:
    """Whether resets and the present episode's actions lead to the same state as the whole history, on a pool of two environments of this
    task.

    Two pools must then agree for ``after`` steps, or the answer is False; it is also False where an environment did not finish an episode
    within ``cap`` steps. The trial is finite: a task that uses its generator in a step very rarely is detected when a resume does not
    reproduce the saved observation.

    Args:
        make: a pool from a number of environments and a seed.
        episodes: that both environments finish before the trial.
        after: steps of the trial.
        cap: steps until then.
    """
    pools = RollingPools(make, 2, 4099, (2**62, 2**62), lambda: True)
    pools.whole = False
    generator = np.random.default_rng(0)
    space = pools.pools[0].action_space

    def draw() -> np.ndarray:
        if hasattr(space, "low"):
            low, high = np.maximum(space.low, -1.0), np.minimum(space.high, 1.0)
            return generator.uniform(low, high, (2, *space.shape)).astype(space.dtype)
        sizes = np.asarray(getattr(space, "nvec", getattr(space, "n", 2)))
        return generator.integers(0, sizes, (2, *(space.shape or ()))).astype(space.dtype)

    other: RollingPools | None = None
    try:
        pools.reset()
        for _ in range(cap):
            pools.step(draw())
            if pools.resets.min() > episodes and not pools.ended.any():
                break
        if pools.resets.min() < 2:
            return False
        other = RollingPools(make, 2, 4099, (2**62, 2**62), lambda: True)
        other.load_state_dict(pools.state_dict())
        for _ in range(after):
            action = draw()
            if not all(_same(mine, theirs) for mine, theirs in zip(pools.step(action)[:4], other.step(action)[:4], strict=True)):
                return False
        return True
    finally:
        pools.close()
        if other is not None:
            other.close()


def _same(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, dict):
        return all(_same(mine[key], theirs[key]) for key in mine)
    if isinstance(mine, tuple | list):
        return all(map(_same, mine, theirs))
    return np.array_equal(mine, theirs, equal_nan=np.asarray(mine).dtype.kind == "f")


def _row(value: Any, row: int) -> Any:
    """One row of a structure of arrays, the leading axis kept."""
    if isinstance(value, dict):
        return {key: _row(part, row) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_row(part, row) for part in value)
    return value[row : row + 1]


def _joined(parts: list[Any], order: np.ndarray) -> Any:
    """Structures of arrays one after the other, then in this order of rows."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: _joined([part[key] for part in parts], order) for key in first}
    if isinstance(first, tuple | list):
        return tuple(_joined([part[index] for part in parts], order) for index in range(len(first)))
    return np.concatenate(parts)[order]
