"""Parts of methods that learn a dynamics model beside a replay and update their policy on steps that the model imagined (MBPO).

In every so many environment steps the model is fitted to the whole replay, and short rollouts branch off from its states. Gradient steps
then draw some batches from the replay and the others from the imagined steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.buffers.control_retainers import Draw, PerEnvironmentStep, ReplayBuffer, Rewards
from rheostat.buffers.imagined import ImaginedSteps, require_memory
from rheostat.buffers.mixing import placed
from rheostat.collect.control.branched_rollouts import branch
from rheostat.collect.control.control_collectors import RandomFirst
from rheostat.credit.td_annotations import SoftTarget
from rheostat.errors import RheostatError
from rheostat.learner.actor_critic_updates import Critics, CriticStep, Entropy, SoftActorStep, ensemble_q, squashed_actor
from rheostat.learner.control_models import TargetNetwork, TrainableNetwork, own_hidden
from rheostat.learner.dial import Dial
from rheostat.learner.learner import Composition
from rheostat.learner.off_policy import AsRead, Logging, PerStep, Rhythm
from rheostat.learner.own_networks import own_critics, own_soft_policy
from rheostat.learner.replay_model import ModelLoss, ReplayModel, ReplayModelOptions
from rheostat.options import option, value_or
from rheostat.parts import Batch
from rheostat.tasks.control.terminations import Ended, known_termination_of, never
from rheostat.trajectories import Source, Transitions

NO_IMAGES = "its model predicts vectors of numbers: use sac, td3 or iql"
"""Why observations cannot be images."""
LEAST_ROWS = 10
"""Steps that the first model is learned from, at least."""


# --- what is imagined ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Imagination:
    """How far the model is rolled out, and how much of what it imagines is learned from."""

    per_step: int = option(400, short="rollouts_per_step", at_least=1)
    """Rollouts per environment step; those of a round are made together."""
    length: tuple[int, int] = option((1, 1), short="rollout_length", at_least=1)
    """Steps of a rollout, at first and at last; in between it grows linearly and is rounded down."""
    length_steps: tuple[int, int] = option((20_000, 150_000), short="rollout_length_steps", at_least=0)
    """Environment steps, counted from the first gradient step, between which it grows."""
    share: tuple[float, float] = option((0.95, 0.95), short="imagined_share", share=True)
    """Share of the gradient steps' rows that are imagined, at first and at last."""
    share_steps: tuple[int, int] = option((0, 20_000), short="imagined_share_steps", at_least=0)
    """Environment steps, counted from the first gradient step, between which it grows linearly."""
    mixing: Literal["rows", "batches"] = option("rows", short="imagined_mixing")
    """Every batch has that share of imagined rows, or each batch is imagined as a whole with that probability (the authors of VaGraM)."""
    kept: int = option(1_000, short="imagined_kept", at_least=1)
    """Imagined steps are kept for so many environment steps."""
    end: Literal["known", "never"] = option("known", short="imagined_end")
    """Where a rollout ends before its length: by the known rule of the task, which is refused where there is none, or never."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found: dict[str, str] = {}
        if self.length[0] == self.length[1]:
            found["length_steps"] = "rollout_length is the same at first and at last, so leave it alone"
        if self.share[0] == self.share[1]:
            found["share_steps"] = "imagined_share is the same at first and at last, so leave it alone"
        if self.share in ((0.0, 0.0), (1.0, 1.0)):
            found["mixing"] = "imagined_share is 0 or 1 all along, so nothing is mixed; leave it alone"
        return found

    def __post_init__(self) -> None:
        for name, (first, last) in (("rollout_length_steps", self.length_steps), ("imagined_share_steps", self.share_steps)):
            if first > last:
                raise RheostatError(f"{name} is {first} and {last}: the first number of steps comes before the second.")

    def length_at(self, steps: int) -> int:
        """Steps of a rollout, so many environment steps after the first gradient step."""
        return math.floor(ramp(self.length, self.length_steps, steps) + 1e-9)

    def share_at(self, steps: int) -> float:
        """Share of imagined rows, so many environment steps after the first gradient step."""
        return ramp(self.share, self.share_steps, steps)


def ramp(values: tuple[float, float], steps: tuple[int, int], now: int) -> float:
    """A number that goes linearly from one value to another between two numbers of steps, and stays outside of them.

    >>> [ramp((1, 5), (20, 100), now) for now in (0, 60, 200)]
    [1.0, 3.0, 5.0]
    """
    (low, high), (first, last) = values, steps
    share = 1.0 if now >= last else max(0.0, (now - first) / (last - first))
    return low + share * (high - low)


@dataclass(frozen=True)
class Imagining:
    """Fits the model to the replay and rolls it out, in every so many environment steps.

    Args:
        options: of what is imagined.
        model: of the model.
        after: environment steps before learning.
        gamma: discount of a step.
    """

    options: Imagination
    model: ReplayModelOptions
    after: int
    gamma: float
    keeps_units: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("policy", "critics", "target critics", "world model")

    @property
    def kept_rounds(self) -> int:
        """Rounds whose steps are kept."""
        return -(-self.options.kept // self.model.every)

    @property
    def rollouts(self) -> int:
        """Of a round."""
        return self.options.per_step * self.model.every

    def check(self, composition: Any) -> None:
        """Refuse a first model that is learned from nothing."""
        if self.after < LEAST_ROWS:
            raise RheostatError(
                f"start_steps is {self.after}, and the first model is learned from the steps before: use at least {LEAST_ROWS}."
            )

    def prepare(self, context: Any) -> None:
        """Find the rule by which the task ends, and create the store.

        Raises:
            RheostatError: the rule is not known, or the steps do not fit into the memory.
        """
        self.ended(context)
        seen, action = torch.zeros(context.observation_space.shape), torch.zeros(context.action_space.shape)
        require_memory(self.kept_rounds * self.rollouts * max(self.options.length), seen, action)
        context.stores["imagined"] = ImaginedSteps(self.kept_rounds, self.gamma)

    def ended(self, context: Any) -> Ended:
        """The rule by which a rollout ends, of raw observations."""
        return never if self.options.end == "never" else known_termination_of(context.environments.name)

    def retain(self, context: Any, batch: Batch) -> Batch:
        """The batch; a round where one is due."""
        learning = context.collector.steps - self.after
        due = learning // self.model.every + 1
        if due > context.counts.get("model_rounds", 0):
            context.counts["model_rounds"] = due
            self.round(context, learning)
        return batch

    def round(self, context: Any, learning: int) -> None:
        """Fit the model, and roll it out from states of the replay."""
        rows = replay_rows(context)
        model, length = context.models["world model"], self.options.length_at(learning)
        found = model.fit(context, rows, self.after)
        steps = self.roll_out(context, rows.observation, length)
        context.stores["imagined"].append(steps)
        found |= {"rollout_length": length, "imagined_steps": len(steps["reward"])}
        context.log.add(context, found | {"imagined_ended": steps["terminated"].float().mean()}, rows)

    def roll_out(self, context: Any, states: Tensor, length: int) -> dict[str, Tensor]:
        """Imagined steps, as a replay would keep them: raw observations, and actions in the environment's units."""
        generator, bounds = context.streams["imagined"], context.bounds

        def act(observation: Tensor) -> tuple[Tensor, Tensor]:
            policy = context.models["policy"].distribution(context.see(observation))
            action = policy.sample(generator)
            return action, policy.log_prob(action)

        start = states[torch.randint(len(states), (self.rollouts,), generator=generator)]
        predict, ended = context.models["world model"].predict, self.ended(context)
        found = list(branch(predict, act, start, length, generator=generator, ended=ended))
        if not found:
            raise RheostatError("The model predicts no finite number for any state: lower model_learning_rate or look at the observations.")
        observation, action, log_prob, reward, following, over = (torch.cat(column) for column in zip(*found, strict=True))
        return {
            "observation": observation,
            "action": bounds.to_environment(action),
            "sampler_logp": log_prob - bounds.log_volume,
            "reward": reward,
            "next_observation": following,
            "terminated": over,
            "truncated": torch.zeros_like(over),
            "source": torch.full((len(reward),), int(Source.IMAGINED)),
            "version": torch.full((len(reward),), context.updates),
        }

    def describe(self) -> dict[str, int | str]:
        """Numbers that follow."""
        return {"rollouts of a round": self.rollouts, "rounds whose imagined steps are kept": self.kept_rounds}


