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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.buffers.mixing import mixed_counts
from rheostat.buffers.recent import RecentRows
from rheostat.buffers.retainers import Valid
from rheostat.collect.language.collectors import Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage, ModelScores, OldScores, OverlongPenalty
from rheostat.errors import RheostatError
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import entropy_bonus, policy_models
from rheostat.learner.learner import Composition
from rheostat.learner.models import Frozen, Lagged
from rheostat.learner.update import Logged, Update
from rheostat.objectives.kl import KLEstimator
from rheostat.objectives.kl_convex import convex_share, kl_convex
from rheostat.objectives.limits import Clip
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.ratio import LOG_CLAMP, window_centre
from rheostat.objectives.terms import TokenTerm, old_logp
from rheostat.options import option
from rheostat.parts import Aggregate, Batch, Context, Report, Tokens, Weighted
from rheostat.trajectories import Source, join_rows


@dataclass(frozen=True)
class Mixture:
    """The stale part of a batch, and until when there is one."""

    share: float = option(0.4, short="stale_share", at_least=0, below=1)
    """Share p of a batch's groups that come from the window, up to the switch."""
    window: int = option(2, at_least=1)
    """Steps N whose rollouts are remembered."""
    until: int = option(50, short="switch_after", at_least=0)
    """Step T after which every batch is fresh; 0 mixes to the end."""

    def __post_init__(self) -> None:
        if self.share and 0 < self.until < self.window:
            raise RheostatError(
                f"window is {self.window}, but the run mixes for switch_after {self.until} steps, so it never keeps that many: lower "
                "window or raise switch_after."
            )

    def mixing(self, context: Context) -> bool:
        """Whether the present batch takes groups from the window."""
        return not self.until or context.updates < self.until

    def counts(self, prompts: int) -> tuple[int, int]:
        """Fresh and stale groups of a mixed batch.

        Raises:
            RheostatError: a share or a window that cannot work.
        """
        return mixed_counts(prompts, self.share, window=self.window)


@dataclass(frozen=True)
class ConvexSchedule:
    """lambda(k), the weight of the base model in KL-Convex; steps count from 1."""

    start: int = option(50, short="convex_start", at_least=0)
    """Last step at which the base model has all the weight of the KL."""
    interval: int = option(10, short="convex_interval", at_least=1)
    """Steps between two drops of it."""
    drop: float = option(0.1, short="convex_drop", share=True)
    """Size of a drop."""
    floor: float = option(0.5, short="convex_floor", share=True)
    """Least weight of the base model."""

    @property
    def falls(self) -> bool:
        """Whether there is ever a second anchor."""
        return self.drop > 0 and self.floor < 1

    def at(self, update: int) -> float:
        """The weight in an update, which is counted from 0."""
        return convex_share(update + 1, start=self.start, interval=self.interval, drop=self.drop, floor=self.floor)


