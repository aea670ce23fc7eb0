"""Returns and advantages from rewards and values. Time is the last dimension, ``[..., T]``; rows are independent.

Three facts stay apart: ``terminated`` cuts the bootstrap and the chain, ``truncated`` cuts only the chain (the value of the true final
observation is still bootstrapped from), and ``next_value`` is the value of the *true* successor, which at an episode's end is
not the value of the next entry of the row. Masked steps are skipped: later values pass through them. Their own outputs mean
nothing and may be NaN where their inputs are.

The form with ``episode_starts`` (Stable-Baselines3, CleanRL) is the same function: ``next_value`` is the value of the next entry (the last
observation's at the end) and ``terminated`` is ``episode_starts`` of the next entry (the last done at the end).

All results are constants: nothing here carries a gradient.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from rheostat.credit.recurrence import reverse_recurrence
from rheostat.errors import RheostatError
from rheostat.masking import require_same_shape

TraceKind = Literal["retrace", "importance", "q-lambda", "tree-backup"]


def _following(x: Tensor) -> Tensor:
    """The next entry of the row, 0 (False) after the last."""
    return pad(x[..., 1:], (0, 1))


def _continuation(done: Tensor, reward: Tensor) -> Tensor:
    """1 where the chain continues, in the rewards' own precision (a number times a bool tensor would be float32)."""
    return (~done).to(reward.dtype)


