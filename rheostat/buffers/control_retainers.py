"""WHAT IS KEPT? as parts, for steps of environments: the last batches, rows of earlier ones, a replay, a data set."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.buffers.history import History
from rheostat.buffers.mixing import interleave
from rheostat.buffers.offline import OfflineData
from rheostat.buffers.replay import Replay
from rheostat.buffers.retainers import RecentGroups
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.trajectories import Source, Transitions

NORM_EPSILON = 1e-3
"""Added to the deviation that states are divided by (TD3+BC)."""
NEVER_ACTS = "this run collects no data, so give it online_steps, or leave it alone"
"""Why an option of acting cannot act where a data set is all there is."""
OFFLINE_TURN = 100
"""Gradient steps per turn of the loop while no data are collected."""


# --- on-policy ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """Keeps the last batches, one contiguous stretch of time per environment, with raw observations."""

    batches: int = option(1, short="window", at_least=1)
    """Batches kept and learned from (b); 1 is strictly on-policy data."""
    turns: int = 1
    """Turns in which a batch is collected."""

    @property
    def keeps_history(self) -> bool:
        """Whether earlier batches are used again."""
        return self.batches > 1

    def prepare(self, context: Any) -> None:
        """Create the store."""
        context.stores["window"] = History(self.batches * self.turns)
        context.on_restart.append(context.stores["window"].cut)

    def retain(self, context: Any, batch: Batch) -> Batch:
        """Everything that is kept, ``[environments, steps]``, oldest step first."""
        history = context.stores["window"]
        found = batch.with_rows(history.append(batch.rows))
        found.facts["full"] = history.full
        return found


class RecentRowsBeside(RecentGroups):
    """Adds rows of earlier batches to the fresh ones. Control rows form no groups, so each is sampled independently."""


# --- data sets ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataSet:
    """Reads a data set; it has no options of its own."""

    needed: bool = True
    """Whether the method needs a data set."""
    best_share: float = 1.0
    """Share of the episodes that is used: those with the highest returns."""
    reads_data: ClassVar[bool] = True

    def prepare(self, context: Any) -> None:
        """Check that the data set has the spaces of the environments.

        Raises:
            RheostatError: there is none, or it is of another task.
        """
        if context.offline is None:
            if self.needed:
                raise RheostatError(
                    f"{context.who} learns from a data set first: name one with --offline (`rheostat dataset make` makes one)."
                )
            return
        context.offline.require_spaces(context.environments.observation_space, context.action_space, task=context.environments.name)
        if self.best_share < 1:
            context.offline = context.offline.best(self.best_share)


@dataclass(frozen=True)
class Rewards:
    """Transforms the rewards that the learner sees; reported returns are always those of the environment."""

    scale: float = option(1.0, short="reward_scale")
    """Factor of the rewards that the learner sees."""
    shift: float = option(0.0, short="reward_shift")
    """Added to every reward after the factor (AntMaze: -1)."""

    def prepare(self, context: Any) -> None:
        """Store the transform for the parts that store steps."""
        context.stores["learned rewards"] = LearnedRewards(self.factor(context.offline), self.shift)

    def factor(self, offline: OfflineData | None) -> float:
        """Factor of the rewards."""
        return self.scale


@dataclass(frozen=True)
class DataRewards(Rewards):
    """The same; the factor may be computed from the returns of a data set."""

    returns_to: float | None = option(None, short="scale_returns_to", above=0)
    """Multiply rewards so that the best and the worst return of the data set lie this far apart (IQL on locomotion: 1000)."""

    def factor(self, offline: OfflineData | None) -> float:
        """Factor of the rewards.

        Raises:
            RheostatError: there is no data set, or all its returns are the same.
        """
        if self.returns_to is None:
            return self.scale
        if offline is None:
            raise RheostatError("scale_returns_to takes the range of returns from a data set: name one with --offline, or leave it off.")
        returns = offline.whole_returns
        spread = float(returns.max() - returns.min()) if len(returns) else 0.0
        if not spread:
            raise RheostatError(f"All whole episodes of {offline.name} have the same return: scale_returns_to needs two that differ.")
        return self.scale * self.returns_to / spread


@dataclass(frozen=True)
class LearnedRewards:
    """Computes ``scale * reward + shift`` for rows or blocks."""

    scale: float
    shift: float

    def __call__(self, rows: Any) -> Any:
        """The rows with transformed rewards."""
        if self.scale == 1.0 and not self.shift:
            return rows
        seen = rows.clone(recurse=False)
        seen.reward = self.scale * rows.reward + self.shift
        return seen


@dataclass(frozen=True)
class States:
    """Normalises observations."""

    normalise: bool = option(False, short="normalise_states")
    """Standardise observations by the mean and deviation of the data set."""

    def prepare(self, context: Any) -> None:
        """Compute the statistics from the data set; they stay fixed for the whole run, and pictures are scaled by their own networks.

        Raises:
            RheostatError: there is no data set.
        """
        if not self.normalise or context.images:
            return
        if context.offline is None:
            raise RheostatError("normalise_states takes its statistics from a data set: name one with --offline, or leave it off.")
        seen = context.offline.transitions.observation
        shift, scale = seen.mean(0), seen.std(0, unbiased=False) + NORM_EPSILON
        for start, shape in getattr(context.observation_space, "pictures", ()):
            shift[start : start + math.prod(shape)], scale[start : start + math.prod(shape)] = 0.0, 1.0
        context.stores["observations"] = FixedStatistics(shift, scale)

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        return {"normalise": "images are scaled by their own network, so leave it at its default"} if context.images else {}


class FixedStatistics:
    """Standardises observations by fixed means and deviations.

    Args:
        shift, scale: ``[n]`` each.
    """

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        self.shift, self.scale = shift, scale

    def normalise(self, observation: Tensor) -> Tensor:
        """Normalise raw observations."""
        return (observation - self.shift) / self.scale

    def state_dict(self) -> dict[str, Any]:
        """The numbers."""
        return {"shift": self.shift, "scale": self.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over saved numbers."""
        self.shift, self.scale = state["shift"], state["scale"]


