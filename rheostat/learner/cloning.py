"""Plain imitation of a data set: its best episodes, the policy, and its gradient step (:mod:`rheostat.methods.control.bc`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from rheostat.buffers.control_retainers import DataSet, LearnedRewards
from rheostat.errors import RheostatError
from rheostat.learner.actor_critic_updates import Found, deterministic_actor, tanh_mean_actor
from rheostat.learner.control_models import TrainableNetwork
from rheostat.objectives.supervised import squared_distance, weighted_likelihood
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.control.actors import LOG_STD, DeterministicActor
from rheostat.policies.control.discrete_q import DiscreteQ
from rheostat.policies.control.distributions import Categorical

Imitation = Literal["deterministic", "stochastic"]


@dataclass(frozen=True)
class BestEpisodes(DataSet):
    """The data set that is imitated."""

    best_share: float = option(1.0, above=0, at_most=1)
    """Share of the episodes that is imitated, those with the highest returns (%BC)."""

    def prepare(self, context: Any) -> None:
        """Compare the data set with the environments, and choose; rewards only rank episodes.

        Raises:
            RheostatError: as :class:`DataSet`, or steps after the data set: the policy would imitate itself.
        """
        if context.online_steps:
            raise RheostatError("bc imitates a data set and would only imitate itself in online_steps: leave them out, or use td3-bc.")
        super().prepare(context)
        context.stores["learned rewards"] = LearnedRewards(1.0, 0.0)


class ClonedPolicy(TrainableNetwork):
    """The policy: a distribution of unit actions, or of discrete actions."""

    def __init__(self, hidden: tuple[int, ...], learning_rate: float, imitation: Imitation) -> None:
        def build(context: Any) -> nn.Module:
            draw = context.streams["networks"]
            if not context.continuous:
                return DiscreteQ(context.observation_space, int(context.action_space.n), hidden=hidden, generator=draw)
            make = deterministic_actor(hidden) if imitation == "deterministic" else tanh_mean_actor(hidden, LOG_STD)
            return make(context)

        super().__init__(build, learning_rate)

    def distribution(self, seen: Tensor) -> Any:
        """The policy of unit actions ``[N, D]``, or of choices ``[N]``, for observations ``[N, ...]`` as the network reads them."""
        return Categorical(self.network(seen)) if isinstance(self.network, DiscreteQ) else self.network.distribution(seen)


@dataclass(frozen=True)
class ImitationStep:
    """Every action of the data counts as much as any other."""

    models: ClassVar[tuple[str, ...]] = ("policy",)

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step towards the data's actions (unit actions ``[B, D]``, or int64 ``[B]``); returns ``policy_loss``."""
        rows, model = batch.rows, context.models["policy"]
        if isinstance(model.network, DeterministicActor):
            loss = squared_distance(model.network(rows.observation), rows.action)
        else:
            loss = weighted_likelihood(model.distribution(rows.observation).log_prob(rows.action))
        model.step(loss)
        context.finish_update("policy")
        return {"policy_loss": loss.detach()}
