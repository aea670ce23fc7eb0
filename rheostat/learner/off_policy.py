"""What methods with a replay share: their answers to the four questions. Not a method itself; see sac for the shortest one.

WHO ACTS   the policy, with its own randomness (``start_steps`` uniform actions first); while a data set is learned from, nobody.
KEPT       a replay of transitions, or a data set, or both: one buffer that begins with the data set, or a fixed share of either.
WORTH      a temporal-difference target inside every gradient step, because it moves with the critics.
MOVES      ``update_to_data`` gradient steps per environment step; what a gradient step does is the method's own answer.

Units. Actions are ``[-1, 1]`` inside (:mod:`rheostat.policies.control.squashed`); the replay keeps the world's own, raw observations, and
rewards
as they are learned from (``reward_scale``, ``reward_shift``); what is reported is always the world's. The budget counts gradient steps
while a data set is learned from and environment steps after that.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.buffers.mixing import interleave
from rheostat.buffers.offline import OfflineData
from rheostat.buffers.replay import Replay
from rheostat.collect.control.episodes import measure_returns
from rheostat.collect.control.stepping import Collector, no_steps
from rheostat.errors import RheostatError
from rheostat.learner.dial import Dial
from rheostat.learner.method import Metrics, NonFinite
from rheostat.objectives.meter import off_policyness
from rheostat.policies.control.squashed import Bounds, Rescaled, UnitPolicy
from rheostat.streams import Streams, derive_seed
from rheostat.tasks.control.environments import Environments
from rheostat.trajectories import Source, Trajectories, Transitions

UsesData = Literal["no", "optional", "first"]
"""Whether a method reads a data set: never, beside its own data, or before anything else."""
NEVER = -100.0
"""Log-probability on the meter of what the policy cannot draw."""
OFFLINE_TURN = 100
"""Gradient steps per turn of the loop while nobody acts."""
NORM_EPSILON = 1e-3
"""Added to the deviation that states are divided by (TD3+BC)."""


@dataclass(frozen=True)
class OffPolicyConfig:
    """What every such method has."""

    num_envs: int = 1
    """Environments stepped together."""
    batch_size: int = 256
    """Transitions per gradient step."""
    gamma: float = 0.99
    """Discount per step."""
    tau: float = 0.005
    """Share of the new critics in the slow ones after each gradient step."""
    learning_rate: float = 3e-4
    """Adam step size of the policy, and of everything without one of its own."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden layers of actor and critics."""
    replay_capacity: int = 1_000_000
    """Transitions kept; the oldest go first."""
    start_steps: int = 5_000
    """Environment steps with uniform actions and without learning, in methods that do not begin with a data set."""
    update_to_data: float = 1.0
    """Gradient steps per environment step."""
    replay_folder: str | None = None
    """Folder for the file of a replay that needs more than half of the free memory; None takes the system's temporary folder."""
    n_step: int = 1
    """Rewards summed before bootstrapping."""
    priority: float = 0.0
    """Exponent of the priorities of the replay (Schaul et al. 2016); 0 draws uniformly."""
    offline_share: float | None = None
    """Share of every batch that comes from the data set once the policy acts; None draws from one buffer that begins with it."""
    normalise_states: bool = False
    """Standardise observations by the mean and deviation of the data set."""
    reward_scale: float = 1.0
    """Factor of the rewards that are learned from."""
    reward_shift: float = 0.0
    """Added to every reward after the factor (AntMaze: -1)."""
    scale_returns_to: float | None = None
    """Multiply rewards so that the best and the worst return of the data set lie this far apart (IQL on locomotion: 1000)."""
    log_every: int = 1_000
    """Steps between rows of the metrics."""
    evaluate_every: int = 0
    """Steps between measurements of the policy, which are also made where acting begins; 0 never."""
    evaluate_episodes: int = 5
    """Episodes of such a measurement."""
    dial: Dial = Dial()  # noqa: RUF009 (frozen)
    """Not for these methods: replay is what they are."""