def replay_rows(context: Any) -> Transitions:
    """Every step of the replay ``[N]``: raw observations, unit actions, rewards as the learner sees them."""
    replay = context.stores["replay"]
    columns = {name: column[: len(replay)] for name, column in replay.columns.items()}
    columns["action"] = context.bounds.to_unit(columns["action"])
    names = ("observation", "action", "reward", "next_observation", "terminated", "truncated", "sampler_logp")
    return Transitions(**{name: columns[name] for name in names}, batch_size=[len(replay)])


@dataclass(frozen=True)
class MixedDraw(Draw):
    """Samples the batches of a turn from the replay and from imagined steps."""

    imagination: Imagination = Imagination()
    after: int = 0

    def draw(self, context: Any, count: int) -> Transitions:
        """``count`` batches, concatenated; real ones alone while nothing is imagined."""
        imagined = context.stores["imagined"]
        chosen = self.chosen(context, count) if len(imagined) else torch.zeros(count * self.size, dtype=torch.bool)
        made = int(chosen.sum())
        context.log.add(context, {"imagined_share": made / len(chosen)}, Transitions.none())
        real = context.stores["replay"].sample(len(chosen) - made, context.streams["replay"]) if made < len(chosen) else Transitions.none()
        return placed(imagined.sample(made, context.streams["imagined rows"]), real, chosen) if made else real

    def chosen(self, context: Any, count: int) -> Tensor:
        """Which rows are imagined, bool ``[count * size]``."""
        share = self.imagination.share_at(context.collector.steps - self.after)
        if self.imagination.mixing == "rows":
            return (torch.arange(self.size) < round(share * self.size)).repeat(count)
        whole = torch.rand(count, generator=context.streams["imagined rows"]) < share
        return whole.repeat_interleave(self.size)


