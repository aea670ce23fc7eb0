"""Implicit Q-learning: V and Q that use actions of the data only, and the weighted imitation.

:mod:`rheostat.methods.control.iql` has the equations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rheostat.credit.td_annotations import BestOfData, ImplicitValues
from rheostat.learner.actor_critic_updates import CriticStep, ExpectileStep, Weight, WeightedImitation, ensemble_q, state_value
from rheostat.learner.control_models import TargetNetwork, TrainableNetwork
from rheostat.learner.off_policy import PerStep
from rheostat.learner.own_networks import OwnStateValue, own_critics
from rheostat.objectives.temporal_difference import OverCritics
from rheostat.options import option, value_or

ValuesInUse = Literal["before", "after"]


@dataclass(frozen=True)
class ImplicitCritics:
    """Options of V, Q and the target critics."""

    expectile: float = option(0.7, above=0, below=1)
    """Expectile of Q that V regresses on: 0.5 is the mean, values near 1 approach the maximum over the data's actions."""
    values_in_use: ValuesInUse = option("before")
    """V in the critics' target and in the advantage: from before its step (CORL), or after (the authors)."""
    over: OverCritics = option("mean", short="over_critics")
    """The critics' loss is the mean over critics (CORL) or their sum (the authors)."""
    learning_rate: float | None = option(None, short="critic_learning_rate", at_least=0)
    """Adam step size of V and Q; None takes learning_rate, and 0 freezes them."""
    tau: float = option(0.005, share=True)
    """Polyak weight of the critics in the target critics, after each gradient step."""

    def models(self, hidden: tuple[int, ...], learning_rate: float) -> dict[str, Any]:
        """By name; ``learning_rate`` is that of the policy."""
        rate = value_or(self.learning_rate, learning_rate)
        return {
            "critics": TrainableNetwork(ensemble_q(hidden), rate, own=own_critics),
            "target critics": TargetNetwork("critics", self.tau),
            "value": TrainableNetwork(state_value(hidden), rate, own=OwnStateValue),
        }

    def step(self, size: int, imitation: WeightedImitation, *, before: Sequence[Any] = (), between: Sequence[Any] = ()) -> PerStep:
        """V, then Q, then the policy.

        Args:
            size: rows of a gradient step.
            imitation: of the policy.
            before: annotations before all others.
            between: updates after that of V.
        """
        values = ImplicitValues()
        credit = [*before, BestOfData(), *([values] if self.values_in_use == "before" else [])]
        again = [values] if self.values_in_use == "after" else []
        return PerStep(size, credit, [ExpectileStep(self.expectile), *between, *again, CriticStep(self.over), imitation])


@dataclass(frozen=True)
class Cosine:
    """The policy's step size."""

    anneal: bool | None = option(None)
    """Anneal the policy's step size to 0 by a cosine over the run; None does so where no online phase follows."""
    rate: float = 3e-4
    """Adam step size at the start."""
    per_environment_step: float = 1.0
    """Gradient steps per environment step online; they determine the length of the cosine."""

    def __call__(self, context: Any) -> float:
        """Step size of the next gradient step, from the number of steps made and planned."""
        online = context.budget - context.offline_budget
        if not (online == 0 if self.anneal is None else self.anneal):
            return self.rate
        planned = context.offline_budget + online * self.per_environment_step
        return self.rate * (0.5 * (1 + math.cos(math.pi * min(1.0, context.updates / max(1.0, planned)))))


def imitation_of(method: Any, weight: Weight, cap: float) -> WeightedImitation:
    """The policy's update, with the step sizes of a method of this family."""
    rate = Cosine(method.schedule.anneal, method.learning_rate, method.batches.per_environment_step)
    return WeightedImitation(weight, cap, learning_rate=rate)
