"""Online and offline alignment with one loss: pairs from a data set, or pairs of the present policy that a proxy has labelled.

Paper: Tang et al. 2024, arXiv 2405.08448, "Understanding the performance gap between online and offline alignment algorithms".

Equations (D the difference of summed log-ratios of the preferred and the other answer)
    ipo-scaled  mean (beta D - 1/2)^2,      least at D = 1 / (2 beta)
    dpo         mean -log sigmoid(beta D)
    best of 2   -mean lp_w, the loss best-of-n with two answers

WHO ACTS   with ``on_policy_sampling`` the present policy, two answers to each of new prompts; without it nobody.
KEPT       online the present batch alone; offline the data set, in passes of their own order.
WORTH      which answer the proxy prefers, whichever stands first; offline the gold labels, on which the proxy was trained. Ties are left
           out of pairs.
MOVES      one Adam step per batch: no clip and no KL term, the target margin regularises.

The world is the task ``preference-game``: an online run has no gold rewards, its proxy knows what the offline data say. Measurements are
by the gold reward: wins, KL both ways, accuracy on the data and on own answers, log-ratios of winners. No code was released; equation (1)
of the paper prints the target so that beta seems to multiply, its appendix B and the formula of the optimum fix the reading taken here.
Sizes and world are this library's.
Checked against: independent numpy (``tests/vectors``), a plain implementation (``tests/plain``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.learner.dial import Dial
from rheostat.learner.learner import Composition
from rheostat.learner.preference_losses import DPO, BestOfN, ScaledIPO
from rheostat.learner.preferences import Descent, Rows, Sampling, composition


@dataclass(frozen=True)
class OnlineOfflineGap:
    """Online IPO."""

    collect: Sampling = Sampling(prompts=32, samples=2, reuse=1)
    loss: ScaledIPO | DPO | BestOfN = ScaledIPO(threshold=1e-6)
    """What is minimised on a batch of pairs."""
    descent: Descent = Descent(learning_rate=3e-4)
    log: Rows = Rows()
    dial: Dial = Dial()
    """Not for this method: its own options say where data come from."""

    answers: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def compose(self) -> Composition:
        """The four answers."""
        return composition(self.collect, self.loss, self.descent, self.log)
