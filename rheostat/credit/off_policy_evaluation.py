"""What would another policy have earned? Importance sampling over whole episodes, from data of a behaviour policy that is known.

One row is one episode from its first state on. Weights are products of the ratios target / behaviour over the steps of an episode, so
that their variance grows with its length (Precup et al. 2000): check the effective sample size before you use an estimate. Values from a
critic alone (fitted Q evaluation) are :func:`rheostat.objectives.temporal_difference.critic_loss` with the evaluated policy's action in
the target.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from rheostat.errors import RheostatError
from rheostat.masking import require_same_shape, select
from rheostat.objectives.meter import effective_sample_size


class Estimate(NamedTuple):
    """The value of a policy from ``n`` episodes, float64."""

    value: Tensor
    """Estimated discounted return from the first state, a scalar."""
    standard_error: Tensor
    """Standard error of the value, a scalar: exact for unweighted forms, to first order in 1/n for weighted ones; NaN for one episode."""
    effective_sample_size: Tensor
    """Episodes that carry the estimate, ``(sum w)^2 / sum w^2`` of the weights of whole episodes, a scalar from 0 to n."""
    contribution: Tensor
    """``[n]``: contribution of each episode; the value is their mean."""


class _Episodes(NamedTuple):
    """Kept steps first, padded with ratios of 1 and zeros: an episode that ended keeps its weight and earns nothing more."""

    log_weight: Tensor  # [n, T] log of the product of ratios up to and with the step
    reward: Tensor  # [n, T]; the last one includes the discounted value of what follows a cut
    discount: Tensor  # [T] gamma^t
    others: tuple[Tensor, ...]  # further [n, T], 0 after the end


@torch.no_grad()
def importance_sampling(
    log_ratio: Tensor,
    reward: Tensor,
    mask: Tensor | None = None,
    *,
    gamma: float,
    per_decision: bool = True,
    weighted: bool = False,
    terminated: Tensor | None = None,
    truncated: Tensor | None = None,
    next_value: Tensor | None = None,
) -> Estimate:
    """Value of the target policy from rewards weighted by ratios of probabilities (Precup et al. 2000; Thomas 2015).

    With ``w_t`` the product of the ratios up to and with step t, ``w`` that of the whole episode and ``G`` its return:

    | form | value | arguments |
    |---|---|---|
    | ordinary | mean(w G) | ``per_decision=False`` |
    | weighted | sum(w G) / sum(w) | ``per_decision=False, weighted=True`` |
    | per-decision | mean(sum_t gamma^t w_t r_t) | the defaults |
    | weighted per-decision | sum_t gamma^t sum(w_t r_t) / sum(w_t), sums over episodes | ``weighted=True`` |

    The unweighted forms are unbiased; the weighted ones are consistent, stay within the range of observed returns and vary much less. An
    episode that has ended keeps its last weight in the denominators of later steps: without it these would describe long episodes
    only.

    Args:
        log_ratio: ``[B, T]`` log pi(a_t|s_t) - log mu(a_t|s_t), nats, target over behaviour; -inf where the target never acts so.
        reward: ``[B, T]``.
        mask: ``[B, T]`` bool; masked steps are skipped, take no time and may hold NaN. Rows without a kept step are dropped.
        gamma: discount per kept step.
        per_decision: weigh a reward by the ratios of the actions before it only.
        weighted: divide by the sum of weights instead of the number of episodes.
        terminated: ``[B, T]`` bool; needed with ``next_value``.
        truncated: ``[B, T]`` bool; only checked.
        next_value: ``[B, T]`` value of the true successor under the target policy. Where given, an episode that was cut (its last kept step
            is not terminated) is bootstrapped with it; None counts only the observed rewards.

    Returns:
        An :class:`Estimate`. A weighted value is NaN where the target policy takes none of the episodes.

    Raises:
        RheostatError: different shapes, an unknown ratio, no episode, or a row that holds more than one.
    """
    episodes = _episodes(log_ratio, reward, mask, gamma, terminated, truncated, next_value)
    log_weight = episodes.log_weight
    if not per_decision:
        log_weight = log_weight[:, -1:].expand_as(log_weight)
    return _estimate(log_weight, episodes.discount * episodes.reward, torch.zeros_like(log_weight[:, 0]), weighted)


@torch.no_grad()
def doubly_robust(
    log_ratio: Tensor,
    reward: Tensor,
    q: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    gamma: float,
    weighted: bool = False,
    terminated: Tensor | None = None,
    truncated: Tensor | None = None,
    next_value: Tensor | None = None,
) -> Estimate:
    """Value of the target policy from a critic, corrected by the weighted errors it makes along the data (Jiang and Li 2016).

    ``V(s_0) + sum_t gamma^t w_t (r_t + gamma V(s_{t+1}) - Q(s_t, a_t))`` with ``w_t`` the product of the ratios up to and with step t: the
    per-decision form, unbiased for any Q as long as ``V(s) = sum_a pi(a|s) Q(s, a)``. A good critic makes all errors small, and with them
    the variance that the ratios bring. ``weighted`` normalises ``w_t`` over episodes (Thomas and Brunskill 2016).

    Args:
        log_ratio: ``[B, T]``, as in :func:`importance_sampling`, like ``reward``, ``mask``, ``gamma`` and the keywords after them.
        reward: ``[B, T]``.
        q: ``[B, T]`` Q(s_t, a_t) of the target policy, of the action taken.
        value: ``[B, T]`` V(s_t) of the target policy.
        mask: ``[B, T]`` bool.
        gamma: discount per kept step.
        weighted: see above.
        terminated: ``[B, T]`` bool.
        truncated: ``[B, T]`` bool.
        next_value: ``[B, T]``; used at the last kept step of a cut episode only.

    Raises:
        RheostatError: as :func:`importance_sampling`.
    """
    episodes = _episodes(log_ratio, reward, mask, gamma, terminated, truncated, next_value, q=q, value=value)
    q, value = episodes.others
    error = episodes.reward + gamma * pad(value[:, 1:], (0, 1)) - q
    return _estimate(episodes.log_weight, episodes.discount * error, value[:, 0], weighted)


def _episodes(
    log_ratio: Tensor,
    reward: Tensor,
    mask: Tensor | None,
    gamma: float,
    terminated: Tensor | None,
    truncated: Tensor | None,
    next_value: Tensor | None,
    **others: Tensor,
) -> _Episodes:
    require_same_shape(
        log_ratio=log_ratio, reward=reward, mask=mask, terminated=terminated, truncated=truncated, next_value=next_value, **others
    )
    if log_ratio.ndim != 2:
        raise RheostatError(f"Off-policy evaluation needs one episode a row, [B, T], not the shape {list(log_ratio.shape)}.")
    mask = torch.ones_like(log_ratio, dtype=torch.bool) if mask is None else mask
    nonempty = mask.any(-1)
    mask = mask[nonempty]
    if not len(mask):
        raise RheostatError("Off-policy evaluation has no episode: every step is masked.")
    order = (~mask).to(torch.int8).argsort(dim=-1, stable=True)
    kept = mask.gather(-1, order)

    def front(x: Tensor) -> Tensor:
        """Kept steps to the front, 0 behind them."""
        return select(x[nonempty].gather(-1, order), kept)

    ratio = front(log_ratio).double()
    if ratio.isnan().any():
        raise RheostatError(
            f"log_ratio is NaN at {int(ratio.isnan().sum())} kept steps: importance sampling needs to know how probable every action was "
            "to the behaviour policy; estimate its probabilities, or evaluate with a critic."
        )
    last = kept & ~pad(kept[:, 1:], (0, 1))
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if flag is not None and (front(flag) & ~last).any():
            raise RheostatError(f"A row goes on after it was {name}: give every episode a row of its own.")
    earned = front(reward).double()
    if next_value is not None:
        if terminated is None:
            raise RheostatError("next_value is for episodes that were cut, so terminated must be given as well.")
        earned = earned + gamma * select(front(next_value).double(), last & ~front(terminated))
    steps = torch.arange(earned.shape[-1], dtype=torch.float64, device=earned.device)
    return _Episodes(ratio.cumsum(-1), earned, gamma**steps, tuple(front(x).double() for x in others.values()))


def _estimate(log_weight: Tensor, term: Tensor, baseline: Tensor, weighted: bool) -> Estimate:
    """``baseline + sum_t w_t term_t`` over rows ``[n]``, with weights divided by their mean over rows where ``weighted``."""
    size = len(term)
    if weighted:
        weight = size * log_weight.softmax(0)  # neither overflows nor vanishes
        surprise = term - (weight * term).mean(0)  # a ratio's first-order error is its weighted deviations
    else:
        weight = log_weight.exp()
        surprise = term
    contribution = baseline + (weight * term).sum(-1)
    spread = (baseline + (weight * surprise).sum(-1)).std()
    whole = log_weight[:, -1]
    effective = size * effective_sample_size(whole) if (whole > -torch.inf).any() else torch.zeros_like(spread)
    return Estimate(contribution.mean(), spread / size**0.5, effective, contribution)
