"""Terms: the summands of objectives over tokens, as parts. The other modules of this package hold their mathematics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Required, TypedDict

from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import aggregate, masked_mean, select
from rheostat.objectives.clipping import Clip, ClipRule, DetachedClip, LogClip, NoClip
from rheostat.objectives.covariance_clip import CHOSEN, ClipCov, KLCov
from rheostat.objectives.kl import KLEstimator, kl_estimate
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient
from rheostat.objectives.ratio import LOG_CLAMP, RatioKind
from rheostat.objectives.score_centring import centring
from rheostat.objectives.searched_bounds import SearchedBounds
from rheostat.objectives.searched_clip import SearchedClip, behaviour_logp, search_metrics
from rheostat.objectives.supervised import weighted_likelihood
from rheostat.objectives.value import value_loss
from rheostat.objectives.weights import ExpertWeight, Statistic, expert_weight, importance_weight, rejection_mask
from rheostat.options import option
from rheostat.parts import BEGUN, Batch, Context, Report, Tokens
from rheostat.trajectories import Trajectories

AnyClip = Clip | SearchedClip | ClipCov | KLCov | DetachedClip | LogClip | NoClip
"""PPO's clip; BAPO's searched one, on the ratio to the sampler; Clip-Cov and KL-Cov, which hold tokens of large covariance back; CISPO's
clipped constant weight; GMPO's clip in log space; none."""
StepClip = SearchedClip | ClipCov | KLCov
"""Clips that look at all tokens of a gradient step first."""


@dataclass(frozen=True)
class TokenTerm:
    """Base class of terms over tokens: the choice of their tokens, and the aggregation to one number."""

    tokens: Tokens = Tokens()
    reads: ClassVar[Sequence[str]] = ()

    def mask(self, batch: Batch) -> Tensor:
        """``[B, T]`` bool: the tokens of this term."""
        return self.tokens.mask(batch.rows)

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """The denominator of its sum, over a whole gradient step."""
        return self.tokens.denominator(batch.rows, context.longest)

    def reduce(self, values: Tensor, batch: Batch, denominator: Tensor) -> Tensor:
        """Values ``[B, T]`` of the term's tokens as one number."""
        return aggregate(values, self.mask(batch), self.tokens.aggregate.mode, denominator=denominator)


def old_logp(scores: Any, rows: Trajectories) -> Tensor:
    """Log-probabilities ``[B, T]`` at the start of the update, a constant: as stored, or the present ones in the only step of an update."""
    return scores.logp.detach() if rows.learner_logp is None else rows.learner_logp


@dataclass(frozen=True)
class Rejection:
    """Which tokens or completions are too far from their sampler to learn from; see :func:`~rheostat.objectives.weights.rejection_mask`.

    Rejected tokens leave the whole gradient step of the policy: the loss, its regularisers, a critic on tokens and all denominators.
    """

    reach: Literal["none", "token", "sum", "mean", "max"] = option("none", short="rejection")
    """What is rejected: single tokens, whole completions by the sum, mean or maximum over their tokens, or nothing."""
    statistic: Statistic = option("k3", short="rejection_statistic")
    """What is measured of a token, as an estimate of KL(sampler, learner): k1, k2 or k3. k1 is the log-ratio of sampler to learner."""
    low: float | None = option(None, short="rejection_low", at_most=0)
    """Smallest value of k1 that is accepted, in nats; None for no bound."""
    high: float | None = option(None, short="rejection_high", at_least=0)
    """Largest value that is accepted, in nats; None for no bound."""

    def __post_init__(self) -> None:
        if self.on and self.low is None and self.high is None:
            raise RheostatError(f"rejection {self.reach!r} rejects what is outside of its bounds, and there are none: set rejection_high.")

    @property
    def on(self) -> bool:
        """Whether anything is rejected."""
        return self.reach != "none"

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if not self.on:
            return dict.fromkeys(("statistic", "low", "high"), "nothing is rejected, so choose a rejection (token, sum, mean or max) too")
        return {} if self.statistic == "k1" else {"low": f"{self.statistic} is never negative; only k1 has a lower bound"}

    def mask(self, rows: Trajectories, mask: Tensor) -> Tensor:
        """The tokens ``[B, T]`` of a mask that are accepted."""
        if self.reach == "none":
            return mask
        return rejection_mask(
            rows.learner_logp, rows.sampler_logp, mask, statistic=self.statistic, reach=self.reach, low=self.low, high=self.high
        )