@torch.no_grad()
def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float | Tensor,
    lam: float,
    mask: Tensor | None = None,
    bootstrap_on_truncation: bool = True,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016).

    ``delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)`` and ``A_t = delta_t + gamma lam (1 - done_t) A_{t+1}``.

    Args:
        reward: ``[..., T]`` float.
        value: V(s_t), the same shape.
        next_value: V(s'_t) of the true successor, the same shape; ignored where terminated.
        terminated: bool, the same shape.
        truncated: bool, the same shape.
        gamma: discount, a number or a tensor of that shape.
        lam: 0 is one-step TD, 1 is Monte Carlo minus the baseline.
        mask: bool, the same shape; masked steps are skipped and may hold NaN.
        bootstrap_on_truncation: False treats time limits as deaths, as CleanRL and the PROPS code do.

    Returns:
        ``(advantage, value_target)`` with ``value_target = advantage + value``, both of that shape.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(reward=reward, value=value, next_value=next_value, terminated=terminated, truncated=truncated, mask=mask)
    done = terminated | truncated
    worthless = terminated if bootstrap_on_truncation else done
    delta = reward + gamma * next_value.masked_fill(worthless, 0.0) - value
    advantage = reverse_recurrence(delta, gamma * lam * _continuation(done, reward), mask)
    return advantage, advantage + value


@torch.no_grad()
def discounted_return(
    reward: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float | Tensor,
    next_value: Tensor | None = None,
    mask: Tensor | None = None,
    bootstrap_on_truncation: bool = True,
) -> Tensor:
    """Monte-Carlo return, ``G_t = r_t + gamma (1 - done_t) G_{t+1}``; it starts again after every episode's end.

    Args:
        reward: ``[..., T]`` float.
        terminated: bool, the same shape.
        truncated: bool, the same shape.
        gamma: discount, a number or a tensor of that shape.
        next_value: V(s'_t) of the true successor, the same shape. Where given, the return is bootstrapped from it at truncations and at
            the last kept step of the row; None adds nothing there.
        mask: bool, the same shape; masked steps are skipped and may hold NaN.
        bootstrap_on_truncation: False treats time limits as deaths.

    Returns:
        The return, of that shape.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(reward=reward, terminated=terminated, truncated=truncated, next_value=next_value, mask=mask)
    done = terminated | truncated
    if next_value is not None:
        kept = torch.ones_like(done) if mask is None else mask
        last = kept & (kept.flip(-1).cumsum(-1).flip(-1) == 1)
        worthless = terminated if bootstrap_on_truncation else done
        reward = reward + gamma * next_value.masked_fill(~(truncated | last) | worthless, 0.0)
    return reverse_recurrence(reward, gamma * _continuation(done, reward), mask)


@torch.no_grad()
def n_step_return(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    n: int,
    mask: Tensor | None = None,
    bootstrap_on_truncation: bool = True,
) -> Tensor:
    """``r_t + gamma r_{t+1} + ... + gamma^n V(s_{t+n})``, shorter where the episode or the row ends sooner.

    Args:
        reward: ``[..., T]`` float.
        next_value: V(s'_t) of the true successor, the same shape; ignored where terminated.
        terminated: bool, the same shape.
        truncated: bool, the same shape.
        gamma: discount.
        n: number of rewards, at least 1.
        mask: bool, the same shape; masked steps are skipped (they do not count as one of the n) and may hold NaN.
        bootstrap_on_truncation: False treats time limits as deaths.

    Returns:
        The return, of that shape.

    Raises:
        RheostatError: different shapes, or n < 1.
    """
    require_same_shape(reward=reward, next_value=next_value, terminated=terminated, truncated=truncated, mask=mask)
    if n < 1:
        raise RheostatError(f"An n-step return needs n >= 1, not {n}.")
    done = terminated | truncated
    bootstrap = gamma * next_value.masked_fill(terminated if bootstrap_on_truncation else done, 0.0)
    goes_on = ~done
    order = None
    if mask is not None:  # kept steps to the front of the row, so that the next kept step is the next entry
        order = (~mask).to(torch.int8).argsort(dim=-1, stable=True)
        reward, bootstrap = reward.masked_fill(~mask, 0.0).gather(-1, order), bootstrap.masked_fill(~mask, 0.0).gather(-1, order)
        goes_on = goes_on.gather(-1, order) & _following(mask.gather(-1, order))
    else:
        goes_on = goes_on & _following(torch.ones_like(goes_on))
    result = reward + bootstrap
    for _ in range(n - 1):
        result = reward + torch.where(goes_on, gamma * _following(result), bootstrap)
    return result if order is None else result.gather(-1, order.argsort(-1))


def _cap(rho: Tensor, cap: float | None) -> Tensor:
    return rho if cap is None else rho.clamp(max=cap)


class VTrace(NamedTuple):
    """Results of :func:`vtrace`, all of the shape of the rewards."""

    target: Tensor
    """v_t, what the critic regresses on."""
    advantage: Tensor
    """min(pg_rho_clip, rho_t) (q_t - V_t), what multiplies grad log pi."""
    q: Tensor
    """r_t + gamma (lam v_{t+1} + (1 - lam) V_{t+1})."""
    error: Tensor
    """v_t - V_t."""


@torch.no_grad()
def vtrace(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    log_rho: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float | Tensor,
    lam: float = 1.0,
    rho_clip: float | None = 1.0,
    c_clip: float | None = 1.0,
    pg_rho_clip: float | None = 1.0,
    mask: Tensor | None = None,
    bootstrap_on_truncation: bool = True,
) -> VTrace:
    """V-trace (Espeholt et al. 2018, IMPALA), in rlax's form where ``lam`` scales both the trace and the bootstrap mix.

    ``delta_t = min(rho_clip, rho_t) (r_t + gamma V(s'_t) - V(s_t))``, ``error_t = delta_t + gamma lam min(c_clip, rho_t) error_{t+1}``.
    The fixed point is the value of the policy proportional to min(rho_clip mu, pi), which is pi itself without ``rho_clip``.

    Args:
        reward: ``[..., T]`` float.
        value: V(s_t), the same shape.
        next_value: V(s'_t) of the true successor, the same shape; ignored where terminated.
        log_rho: log pi(a_t|s_t) - log mu(a_t|s_t), target over behaviour, the same shape.
        terminated: bool, the same shape.
        truncated: bool, the same shape.
        gamma: discount, a number or a tensor of that shape.
        lam: trace decay.
        rho_clip: cap of the weight of the TD error, None for no cap.
        c_clip: cap of the trace coefficient, None for no cap.
        pg_rho_clip: cap of the weight of the policy gradient, None for no cap.
        mask: bool, the same shape; masked steps are skipped and may hold NaN.
        bootstrap_on_truncation: False treats time limits as deaths.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(
        reward=reward, value=value, next_value=next_value, log_rho=log_rho, terminated=terminated, truncated=truncated, mask=mask
    )
    done = terminated | truncated
    bootstrap = next_value.masked_fill(terminated if bootstrap_on_truncation else done, 0.0)
    rho = log_rho.exp()
    discount = gamma * _continuation(done, reward)
    one_step = reward + gamma * bootstrap
    error = reverse_recurrence(_cap(rho, rho_clip) * (one_step - value), discount * lam * _cap(rho, c_clip), mask)
    q = one_step + discount * lam * _following(error)
    return VTrace(value + error, _cap(rho, pg_rho_clip) * (q - value), q, error)


def trace_coefficient(
    target_prob: Tensor, behaviour_prob: Tensor, *, kind: TraceKind = "retrace", lam: float = 1.0, eps: float = 1e-8
) -> Tensor:
    """Trace coefficient c_t of an action from its probabilities under the target and the behaviour policy (Munos et al. 2016, table 1).

    ``retrace`` lam min(1, pi / mu), ``importance`` lam pi / mu, ``q-lambda`` lam, ``tree-backup`` lam pi.

    Args:
        target_prob: pi(a_t|s_t), any shape.
        behaviour_prob: mu(a_t|s_t), the same shape.
        kind: see above.
        lam: trace decay.
        eps: added to mu (rlax).

    Raises:
        RheostatError: different shapes, or a kind that does not exist.
    """
    require_same_shape(target_prob=target_prob, behaviour_prob=behaviour_prob)
    if kind == "retrace":
        return lam * (target_prob / (behaviour_prob + eps)).clamp(max=1.0)
    if kind == "importance":
        return lam * (target_prob / (behaviour_prob + eps))
    if kind == "q-lambda":
        return torch.full_like(target_prob, lam)
    if kind == "tree-backup":
        return lam * target_prob
    raise RheostatError(f"Unknown trace coefficient {kind!r}: one of {', '.join(get_args(TraceKind))}.")


@torch.no_grad()
def retrace(
    reward: Tensor,
    q: Tensor,
    next_value: Tensor,
    trace: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float | Tensor,
    mask: Tensor | None = None,
    bootstrap_on_truncation: bool = True,
) -> Tensor:
    """Off-policy return of a state-action value, ``G_t = r_t + gamma [E_pi Q(s'_t, .) + c_{t+1} (G_{t+1} - Q(s_{t+1}, a_{t+1}))]``.

    Retrace(lambda), tree backup, Q(lambda) and importance sampling differ in the coefficient only (Munos et al. 2016).

    Args:
        reward: ``[..., T]`` float.
        q: Q(s_t, a_t) of the action taken, the same shape.
        next_value: E_pi Q(s'_t, .) at the true successor, the same shape; ignored where terminated.
        trace: c_t of the action taken at step t, the same shape (see :func:`trace_coefficient`); the first of a chain is not used.
        terminated: bool, the same shape.
        truncated: bool, the same shape.
        gamma: discount, a number or a tensor of that shape.
        mask: bool, the same shape; masked steps are skipped and may hold NaN.
        bootstrap_on_truncation: False treats time limits as deaths.

    Returns:
        The target of Q(s_t, a_t), of that shape.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(reward=reward, q=q, next_value=next_value, trace=trace, terminated=terminated, truncated=truncated, mask=mask)
    done = terminated | truncated
    one_step = reward + gamma * next_value.masked_fill(terminated if bootstrap_on_truncation else done, 0.0)
    discount = gamma * _continuation(done, reward)
    weighted_error = reverse_recurrence(trace * (one_step - q), trace * discount, mask)
    return one_step + discount * _following(weighted_error)
