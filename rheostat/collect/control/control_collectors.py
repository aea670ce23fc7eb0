"""WHO ACTS? as parts: the policy for a batch or a step, a behaviour policy, no one (offline), and an expert in addition to the policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.collect.control.robust_actions import RepairingSampler, ScoreGradients
from rheostat.collect.control.stepping import Collector, Draw, no_steps
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.control.recurrent import EpisodeMemory
from rheostat.streams import derive_seed
from rheostat.trajectories import Source, join_rows


@dataclass(frozen=True)
class Rollout:
    """Collects a batch of steps, or a part of one, with the model named ``acting``."""

    environments: int = option(8, short="num_envs", at_least=1)
    """Environments stepped together."""
    steps: int = option(2048, short="batch_steps", at_least=1)
    """Environment steps per update, over all environments (n)."""
    acting: str = "policy"

    @property
    def turn_steps(self) -> int:
        """Environment steps per turn."""
        return self.steps

    @property
    def turns(self) -> int:
        """Turns per batch."""
        return self.steps // self.turn_steps

    @property
    def vector_steps(self) -> int:
        """Steps of every environment per turn."""
        return self.turn_steps // self.environments

    @property
    def models(self) -> tuple[str, ...]:
        """Name of the model that collects data."""
        return (self.acting,)

    def check(self, composition: Any) -> None:
        """Refuse a number of steps that is no multiple of the number of environments."""
        if self.turn_steps % self.environments:
            nearest = max(1, round(self.turn_steps / self.environments)) * self.environments
            raise RheostatError(
                f"{self.turn_steps} steps do not divide over {self.environments} environments: use {nearest} steps or another num_envs."
            )

    def describe(self) -> dict[str, int | str]:
        """Numbers that follow."""
        return {"steps per environment and turn": self.vector_steps}

    def draw(self, context: Any) -> Draw:
        """The collecting policy, as a function of raw observations."""
        acting = self.acting
        model, see, in_environment_units = context.models[acting], context.see, context.in_environment_units

        def draw(observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            distribution = in_environment_units(model.exploring(see(observation, acting)))
            action = distribution.sample(generator)
            return action, distribution.log_prob(action)

        return draw

    def collect(self, context: Any) -> Batch:
        """A block of steps ``[environments, steps]``."""
        context.turns += 1
        generator, version = context.streams["actions"], context.version(self.acting)
        return Batch(context.collector.collect(self.draw(context), self.vector_steps, generator=generator, version=version))


@dataclass(frozen=True)
class RecurrentRollout(Rollout):
    """The same for recurrent policies: rows also carry the memory at their first step, and where episodes begin."""

    writes: ClassVar[tuple[str, ...]] = ("begins", "memory")
    refuses: ClassVar[dict[str, str]] = {
        "replay_share": "a replayed sequence begins with a memory that an older policy made, and nothing burns it in",
        "expert_share": "an expert's sequences begin with no memory of the policy's",
    }

    def bind(self, context: Any) -> None:
        """Start every environment with an empty memory."""
        memory = EpisodeMemory(context.models[self.acting].network, self.environments)
        context.stores["memory"] = memory
        context.on_restart.append(memory.forget)

    def collect(self, context: Any) -> Batch:
        """A block of steps ``[environments, steps]``; columns ``begins`` (bool, the same shape) and ``memory`` ``[environments, S]``."""
        memory: EpisodeMemory = context.stores["memory"]
        first, begins = memory.memory, []

        def draw(observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            begins.append(memory.begins)
            distribution = context.in_environment_units(memory(context.see(observation, self.acting)))
            action = distribution.sample(generator)
            return action, distribution.log_prob(action)

        context.turns += 1
        rows = context.collector.collect(
            draw,
            self.vector_steps,
            generator=context.streams["actions"],
            version=context.version(self.acting),
            after=lambda step: memory.forget(step.ended),
        )
        return Batch(rows, {"begins": torch.stack(begins, 1), "memory": first})


@dataclass(frozen=True)
class TeamRollout(Rollout):
    """Collects the rows of the policy's own agents in environments of several agents."""

    refuses: ClassVar[dict[str, str]] = {"expert_share": "an expert would act in environments of its own, and agents act together"}

    def collect(self, context: Any) -> Batch:
        """The rows of the policy's agents, ``[environments x agents, steps]``, of the block that all of them have just stepped."""
        context.turns += 1
        return Batch(context.block)


@dataclass(frozen=True)
class Blocks(Rollout):
    """Collects with a behaviour policy, one block of steps per turn; a batch consists of several blocks."""

    block: int = option(8, short="behaviour_steps", at_least=1)
    """Environment steps between updates of the behaviour policy (m); must divide batch_steps."""
    acting: str = "behaviour"

    @property
    def turn_steps(self) -> int:
        """Environment steps per turn."""
        return self.block

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        why = "it is a whole batch and window is 1, so nothing is kept that the behaviour policy could repair; lower it, or raise window"
        return {"block": why} if method.keep.batches * self.turns == 1 else {}

    def check(self, composition: Any) -> None:
        """Refuse blocks that do not make whole batches."""
        if self.steps % self.block:
            raise RheostatError(
                f"behaviour_steps {self.block} must divide batch_steps {self.steps}: the policy moves after a whole number of blocks."
            )
        super().check(composition)


