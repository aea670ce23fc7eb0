"""Weights and masks that account for data another distribution sampled. All are constants: none carries a gradient.

The log-ratio is always learner at the start of the update minus sampler, never the learner being optimised: that one is in the ratio of
the surrogate already. Using the sampler as the ratio's denominator *and* a weight from here corrects twice.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import masked_mean, masked_sum, require_same_shape, select, standardise

Level = Literal["token", "sequence"]
OverCap = Literal["truncate", "mask"]
Statistic = Literal["k1", "k2", "k3"]
Reach = Literal["token", "sum", "mean", "max"]
ExpertWeight = Literal["none", "importance", "phi", "shaping", "exploration"]


@torch.no_grad()
def importance_weight(
    old_logp: Tensor,
    sampler_logp: Tensor,
    *,
    mask: Tensor | None = None,
    level: Level = "token",
    cap: float | None = 2.0,
    over_cap: OverCap = "truncate",
    batch_normalise: bool = False,
    log_clamp: float | None = 20.0,
) -> Tensor:
    """Truncated importance sampling against the mismatch of sampler and learner.

    ``w = min(exp(start - sampler), cap)`` per token, or with the log-ratio summed over the row. verl truncates at 2 with the log-ratio
    clamped to +-20; TRL's cap is 3, its default is ``level="sequence", over_cap="mask"``.

    Args:
        old_logp: ``[B, T]`` under the learner at the start of the update.
        sampler_logp: ``[B, T]`` under the true sampler; NaN where unknown (expert data), which takes a log-ratio of 0.
        mask: ``[B, T]`` bool; None keeps everything (``level="token"`` then takes any shape).
        level: one weight per token, or per row.
        cap: largest weight; None for no cap.
        over_cap: weights above the cap become the cap (``truncate``) or 0 (``mask``).
        batch_normalise: divide by the mean weight over kept tokens (``token``) or over non-empty rows (``sequence``), after capping.
        log_clamp: the log-ratio is clamped to +- this before the exponential; None for no clamp.

    Returns:
        ``[B, T]``. Masked entries hold the weight of a log-ratio of 0 (``token``) or of their row (``sequence``) and count for nothing.

    Raises:
        RheostatError: different shapes, or a level or treatment that does not exist.
    """
    require_same_shape(old_logp=old_logp, sampler_logp=sampler_logp, mask=mask)
    if level not in get_args(Level) or over_cap not in get_args(OverCap):
        raise RheostatError(f"Unknown importance weight {level!r}, {over_cap!r}: {get_args(Level)} and {get_args(OverCap)} exist.")
    log_ratio = select((old_logp - sampler_logp).masked_fill(sampler_logp.isnan(), 0.0), mask)
    if level == "sequence":
        log_ratio = log_ratio.sum(-1, keepdim=True)
    weight = (log_ratio if log_clamp is None else log_ratio.clamp(-log_clamp, log_clamp)).exp()
    if cap is not None:
        weight = weight.clamp(max=cap) if over_cap == "truncate" else weight.masked_fill(weight > cap, 0.0)
    if batch_normalise:
        counted = mask if mask is None or level == "token" else mask.any(-1, keepdim=True)
        mean = masked_mean(weight, counted)
        weight = weight / torch.where(mean > 0, mean, 1.0)
    return weight.expand_as(old_logp)


@torch.no_grad()
def rejection_mask(
    old_logp: Tensor,
    sampler_logp: Tensor,
    mask: Tensor,
    *,
    statistic: Statistic = "k3",
    reach: Reach = "mean",
    low: float | None = None,
    high: float | None = None,
) -> Tensor:
    """Tokens or rows close enough to their sampler to learn from; the others leave the mask, and therefore the denominators.

    The statistic estimates KL(sampler, learner) from the sampler's tokens, with x = log sampler - log learner: ``k1`` x, ``k2`` x^2 / 2,
    ``k3`` exp(-x) - 1 + x. verl gives the bounds of ``k1`` as ratios sampler / learner; here all bounds are in nats, so take their logs.

    Args:
        old_logp: ``[B, T]`` under the learner at the start of the update.
        sampler_logp: ``[B, T]`` under the true sampler; NaN where unknown (expert data), which takes an x of 0.
        mask: ``[B, T]`` bool.
        statistic: see above.
        reach: test every ``token`` alone, or whole rows by the ``sum``, ``mean`` or ``max`` over their kept tokens.
        low: smallest accepted value in nats, None for no bound.
        high: largest accepted value in nats, None for no bound.

    Returns:
        ``[B, T]`` bool, a part of ``mask``.

    Raises:
        RheostatError: different shapes, or a statistic or reach that does not exist.
    """
    require_same_shape(old_logp=old_logp, sampler_logp=sampler_logp, mask=mask)
    x = select((sampler_logp - old_logp).masked_fill(sampler_logp.isnan(), 0.0), mask)
    if statistic == "k1":
        value = x
    elif statistic == "k2":
        value = 0.5 * x.square()
    elif statistic == "k3":
        value = (-x).exp() - 1 + x
    else:
        raise RheostatError(f"Unknown rejection statistic {statistic!r}: one of {', '.join(get_args(Statistic))}.")
    if reach == "sum":
        value = masked_sum(value, mask, -1).unsqueeze(-1)
    elif reach == "mean":
        value = masked_mean(value, mask, -1).unsqueeze(-1)
    elif reach == "max":
        value = value.masked_fill(~mask, -torch.inf).amax(-1, keepdim=True)
    elif reach != "token":
        raise RheostatError(f"Unknown reach {reach!r}: one of {', '.join(get_args(Reach))}.")
    kept = mask
    if low is not None:
        kept = kept & (value >= low)
    if high is not None:
        kept = kept & (value <= high)
    return kept


@torch.no_grad()
def stale_negative_weight(logp: Tensor, sampler_logp: Tensor, advantage: Tensor, mask: Tensor, *, threshold: float) -> Tensor:
    """Off-policy sequence masking: weight 0 on tokens with A < 0 in rows that drifted from their sampler, 1 elsewhere.

    A row drifted when the mean over its kept tokens of ``sampler_logp - logp`` exceeds ``threshold`` (nats). It is a weight and not a mask
    because dropped tokens stay in the denominator (TRL ``off_policy_mask_threshold``, Trinity ``enable_sequence_masking``).

    Args:
        logp: ``[B, T]`` under the learner being optimised.
        sampler_logp: ``[B, T]``.
        advantage: ``[B, T]``.
        mask: ``[B, T]`` bool.
        threshold: largest accepted drift.

    Returns:
        ``[B, T]`` float.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(logp=logp, sampler_logp=sampler_logp, advantage=advantage, mask=mask)
    drift = masked_mean(sampler_logp - logp, mask, -1).unsqueeze(-1)
    return (~((advantage < 0) & (drift > threshold))).to(logp.dtype)