# --- replay -------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReplayBuffer:
    """Stores every step; when it is full, the oldest are overwritten."""

    capacity: int = option(1_000_000, short="replay_capacity", at_least=1)
    """Largest number of transitions; when it is full, the oldest are overwritten."""
    folder: str | None = option(None, short="replay_folder")
    """Folder for the file of a replay that needs more than half of the free memory; None takes the system's temporary folder."""
    n_step: int = option(1, at_least=1)
    """Rewards summed before bootstrapping."""
    priority: float = option(0.0, share=True)
    """Exponent of the priorities of the replay (Schaul et al. 2016); 0 draws uniformly."""
    gamma: float = 0.99
    keeps_units: ClassVar[bool] = True

    @property
    def share(self) -> float | None:
        """Share of the data set in every batch; None with a single buffer."""
        return None

    def with_discount(self, gamma: float) -> Any:
        """A copy with the discount of the method."""
        return replace(self, gamma=gamma)

    def empty(self, capacity: int, priority: float = 0.0) -> Replay:
        """A new replay of this size, memory-mapped where it is large."""
        folder = Path(self.folder or tempfile.gettempdir())
        return Replay(capacity, n_step=self.n_step, gamma=self.gamma, priority=priority, memory_map=folder)

    def prepare(self, context: Any) -> None:
        """Create the store. A data set fills the beginning of the buffer, unless it has a buffer of its own (``offline_share``).

        Raises:
            RheostatError: the data set does not fit.
        """
        offline, rewards = context.offline, context.stores["learned rewards"]
        replay = self.empty(self.capacity, self.priority)
        context.stores["replay"], context.ranked = replay, bool(self.priority)
        context.on_restart.append(replay.cut)
        if offline is None:
            return
        if self.share is not None:
            data = self.empty(len(offline))
            context.stores["data"], replay = data, data
        elif len(offline) > self.capacity:
            raise RheostatError(
                f"{offline.name} has {len(offline):,} steps, and the replay that begins with it keeps {self.capacity:,}: "
                f"raise replay_capacity, or set offline_share to keep both apart."
            )
        replay.append_transitions(rewards(offline.as_drawn), offline.breaks)

    def retain(self, context: Any, batch: Batch) -> Batch:
        """Append the fresh steps."""
        rows = batch.rows
        rows.source = torch.full(rows.shape, int(Source.REPLAY))
        context.stores["replay"].append(context.stores["learned rewards"](rows))
        return batch


@dataclass(frozen=True)
class ReplayAndData(ReplayBuffer):
    """A replay that starts with the data set, or one that is sampled together with it."""

    offline_share: float | None = option(None, share=True)
    """Share of every batch that is sampled from the data set once the policy acts; None samples from one buffer that starts with it."""

    @property
    def share(self) -> float | None:
        """Share of the data set in every batch."""
        return self.offline_share

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        if context.offline is None:
            return {"offline_share": "there is no data set to take a share from, so name one with --offline, or leave it alone"}
        return {"offline_share": NEVER_ACTS} if context.never_acts else {}

    def __post_init__(self) -> None:
        if self.priority and self.offline_share is not None:
            raise RheostatError("priority ranks one buffer, and offline_share draws from two: use one of them.")