class OffPolicy:
    """See the module docstring.

    Args:
        config: hyperparameters.
        make: builds the world, from a number of environments and a seed.
        streams: the run's random streams.
        total_steps: the budget of gradient steps on the data set (methods that begin with one) or of environment steps.
        online_steps: environment steps after the data set, for methods that begin with one.
        offline: the data set.
        policy: refused: these methods make their own networks.

    Raises:
        RheostatError: a data set where none is read, none where one is needed, or one of another world.
    """

    Config: ClassVar[type[OffPolicyConfig]] = OffPolicyConfig
    config: OffPolicyConfig
    uses_data: ClassVar[UsesData] = "no"
    discrete: ClassVar[bool | None] = False
    """Whether actions are choices among a number of them; None takes those and continuous ones."""
    images: ClassVar[bool] = False
    """Whether the networks of discrete actions read images."""
    sarsa: ClassVar[bool] = False
    """Whether batches carry the action that was taken next."""
    dial_refused: ClassVar[dict[str, str]] = {
        "lag": "it learns from a replay, so its data are old anyway; replay_capacity says how old",
        "replay_share": "all it learns from is replay",
        "replay_age": "all it learns from is replay; replay_capacity says how old",
        "expert_share": "an expert's data come as a data set (--offline), mixed by offline_share",
        "updates_per_batch": "gradient steps per environment step are update_to_data",
    }

    def __init__(
        self,
        config: OffPolicyConfig,
        make: Callable[[int, int], Environments],
        streams: Streams,
        *,
        total_steps: int,
        online_steps: int = 0,
        offline: OfflineData | None = None,
        policy: Any = None,
    ) -> None:
        self.derived(config)
        if policy is not None:
            raise RheostatError(f"{self.name} makes its own actor and critics: set hidden instead of handing over a network.")
        self.config, self.make, self.streams, self.total_steps = config, make, streams, total_steps
        self.offline_budget = total_steps if self.uses_data == "first" else 0
        self.budget = total_steps + online_steps
        self.collector = Collector(make(config.num_envs, derive_seed(streams.seed, "pool", 0)))
        world = self.collector.environments
        self.bounds = self.bounds_of(world)
        self.require_readable(world)
        self.check_data(offline, world)
        offline = None if offline is None else self.choose(offline)
        self.offline = offline
        self.reward_scale = self.derive_reward_scale(offline)
        self.replay = self.build_replay(offline)
        self.data = self.build_data_replay(offline)
        self.shift: Tensor | None
        self.scale: Tensor | None
        self.shift, self.scale = self.state_scaling(offline)
        self.ratio = Fraction(config.update_to_data).limit_denominator(1_000_000)
        self.offline_updates = 0
        self.updates = 0
        self.restarts = 0
        self.granted = 0
        self.next_row = 0
        self.next_look = config.evaluate_every
        self.flops = 0
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.build()

    # --- what a method says -----------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Make the networks. ``self.parts()`` must name them."""
        raise NotImplementedError

    def parts(self) -> dict[str, Any]:
        """Everything that learns, by name: what ``state_dict`` saves. Each has ``state_dict`` and ``load_state_dict``."""
        raise NotImplementedError

    def distribution(self, observation: Tensor) -> UnitPolicy:
        """The policy of unit actions for observations as the networks read them, without exploration noise of the collector."""
        raise NotImplementedError

    def exploring(self, observation: Tensor) -> UnitPolicy:
        """Who acts while collecting."""
        return self.distribution(observation)

    def gradient_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """One step of everything that learns, on a batch whose observations are normalised and whose actions are unit actions; returns
        scalars for the log."""
        raise NotImplementedError

    def value(self, observation: Tensor) -> Tensor:
        """What the critics think of raw observations ``[N, ...]`` under the policy, ``[N]``."""
        raise NotImplementedError

    # --- arithmetic -------------------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """For sentences."""
        return type(self).__name__

    @classmethod
    def derived(cls, config: OffPolicyConfig) -> dict[str, int | str]:
        """Numbers that follow from the configuration, for printing.

        Raises:
            RheostatError: an impossible combination, and what to change.
        """
        for name in ("num_envs", "batch_size", "replay_capacity", "n_step", "log_every", "evaluate_episodes"):
            if getattr(config, name) < 1:
                raise RheostatError(f"{name} is {getattr(config, name)}: it must be at least 1.")
        if config.update_to_data < 0 or config.start_steps < 0 or config.priority < 0:
            raise RheostatError("update_to_data, start_steps and priority must be at least 0.")
        if config.batch_size > config.replay_capacity:
            raise RheostatError(
                f"A batch of {config.batch_size} cannot be drawn from a replay of {config.replay_capacity}: raise replay_capacity."
            )
        for name in ("gamma", "tau"):
            if not 0 <= getattr(config, name) <= 1:
                raise RheostatError(f"{name} is {getattr(config, name)}: it lies between 0 and 1.")
        if config.offline_share is not None and not 0 <= config.offline_share <= 1:
            raise RheostatError(f"offline_share is {config.offline_share}: a share of the batch between 0 and 1, or None.")
        share = config.offline_share or 0.0
        if 0 < share < 1 and round(config.batch_size * share) in (0, config.batch_size):
            raise RheostatError(
                f"offline_share {share:g} of a batch of {config.batch_size} leaves one source without a row: raise batch_size."
            )
        if config.priority and config.offline_share is not None:
            raise RheostatError("priority ranks one buffer, and offline_share draws from two: use one of them.")
        return {
            "gradient steps per step of all environments": f"{config.num_envs * config.update_to_data:g}",
            "transitions per gradient step": config.batch_size,
        }

    @property
    def unit(self) -> str:
        """What the budget counts."""
        return "gradient steps, then environment steps" if self.uses_data == "first" else "environment steps"

    @property
    def steps(self) -> int:
        """Gradient steps on the data set and environment steps."""
        return self.offline_updates + self.collector.steps

    @property
    def acting(self) -> bool:
        """Whether the phase without acting is over."""
        return self.offline_updates >= self.offline_budget

    @property
    def uniform_steps(self) -> int:
        """Environment steps with uniform actions and without learning: none in methods that begin with a data set."""
        return 0 if self.uses_data == "first" else self.config.start_steps

    @property
    def warming(self) -> bool:
        """Whether actions are still uniform and nothing is learned."""
        return self.collector.steps < self.uniform_steps

    @property
    def sizes(self) -> tuple[int, int]:
        """Features of an observation and of a continuous action."""
        assert self.bounds is not None
        return self.collector.environments.observation_space.shape[0], len(self.bounds.centre)

    def cosine(self) -> float:
        """Falls from 1 to 0 over the gradient steps of the run: a schedule for step sizes."""
        online = max(0, self.budget - self.offline_budget - self.uniform_steps)
        planned = self.offline_budget + online * self.config.update_to_data
        return 0.5 * (1 + math.cos(math.pi * min(1.0, self.updates / max(1.0, planned))))

    # --- data -------------------------------------------------------------------------------------------------------------------------

    def bounds_of(self, world: Environments) -> Bounds | None:
        """The bounds of continuous actions; None where actions are choices.

        Raises:
            RheostatError: actions that this method cannot take.
        """
        from gymnasium.spaces import Discrete

        if isinstance(world.action_space, Discrete) and self.discrete is not False:
            return None
        if self.discrete:
            raise RheostatError(
                f"{self.name} needs discrete actions, and {world.name} has {world.action_space}: use ppo, or sac for a Box of floats."
            )
        return Bounds.of(world.action_space, self.name)

    @property
    def choices(self) -> int:
        """Number of discrete actions."""
        return int(self.collector.environments.action_space.n)  # type: ignore[attr-defined]

    def require_readable(self, world: Environments) -> None:
        """Refuse images where the networks cannot read them."""
        shape = list(world.observation_space.shape)
        if len(shape) != 1 and not (self.images and self.bounds is None):
            raise RheostatError(f"{self.name} reads vectors of numbers here, and {world.name} shows images {shape}: use ppo.")
        if len(shape) != 1 and self.config.normalise_states:
            raise RheostatError(f"normalise_states is for vectors of numbers, and {world.name} shows images {shape}: leave it off.")

    def check_data(self, offline: OfflineData | None, world: Environments) -> None:
        """Refuse a data set that is missing, not wanted, or of another world."""
        if offline is None:
            if self.uses_data == "first":
                raise RheostatError(
                    f"{self.name} learns from a data set first: name one with --offline (`rheostat dataset make` makes one)."
                )
            return
        if self.uses_data == "no":
            raise RheostatError(f"{self.name} does not read a data set: leave --offline out, or use a method that does, for example rlpd.")
        offline.require_spaces(world.observation_space, world.action_space, task=world.name)

    def choose(self, offline: OfflineData) -> OfflineData:
        """What of the data set is learned from: everything."""
        return offline

    def build_replay(self, offline: OfflineData | None) -> Replay:
        """What the policy's own steps go into; it begins with the data set unless both are drawn from apart."""
        config = self.config
        replay = self.empty_replay(config.replay_capacity, config.priority)
        if offline is not None and config.offline_share is None:
            if len(offline) > config.replay_capacity:
                raise RheostatError(
                    f"{offline.name} has {len(offline):,} steps, and the replay that begins with it keeps {config.replay_capacity:,}: "
                    f"raise replay_capacity, or set offline_share to keep both apart."
                )
            replay.append_transitions(self.rescaled(offline.as_drawn), offline.breaks)
        return replay

    def empty_replay(self, capacity: int, priority: float = 0.0) -> Replay:
        """One of this size, in a file where it is large."""
        folder = Path(self.config.replay_folder or tempfile.gettempdir())
        return Replay(capacity, n_step=self.config.n_step, gamma=self.config.gamma, priority=priority, memory_map=folder)

    def build_data_replay(self, offline: OfflineData | None) -> Replay | None:
        """The data set alone, where a fixed share of every batch comes from it."""
        if offline is None or self.config.offline_share is None:
            return None
        replay = self.empty_replay(len(offline))
        replay.append_transitions(self.rescaled(offline.as_drawn), offline.breaks)
        return replay

    def derive_reward_scale(self, offline: OfflineData | None) -> float:
        """The factor of the rewards, from the data set's returns where that is asked for."""
        wanted = self.config.scale_returns_to
        if wanted is None:
            return self.config.reward_scale
        if offline is None:
            raise RheostatError("scale_returns_to takes the range of returns from a data set: name one with --offline, or leave it off.")
        returns = offline.whole_returns
        spread = float(returns.max() - returns.min()) if len(returns) else 0.0
        if not spread:
            raise RheostatError(f"All whole episodes of {offline.name} have the same return: scale_returns_to needs two that differ.")
        return self.config.reward_scale * wanted / spread

    def rescaled(self, rows: Any) -> Any:
        """Rows or blocks with the rewards that are learned from."""
        if self.reward_scale == 1.0 and not self.config.reward_shift:
            return rows
        seen = rows.clone(recurse=False)
        seen.reward = self.reward_scale * rows.reward + self.config.reward_shift
        return seen

    def state_scaling(self, offline: OfflineData | None) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Mean and deviation of the data set's observations, if they are standardised; frozen for the whole run."""
        if not self.config.normalise_states:
            return None, None
        if offline is None:
            raise RheostatError("normalise_states takes its statistics from a data set: name one with --offline, or leave it off.")
        seen = offline.transitions.observation
        return seen.mean(0), seen.std(0, unbiased=False) + NORM_EPSILON

    def normalise(self, observation: Tensor) -> Tensor:
        """Raw observations to what the networks read."""
        return observation if self.shift is None or self.scale is None else (observation - self.shift) / self.scale

    # --- the four questions -----------------------------------------------------------------------------------------------------------

    def collect(self) -> Trajectories:
        """WHO ACTS? The policy for one step of all environments; nobody while the data set is learned from."""
        world = self.collector.environments
        if not self.acting:
            return no_steps(world)
        draw = self.draw_uniform if self.warming else self.draw
        return self.collector.collect(draw, 1, generator=self.streams["actions"], version=self.updates)

    def act_on_target(self, observation: Tensor) -> Any:
        """The learned policy's distribution of the world's actions for raw observations ``[N, ...]``."""
        return self.in_world_units(self.distribution(self.normalise(observation)))

    def in_world_units(self, policy: Any) -> Any:
        """A policy of unit actions as one of the world's."""
        return policy if self.bounds is None else Rescaled(policy, self.bounds)

    def draw(self, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Actions for raw observations and the log-probabilities under what sampled them."""
        policy = self.in_world_units(self.exploring(self.normalise(observation)))
        action = policy.sample(generator)
        return action, policy.log_prob(action)

    def draw_uniform(self, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Uniform actions: inside the bounds, or among the choices."""
        if self.bounds is None:
            rows = len(observation)
            return torch.randint(self.choices, (rows,), generator=generator), torch.full((rows,), -math.log(self.choices))
        size = (len(observation), len(self.bounds.centre))
        unit = 2 * torch.rand(size, generator=generator) - 1
        density = -size[1] * math.log(2.0) - self.bounds.log_volume
        return self.bounds.to_world(unit), torch.full((size[0],), density)

    def retain(self, fresh: Trajectories) -> Transitions:
        """WHAT IS KEPT? Every step; returns the batches of the gradient steps that are due, one after the other, ``[U * batch_size]``."""
        if self.acting:
            fresh.source = torch.full(fresh.shape, int(Source.REPLAY))
            self.replay.append(self.rescaled(fresh))
        due = self.due()
        return self.draw_batches(due) if due else Transitions.none()

    def due(self) -> int:
        """Gradient steps to make now: after every turn, ``floor(update_to_data * environment steps since learning began)`` were made."""
        if not self.acting:
            return min(OFFLINE_TURN, self.offline_budget - self.offline_updates)
        whole = max(0, math.floor(self.ratio * (self.collector.steps - self.uniform_steps)) - self.granted)
        self.granted += whole
        return whole

    def draw_batches(self, count: int) -> Transitions:
        """``count`` batches, one after the other; with a share for the data set, every stretch of rows holds it in proportion (RLPD)."""
        config, generator = self.config, self.streams["replay"]
        theirs = 0 if self.data is None else round(config.batch_size * (config.offline_share or 0.0))
        if self.data is not None and (theirs == config.batch_size or not len(self.replay)):
            return self.data.sample(count * config.batch_size, generator, sarsa=self.sarsa)
        if self.data is None or not theirs:
            return self.replay.sample(count * config.batch_size, generator, sarsa=self.sarsa)
        return interleave(
            self.data.sample(count * theirs, generator, sarsa=self.sarsa),
            self.replay.sample(count * (config.batch_size - theirs), generator, sarsa=self.sarsa),
        )

    def credit(self, kept: Transitions) -> Transitions:
        """WHAT IS IT WORTH? Observations and actions as the networks read them; the targets follow in every gradient step."""
        if not len(kept):
            return kept
        seen = kept.clone(recurse=False)
        seen.observation, seen.next_observation = self.normalise(kept.observation), self.normalise(kept.next_observation)
        if self.bounds is not None:
            self.drawn = self.bounds.drawn(kept.action)  # what has a density, for the meter
            seen.action = self.bounds.to_unit(kept.action)
            if kept.next_action is not None:
                seen.next_action = self.bounds.to_unit(kept.next_action)
        return seen

    def improve(self, batch: Transitions) -> Metrics:
        """HOW DOES THE POLICY MOVE? Gradient steps, one per batch; a row of metrics now and then."""
        size = self.config.batch_size
        for start in range(0, len(batch), size):
            rows = batch[start : start + size]
            self.tally(self.gradient_step(rows), rows)
            self.updates += 1
            self.offline_updates += not self.acting
        return self.row(batch)

    def row(self, batch: Transitions, *, always: bool = False) -> Metrics:
        """A row of metrics and a look at the policy, where they are due (or always); else nothing."""
        begins = self.offline_budget > 0 and self.steps == self.offline_budget  # the last gradient step before anyone acts
        look = bool(self.config.evaluate_every) and (begins or self.steps >= min(self.next_look, self.budget))
        if not (always or look or begins or self.steps >= min(self.next_row, self.budget)):
            return {}
        self.next_row = self.after(self.config.log_every)
        metrics = self.report(batch)
        if look:
            self.next_look = self.after(self.config.evaluate_every)
            metrics |= self.evaluate(self.config.evaluate_episodes)
        return metrics

    def after(self, interval: int) -> int:
        """The next multiple of an interval."""
        return (self.steps // interval + 1) * interval

    def tally(self, found: dict[str, Tensor | float], rows: Transitions) -> None:
        """Add a gradient step's numbers to the means of the next row of metrics."""
        for name, value in found.items():
            number = value.item() if isinstance(value, Tensor) else value
            if "loss" in name and not math.isfinite(number):
                raise NonFinite(
                    f"{name} became {number} in gradient step {self.updates + 1}: lower the learning rate or look at the rewards", rows
                )
            self.sums[name] = self.sums.get(name, 0.0) + number
            self.counts[name] = self.counts.get(name, 0) + 1

    def rank(self, rows: Transitions, error: Tensor) -> None:
        """Tell a prioritised replay how wrong the critics were about rows, ``[B]``."""
        if not self.config.priority:
            return
        if not bool(error.isfinite().all()):
            raise NonFinite(f"The critics' error is not finite in gradient step {self.updates + 1}: lower the learning rate", rows)
        self.replay.set_priorities(rows.index, error)

    def report(self, batch: Transitions) -> Metrics:
        """Means since the last row, the meter on the last batch, and the episodes that ended."""
        metrics: Metrics = {name: total / self.counts[name] for name, total in self.sums.items()}
        metrics["gradient_steps"] = max(self.counts.values(), default=0)
        self.sums, self.counts = {}, {}
        if len(batch):
            metrics |= self.meter(batch[-self.config.batch_size :])
        metrics |= self.collector.metrics() if self.acting else {}
        metrics["replay"] = len(self.replay) + (0 if self.data is None else len(self.data))
        return metrics | ({"flops": self.flops} if self.flops else {})

    def meter(self, rows: Transitions) -> Metrics:
        """How far the present policy is from whoever sampled the rows, by source; without ratios where it has no density."""
        with torch.no_grad():
            policy = self.exploring(rows.observation)
            learner = policy.log_prob(rows.action if self.bounds is None else self.drawn[-len(rows) :]).clamp_min(NEVER)
            sampler = rows.sampler_logp if self.bounds is None else rows.sampler_logp + self.bounds.log_volume
            sampler = torch.where(learner.isnan(), learner, sampler)
        age = torch.where(rows.source == int(Source.OFFLINE), -1, self.updates - rows.version)
        return off_policyness(learner, sampler, age=age, source=rows.source)

    # --- looking ----------------------------------------------------------------------------------------------------------------------

    def evaluate(self, episodes: int) -> Metrics:
        """Deterministic actions in a fresh pool with its own seed; with a data set of known references, the normalised score too."""
        copies = self.collector.environments.copies_for(episodes)
        environments = self.make(copies, derive_seed(self.streams.seed, "evaluation", self.updates))
        found = measure_returns(lambda observation: self.act_on_target(observation).mode(), environments, episodes)
        if self.offline is not None and self.offline.reference is not None:
            found["normalised_score"] = self.offline.normalised_score(found["evaluation_return"])
        return found

    # --- state ------------------------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Worlds that cannot be saved start afresh; what was under way counts as cut."""
        if self.acting and not self.collector.environments.can_save:
            self.restarts += 1
            self.collector.restart(derive_seed(self.streams.seed, "pool", self.restarts))
            self.replay.cut()

    def state_dict(self) -> dict[str, Any]:
        """Everything: networks, optimisers, replay, worlds, streams and counters. The data set is named by the run and read again."""
        return {
            "parts": {name: part.state_dict() for name, part in self.parts().items()},
            "collector": self.collector.state_dict(),
            "replay": self.replay.state_dict(),
            "streams": self.streams.state_dict(),
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "sums": dict(self.sums),
            "counts": dict(self.counts),
            "data": None if self.offline is None else self.offline.digest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken.

        Raises:
            RheostatError: the data set is not the one it was.
        """
        if self.offline is not None and state["data"] != self.offline.digest:
            raise RheostatError(
                f"This run began with other data than {self.offline.name} holds now: put that one back, or start a new run."
            )
        for name, part in self.parts().items():
            part.load_state_dict(state["parts"][name])
        self.collector.load_state_dict(state["collector"])
        self.replay.load_state_dict(state["replay"])
        self.streams.load_state_dict(state["streams"])
        for name in COUNTERS:
            setattr(self, name, state["counters"][name])
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])

    def close(self) -> None:
        """Release the worlds and the files of the replay."""
        self.collector.environments.close()
        self.replay.close()
        if self.data is not None:
            self.data.close()


COUNTERS = ("offline_updates", "updates", "restarts", "granted", "next_row", "next_look", "flops")
