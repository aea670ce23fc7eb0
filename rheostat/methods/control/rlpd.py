"""RLPD: SAC with prior data, learning online from the first step with half of every batch from a data set.

Paper: Ball et al. 2023, arXiv 2302.02948.

Equations (what differs from sac; K = 10 critics with layer normalisation, Z = 2 of the slow ones drawn anew for every step)
    y           = r + gamma (1 - terminated) [min_{k in Z} Qbar_k(s', a') - alpha log pi(a'|s')]
    critics     = mean over k and rows of (Q_k(s, a) - y)^2
    policy      = mean [alpha log pi(a|s) - mean_k Q_k(s, a)]
    temperature = alpha mean (entropy - target),             target = -(action dimensions) / 2

WHO ACTS   the policy, after ``start_steps`` uniform actions.
KEPT       everything, beside the data set; offline rows at even places of a batch and online ones at odd places.
WORTH      the soft target above; time limits bootstrap.
MOVES      20 steps of the critics per environment step, each followed by the slow ones, then one step of policy and temperature on the
           last batch. No steps on the data alone before.

Without --offline it is the same method on its own data. The authors leave the entropy out of the backup, have three hidden layers and, on
AntMaze, take 1 of the slow critics (presets).
Checked against: a transcription of the authors' code (``tests/vectors``: baselines-control, cases rlpd_*).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.learner.off_policy import OffPolicyConfig, UsesData
from rheostat.methods.control.sac import SAC, SACConfig
from rheostat.objectives.temporal_difference import OverCritics, least
from rheostat.trajectories import Transitions


@dataclass(frozen=True)
class RLPDConfig(SACConfig):
    """The paper's setting for locomotion."""

    critics: int = 10
    """Critics in the ensemble (K)."""
    critic_normalisation: bool = True
    """Layer normalisation in the critics, which bounds what they make of actions outside the data."""
    over_critics: OverCritics = "mean"
    """The critics' loss is the mean over critics."""
    target_critics: int = 2
    """Slow critics of which the target takes the least (Z)."""
    update_to_data: float = 20.0
    """Gradient steps of the critics per environment step."""
    policy_delay: int | None = None
    """Steps of the critics per step of policy and temperature; None takes update_to_data."""
    offline_share: float | None = 0.5
    """Share of every batch that comes from the data set; None draws from one buffer that begins with it."""
    target_entropy: float | None = None
    """Entropy that a learned alpha holds, nats; None is minus half the number of action dimensions."""


class RLPD(SAC):
    """See the module docstring."""

    Config: ClassVar[type[OffPolicyConfig]] = RLPDConfig
    config: RLPDConfig
    uses_data: ClassVar[UsesData] = "optional"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "antmaze": {"entropy_in_backup": False, "hidden": (256,) * 3, "target_critics": 1, "reward_shift": -1.0},
        "adroit": {"entropy_in_backup": False, "hidden": (256,) * 3},
    }

    @classmethod
    def derived(cls, config: OffPolicyConfig) -> dict[str, int | str]:
        """The chassis's numbers, after a look at how many critics count."""
        assert isinstance(config, RLPDConfig)
        if not 1 <= config.target_critics <= config.critics:
            raise RheostatError(
                f"target_critics is {config.target_critics}: the target takes at least 1 and at most all of the {config.critics} critics."
            )
        if config.policy_delay is not None and config.policy_delay < 1:
            raise RheostatError(f"policy_delay is {config.policy_delay}: the policy moves every so many steps, so it must be at least 1.")
        return super().derived(config) | {"critics' steps per step of the policy": cls.delay(config)}

    @staticmethod
    def delay(config: RLPDConfig) -> int:
        """Steps of the critics per step of policy and temperature."""
        return config.policy_delay or max(1, round(config.update_to_data))

    def build(self) -> None:
        """SAC's networks; the entropy that is held is half of SAC's."""
        super().build()
        if self.config.target_entropy is None:
            self.target_entropy /= 2

    def gradient_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """Critics and slow critics; after so many steps the policy and the temperature too."""
        alpha = self.temperature.value
        found = self.critic_step(rows, alpha)
        self.targets.follow(self.config.tau)
        if (self.updates + 1) % self.delay(self.config) == 0:
            found |= self.actor_step(rows, alpha)
        return found

    def bootstrap(self, observation: Tensor, action: Tensor) -> Tensor:
        """The least of a few slow critics drawn anew, ``[B]``."""
        chosen = torch.randperm(self.config.critics, generator=self.streams["updates"])[: self.config.target_critics]
        return least(self.targets.network(observation, action, subset=chosen))

    def judge(self, rows: Transitions, action: Tensor) -> Tensor:
        """The mean over all critics, ``[B]``; the gradient flows through the action alone."""
        return self.critics.network(rows.observation, action, frozen=True).mean(0)
