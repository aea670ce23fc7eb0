"""Recurrent policies: the network, and PPO's update on whole sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from rheostat.errors import RheostatError
from rheostat.learner.control_models import CONVOLUTIONS, OWN_NETWORK
from rheostat.learner.fast_ppo import FastPPO, Minibatch
from rheostat.masking import standardise
from rheostat.objectives.control_terms import MinibatchTargets
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.control.recurrent import RecurrentActorCritic, Sequences
from rheostat.streams import derive_seed
from rheostat.trajectories import Transitions


@dataclass(frozen=True)
class RecurrentNetwork:
    """An encoder, an LSTM, and a linear head for actor and critic."""

    hidden: tuple[int, ...] = option((64,), at_least=1)
    """Hidden layers before the LSTM; images have convolutions instead."""
    units: int = option(128, short="lstm_units", at_least=1)
    """Units of the LSTM."""
    activation: Literal["tanh", "relu"] = option("tanh")
    """Activation of the hidden layers."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.hidden else {"activation": "there is no hidden layer, so leave it alone"}

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        if "policy" in context.networks:
            return dict.fromkeys(("hidden", "units", "activation"), OWN_NETWORK)
        return dict.fromkeys(("hidden", "activation"), CONVOLUTIONS) if context.images else {}

    def __call__(self, context: Any) -> RecurrentActorCritic:
        """Build the untrained network for the spaces of the environments."""
        return RecurrentActorCritic(
            context.observation_space,
            context.action_space,
            hidden=self.hidden,
            units=self.units,
            activation=self.activation,
            seed=derive_seed(context.streams.seed, "network"),
        )


@dataclass(frozen=True)
class SequencePPO(FastPPO):
    """Minibatches are whole rows, each evaluated from the memory it began with; gradients flow through all its steps."""

    sequences: int = 0
    """Rows of a full batch; 0 where that is unknown beforehand."""
    step_by_step: ClassVar[bool] = False

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that it reads."""
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
        """Derived numbers."""
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
        weight = self.sampler.weight(rows) if self.corrects else None
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