@dataclass(frozen=True)
class SamplerCorrection:
    """Truncated importance sampling between the sampler and the learner at the start of the update, for rows of tokens.

    :class:`~rheostat.objectives.control_terms.SamplerWeight` is the same for single steps of control, which have no whole sequence.
    """

    level: Literal["none", "token", "sequence"] = option("none", short="sampler_correction")
    """A weight per token, one per completion, or none."""
    cap: float = option(2.0, short="sampler_cap", above=0)
    """Cap of that weight."""
    rejection: Rejection = Rejection()
    centring: int = option(0, short="score_centring", at_least=0)
    """Score centring over so many of the sampler's likeliest tokens per step (128 in the paper), all others as one; 0 is off."""

    def __post_init__(self) -> None:
        if self.level == "none" and self.cap != 2.0:
            raise RheostatError("sampler_cap caps the weights of a sampler correction: choose sampler_correction token or sequence too.")

    @property
    def on(self) -> bool:
        """Whether anything is weighted or rejected."""
        return self.level != "none" or self.rejection.on

    def weight(self, rows: Trajectories, mask: Tensor) -> Tensor | None:
        """Capped weights ``[B, T]`` of the tokens of a mask; None without a correction."""
        if self.level == "none":
            return None
        return importance_weight(rows.learner_logp, rows.sampler_logp, mask=mask, level=self.level, cap=self.cap)


class Kernel(TypedDict, total=False):
    """Arguments of :func:`~rheostat.objectives.policy_gradient.policy_gradient` that differ between surrogates."""

    denominator_logp: Required[Tensor | None]
    clip: Required[ClipRule]
    ratio: RatioKind
    log_clamp: tuple[float, float] | None
    weight: Tensor | None


@dataclass(frozen=True)
class Surrogate(TokenTerm, ABC):
    """``- weight * clip(ratio, advantage)`` on tokens; subclasses define the ratio's denominator and its clip rule."""

    reads: ClassVar[Sequence[str]] = ("advantage",)

    @abstractmethod
    def kernel(self, scores: Any, batch: Batch) -> Kernel:
        """The denominator of the ratio, its clip rule, and other differences from the kernel's defaults."""

    def report_of(self, found: PolicyLoss, scores: Any, batch: Batch) -> Report:
        """Metrics of the loss."""
        return Report(means={"approx_kl": found.approx_kl, "meter/clip_fraction": found.clip_fraction}, clipped=found.clipped)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        found = policy_gradient(
            scores.logp,
            batch.rows.advantage,
            mask=self.mask(batch),
            aggregate=self.tokens.aggregate.mode,
            denominator=denominator,
            **self.kernel(scores, batch),
        )
        return found.loss, self.report_of(found, scores, batch)


