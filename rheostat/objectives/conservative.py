"""Conservative Q-learning: critics are pushed down on actions they value highly and up on the actions of the data (Kumar et al. 2020).

The *gap* of a row is ``log sum_a exp Q(s, a) - Q(s, a_data)``; the penalty is its mean over rows times a weight, which is a number or the
multiplier of the constraint that the mean gap is at most a threshold.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from rheostat import masking
from rheostat.errors import RheostatError, unknown
from rheostat.masking import require_same_shape, select
from rheostat.objectives.temporal_difference import OverCritics, counted, one_number, require_critics, weighted

GapForm = Literal["importance", "plain", "exact"]


def uniform_log_density(low: Tensor, high: Tensor) -> Tensor:
    """Log-density of an action drawn uniformly between bounds ``[d]``, a scalar; ``d log(1/2)`` in [-1, 1]."""
    require_same_shape(low=low, high=high)
    return -(high - low).log().sum()


def conservative_gap(
    q_data: Tensor,
    q_sampled: Tensor,
    log_density: Tensor | None = None,
    *,
    form: GapForm = "importance",
    temperature: float = 1.0,
    average: bool = True,
    temper_density: bool = False,
) -> Tensor:
    """``t log sum_a exp(Q(s, a) / t) - Q(s, a_data)`` from sampled actions; carries the gradient of both terms.

    | form | the first term | code |
    |---|---|---|
    | importance | t log mean_i exp(Q_i / t - log mu(a_i)): estimates the integral over actions | the paper (appendix F) |
    | importance, ``average=False`` | the same with the sum over i, larger by t log N | the authors' code, CORL |
    | plain | t log of the sum over the N samples and the data's action | the authors' code and CORL without importance sampling |
    | exact | t log of the sum over all N actions | discrete actions |

    The constant between mean and sum moves no critic; it counts where the gap is compared with a threshold or reported. The codes draw
    N = 3 n: n = 10 uniform actions and 10 each of the policy at s and at s', all evaluated at s. The actions are constants: the penalty
    never reaches the policy.

    Args:
        q_data: ``[K, B]`` Q_k(s, a) of the data.
        q_sampled: ``[K, B, N]`` Q_k(s, a_i).
        log_density: ``[B, N]`` log mu(a_i|s) of the distribution that drew each action, nats; a constant. For ``importance`` only.
        form: see above.
        temperature: t.
        average: see above; for ``importance`` only.
        temper_density: divide the log-density by t as well, as the codes do: for t other than 1 that estimates no integral.

    Returns:
        ``[K, B]``.

    Raises:
        RheostatError: shapes that do not fit, a density that is missing or not used, or a form that does not exist.
    """
    require_critics(q_data, "q_data")
    if q_sampled.ndim != 3:
        raise RheostatError(f"q_sampled must have the shape [critics, rows, samples], not {list(q_sampled.shape)}.")
    require_same_shape(q_data=q_data, one_sample=q_sampled[..., 0])
    if form not in ("importance", "plain", "exact"):
        raise unknown("form of the conservative gap", form, ("importance", "plain", "exact"))
    if (form == "importance") != (log_density is not None):
        raise RheostatError(f"log_density belongs to the form 'importance' and to no other; the form is {form!r}.")
    exponent = q_sampled / temperature
    if log_density is not None:
        require_same_shape(one_critic=q_sampled[0], log_density=log_density)
        exponent = exponent - log_density.detach() / (temperature if temper_density else 1.0)
    elif form == "plain":
        exponent = torch.cat([exponent, q_data.unsqueeze(-1) / temperature], -1)
    height = exponent.logsumexp(-1)
    if form == "importance" and average:
        height = height - math.log(q_sampled.shape[-1])
    return temperature * height - q_data


def conservative_penalty(
    gap: Tensor,
    *,
    alpha: float = 5.0,
    multiplier: float | Tensor = 1.0,
    threshold: float = 0.0,
    critics: OverCritics = "sum",
    weight: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> Tensor:
    """``multiplier * alpha * (mean gap - threshold)``, over critics; a scalar to be added to the critics' loss.

    | code | arguments |
    |---|---|
    | fixed weight, the authors | ``alpha=5`` (D4RL) |
    | CORL | ``alpha=10`` in its configurations, 5 in the class |
    | Lagrange, the paper | ``alpha=1, multiplier=lagrange_multiplier(x), threshold=tau`` |
    | Lagrange, CORL | the same with its alpha |
    | Lagrange, the authors' code | the same with ``threshold=tau / alpha`` (their threshold is compared with alpha times the gap) |

    Args:
        gap: ``[K, B]`` of :func:`conservative_gap`, clamped where rows beyond a limit should not pull (CORL); carries the gradient.
        alpha: weight of the penalty.
        multiplier: of the constraint; a constant here. 1 and a threshold of 0 are the fixed weight.
        threshold: largest wanted mean gap, in units of value.
        critics: sum over critics, or their mean; take the same as in the critics' loss.
        weight: ``[B]``, a constant; rows of weight 0 may hold NaN. It weighs the gap alone, not the threshold.
        denominator: divides the sum over rows; None is the number of rows. With a threshold, a batch in parts needs the
            threshold subtracted once.

    Raises:
        RheostatError: gap is not ``[K, B]``, different numbers of rows, or a reduction that does not exist.
    """
    require_critics(gap, "gap")
    require_same_shape(one_critic=gap[0], weight=weight)
    if critics not in ("sum", "mean"):
        raise unknown("reduction over critics", critics, ("sum", "mean"))
    gap = select(gap, counted(weight))
    copies = len(gap) if critics == "sum" else 1
    per_row = gap.mean(0) * copies
    if isinstance(multiplier, Tensor):
        multiplier = one_number(multiplier.detach(), "multiplier")
    return multiplier * alpha * (masking.aggregate(weighted(per_row, weight), None, denominator=denominator) - copies * threshold)


def lagrange_multiplier(log_multiplier: Tensor, *, largest: float = 1e6) -> Tensor:
    """``min(exp(x), largest)``, which keeps a multiplier above 0.

    Args:
        log_multiplier: x, one element; carries the gradient, which is 0 above the limit.
        largest: the limit.

    Returns:
        A tensor of one element.
    """
    return log_multiplier.clamp(max=math.log(largest)).exp()


def multiplier_loss(log_multiplier: Tensor, gap: Tensor, *, threshold: float, alpha: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """Loss whose descent raises the multiplier while the mean gap is above the threshold: minus the penalty's mean over critics.

    Args:
        log_multiplier: one element; carries the gradient.
        gap: ``[K, B]``, a constant.
        threshold: as in :func:`conservative_penalty`, like the next two.
        alpha: weight of the penalty.
        weight: ``[B]``, a constant.

    Raises:
        RheostatError: more than one multiplier, and as :func:`conservative_penalty`.
    """
    penalty = conservative_penalty(gap.detach(), alpha=alpha, threshold=threshold, critics="mean", weight=weight)
    return -one_number(lagrange_multiplier(log_multiplier), "log_multiplier") * penalty