# --- acting and composing -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RealSteps:
    """The replay of real steps."""

    capacity: int = option(1_000_000, short="replay_capacity", at_least=1)
    """Largest number of real transitions; when it is full, the oldest are overwritten."""
    folder: str | None = option(None, short="replay_folder")
    """Folder for the file of a replay that needs more than half of the free memory; None takes the system's temporary folder."""

    def buffer(self, gamma: float) -> ReplayBuffer:
        """The part that keeps them."""
        return ReplayBuffer(self.capacity, self.folder, gamma=gamma)


@dataclass(frozen=True)
class ActingOutside(RandomFirst):
    """Collects one step of all environments: with uniform actions at first, then with the policy."""

    act: Literal["sampled", "mean"] = option("sampled")
    """The policy's actions in the environment are sampled, or they are its deterministic ones (the authors of VaGraM)."""

    def collect(self, context: Any) -> Batch:
        """One step, ``[environments, 1]``."""
        if self.act == "sampled" or context.collector.steps < self.random_steps:
            return super().collect(context)

        def mean(observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            policy = context.act_on_target(observation)
            action = policy.mode()
            return action, policy.log_prob(action)

        return Batch(context.collector.collect(mean, 1, generator=context.streams["actions"], version=context.updates))


@dataclass(frozen=True)
class ModelBased:
    """SAC beside a learned model: the options of MBPO and of what is built on it."""

    collect: ActingOutside = ActingOutside()
    replay: RealSteps = RealSteps()
    rewards: Rewards = Rewards()
    batches: Rhythm = Rhythm(per_environment_step=20.0)
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    tau: float = option(0.005, share=True)
    """Share of the new critics in the target critics when these follow."""
    target_every: int = option(1, at_least=1)
    """Gradient steps between updates of the target critics."""
    learning_rate: float = option(3e-4, at_least=0)
    """Adam step size of the policy, and of everything without one of its own."""
    temperature_learning_rate: float | None = option(None, at_least=0)
    """Adam step size of the temperature; None takes learning_rate."""
    hidden: tuple[int, ...] = option((256, 256), at_least=1)
    """Hidden layers of actor and critics."""
    critics: Critics = Critics()
    entropy: Entropy = Entropy()
    entropy_in_backup: bool = option(True)
    """The entropy of later actions counts in the critics' target."""
    model: ReplayModelOptions = ReplayModelOptions()
    imagination: Imagination = Imagination()
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found: dict[str, str] = {}
        if not self.tau:
            found["target_every"] = "tau is 0, so the target critics never follow; raise it, or leave it alone"
        if self.entropy.fixed is not None:
            found["temperature_learning_rate"] = "a fixed temperature learns nothing, so leave it alone, or leave temperature out"
        return found

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        return own_hidden(context, "policy", "critics")

    def soft_models(self) -> dict[str, Any]:
        """SAC's models, in its order; the target critics follow in every so many steps."""
        critics, rate = self.critics, value_or(self.critics.learning_rate, self.learning_rate)
        return {
            "policy": TrainableNetwork(squashed_actor(self.hidden), self.learning_rate, own=own_soft_policy),
            "critics": TrainableNetwork(ensemble_q(self.hidden, critics.number, critics.normalisation), rate, own=own_critics),
            "target critics": TargetNetwork("critics", self.tau, self.target_every),
            "temperature": self.entropy.model(value_or(self.temperature_learning_rate, self.learning_rate)),
        }

    def composed(self, loss: ModelLoss) -> Composition:
        """The four answers, with a model that learns by this loss."""
        after, size = self.collect.random_steps, self.batches.size
        replay, read = self.replay.buffer(self.gamma), AsRead(no_images=NO_IMAGES)
        models = self.soft_models() | {"world model": ReplayModel(self.model, loss)}
        updates = [CriticStep(self.critics.over, self.critics.scale), SoftActorStep(), *self.entropy.steps]
        imagining = Imagining(self.imagination, self.model, after, self.gamma)
        due = PerEnvironmentStep(self.batches.per_environment_step, after)
        draw = MixedDraw(size, due, imagination=self.imagination, after=after)
        step = PerStep(size, [SoftTarget(self.entropy_in_backup)], updates)
        return Composition(
            self.collect, [replay, imagining, draw], [read], [step], models, stores=[read, self.rewards, replay, self.log, imagining]
        )
