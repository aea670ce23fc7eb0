"""PPO's update on whole sequences, for policies that remember."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rheostat.errors import RheostatError
from rheostat.learner.fast_ppo import FastPPO, Minibatch
from rheostat.masking import standardise
from rheostat.objectives.control_terms import MinibatchTargets
from rheostat.parts import Batch
from rheostat.policies.control.recurrent import Sequences
from rheostat.trajectories import Transitions


@dataclass(frozen=True)
class SequencePPO(FastPPO):
    """Minibatches are whole rows, each evaluated from the memory it began with; gradients flow through all its steps."""

    sequences: int = 0
    """Rows of a full batch; 0 is not known before."""
    step_by_step: ClassVar[bool] = False

    @property
    def reads(self) -> tuple[str, ...]:
        """What must have been written."""
        return (*super().reads, "begins", "memory")

    def check(self, composition: Any) -> None:
        """Refuse more minibatches than sequences."""
        if self.sequences and self.minibatches > self.sequences:
            raise RheostatError(
                f"{self.minibatches} minibatches cannot be cut from {self.sequences} sequences, one per environment: use at most "
                f"{self.sequences}, or more environments."
            )
        super().check(composition)

    def describe(self) -> dict[str, int | str]:
        """Numbers that follow."""
        return {
            "steps per sequence": self.rows // self.sequences,
            "sequences per minibatch": -(-self.sequences // self.minibatches),
            "gradient steps per update": self.gradient_steps,
        }

    def read(self, context: Any, batch: Batch) -> Sequences:
        """The batch's rows as sequences."""
        seen = context.see(batch.rows.observation, self.model)
        return Sequences(seen, batch.columns["begins"], batch.rows.mask, batch.columns["memory"])

    def passed(self, context: Any, rows: Transitions, observation: Sequences) -> Iterator[Minibatch]:
        """The minibatches of one pass over the sequences, in random order; sizes differ by one sequence at most."""
        places = (observation.mask.flatten().cumsum(0) - 1).view(observation.mask.shape)  # of every step among the transitions
        old_logp = self.objective.denominator(rows)
        weight = self.sampler.weight(rows) if self.sampler is not None and self.sampler.on else None
        order = torch.randperm(len(observation), generator=context.streams["minibatches"])
        for chosen in order.tensor_split(self.minibatches):
            part = observation[chosen]
            here = places[chosen][part.mask]
            if not len(here):  # nothing but beginnings of episodes
                continue
            advantage = standardise(rows.advantage[here]) if self.normalise_advantage else rows.advantage[here]
            if weight is not None:  # a factor of the loss, and the loss is proportional to the advantage
                advantage = advantage * weight[here]
            targets = MinibatchTargets(old_logp[here], advantage, rows.value_target[here], rows.value[here])
            yield Minibatch(part, rows.action[here], targets, here)
