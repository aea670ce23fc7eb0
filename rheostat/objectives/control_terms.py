"""Objectives of a minibatch of control, as parts: PPO's clipped surrogate and A2C's plain one, each with its derivatives by hand.

The losses are those of :mod:`~rheostat.objectives.policy_gradient` and :mod:`~rheostat.objectives.value`, the derivatives those of
:mod:`~rheostat.objectives.derivatives`; nothing is defined here a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.clipping import Clip, ClipRule, DetachedClip, NoClip
from rheostat.objectives.derivatives import policy_dloss_dlogp, value_dloss_dvalue
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient
from rheostat.objectives.value import value_loss
from rheostat.objectives.weights import importance_weight
from rheostat.options import option
from rheostat.trajectories import Transitions


class MinibatchTargets(NamedTuple):
    """The inputs of the losses, all ``[N]`` and constant."""

    old_logp: Tensor
    """The ratio's denominator: the log-probability under the policy when this update began (or under the sampler)."""
    advantage: Tensor
    value_target: Tensor
    """Target of the critic's regression."""
    old_value: Tensor
    """The critic's value when this update began."""


@dataclass(frozen=True)
class SamplerWeight:
    """Truncated importance sampling between the sampler and the policy when the update began, for single steps.

    :class:`~rheostat.objectives.terms.SamplerCorrection` is the same for rows of tokens, where a weight may also be of a whole completion.
    """

    correction: Literal["none", "token"] = option("none", short="sampler_correction")
    """Truncated importance sampling between the sampler and the policy when this update began."""
    cap: float = option(2.0, short="sampler_cap", above=0)
    """Cap of that weight."""

    def __post_init__(self) -> None:
        if not self.on and self.cap != 2.0:
            raise RheostatError("sampler_cap caps the weights of a sampler correction: choose sampler_correction token too.")

    @property
    def on(self) -> bool:
        """Whether anything is corrected."""
        return self.correction != "none"

    def weight(self, rows: Transitions) -> Tensor:
        """Capped weights, ``[N]``."""
        return importance_weight(rows.learner_logp, rows.sampler_logp, cap=self.cap)


@dataclass(frozen=True)
class ClippedSurrogate:
    """PPO's objective: the clipped ratio, and the critic's error, whose change can be clipped to the same range."""

    epsilon: float = option(0.2, short="clip", at_least=0)
    """Clip range eps of the ratio."""
    clip_kind: Literal["clip", "detached", "none"] = option("clip")
    """PPO's clip; CISPO's clipped constant weight; nothing."""
    value: bool = option(False, short="clip_value")
    """Clip the critic's change to the same range (detail 9): off, which ended higher on five of six tasks here."""
    ratio_to: Literal["start", "sampler"] = option("start")
    """The denominator of the ratio: the policy when this update began, or the true sampler (importance sampling)."""
    value_scale: float = 0.5
    """Factor of the critic's squared error."""
    pessimistic: bool = True
    """Where the value is clipped, take the larger of both errors; False takes that of the clipped value."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that have no effect, and why."""
        if self.clip_kind == "none" and not self.value:
            return {"epsilon": "clip is the range of clip_kind and of clip_value, and both are off, so leave clip alone"}
        return {}

    def denominator(self, rows: Transitions) -> Tensor:
        """Log-probabilities of the ratio's denominator, ``[N]``."""
        return rows.sampler_logp if self.ratio_to == "sampler" else rows.learner_logp

    @property
    def clip_rule(self) -> ClipRule:
        """The clip rule of the ratio."""
        if self.clip_kind == "clip":
            return Clip(self.epsilon, self.epsilon)
        return DetachedClip(None, self.epsilon) if self.clip_kind == "detached" else NoClip()

    @property
    def value_clip(self) -> float | None:
        """The clip range of the value."""
        return self.epsilon if self.value else None

    def policy_loss(self, log_prob: Tensor, targets: MinibatchTargets) -> PolicyLoss:
        """Loss of log-probabilities ``[N]``."""
        return policy_gradient(log_prob, targets.advantage, denominator_logp=targets.old_logp, clip=self.clip_rule)

    def value_loss(self, value: Tensor, targets: MinibatchTargets) -> Tensor:
        """Loss of values ``[N]``, a scalar."""
        return value_loss(value, targets.value_target, **self._critic(targets))

    def derivatives(self, log_prob: Tensor, value: Tensor, targets: MinibatchTargets) -> tuple[Tensor, Tensor]:
        """Derivatives of both losses with respect to every log-probability and every value, ``[N]`` each."""
        policy = policy_dloss_dlogp(log_prob, targets.advantage, denominator_logp=targets.old_logp, clip=self.clip_rule)
        return policy, value_dloss_dvalue(value, targets.value_target, **self._critic(targets))

    def _critic(self, targets: MinibatchTargets) -> dict[str, Any]:
        """How the critic's error is clipped and scaled."""
        return {"old_value": targets.old_value, "clip": self.value_clip, "pessimistic": self.pessimistic, "scale": self.value_scale}


@dataclass(frozen=True)
class PlainSurrogate:
    """A2C's objective: the log-probability itself is its own denominator, so the ratio is 1; the critic's whole squared error."""

    def denominator(self, rows: Transitions) -> Tensor:
        """None is used; those of the start of the update, ``[N]``."""
        return rows.learner_logp

    def policy_loss(self, log_prob: Tensor, targets: MinibatchTargets) -> PolicyLoss:
        """Loss of log-probabilities ``[N]``."""
        return policy_gradient(log_prob, targets.advantage, denominator_logp=None, clip=DetachedClip())

    def value_loss(self, value: Tensor, targets: MinibatchTargets) -> Tensor:
        """Loss of values ``[N]``, a scalar."""
        return value_loss(value, targets.value_target, scale=1.0)

    def derivatives(self, log_prob: Tensor, value: Tensor, targets: MinibatchTargets) -> tuple[Tensor, Tensor]:
        """Derivatives of both losses with respect to every log-probability and every value, ``[N]`` each."""
        policy = policy_dloss_dlogp(log_prob, targets.advantage, denominator_logp=None, clip=DetachedClip())
        return policy, value_dloss_dvalue(value, targets.value_target, scale=1.0)