def expert_weight(logp: Tensor, kind: ExpertWeight, *, gamma: float | None = None) -> Tensor:
    """Weight of an expert's token as a function w(p) of its probability p under the learner.

    | kind | w(p) | largest at | from |
    |---|---|---|---|
    | none | 1 | everywhere | SFT, CHORD-mu |
    | importance | p | 1 | CHORD's ablation: the expert's probability set to 1 |
    | phi | p (1 - p), at most 1/4 | 1/2 | CHORD-phi |
    | shaping | p / (p + gamma), gamma 0.1 | 1 | LUFFY, see :func:`policy_shaping_weight` |
    | exploration | (1 - p)^gamma, gamma 0.5 | 0 | RL-PLUS, in addition to its ratio |

    A constant: with a gradient through the weight the objective is another one (that of ``-p (1 - p) log p`` changes sign near p = 1).

    Args:
        logp: log-prob of the expert's token under the learner at temperature 1, any shape. Rounding may have put it above 0; p is then 1.
        kind: see the table.
        gamma: None takes the paper's.

    Returns:
        The shape of ``logp``.

    Raises:
        RheostatError: a kind that does not exist.
    """
    logp = logp.detach()
    if kind == "none":
        return torch.ones_like(logp)
    if kind == "importance":
        return logp.exp()
    if kind == "shaping":
        return policy_shaping_weight(logp, gamma=0.1 if gamma is None else gamma)
    rest = (-torch.expm1(logp)).clamp(min=0)  # 1 - p without the cancellation of p near 1
    if kind == "phi":
        return logp.exp() * rest
    if kind == "exploration":
        return rest ** (0.5 if gamma is None else gamma)
    raise RheostatError(f"Unknown weight of expert tokens {kind!r}: one of {', '.join(get_args(ExpertWeight))}.")


