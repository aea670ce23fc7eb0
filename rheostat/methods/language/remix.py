"""ReMix: reincarnating mix-policy proximal policy gradient.

Paper: Liang et al. 2025, Squeeze the Soaked Sponge, arXiv 2507.06892.

Equations (per token; pi_k the policy at the start of step k, beh whoever sampled the row, at most ``window`` steps ago)
    r = pi / pi_beh,   c = pi_k / pi_beh                                      (c = 1 for fresh rows)
    loss    = token mean of -min(r A, clip(r, c - eps, c + eps) A) + beta KL-Convex
    KL-Convex = lambda KL(pi || base) + (1 - lambda) KL(pi || pi_{k-1})
    lambda(k) = max(1 - 0.1 ceil(max(k - 50, 0) / 10), 0.5)
    after step T: base = pi_T, the window is emptied, every batch is fresh

WHO ACTS   the policy; up to step T only for the share 1 - ``stale_share`` of a batch, afterwards for all of it.
KEPT       up to step T, whole groups of the last ``window`` steps fill the batch up; every batch is used ``epochs`` times (the paper's
           update-to-data ratio m = 2).
WORTH      a verifier's reward, relative to the row's own group: groups are never mixed across ages.
MOVES      PPO's clip with its window around the *current* policy, and a KL to two anchors.

What differs from grpo: stale groups, the additive window around c, in which every token starts at the centre however stale it is (so at
the start of a step none is clipped, and the gradient is the importance-weighted one), the second anchor, and the policy's reincarnation
at T as its own base model. For fresh rows and one anchor it is grpo. Rows whose sampler is unknown (experts) have c = 1.

Ablations are settings: ``correction=behaviour`` centres the window on 1, which clips most stale tokens at once; ``correction=none`` takes
the current policy for the sampler; ``switch_after=0`` mixes to the end; ``reset_base=False`` keeps the first base; ``epochs=1``;
``convex_floor=1`` keeps one anchor.

Reconstruction: no training code was released and the equations are from public notes. Ours are: groups drawn without replacement, each
in the window equally likely; stale rows keep their own group's statistics; the k3 estimator (from the sampled tokens, so on stale rows it
is not unbiased); eps 0.2, beta 0.001, no entropy bonus; the optimiser's moments survive the switch; m = 2 after it too. The first batch
has no past and is smaller. The paper's PPO variant, with a critic, is not here.
Checked against: the equations, computed independently (``tests/vectors``: remix).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from rheostat.buffers.mixing import Mixture
from rheostat.buffers.retainers import StaleGroups, Valid
from rheostat.collect.language.language_collectors import Groups, MixedGroups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage, ModelScores, OldScores, OverlongPenalty
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import entropy_bonus, policy_models
from rheostat.learner.learner import Composition
from rheostat.learner.models import Frozen, Lagged
from rheostat.learner.update import Logged, Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.foreign_terms import Centre, MixSurrogate
from rheostat.objectives.kl import KLEstimator
from rheostat.objectives.kl_convex import ConvexSchedule, KLConvex
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class ReMix:
    """The paper's mixture and schedule, with a group-relative advantage."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    mixture: Mixture = Mixture()
    reset_base: bool = option(True)
    """At the switch, the current policy becomes the base model of the KL."""
    correction: Centre = option("mix")
    """Window around the current policy and ratio to the sampler; window around 1 instead; or no ratio to the sampler at all."""
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    overlong: OverlongPenalty = OverlongPenalty()
    clip: Clip = Clip(0.2, 0.2)
    clamp_log_ratio: bool = option(True)
    """Clamp log-ratios to +-20 before exponentiating."""
    aggregate: Aggregate = Aggregate("token-mean")
    kl_coefficient: float = option(0.001, at_least=0)
    """Weight beta of KL-Convex; 0 keeps no anchors."""
    kl_estimator: KLEstimator = option("k3")
    """Estimator of its KLs."""
    convex: ConvexSchedule = ConvexSchedule()
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update(epochs=2)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    fixed: ClassVar[frozenset[str]] = frozenset({"dial.replay_share", "dial.replay_age"})
    """It keeps stale groups of its own."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        # everything happens five times earlier
        "tiny": {"learning_rate": 2e-4, "switch_after": 10, "convex_start": 10, "convex_interval": 2}
    }

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        mixture, found = self.mixture, dict[str, str]()
        stale = mixture.share or self.dial.lag
        if not mixture.share:
            found["mixture.window"] = "stale_share is 0, so nothing is kept; leave it alone"
        if not stale:
            found["correction"] = "every row is fresh, so the sampler is the current policy; leave it alone"
        if not self.kl_coefficient:
            names = ("kl_estimator", "reset_base", *(f"convex.{each.name}" for each in fields(self.convex)))
            found |= dict.fromkeys(names, "kl_coefficient is 0, so there are no anchors; leave it alone")
        elif not mixture.until:
            found["reset_base"] = "switch_after is 0, so there is no switch; leave it alone"
        if mixture.until and not (mixture.share or (self.kl_coefficient and self.reset_base)):
            found["mixture.until"] = "nothing changes at the switch; leave it alone"
        return found

    def compose(self) -> Composition:
        """The four answers."""
        tokens, mixture, convex = Tokens(self.aggregate), self.mixture, self.convex
        switch = mixture.until
        models = policy_models(self.update)
        credit: list[Any] = [OldScores(when=mixture.mixing)]
        logged: list[Any] = []
        terms = [Weighted(MixSurrogate(tokens, self.clip, self.correction, self.clamp_log_ratio))]
        if self.kl_coefficient:
            models["reference"] = Frozen(refresh=(lambda updates: updates == switch > 0) if self.reset_base else None)
            credit.append(ModelScores())
            if convex.falls:
                models["previous"] = Lagged(1)
                credit.append(ModelScores("previous", "previous_logp", when=lambda context: convex.at(context.updates) < 1))
            terms.append(Weighted(KLConvex(tokens, convex, self.kl_estimator), self.kl_coefficient, ""))
            logged.append(Logged("base_share", convex))
        return Composition(
            collect=MixedGroups(self.groups.prompts, self.groups.size, mixture),
            retain=[self.keep, StaleGroups(mixture, self.groups.prompts)],
            credit=[*credit, self.overlong, self.advantage],
            improve=[*logged, self.update.of(*terms, entropy_bonus(self.entropy_coefficient, tokens))],
            models=models,
        )
