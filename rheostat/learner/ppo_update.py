"""PPO's update for networks that something else has trained before: policy and critic apart, each with an optimiser of its own.

``rheostat.methods.control.ppo`` moves both together from nothing and normalises by running statistics; here observations come as the
networks read them, by statistics that no longer change. Not a method itself; Uni-O4 goes online with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rheostat.credit.returns import gae
from rheostat.masking import standardise
from rheostat.objectives.limits import Clip
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.value import value_loss
from rheostat.policies.control.critics import StateValue
from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.control.ensembles import GaussianMembers, TrainedMembers
from rheostat.policies.parameters import Trained
from rheostat.trajectories import Trajectories, Transitions

ADVANTAGE_EPSILON = 1e-5
ADAM_EPSILON = 1e-5


class ClippedPhase:
    """One policy and one V.

    Args:
        policy: an ensemble of one.
        values: V.
        learning_rates: Adam step sizes of policy and V at the start; both fall by the share that :meth:`learn` is told is left.
        clip: range of the ratio, and of V around its value before the update.
        epochs, minibatch: passes over a batch, and steps of the world per gradient step.
        entropy_coefficient: weight of the entropy bonus.
        gamma, lam: discount and GAE lambda.
        max_grad_norm: limit of the gradient's norm, of each.
    """

    def __init__(
        self,
        policy: GaussianMembers,
        values: StateValue,
        *,
        learning_rates: tuple[float, float],
        clip: float,
        epochs: int,
        minibatch: int,
        entropy_coefficient: float,
        gamma: float,
        lam: float,
        max_grad_norm: float,
    ) -> None:
        self.actor = TrainedMembers(policy, learning_rates[0], eps=ADAM_EPSILON)
        self.values = Trained(values, learning_rates[1], eps=ADAM_EPSILON)
        self.learning_rates, self.clip, self.epochs, self.minibatch = learning_rates, clip, epochs, minibatch
        self.entropy_coefficient, self.gamma, self.lam, self.max_grad_norm = entropy_coefficient, gamma, lam, max_grad_norm

    def distribution(self, observation: Tensor) -> Gaussian:
        """The policy of unit actions for observations ``[N, n]``."""
        alone = self.actor.network.distribution(observation)
        return Gaussian(alone.mean[0], alone.log_std[0])

    @torch.no_grad()
    def credit(self, batch: Trajectories) -> Trajectories:
        """Fill in log-probabilities and values before the update, advantages and targets of V; ``[E, T]``, unit actions."""
        seen, shape = batch.observation.flatten(0, 1), batch.shape
        batch.learner_logp = self.distribution(seen).log_prob(batch.action.flatten(0, 1)).view(shape)
        batch.value = self.values.network(seen).view(shape)
        batch.next_value = self.values.network(batch.next_observation.flatten(0, 1)).view(shape)
        batch.advantage, batch.value_target = gae(
            batch.reward,
            batch.value,
            batch.next_value,
            batch.terminated,
            batch.truncated,
            gamma=self.gamma,
            lam=self.lam,
            mask=batch.mask,
        )
        return batch

    def learn(self, rows: Transitions, left: float, generator: torch.Generator) -> Iterator[dict[str, Tensor | float]]:
        """Passes over the rows in random order; yields the numbers of every gradient step.

        Args:
            rows: of :meth:`credit`.
            left: share of the step sizes in this update.
            generator: of the order.
        """
        self.actor.learning_rate, self.values.learning_rate = (left * rate for rate in self.learning_rates)
        advantage = standardise(rows.advantage, eps=ADVANTAGE_EPSILON)  # over the whole batch
        for _ in range(self.epochs):
            for index in torch.randperm(len(rows), generator=generator).split(self.minibatch):
                yield self.step(rows[index], advantage[index])

    def step(self, rows: Transitions, advantage: Tensor) -> dict[str, Tensor | float]:
        """One gradient step of the policy and one of V, on a minibatch."""
        policy, limit = self.distribution(rows.observation), Clip(self.clip, self.clip)
        surrogate = policy_gradient(policy.log_prob(rows.action), advantage, denominator_logp=rows.learner_logp, limit=limit)
        entropy = policy.entropy().mean()
        norm = self.actor.descend(surrogate.loss - self.entropy_coefficient * entropy, max_grad_norm=self.max_grad_norm)
        value = self.values.network(rows.observation)
        error = value_loss(value, rows.value_target, old_value=rows.value, clip=self.clip, scale=1.0)
        self.values.descend(error, max_grad_norm=self.max_grad_norm)
        return {
            "policy_loss": surrogate.loss.detach(),
            "value_loss": error.detach(),
            "entropy": entropy.detach(),
            "approx_kl": surrogate.approx_kl,
            "meter/limited_share": surrogate.limited_share,
            "meter/gradient_norm": norm,
        }

    def state_dict(self) -> dict[str, Any]:
        """Networks and optimisers."""
        return {"actor": self.actor.state_dict(), "values": self.values.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.actor.load_state_dict(state["actor"])
        self.values.load_state_dict(state["values"])
