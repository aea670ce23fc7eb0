"""IQL: implicit Q-learning, which never asks its critics for an action outside the data.

Paper: Kostrikov et al. 2022, arXiv 2110.06169.

Equations (Qbar: the slow critics; a: the action of the data; u = min_k Qbar_k(s, a) - V(s))
    value       = mean |expectile - 1{u < 0}| u^2
    critics     = mean over k and rows of (Q_k(s, a) - [r + gamma (1 - terminated) V(s')])^2              Qbar follows Q by tau
    policy      = -mean min(exp(beta u), cap) log pi(a|s)

WHO ACTS   nobody, then the policy: a Gaussian of constant deviation around the tanh of its mean (the world clips).
KEPT       one buffer that begins with the data set, uniformly; or a fixed share of either (``offline_share``).
WORTH      an upper expectile of the values of the data's actions.
MOVES      imitation of the data, weighted by the exponential of the advantage.

Codes differ in which V is in use. ``values_in_use`` before: V(s') and u are from before the step of V (CORL); after: from after it, as
in the paper's algorithm 1 and the authors' code (JAX). CORL takes the mean over critics, the authors the sum (``over_critics``). Both let
the policy's step size fall to 0 by a cosine over the offline phase, and the authors keep it constant where an online phase follows.
Locomotion is rescaled to a range of returns of 1000 in the paper (``scale_returns_to``); AntMaze has 1 taken from every reward (preset).
Checked against: CORL (``tests/vectors``: baselines-control, cases iql_step and iql_step_clipped_weights).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from rheostat.buffers.control_retainers import DataRewards, DataSet, ReplayAndData, States
from rheostat.collect.control.collectors import StepByStep
from rheostat.credit.td_annotations import BestOfData, ImplicitValues
from rheostat.learner.actor_critic import CriticStep, ExpectileStep, Weight, WeightedImitation, ensemble_q, state_value, tanh_mean_actor
from rheostat.learner.control_models import TargetNetwork, Trainable
from rheostat.learner.dial import Dial
from rheostat.learner.off_policy import AsRead, Logging, PerStep, Rhythm, UsesData, data_first
from rheostat.learner.stages import Staged
from rheostat.objectives.temporal_difference import OverCritics
from rheostat.objectives.weights import exponential_weight
from rheostat.options import option, value_or
from rheostat.parts import Batch
from rheostat.policies.control.actors import LOG_STD

ValuesInUse = Literal["before", "after"]


@dataclass(frozen=True)
class ImitationWeights:
    """How much every action of the data counts."""

    inverse_temperature: float = option(3.0, at_least=0)
    """beta, in 1 / units of value: 0 imitates the data, large values only their best actions."""
    cap: float = option(100.0, short="weight_cap", above=0)
    """Largest weight of an action of the data."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        why = "inverse_temperature 0 weighs every action alike, so leave weight_cap alone"
        return {} if self.inverse_temperature else {"cap": why}

    def __call__(self, context: Any, batch: Batch, advantage: Tensor) -> Tensor:
        """Of advantages ``[B]``."""
        return exponential_weight(advantage, self.inverse_temperature, self.cap)


@dataclass(frozen=True)
class ImplicitCritics:
    """V, Q and the target critics, and how they move."""

    expectile: float = option(0.7, above=0, below=1)
    """Of the data's values that V aims at; 0.5 is their mean, near 1 their largest."""
    values_in_use: ValuesInUse = option("before")
    """V in the critics' target and in the advantage: from before its step (CORL), or after (the authors)."""
    over: OverCritics = option("mean", short="over_critics")
    """The critics' loss is the mean over critics (CORL) or their sum (the authors)."""
    learning_rate: float | None = option(None, short="critic_learning_rate", at_least=0)
    """Adam step size of V and Q; None takes learning_rate, and 0 keeps them as they begin."""
    tau: float = option(0.005, share=True)
    """Share of the new critics in the target critics after each gradient step."""

    def models(self, hidden: tuple[int, ...], learning_rate: float) -> dict[str, Any]:
        """By name; ``learning_rate`` is that of the policy."""
        rate = value_or(self.learning_rate, learning_rate)
        return {
            "critics": Trainable(ensemble_q(hidden), rate),
            "target critics": TargetNetwork("critics", self.tau),
            "value": Trainable(state_value(hidden), rate),
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
    """Let the policy's step size fall to 0 by a cosine over the run; None does so where no online phase follows."""
    rate: float = 3e-4
    per_environment_step: float = 1.0
    """Gradient steps."""

    def __call__(self, context: Any) -> float:
        """Of the next step."""
        online = context.budget - context.offline_budget
        if not (online == 0 if self.anneal is None else self.anneal):
            return self.rate
        planned = context.offline_budget + online * self.per_environment_step
        return self.rate * (0.5 * (1 + math.cos(math.pi * min(1.0, context.updates / max(1.0, planned)))))


@dataclass(frozen=True)
class IQL:
    """The setting of the locomotion tasks (CORL standardises states, the authors do not)."""

    collect: StepByStep = StepByStep()
    replay: ReplayAndData = ReplayAndData()
    rewards: DataRewards = DataRewards()
    states: States = States(True)
    batches: Rhythm = Rhythm()
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    learning_rate: float = option(3e-4, at_least=0)
    """Adam step size of the policy."""
    schedule: Cosine = Cosine()
    hidden: tuple[int, ...] = option((256, 256), at_least=1)
    """Hidden layers of actor and critics."""
    log_std: tuple[float, float] = option(LOG_STD)
    """Limits of the policy's log standard deviation (the authors: -5 and 2)."""
    critics: ImplicitCritics = ImplicitCritics()
    weights: ImitationWeights = ImitationWeights()
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    uses_data: ClassVar[UsesData] = "first"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"antmaze": {"expectile": 0.9, "inverse_temperature": 10.0, "reward_shift": -1.0}}

    def compose(self) -> Staged:
        """The four answers, on a data set first."""
        models = {"policy": Trainable(tanh_mean_actor(self.hidden, self.log_std), self.learning_rate)}
        return data_first(
            self.collect,
            self.replay.with_discount(self.gamma),
            self.batches.draw(self.replay.share),
            self.critics.step(self.batches.size, imitation_of(self, self.weights, self.weights.cap)),
            models | self.critics.models(self.hidden, self.learning_rate),
            stores=[DataSet(), self.rewards, self.states],
            read=AsRead(),
            log=self.log,
        )


def imitation_of(method: Any, weight: Weight, cap: float) -> WeightedImitation:
    """The policy's update, with the step sizes of a method of this family."""
    rate = Cosine(method.schedule.anneal, method.learning_rate, method.batches.per_environment_step)
    return WeightedImitation(weight, cap, learning_rate=rate)