@dataclass(frozen=True)
class RobustActing(Rollout):
    """Collects with the policy, corrected by the kept data: sometimes it takes the action that reduces the sampling error most."""

    repair_probability: float = option(0.2, share=True)
    """rho: share of steps that choose instead of sampling (the authors try 0.02 to 1)."""
    quantiles: int = option(9, at_least=1)
    """Candidates per state for continuous actions."""
    refuses: ClassVar[dict[str, str]] = {
        "lag": "who acts is the present policy, corrected by what is kept",
        "replay_share": "it repairs the data of its window, so what is kept is set by window",
        "expert_share": "it repairs the data of its own policy",
    }

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.repair_probability else {"quantiles": "repair_probability is 0, so raise it, or leave this alone"}

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        return {"quantiles": "all discrete actions are candidates, so leave it alone"} if not context.continuous else {}

    def collect(self, context: Any) -> Batch:
        """The policy, corrected by the kept data (without the batch that is dropped next)."""
        policy, history = context.models[self.acting].policy, context.stores["window"]
        scores = ScoreGradients(policy)
        kept = history.blocks[1:] if history.full else history.blocks
        running = torch.zeros(sum(value.numel() for value in scores.parameters.values()))
        for block in kept:
            rows = block.transitions()
            running += scores.total(context.see(rows.observation), rows.action)
        sampler = RepairingSampler(scores, running, epsilon=self.repair_probability, quantiles=self.quantiles)

        def repairing(raw: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            observation = context.see(raw)
            return sampler.draw(observation, policy.distribution(observation), generator, context.environments.upcoming)

        context.turns += 1
        generator = context.streams["actions"]
        return Batch(context.collector.collect(repairing, self.vector_steps, generator=generator, version=context.updates))


@dataclass(frozen=True)
class StepByStep:
    """Collects one step of all environments with the policy."""

    environments: int = option(1, short="num_envs", at_least=1)
    """Environments stepped together."""

    def collect(self, context: Any) -> Batch:
        """One step, ``[environments, 1]``."""
        return Batch(context.collector.collect(context.draw, 1, generator=context.streams["actions"], version=context.updates))


@dataclass(frozen=True)
class RandomFirst(StepByStep):
    """Collects one step of all environments: with uniform actions at first, then with the policy."""

    random_steps: int = option(5_000, short="start_steps", at_least=0)
    """Environment steps with uniform actions and without learning."""

    def collect(self, context: Any) -> Batch:
        """One step, ``[environments, 1]``."""
        if context.collector.steps >= self.random_steps:
            return super().collect(context)

        def uniform(observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            return draw_uniform(context, observation, generator)

        return Batch(context.collector.collect(uniform, 1, generator=context.streams["actions"], version=context.updates))


def draw_uniform(context: Any, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Uniform actions, inside the bounds or among the choices, and their log-probabilities; for raw observations ``[N, ...]``."""
    bounds, rows = context.bounds, len(observation)
    if bounds is None:
        choices = int(context.action_space.n)
        return torch.randint(choices, (rows,), generator=generator), torch.full((rows,), -math.log(choices))
    size = (rows, len(bounds.centre))
    unit = 2 * torch.rand(size, generator=generator) - 1
    return bounds.to_environment(unit), torch.full((rows,), -size[1] * math.log(2.0) - bounds.log_volume)


@dataclass(frozen=True)
class Nobody:
    """A turn that collects no data."""

    environments: int = 1

    def collect(self, context: Any) -> Batch:
        """An empty batch, ``[environments, 0]``."""
        return Batch(no_steps(context.environments))


class ExpertRows:
    """Adds rows of an expert to the batch: a block of its steps, in environments of its own.

    Args:
        share: of the batch.
        environments: of the policy.
        steps: of every environment in a block.
    """

    def __init__(self, share: float, environments: int, steps: int) -> None:
        self.rows = max(1, round(environments * share / (1 - share)))
        self.steps, self.environments = steps, environments

    def describe(self) -> dict[str, int | str]:
        """For printing: the share that was asked for was rounded to whole environments."""
        return {"environments of the expert": f"{self.rows} beside {self.environments}"}

    def prepare(self, context: Any) -> None:
        """Make the expert's environments."""
        seed = context.streams.seed
        self.collector = Collector(context.make(self.rows, derive_seed(seed, "expert pool")))
        context.stores["expert environments"] = self.collector
        context.on_restart.append(lambda: self.collector.restart(derive_seed(seed, "expert pool", context.restarts)))

    def retain(self, context: Any, batch: Batch) -> Batch:
        """The rows of the batch and, below them, the expert's."""
        expert = context.expert

        def draw(observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            distribution = expert(observation)
            action = distribution.sample(generator)
            return action, distribution.log_prob(action)

        rows = self.collector.collect(draw, self.steps, generator=context.streams["expert"], version=context.updates)
        rows.source = torch.full(rows.shape, int(Source.EXPERT))
        return batch.with_rows(join_rows([batch.rows, rows]))
