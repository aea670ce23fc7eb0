"""TD3+BC: TD3 on a data set, with a squared distance that holds the policy near the data's actions.

Paper: Fujimoto and Gu 2021, arXiv 2106.06860.

Equations (the critics are those of td3)
    lambda  = alpha / mean |Q_1(s, mu(s))|,                  a constant in every step
    policy  = -lambda mean Q_1(s, mu(s)) + mean (mu(s) - a)^2

WHO ACTS   no one; then, where ``online_steps`` follow, the policy with td3's noise.
KEPT       the data set, whose states are standardised; later the policy's own steps beside it.
WORTH, MOVES   as td3, one gradient step per step of the budget.
What differs from td3: the policy's loss, the data set, and the standardised states. The squared distance is a mean over rows and action
dimensions, as in the authors' code, and both terms are those of unit actions. Online steps are ours: the paper has none, and neither the
distance nor lambda changes when they begin.
Checked against: CORL (``tests/vectors``: baselines-control, case td3_bc_step).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.control_retainers import DataRewards, DataSet, ReplayAndData, States
from rheostat.collect.control.control_collectors import StepByStep
from rheostat.learner.dial import Dial
from rheostat.learner.off_policy import AsRead, Logging, Rhythm, UsesData, data_first
from rheostat.learner.stages import Staged
from rheostat.learner.twin_critics import TwinCritics
from rheostat.options import option


@dataclass(frozen=True)
class TD3BC:
    """The paper's setting."""

    collect: StepByStep = StepByStep()
    replay: ReplayAndData = ReplayAndData()
    rewards: DataRewards = DataRewards()
    states: States = States(True)
    batches: Rhythm = Rhythm()
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    networks: TwinCritics = TwinCritics()
    alpha: float | None = option(2.5)
    """Weight of the critic against imitation; None imitates nothing: TD3 on a data set."""
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    uses_data: ClassVar[UsesData] = "first"
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def compose(self) -> Staged:
        """TD3's answers on a data set first; the policy stays near it."""
        return data_first(
            self.collect,
            self.replay.with_discount(self.gamma),
            self.batches.draw(self.replay.share),
            self.networks.step(self.batches.size, self.alpha),
            self.networks.models(),
            stores=[DataSet(), self.rewards, self.states],
            read=AsRead(),
            log=self.log,
        )