@dataclass(frozen=True)
class PolicyGradient(Surrogate):
    """The surrogate of tokens that the policy sampled: its ratio is to the policy when this update began."""

    clip: AnyClip = Clip()
    ratio: RatioKind = "token"
    clamp_log_ratio: bool = True
    """Clamp token log-ratios to +-20 before exponentiating, as verl does."""
    correction: SamplerCorrection = SamplerCorrection()

    def __post_init__(self) -> None:
        if isinstance(self.clip, SearchedClip):
            if self.ratio != "token":
                raise RheostatError(f"The searched clip cannot use ratio {self.ratio!r}: it searches the bounds of token ratios.")
            if self.correction.level != "none":
                raise RheostatError(
                    f"The searched clip cannot use sampler_correction {self.correction.level!r}: the ratio is to the sampler already."
                )
        if isinstance(self.clip, ClipCov | KLCov) and self.ratio != "token":
            raise RheostatError(f"The clip {self.clip.kind!r} cannot use ratio {self.ratio!r}: it holds single tokens back.")
        if self.correction.centring:
            self._check_centring()

    def _check_centring(self) -> None:
        """Score centring asks what the loss would do to another token, so the loss of a token must be its own."""
        why = "score_centring needs a loss of every token for itself: it cannot use "
        if self.ratio != "token":
            raise RheostatError(f"{why}ratio {self.ratio!r}.")
        if self.correction.level == "sequence":
            raise RheostatError(f"{why}sampler_correction 'sequence'.")
        if self.rejects:
            raise RheostatError(f"{why}rejection {self.correction.rejection.reach!r}.")
        if self.needs_whole_step:
            raise RheostatError(f"{why}clip {self.clip.kind!r}, which looks at all tokens of a gradient step.")

    @property
    def needs_old_logp(self) -> bool:
        """Whether one gradient step per batch needs the log-probabilities at the start of the update, too."""
        return self.correction.on

    @property
    def rejects(self) -> bool:
        """Whether it leaves tokens out because of who sampled them."""
        return self.correction.rejection.on

    def accepted(self, batch: Batch) -> Tensor:
        """``[B, T]`` bool: the tokens of the term that are not rejected."""
        return self.correction.rejection.mask(batch.rows, self.mask(batch))

    @property
    def head_tokens(self) -> int:
        """How many of the sampler's likeliest tokens it must know."""
        return self.correction.centring

    @property
    def needs_whole_step(self) -> bool:
        """Whether the term must see all rows of a gradient step before its micro-batches."""
        return isinstance(self.clip, StepClip)

    def begin(self, context: Context, logp: Tensor, batch: Batch) -> Batch:
        """All rows of a gradient step with what its clip finds out from their present log-probabilities ``[B, T]``."""
        assert isinstance(self.clip, StepClip)
        return self.clip.begin(context, logp.detach(), batch, self.mask(batch))

    def bounds(self, batch: Batch) -> SearchedBounds:
        """The result of :meth:`begin` for the gradient step of these rows."""
        found = batch.facts.get("bounds")
        assert isinstance(found, SearchedBounds)
        return found

    def kernel(self, scores: Any, batch: Batch) -> Kernel:
        """The clip, with bounds that were searched for where it has none, and the weights of the sampler correction."""
        rows = batch.rows
        clip: ClipRule = self.clip.rule(batch) if isinstance(self.clip, StepClip) else self.clip
        searched = isinstance(self.clip, SearchedClip)
        denominator_logp = behaviour_logp(scores.logp, rows) if searched else old_logp(scores, rows)
        clamped = self.clamp_log_ratio and self.ratio == "token" and not isinstance(clip, LogClip)
        return {
            "denominator_logp": denominator_logp,
            "clip": clip,
            "ratio": self.ratio,
            "log_clamp": LOG_CLAMP if clamped else None,
            "weight": self.correction.weight(rows, self.mask(batch)),
        }

    def report_of(self, found: PolicyLoss, scores: Any, batch: Batch) -> Report:
        """Metrics of the loss and of the search."""
        report = super().report_of(found, scores, batch)
        if isinstance(self.clip, SearchedClip):
            report.means |= search_metrics(self.bounds(batch), found, scores.logp, scores.entropy, batch.rows, self.mask(batch))
        if isinstance(self.clip, ClipCov | KLCov):
            report.means["meter/held_back_share"] = masked_mean(batch.columns[CHOSEN].float(), self.mask(batch))
        return report

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        if self.needs_whole_step and not batch.facts.get(BEGUN):  # the batch is the whole step
            batch = self.begin(context, scores.logp, batch)
        loss, report = super().__call__(scores, batch, denominator, context)
        if not self.correction.centring:
            return loss, report
        mean, distance = self.centring(scores, batch)
        report.means["meter/total_variation"] = masked_mean(distance, self.mask(batch))
        return loss - self.reduce(mean, batch, denominator), report

    def centring(self, scores: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is subtracted from the loss of every token, and the distance of learner and sampler, ``[B, T]`` each."""
        rows = batch.rows
        mask = self.mask(batch) & ~rows.sampler_head[..., 0].isnan()
        kernel = self.kernel(scores, batch)
        return centring(
            scores.head,
            rows.sampler_head,
            rows.advantage,
            mask=mask,
            old_head=rows.learner_head,
            clip=kernel["clip"],
            log_clamp=kernel["log_clamp"],
            cap=None if self.correction.level == "none" else self.correction.cap,
        )

    def summary(self, batch: Batch) -> dict[str, float]:
        """Metrics of a whole update."""
        mask = self.mask(batch)
        weight = self.correction.weight(batch.rows, mask)
        return {} if weight is None else {"meter/capped_share": (weight[mask] >= self.correction.cap).float().mean().item()}


@dataclass(frozen=True)
class OneStepLikelihood(PolicyGradient):
    """``-A log p``, for a single gradient step: a second one would be off-policy without a correction."""

    def check(self, composition: Any) -> None:
        """Refuse a second gradient step on the same data."""
        if composition.gradient_steps > 1:
            raise RheostatError("REINFORCE takes one gradient step per batch: use epochs 1 and minibatches 1, or grpo for several.")


@dataclass(frozen=True)
class ReferenceKL(TokenTerm):
    """The KL to a frozen model, whose log-probabilities are in ``reference_logp``."""

    estimator: KLEstimator = "k3"
    reads: ClassVar[Sequence[str]] = ("reference_logp",)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        mask = self.mask(batch)
        kl = self.reduce(kl_estimate(scores.logp, batch.rows.reference_logp, self.estimator, mask=mask), batch, denominator)
        return kl, Report(sums={"kl_reference": kl.detach()})


@dataclass(frozen=True)
class SamplerKL(TokenTerm):
    """The forward KL to the sampler, ``log p_sampler - log p`` on its own samples: its gradient is maximum likelihood's."""

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        rows = batch.rows
        known = select(rows.sampler_logp, self.mask(batch))
        return self.reduce(known - scores.logp, batch, denominator), Report()


@dataclass(frozen=True)
class Entropy(TokenTerm):
    """The entropy of the distribution the tokens were drawn from; a bonus has a negative coefficient."""

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        return self.reduce(scores.entropy, batch, denominator), Report()


@dataclass(frozen=True)
class Likelihood(TokenTerm):
    """``-w(p) log p``: imitation of tokens, each with the same weight or one of its probability."""

    weight: ExpertWeight = "none"
    ceiling: float | None = None
    """Tokens more likely than this give no gradient."""

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        loss = weighted_likelihood(
            scores.logp,
            mask=self.mask(batch),
            weight=None if self.weight == "none" else expert_weight(scores.logp, self.weight),
            ceiling=self.ceiling,
            aggregate=self.tokens.aggregate.mode,
            denominator=denominator,
        )
        return loss, Report()


@dataclass(frozen=True)
class TokenValue(TokenTerm):
    """Regression of a critic on tokens, clipped around its value at the start of the update."""

    clip: float | None = None
    reads: ClassVar[Sequence[str]] = ("value_target", "value")
    needs_value_head: ClassVar[bool] = True

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        rows = batch.rows
        loss = value_loss(
            scores.value,
            rows.value_target,
            old_value=rows.value,
            clip=self.clip,
            mask=self.mask(batch),
            aggregate=self.tokens.aggregate.mode,
            denominator=denominator,
        )
        return loss, Report()
