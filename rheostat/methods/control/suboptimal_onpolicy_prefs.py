"""Suboptimal on-policy preferences: on-policy sampling, sample reuse and negative gradients as three switches of one trainer.

Paper: Tajwar et al. 2024, arXiv 2404.14367, "Preference Fine-Tuning of LLMs Should Leverage Suboptimal, On-Policy Data".

Equations (S prompts, N answers each, lp their log-probabilities, r their rewards)
    best of N   -lp[argmax r], and + weight times what negative_gradient pushes down
    rwr         -mean_k exp(r_k / temperature) lp_k
    ipo         mean over all pairs of (D - target_margin)^2,     D = (lp_w - ref_w) - (lp_l - ref_l)
    dpo         mean over all pairs of -log sigmoid(beta D)
    reinforce   -mean w lp,       w the reward normalised over the run; without negative_gradient the batch's smallest w is subtracted
    ppo         sum_t max(-w rho_t, -w clip(rho_t, 1 - clip, 1 + clip)) + kl_coefficient (lp_t - ref_t)

WHO ACTS   with ``on_policy_sampling`` the present policy; without it the reference, once or anew for every batch.
KEPT       one batch, for ``reuse`` gradient steps (0: for the whole run, which is the offline setting of the paper).
WORTH      the reward, its order, or the reward normalised over the run or over a prompt's answers.
MOVES      Adam down one of the losses.

Offline is ``--no-on-policy-sampling --reuse 0``; everything between that and fresh batches is a setting. Tasks: bandit-away,
bandit-aligned, bandit-away-wide, bandit-aligned-wide, sequence-away and sequence-aligned. The three meanings of the authors' one flag beta
have three names: ``negative_weight``, ``temperature`` and ``entropy_coefficient``; their IPO's beta is ``target_margin``, and their PPO
takes the reward as it is (``--normalise none``). Their sequence code scores a token with the logits of its own position, and evaluates
contrastive runs with four samples and others with one: here likelihoods are shifted, and every run is measured alike.
Checked against: the authors' functions (``tests/vectors``), a plain implementation (``tests/plain``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rheostat.credit.score_baselines import Baseline
from rheostat.learner.dial import Dial
from rheostat.learner.learner import Composition
from rheostat.learner.preference_losses import DPO, IPO, WEIGHTED, BestOfN, Clipped, Loss, Regression, Reinforce
from rheostat.learner.preferences import Descent, Rows, Sampling, Weights, composition
from rheostat.options import option


@dataclass(frozen=True)
class SuboptimalOnPolicyPrefs:
    """The paper's on-policy IPO on the didactic bandit."""

    collect: Sampling = Sampling()
    loss: BestOfN | Regression | IPO | DPO | Reinforce | Clipped = IPO()
    """What is minimised on a batch; each has options of its own, and its own way to push answers down."""
    normalise: Literal["running", "prompt", "none"] = option("running")
    """Rewards as weights of reinforce and ppo: normalised over the run, over a prompt's answers, or not."""
    baseline: Baseline = option("none")
    """What is subtracted from them then."""
    descent: Descent = Descent()
    log: Rows = Rows()
    dial: Dial = Dial()
    """Not for this method: its own options say where data come from."""

    answers: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if isinstance(self.loss, WEIGHTED):
            return {}
        why = f"the loss {self.loss.kind} takes rewards as they are; choose reinforce or ppo, or leave it alone"
        return dict.fromkeys(("normalise", "baseline"), why)

    def compose(self) -> Composition:
        """The four answers."""
        loss: Loss = self.loss
        return composition(self.collect, loss, self.descent, self.log, Weights(self.normalise, self.baseline))
