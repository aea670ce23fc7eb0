"""TD3+BC: TD3 on a data set, with a squared distance that holds the policy near the data's actions.

Paper: Fujimoto and Gu 2021, arXiv 2106.06860.

Equations (the critics are those of td3)
    lambda  = alpha / mean |Q_1(s, mu(s))|,                  a constant in every step
    policy  = -lambda mean Q_1(s, mu(s)) + mean (mu(s) - a)^2

WHO ACTS   nobody; then, where ``online_steps`` follow, the policy with td3's noise.
KEPT       the data set, whose states are standardised; later the policy's own steps beside it.
WORTH, MOVES   as td3, one gradient step per step of the budget.
What differs from td3: the policy's loss, the data set, and the standardised states. The squared distance is a mean over rows and action
dimensions, as in the authors' code, and both terms are those of unit actions. Online steps are ours: the paper has none, and neither the
distance nor lambda changes when they begin.
Checked against: CORL (``tests/vectors``: baselines-control, case td3_bc_step).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rheostat.learner.off_policy import OffPolicyConfig, UsesData
from rheostat.methods.control.td3 import TD3, TD3Config
from rheostat.objectives.actor import behaviour_regularised_loss
from rheostat.trajectories import Transitions


@dataclass(frozen=True)
class TD3BCConfig(TD3Config):
    """The paper's setting."""

    normalise_states: bool = True
    """Standardise observations by the mean and deviation of the data set."""
    alpha: float = 2.5
    """Weight of the critic against imitation."""


class TD3BC(TD3):
    """See the module docstring."""

    Config: ClassVar[type[OffPolicyConfig]] = TD3BCConfig
    config: TD3BCConfig
    uses_data: ClassVar[UsesData] = "first"

    def actor_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """One step of the policy, up the critic and towards the data."""
        action = self.policy(rows.observation)
        q = self.judge(rows.observation, action)
        loss = behaviour_regularised_loss(q, action, rows.action, alpha=self.config.alpha)
        self.actor.descend(loss)
        distance = (action.detach() - rows.action).square().mean()
        return {"policy_loss": loss.detach(), "distance_to_data": distance}
