"""Lp-Reg: rare tokens of wrong answers are protected where they are no noise.

Paper: Huang et al. 2025, "Low-probability Tokens Sustain Exploration in Reinforcement Learning with Verifiable Reward", arXiv 2510.03222.

Equations (p = pi_old of a step; kappa, rho, beta below)
    proxy   = p where p >= kappa max p, else 0, normalised
    rare    = the least likely share rho of the tokens with A < 0 in a gradient step
    L_t     = max(-r A, -clip(r, 1 - c_low, 1 + c_high) A)                                  r = pi / pi_old
    L_t     = -r A + beta k3,   k3 = min(exp(d) - d - 1, 10),   d = log proxy - log pi       where rare, and pi < proxy
    loss    = mean of L over tokens

WHO ACTS   the policy samples ``group_size`` completions for each of ``prompts_per_batch`` prompts.
KEPT       the fresh batch, for one gradient step (``off-policy``: eight).
WORTH      a verifier's reward, relative to the group.
MOVES      a surrogate whose clip hardly ever binds (ratios up to 10), and a pull of rare tokens to the proxy.

What differs from grpo: the pull, the wide clip, the mean over tokens, no KL to a reference. The pull's derivative is 1 - proxy / pi: on the
first gradient step it is beta (1 / kept mass - 1), a few per cent of an advantage, and deleted tokens get none. With ``pull 0``, or on the
first step with ``threshold 0``, it is grpo with these settings.

What the released code does differently: its option ``logp_neg_k_percent`` is a share, not per cent (``rare_share``); it counts the rare
tokens of each micro-batch, so that its result depends on how a batch is cut (``selection micro-batch``); a single rare token is left alone
(here, too). It has the mirror image for right answers, off in all scripts, and a proxy of the present policy: neither is here.
Checked against: the authors' code (``tests/vectors``: lp-reg).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage
from rheostat.credit.proxy_scores import ProxyScores
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, group_policy_gradient
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.low_probability import ProtectedGradient, Selection
from rheostat.objectives.terms import PolicyGradient
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class LpReg:
    """The 14B setting, with batch sizes for one machine."""

    groups: Groups = Groups(16, 8)
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    proxy: ProxyScores = ProxyScores()
    clip: Clip = Clip(1.0, 9.0)
    rare_share: float = option(0.01, share=True)
    """Share rho of the tokens of wrong answers that may be protected, the least likely ones (0.005 for Qwen2.5-32B)."""
    pull: float = option(1.0, at_least=0)
    """Weight beta of the pull to the proxy; 0 is grpo with these settings."""
    selection: Selection = option("step")
    """Whose share: of a gradient step, or of each micro-batch (as released, where the result depends on how a batch is cut)."""
    aggregate: Aggregate = Aggregate("token-mean")
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "32b": {"rare_share": 0.005},
        "off-policy": {"minibatches": 8},
        "tiny": {"learning_rate": 2e-4, "rare_share": 0.05},
    }

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found = dict[str, str]()
        if not self.pull:
            names = ("rare_share", "selection", "proxy.threshold", "proxy.form", "proxy.delete")
            return dict.fromkeys(names, "pull is 0, so no token is protected; leave it alone")
        if not self.proxy.threshold:
            found = dict.fromkeys(("proxy.form", "proxy.delete"), "threshold is 0, so no token is deleted; leave it alone")
        if self.selection == "micro-batch" and not self.update.micro_batch_rows:
            found["selection"] = "micro_batch_rows is 0, so a gradient step is one micro-batch; set it, or leave this alone"
        return found

    def compose(self) -> Composition:
        """The four answers."""
        tokens = Tokens(self.aggregate)
        if not self.pull:
            return group_policy_gradient(self, Weighted(PolicyGradient(tokens, self.clip, clamp_log_ratio=False)))
        surrogate = ProtectedGradient(tokens, self.clip, share=self.rare_share, pull=self.pull, selection=self.selection)
        found = group_policy_gradient(self, Weighted(surrogate))
        return replace(found, credit=[*found.credit, self.proxy])