@dataclass(frozen=True)
class DataAlone:
    """Uses the data set as the only store of steps; nothing is appended."""

    folder: str | None = option(None, short="replay_folder")
    """Folder for the file of a data set that needs more than half of the free memory; None takes the system's temporary folder."""
    gamma: float = 0.99
    keeps_units: ClassVar[bool] = True

    def prepare(self, context: Any) -> None:
        """Create the store."""
        offline = context.offline
        replay = Replay(len(offline), gamma=self.gamma, memory_map=Path(self.folder or tempfile.gettempdir()))
        context.stores["replay"] = replay
        replay.append_transitions(context.stores["learned rewards"](offline.as_drawn), offline.breaks)

    def retain(self, context: Any, batch: Batch) -> Batch:
        """Stores nothing."""
        return batch


# --- drawing ------------------------------------------------------------------------------------------------------------------------------

Due = Callable[[Any], int]
"""Maps the learner's context to the number of gradient steps of this turn."""


def per_turn(context: Any) -> int:
    """Gradient steps of a turn without data collection: a fixed number, and no more than the stage has left."""
    return min(OFFLINE_TURN, context.length - context.gradient_steps)


@cache
def exact(ratio: float) -> Fraction:
    """A ratio of whole numbers: a sum of floats would be late."""
    return Fraction(ratio).limit_denominator(1_000_000)


@dataclass(frozen=True)
class PerEnvironmentStep:
    """After every turn, ``floor(ratio * environment steps since learning began)`` gradient steps were made."""

    ratio: float
    after: int = 0
    """Environment steps before learning."""

    def __call__(self, context: Any) -> int:
        done = context.counts.get("gradient_steps_due", 0)
        whole = max(0, math.floor(exact(self.ratio) * (context.collector.steps - self.after)) - done)
        context.counts["gradient_steps_due"] = done + whole
        return whole


@dataclass(frozen=True)
class Draw:
    """Samples the batches of all gradient steps of a turn, concatenated, ``[steps * size]``."""

    size: int
    due: Due
    share: float | None = None
    """Share of the rows that is sampled from the data set, spread evenly over the batch (RLPD)."""
    sarsa: bool = False
    """Whether rows carry the next action (SARSA)."""
    refuses: ClassVar[dict[str, str]] = {
        "lag": "it learns from a replay, so its data are old anyway; replay_capacity says how old",
        "replay_share": "all it learns from is replay",
        "replay_age": "all it learns from is replay; replay_capacity says how old",
        "expert_share": "an expert's data come as a data set (--offline), mixed by offline_share",
        "updates_per_batch": "gradient steps per environment step are update_to_data",
    }

    def retain(self, context: Any, batch: Batch) -> Batch:
        """Sampled transitions; none where no gradient step is due."""
        count = self.due(context)
        return Batch(self.draw(context, count) if count else Transitions.none(), facts={"size": self.size})

    def draw(self, context: Any, count: int) -> Transitions:
        """``count`` batches, concatenated."""
        replay, data, generator = context.stores["replay"], context.stores.get("data"), context.streams["replay"]
        theirs = 0 if data is None else round(self.size * (self.share or 0.0))
        if data is not None and (theirs == self.size or not len(replay)):
            found: Transitions = data.sample(count * self.size, generator, sarsa=self.sarsa)
            return found
        if data is None or not theirs:
            found = replay.sample(count * self.size, generator, sarsa=self.sarsa)
            return found
        return interleave(
            data.sample(count * theirs, generator, sarsa=self.sarsa),
            replay.sample(count * (self.size - theirs), generator, sarsa=self.sarsa),
        )

    def check(self, composition: Any) -> None:
        """Refuse batches that cannot be sampled."""
        for part in composition.retain:
            if isinstance(part, ReplayBuffer) and self.size > part.capacity:
                raise RheostatError(f"A batch of {self.size} cannot be drawn from a replay of {part.capacity}: raise replay_capacity.")
        share = self.share or 0.0
        if 0 < share < 1 and round(self.size * share) in (0, self.size):
            raise RheostatError(f"offline_share {share:g} of a batch of {self.size} leaves one source without a row: raise batch_size.")

    def describe(self) -> dict[str, int | str]:
        """Numbers that follow."""
        often = {"gradient steps per environment step": f"{self.due.ratio:g}"} if isinstance(self.due, PerEnvironmentStep) else {}
        return often | {"transitions per gradient step": self.size}
