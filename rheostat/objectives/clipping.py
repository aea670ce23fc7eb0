"""Clip rules: how far one update may move a probability ratio.

A clip rule turns (ratio, advantage) into a loss per entry and owns its stop-gradient rule. Bounds are distances from the centre of the
window, as in the papers (PPO writes clip(r, 1 - eps, 1 + eps)); a bound may also be a tensor of the ratio's shape (searched or per-token
bounds).

| clip rule | loss per entry | gradient w.r.t. the log-prob |
|---|---|---|
| :class:`NoClip` | -r A | -r A |
| :class:`Clip` | -min(r A, clip(r) A) | -r A inside the window, else 0 |
| :class:`DetachedClip` | -sg[clip(r)] A logp | -clip(r) A, never cut |
| :class:`LogClip` | -exp(pessimistic clip of log r) A | -r A inside the window, else 0 |
| :class:`PolicyShaping` | -r / (r + gamma) A | -gamma r / (r + gamma)^2 A |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from rheostat.options import option

Bound = float | Tensor


class ClipRule(Protocol):
    """The interface of clip rules for the policy-gradient kernel. Arguments and results have one shape, ``[N]`` or ``[B, T]``."""

    def log_ratio(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        """Token log-ratios before they are combined over the row (only clips in log space change them)."""
        ...

    def loss(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        """Loss per entry, to be minimised; only ``ratio`` and ``logp`` carry a gradient."""
        ...

    def dloss_dlogp(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        """Derivative of the loss per entry with respect to its log-prob, where the ratio is the entry's own and not clipped."""
        ...

    def clipped(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        """Bool: entries whose gradient the clip cuts."""
        ...

    def outside(self, ratio: Tensor) -> Tensor:
        """Bool: entries whose ratio is outside the window, whatever the sign of their advantage (the usual "clip fraction")."""
        ...


def _clamp(x: Tensor, low: Bound | None, high: Bound | None) -> Tensor:
    if isinstance(low, Tensor) or isinstance(high, Tensor):  # torch.clamp takes two numbers or two tensors, not one of each
        x = x if low is None else torch.maximum(x, torch.as_tensor(low, dtype=x.dtype, device=x.device))
        return x if high is None else torch.minimum(x, torch.as_tensor(high, dtype=x.dtype, device=x.device))
    return x if low is None and high is None else x.clamp(low, high)


def _least(a: Bound, b: float | None) -> Bound:
    if b is None:
        return a
    return a.clamp(max=b) if isinstance(a, Tensor) else min(a, b)


@dataclass(frozen=True)
class NoClip:
    """No clip: importance-sampled policy gradient."""

    kind: ClassVar[str] = "none"

    def log_ratio(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        return log_ratio

    def loss(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        return -advantage * ratio

    def dloss_dlogp(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        return -advantage * ratio

    def clipped(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        return torch.zeros_like(ratio, dtype=torch.bool)

    def outside(self, ratio: Tensor) -> Tensor:
        return torch.zeros_like(ratio, dtype=torch.bool)


@dataclass(frozen=True)
class Clip:
    """The clipped surrogate of PPO, ``-min(r A, clip(r, centre - low, centre + high) A)``.

    DAPO's clip-higher is ``Clip(0.2, 0.28)``; verl's default is ``Clip(0.2, 0.2, dual=3.0)``. The window is additive around the centre
    (ReMix and generalised PPO centre it on the ratio of the current policy to the behaviour policy). A ratio exactly on a bound keeps
    its gradient.
    """

    kind: ClassVar[str] = "clip"
    low: Bound = option(0.2, short="clip_low", at_least=0)
    """Lower width of the window: the ratio keeps its gradient from 1 - this."""
    high: Bound = option(0.2, short="clip_high", at_least=0)
    """Upper width of the window: the ratio keeps its gradient up to 1 + this."""
    dual: float | None = option(None, short="dual_clip", at_least=1)
    """Dual clip (3 in verl): where A < 0 the loss is at most -dual * A, so a ratio above it gives no gradient."""
    upper: float | None = option(None, short="clip_upper", above=0)
    """Two-sided GRPO (TRL's ``delta``): the ratio of the unclipped branch is clamped from above."""
    centre: Bound = 1.0

    def log_ratio(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        return log_ratio

    def loss(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        cost = -advantage
        free = ratio if self.upper is None else ratio.clamp(max=self.upper)
        loss = torch.maximum(cost * free, cost * _clamp(ratio, self.centre - self.low, self.centre + self.high))
        if self.dual is None:
            return loss
        return torch.where(cost > 0, torch.minimum(loss, cost * self.dual), loss)

    def dloss_dlogp(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        return -advantage * ratio

    def clipped(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        if self.upper is None and self.dual is None:  # too high where A > 0, too low where A < 0
            return advantage * (ratio - _clamp(ratio, self.centre - self.low, self.centre + self.high)) > 0
        high = self.centre + self.high
        too_high = ratio > _least(high, self.upper)
        too_low = ratio < self.centre - self.low
        if self.upper is not None:  # where A < 0 the larger of the two bounds decides
            too_low = too_low | ((ratio > self.upper) & (ratio > high))
        if self.dual is not None:
            too_low = too_low | (ratio > self.dual)
        return ((advantage > 0) & too_high) | ((advantage < 0) & too_low)

    def outside(self, ratio: Tensor) -> Tensor:
        return (ratio < self.centre - self.low) | (ratio > self.centre + self.high)


@dataclass(frozen=True)
class DetachedClip:
    """CISPO: the clipped ratio is a constant weight on the log-likelihood, ``-sg[clip(r, 1 - low, 1 + high)] A logp``.

    No gradient is ever cut, only weighted down. MiniMax uses no lower bound (``low=None``) and tunes ``high``. TRL's ``epsilon_high`` is
    the cap itself, so its 5.0 is ``DetachedClip(None, 4.0)``. Without bounds it is importance-weighted REINFORCE, and with
    ``denominator_logp=None`` plain REINFORCE, ``-A logp``.
    """

    kind: ClassVar[str] = "detached"
    low: Bound | None = option(None, short="clip_low", at_least=0)
    """Lower width of the window of the constant weight; None for no lower bound."""
    high: Bound | None = option(None, short="clip_high", at_least=0)
    """Upper width of the window of the constant weight; None for no upper bound."""

    def log_ratio(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        return log_ratio

    def loss(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        low = None if self.low is None else 1.0 - self.low
        high = None if self.high is None else 1.0 + self.high
        return -(_clamp(ratio.detach(), low, high) * advantage) * logp

    def dloss_dlogp(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        low = None if self.low is None else 1.0 - self.low
        high = None if self.high is None else 1.0 + self.high
        return -advantage * _clamp(ratio, low, high)

    def clipped(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        return torch.zeros_like(ratio, dtype=torch.bool)

    def outside(self, ratio: Tensor) -> Tensor:
        outside = torch.zeros_like(ratio, dtype=torch.bool)
        if self.low is not None:
            outside = outside | (ratio < 1.0 - self.low)
        if self.high is not None:
            outside = outside | (ratio > 1.0 + self.high)
        return outside


@dataclass(frozen=True)
class LogClip:
    """GMPO: token log-ratios are clipped to ``[-low, high]`` pessimistically, ``s min(s d, s clip(d))`` with s the sign of A.

    Used with ``ratio="sequence"`` it gives the geometric mean of clipped token ratios; with ``ratio="token"`` it is PPO's clip with the
    window ``[exp(-low), exp(high)]``. The paper's range is 0.4 on both sides. Source: GMPO as adapted in verl (``geo_mean``).
    """

    kind: ClassVar[str] = "log-clip"
    low: Bound = option(0.4, short="clip_low", at_least=0)
    """Lower width of the window, in log space."""
    high: Bound = option(0.4, short="clip_high", at_least=0)
    """Upper width of the window, in log space."""

    def log_ratio(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        clipped = _clamp(log_ratio, -self.low, self.high)
        return torch.where(advantage < 0, torch.maximum(log_ratio, clipped), torch.minimum(log_ratio, clipped))

    def loss(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        return -advantage * ratio

    def dloss_dlogp(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        return -advantage * ratio

    def clipped(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        log_ratio = ratio.log()
        return ((advantage > 0) & (log_ratio > self.high)) | ((advantage < 0) & (log_ratio < -self.low))

    def outside(self, ratio: Tensor) -> Tensor:
        log_ratio = ratio.log()
        return (log_ratio < -self.low) | (log_ratio > self.high)


@dataclass(frozen=True)
class PolicyShaping:
    """LUFFY's shaping of expert tokens, ``-A p / (p + gamma)``: unlikely tokens learn faster than under ``-A p``.

    Give it ``denominator_logp=torch.zeros_like(logp)``, so that the ratio is the probability p of the expert's token.
    """

    gamma: float = 0.1

    def log_ratio(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        return log_ratio

    def loss(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        return -advantage * (ratio / (ratio + self.gamma))

    def dloss_dlogp(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        return -advantage * (ratio * self.gamma / (ratio + self.gamma).square())

    def clipped(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        return torch.zeros_like(ratio, dtype=torch.bool)

    def outside(self, ratio: Tensor) -> Tensor:
        return torch.zeros_like(ratio, dtype=torch.bool)