@dataclass(frozen=True)
class ReMix:
    """The paper's mixture and schedule, with a group-relative advantage."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    mixture: Mixture = Mixture()
    reset_base: bool = option(True)
    """At the switch, the current policy becomes the base model of the KL."""
    correction: Literal["mix", "behaviour", "none"] = option("mix")
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

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        # everything happens five times earlier
        "tiny": {"learning_rate": 2e-4, "switch_after": 10, "convex_start": 10, "convex_interval": 2}
    }

    def compose(self) -> Composition:
        """The four answers."""
        tokens, mixture, convex = Tokens(self.aggregate), self.mixture, self.convex
        switch = mixture.until
        models = policy_models(self.update)
        credit: list[Any] = [OldScores(when=mixture.mixing)]
        terms = [Weighted(MixSurrogate(tokens, self.clip, self.correction, self.clamp_log_ratio))]
        if self.kl_coefficient:
            models["reference"] = Frozen(refresh=(lambda updates: updates == switch > 0) if self.reset_base else None)
            credit.append(ModelScores())
            if convex.falls:
                models["previous"] = Lagged(1)
                credit.append(ModelScores("previous", "previous_logp", when=lambda context: convex.at(context.updates) < 1))
            terms.append(Weighted(KLConvex(tokens, convex, self.kl_estimator), self.kl_coefficient, ""))
        return Composition(
            collect=MixedGroups(self.groups.prompts, self.groups.size, mixture),
            retain=[self.keep, StaleGroups(mixture, self.groups.prompts)],
            credit=[*credit, self.overlong, self.advantage],
            improve=[Logged("base_share", convex), self.update.of(*terms, entropy_bonus(self.entropy_coefficient, tokens))],
            models=models,
        )


@dataclass(frozen=True)
class MixedGroups(Groups):
    """Fresh groups of a mixed batch, or of a whole one after the switch."""

    mixture: Mixture = Mixture()

    def collect(self, context: Any) -> Batch:
        prompts = self.mixture.counts(self.prompts)[0] if self.mixture.mixing(context) else self.prompts
        return Groups(prompts, self.size).collect(context)

    def describe(self) -> dict[str, int | str]:
        """For printing."""
        fresh, stale = self.mixture.counts(self.prompts)
        until = f"up to update {self.mixture.until}" if self.mixture.until else "to the end"
        return {"groups of a mixed batch": f"{fresh} fresh, {stale} stale, {until}"}

    def check_budget(self, updates: int) -> None:
        """Refuse a switch that never comes."""
        if self.mixture.until >= updates:
            raise RheostatError(
                f"switch_after is {self.mixture.until}, but the run makes {updates} updates, so the policy would never be reincarnated: "
                "lower it, raise the budget, or set it to 0 to mix to the end."
            )


class StaleGroups:
    """Whole groups of the last steps fill a batch up, until the switch."""

    keeps_history = True

    def __init__(self, mixture: Mixture, prompts: int) -> None:
        self.mixture, self.stale = mixture, mixture.counts(prompts)[1]
        self.recent = RecentRows(mixture.window)

    def retain(self, context: Context, batch: Batch) -> Batch:
        """The fresh groups, and those drawn from the window."""
        if not self.mixture.mixing(context):
            self.recent = RecentRows(self.mixture.window)
            return batch
        drawn = self.recent.draw(self.stale, context.updates, context.streams["replay"])
        self.recent.append(batch.rows.clone(recurse=False), context.updates)
        return batch if drawn is None else batch.with_rows(join_rows([batch.rows, drawn]))

    def state_dict(self) -> dict[str, Any]:
        """The window."""
        return self.recent.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved window."""
        self.recent.load_state_dict(state)


@dataclass(frozen=True)
class MixSurrogate(TokenTerm):
    """The clipped surrogate, importance-weighted to the sampler and limited around the current policy."""

    clip: Clip = Clip()
    correction: Literal["mix", "behaviour", "none"] = "mix"
    clamp_log_ratio: bool = True
    reads: ClassVar[Sequence[str]] = ("advantage",)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        rows, mask = batch.rows, self.mask(batch)
        start = old_logp(scores, rows)
        own = (rows.source == int(Source.FRESH)) | rows.sampler_logp.isnan()
        behaviour = start if self.correction == "none" else torch.where(own, start, rows.sampler_logp)
        clamp = LOG_CLAMP if self.clamp_log_ratio else None
        centre = window_centre(start, behaviour, mask, log_clamp=clamp) if self.correction == "mix" else 1.0
        found = policy_gradient(
            scores.logp,
            rows.advantage,
            denominator_logp=behaviour,
            mask=mask,
            limit=replace(self.clip, centre=centre),
            log_clamp=clamp,
            aggregate=self.tokens.aggregate.mode,
            denominator=denominator,
        )
        return found.loss, Report(means={"approx_kl": found.approx_kl, "meter/limited_share": found.limited_share}, limited=found.limited)


@dataclass(frozen=True)
class KLConvex(TokenTerm):
    """The KL to the base model and to the policy one update ago, in the proportion of a schedule."""

    schedule: ConvexSchedule = ConvexSchedule()
    estimator: KLEstimator = "k3"
    reads: ClassVar[Sequence[str]] = ("reference_logp",)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        rows, mask = batch.rows, self.mask(batch)
        share = self.schedule.at(context.updates)
        kl = kl_convex(scores.logp, rows.reference_logp, rows.previous_logp, share=share, estimator=self.estimator, mask=mask)
        value = self.reduce(kl, batch, denominator)
        return value, Report(sums={"kl_reference": value.detach()})