def policy_shaping_weight(logp: Tensor, *, gamma: float = 0.1) -> Tensor:
    """LUFFY's f(p) = p / (p + gamma) of an expert token's probability, as a constant weight for reports and for other losses.

    LUFFY itself differentiates through f; that loss is :class:`rheostat.objectives.clipping.PolicyShaping`.

    Args:
        logp: log-prob of the expert's token under the learner, any shape.
        gamma: smaller values raise unlikely tokens more.
    """
    p = logp.detach().exp()
    return p / (p + gamma)


@torch.no_grad()
def exponential_weight(advantage: Tensor, scale: float | Tensor, cap: float = 100.0) -> Tensor:
    """``min(exp(scale * A), cap)``: weight of an action of the data in advantage-weighted imitation. Never overflows.

    | code | scale | cap | A |
    |---|---|---|---|
    | IQL | beta 3 (locomotion), 10 (AntMaze) | 100 | least Q(s, a) - V(s) |
    | AWAC, CORL | 1 / lambda, lambda 1 (1/3, 0.1) | 100 | least Q(s, a) - least Q(s, a') with a' from the policy |
    | FamO2O | a beta per state | 100 | as IQL |
    | AWAC, the authors | :func:`batch_exponential_weight` | | as CORL |

    Args:
        advantage: ``[B]``.
        scale: inverse temperature in 1 / units of value, a number or ``[B]``.
        cap: largest weight, above 0.

    Returns:
        ``[B]``, a constant.

    Raises:
        RheostatError: different shapes, or a cap that is not above 0.
    """
    if isinstance(scale, Tensor) and scale.ndim:
        require_same_shape(advantage=advantage, scale=scale)
    if cap <= 0:
        raise RheostatError(f"The cap of exponential weights must be above 0, not {cap}.")
    return (scale * advantage).exp().clamp(max=cap)  # an infinite exponential becomes the cap; there is no gradient to spoil


@torch.no_grad()
def batch_exponential_weight(advantage: Tensor, scale: float) -> Tensor:
    """``B softmax(scale * A)`` over the batch, mean 1: exponential weights normalised instead of capped (the AWAC authors' code).

    The weight of a row depends on the other rows, so that the loss of a batch is not the sum of the losses of its parts.

    Args:
        advantage: ``[B]``.
        scale: inverse temperature, in 1 / units of value.

    Returns:
        ``[B]``, a constant.
    """
    return advantage.numel() * (scale * advantage).softmax(0)


@torch.no_grad()
def sided_advantage(advantage: Tensor, omega: float, *, eps: float = 1e-10) -> Tensor:
    """Standardise advantages, then multiply positive ones by omega and the others by ``1 - omega`` (BPPO, Uni-O4).

    Above 1/2, actions better than average count more than worse ones. At 1/2 all weights are 1, as in the authors' code: the step is
    then twice that of an omega next to it.

    Args:
        advantage: ``[B]``, of one policy's actions.
        omega: between 0 and 1.
        eps: added to the standard deviation (unbiased).

    Returns:
        ``[B]``, a constant; equal advantages give 0.

    Raises:
        RheostatError: an omega outside its range.
    """
    if not 0 <= omega <= 1:
        raise RheostatError(f"omega shares weight between better and worse actions: between 0 and 1, not {omega}.")
    scaled = standardise(advantage, eps=eps)
    return scaled if omega == 0.5 else scaled * torch.where(scaled > 0, omega, 1 - omega)


def family_weight(advantage: Tensor, coefficient: Tensor, cap: float = 100.0, *, broadcast: bool = False) -> Tensor:
    """``min(exp(beta A), cap)`` per row, a constant.

    Args:
        advantage: ``[B]``.
        coefficient: ``[B]``.
        cap: largest weight.
        broadcast: row j takes the mean over i of ``min(exp(beta_i A_j), cap)``: the authors' code.

    Returns:
        ``[B]``.
    """
    if not broadcast:
        return exponential_weight(advantage, coefficient, cap)
    pairs = (len(coefficient), len(advantage))
    return exponential_weight(advantage.expand(pairs), coefficient.unsqueeze(-1).expand(pairs), cap).mean(0)
