"""Losses that move a policy along the gradient of a critic through the action, and the loss of their temperature."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rheostat import masking
from rheostat.errors import unknown
from rheostat.masking import require_same_shape, select
from rheostat.objectives.temporal_difference import counted, one_number, soft_value, weighted

TemperatureForm = Literal["exp", "log"]
OverDimensions = Literal["mean", "sum"]


def soft_actor_loss(
    value: Tensor,
    log_prob: Tensor,
    temperature: float | Tensor,
    *,
    weight: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> Tensor:
    """``mean(alpha log pi(a|s) - Q(s, a))`` of reparameterised actions (SAC, Haarnoja et al. 2018), a scalar to be minimised.

    | code | Q |
    |---|---|
    | SAC, CQL | ``min_over_critics(q)`` of two critics |
    | RLPD | ``q.mean(0)`` of all ten |

    Args:
        value: ``[B]`` Q(s, a) of an action drawn from the policy; carries the gradient through the action.
        log_prob: ``[B]`` log pi(a|s) of that action, nats; carries the gradient.
        temperature: alpha; a constant here.
        weight: ``[B]``, a constant; rows of weight 0 may hold NaN.
        denominator: divides the sum over rows; None is the number of rows.

    Raises:
        RheostatError: different shapes, or a temperature per row.
    """
    require_same_shape(value=value, log_prob=log_prob, weight=weight)
    alpha = temperature.detach() if isinstance(temperature, Tensor) else temperature
    kept = counted(weight)
    per_row = -soft_value(select(value, kept), select(log_prob, kept), alpha)
    return masking.aggregate(weighted(per_row, weight), None, denominator=denominator)


def deterministic_actor_loss(value: Tensor, *, weight: Tensor | None = None, denominator: Tensor | float | None = None) -> Tensor:
    """``-mean Q_1(s, mu(s))`` (DDPG, TD3): the first critic alone, not the smaller one.

    Args:
        value: ``[B]``; carries the gradient through the action.
        weight: ``[B]``, a constant; rows of weight 0 may hold NaN.
        denominator: divides the sum over rows; None is the number of rows.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(value=value, weight=weight)
    return -masking.aggregate(weighted(select(value, counted(weight)), weight), None, denominator=denominator)


def behaviour_regularised_loss(
    value: Tensor,
    action: Tensor,
    data_action: Tensor,
    *,
    alpha: float = 2.5,
    imitation: float = 1.0,
    dimensions: OverDimensions = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """``-lambda mean Q(s, pi(s)) + imitation * (pi(s) - a)^2`` with ``lambda = alpha / mean|Q|``, a scalar to be minimised.

    TD3+BC (Fujimoto and Gu 2021). The scale of the values cancels, because lambda is a constant; its mean is over this batch, so that the
    loss of a batch is not the sum of the losses of its parts.

    | code | Q | squared distance | arguments |
    |---|---|---|---|
    | TD3+BC | the first critic | mean over rows and dimensions | the defaults |
    | ReBRAC | the smaller critic | sum over dimensions, mean over rows | ``alpha=1.0, dimensions="sum", imitation=beta`` |

    Args:
        value: ``[B]`` Q(s, pi(s)); carries the gradient through the action.
        action: ``[B, d]`` pi(s); carries the gradient.
        data_action: ``[B, d]`` the action of the data, in the units of ``action``.
        alpha: weight of the critic against imitation.
        imitation: factor of the squared distance.
        dimensions: mean or sum over the action's dimensions.
        weight: ``[B]``, a constant, of both terms and of mean|Q|; rows of weight 0 may hold NaN.

    Raises:
        RheostatError: different shapes, or a reduction that does not exist.
    """
    require_same_shape(action=action, data_action=data_action)
    require_same_shape(value=value, action_rows=action[:, 0], weight=weight)
    if dimensions not in ("mean", "sum"):
        raise unknown("reduction over the action's dimensions", dimensions, ("mean", "sum"))
    kept = counted(weight)
    value, whole_row = select(value, kept), None if kept is None else kept.unsqueeze(-1)
    gap = select(action, whole_row) - select(data_action, whole_row).detach()
    distance = gap.square().mean(-1) if dimensions == "mean" else gap.square().sum(-1)
    size = masking.aggregate(weighted(value.detach().abs(), weight), None)
    return masking.aggregate(weighted(imitation * distance - alpha / size * value, weight), None)


def temperature_loss(
    log_alpha: Tensor,
    log_prob: Tensor,
    target_entropy: float,
    *,
    form: TemperatureForm = "exp",
    weight: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> Tensor:
    """Loss whose descent holds the policy's entropy at its target: alpha grows while ``-log pi`` is below it. A scalar.

    | form | loss | code |
    |---|---|---|
    | exp | -alpha mean(log pi + target) | the paper (Haarnoja et al. 2018b), CleanRL, RLPD |
    | log | -log alpha mean(log pi + target) | Stable-Baselines3, CORL |

    Both are differentiated by log alpha; the gradients differ by the factor alpha, so that ``exp`` moves a small temperature slowly.

    Args:
        log_alpha: one element; carries the gradient.
        log_prob: ``[B]`` of actions drawn from the policy, nats; a constant.
        target_entropy: nats; ``-action_dim`` in SAC, ``-action_dim / 2`` in RLPD.
        form: see above.
        weight: ``[B]``, a constant; rows of weight 0 may hold NaN.
        denominator: divides the sum over rows; None is the number of rows.

    Raises:
        RheostatError: different shapes, more than one temperature, or a form that does not exist.
    """
    require_same_shape(log_prob=log_prob, weight=weight)
    if form not in ("exp", "log"):
        raise unknown("form of the temperature loss", form, ("exp", "log"))
    excess = weighted(select(log_prob, counted(weight)).detach() + target_entropy, weight)
    factor = one_number(log_alpha.exp() if form == "exp" else log_alpha, "log_alpha")
    return -factor * masking.aggregate(excess, None, denominator=denominator)


@torch.no_grad()
def smoothed_action(
    action: Tensor,
    noise: Tensor,
    *,
    scale: float | Tensor = 0.2,
    clip: float | Tensor = 0.5,
    low: float | Tensor = -1.0,
    high: float | Tensor = 1.0,
) -> Tensor:
    """``clip(mu(s') + clip(scale * noise, -c, c), low, high)``: the smoothed target action (TD3, Fujimoto et al. 2018), a constant.

    ``scale`` and ``clip`` are in the units of the action. The author's code and CleanRL give them as shares of the largest action (0.2 and
    0.5 of it); Stable-Baselines3 and CORL's policies act in [-1, 1], where the two agree.

    Args:
        action: ``[B, d]`` of the target policy.
        noise: ``[B, d]`` standard normal; drawn by the caller.
        scale: standard deviation of the noise, a number or ``[d]``.
        clip: largest size of the noise, a number or ``[d]``.
        low: bounds of the action, a number or ``[d]``, as the next.
        high: upper bound.

    Returns:
        ``[B, d]``.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(action=action, noise=noise)
    clip = torch.as_tensor(clip, dtype=action.dtype, device=action.device)
    bounds = [torch.as_tensor(bound, dtype=action.dtype, device=action.device) for bound in (low, high)]
    return (action + (scale * noise).clamp(-clip, clip)).clamp(*bounds)
