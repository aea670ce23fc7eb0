"""A network of action values: who acts by it, how exploration falls, and its gradient step (:mod:`rheostat.methods.control.dqn`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from rheostat.learner.actor_critic_updates import Found, rank
from rheostat.learner.control_models import TrainableNetwork
from rheostat.learner.own_networks import own_values_of_choices
from rheostat.objectives.schedules import PeakSchedule
from rheostat.objectives.temporal_difference import critic_loss, greedy_value
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.control.discrete_q import DiscreteQ, scores_of
from rheostat.policies.control.distributions import Categorical, epsilon_greedy


@dataclass(frozen=True)
class Exploration:
    """Uniform actions now and then."""

    start: float = option(1.0, short="exploration_start", share=True)
    """Probability epsilon of a uniform action at the first environment step."""
    end: float = option(0.05, short="exploration_end", share=True)
    """Probability epsilon after it has fallen."""
    share: float = option(0.5, short="exploration_share", share=True)
    """Share of the budget over which epsilon falls."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found: dict[str, str] = {}
        if not self.share:
            found["start"] = "exploration_share is 0, so epsilon is exploration_end from the first step; raise it, or leave it alone"
        elif self.start == self.end:
            found["share"] = "exploration_start and exploration_end are the same, so epsilon never falls; leave it alone"
        return found

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        if self.steps(context.total_steps) > method.collect.random_steps:
            return {}
        return {"start": "epsilon has fallen before start_steps uniform actions are over; raise exploration_share, or leave it alone"}

    def steps(self, total: int) -> int:
        """Environment steps over which epsilon falls, of so many."""
        return math.ceil(self.share * total)


class GreedyPolicy(TrainableNetwork):
    """A network of action values and who acts by it: the greedy policy, or with probability epsilon a uniform action."""

    def __init__(self, hidden: tuple[int, ...], learning_rate: float, exploration: Exploration) -> None:
        def build(context: Any) -> DiscreteQ:
            choices = int(context.action_space.n)
            return DiscreteQ(context.observation_space, choices, hidden=hidden, generator=context.streams["networks"])

        super().__init__(build, learning_rate, own=own_values_of_choices)
        self.exploration = exploration

    def bind(self, context: Any, name: str) -> None:
        """Build the network; epsilon follows the environment steps."""
        super().bind(context, name)
        length = self.exploration.steps(context.total_steps)
        self.schedule = PeakSchedule(self.exploration.start, self.exploration.end, decay=length, decay_form="linear")
        self.collector = context.collector

    @property
    def epsilon(self) -> float:
        """Probability of a uniform action at the present environment step."""
        return self.schedule.at(self.collector.steps)

    def distribution(self, seen: Tensor) -> Categorical:
        """The greedy policy."""
        return epsilon_greedy(self.network(seen), 0.0)

    def exploring(self, seen: Tensor) -> Categorical:
        """The greedy policy, or a uniform action."""
        return epsilon_greedy(self.network(seen), self.epsilon)

    def value(self, seen: Tensor) -> Tensor:
        """The largest action value, ``[N]``."""
        return greedy_value(self.network(seen))


@dataclass(frozen=True)
class ActionValueStep:
    """The taken action's value towards the column ``target``."""

    huber: float | None = 1.0
    models: ClassVar[tuple[str, ...]] = ("policy",)
    reads: ClassVar[tuple[str, ...]] = ("target",)

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step on rows ``[B]``: the value of each taken action (int64 ``[B]``) towards the column ``target`` ``[B]``.

        Returns:
            ``critic_loss``, the means ``q`` (from before the step) and ``target``, and epsilon as ``exploration``.

        Raises:
            NonFinite: an error is not finite where the replay ranks rows by it.
        """
        rows, model, target = batch.rows, context.models["policy"], batch.columns["target"]
        q = scores_of(model.network(rows.observation), rows.action).unsqueeze(0)
        loss = critic_loss(q, target, huber=self.huber, weight=rows.weight)
        model.step(loss)
        rank(context, rows, q, target)
        context.finish_update("policy")
        return {"critic_loss": loss.detach(), "q": q.detach().mean(), "target": target.mean(), "exploration": model.epsilon}
