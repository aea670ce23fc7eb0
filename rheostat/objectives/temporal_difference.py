"""One-step targets of a state-action value, and the regression of an ensemble of critics on them.

``K`` critics of ``B`` transitions are one tensor ``[K, B]``. Vectors ``[B, 1]``, which most codes use, are refused: one that is
forgotten regresses every value on every target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from rheostat import masking
from rheostat.errors import RheostatError, unknown
from rheostat.masking import require_same_shape, select

OverCritics = Literal["sum", "mean"]
ErrorOverCritics = Literal["mean", "max"]


def require_critics(q: Tensor, name: str = "q") -> None:
    """Refuse values that are not ``[K, B]``.

    Raises:
        RheostatError: naming the shape.
    """
    if q.ndim != 2:
        raise RheostatError(f"{name} must have the shape [critics, rows], not {list(q.shape)}: unsqueeze(0) makes it one critic's.")


@torch.no_grad()
def td_target(reward: Tensor, next_value: Tensor, discount: Tensor) -> Tensor:
    """``y = r + discount * V(s')``, a constant.

    What differs between methods is ``next_value`` only: :func:`min_over_critics` of target critics (TD3, AWAC, CQL), that minus
    ``alpha log pi`` (:func:`soft_value`; SAC, RLPD), V(s') (IQL), or the target critic at the evaluated policy's action (FQE).

    Args:
        reward: ``[B]``, the discounted sum of n rewards for n-step targets.
        next_value: ``[B]`` at the true successor; may be NaN where the discount is 0.
        discount: ``[B]``: gamma^n, 0 where the environment terminated (never where a time limit cut the episode).

    Returns:
        ``[B]``.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(reward=reward, next_value=next_value, discount=discount)
    return reward + select(discount * next_value, discount != 0)


def min_over_critics(q: Tensor, *, subset: Sequence[int] | Tensor | None = None) -> Tensor:
    """Smallest value over critics, the pessimistic one (clipped double Q-learning).

    | code | critics |
    |---|---|
    | TD3, SAC, AWAC, IQL, CQL | all (two) |
    | REDQ, RLPD in the target | 2 of 10, drawn anew for every step: ``subset`` |

    Args:
        q: ``[K, B]``.
        subset: indices of the critics that count, the same for all rows; None counts all.

    Returns:
        ``[B]``. Where critics tie they share the gradient.

    Raises:
        RheostatError: q is not ``[K, B]``.
    """
    require_critics(q)
    return (q if subset is None else q[torch.as_tensor(subset, device=q.device)]).amin(0)


def soft_value(value: Tensor, log_prob: Tensor, temperature: float | Tensor) -> Tensor:
    """``V = Q - alpha log pi``: the value of a state with the entropy bonus, from one action drawn from the policy.

    Args:
        value: ``[B]`` Q(s, a) of the drawn action.
        log_prob: ``[B]`` log pi(a|s), nats.
        temperature: alpha, a number or a tensor of one element.

    Raises:
        RheostatError: different shapes, or a temperature per row.
    """
    require_same_shape(value=value, log_prob=log_prob)
    return value - one_number(temperature, "temperature") * log_prob


@torch.no_grad()
def greedy_value(value: Tensor, selector: Tensor | None = None) -> Tensor:
    """``Q(s, argmax_b selector(s, b))``, a constant.

    | code | selector |
    |---|---|
    | DQN | the target network itself: its largest value |
    | double DQN (van Hasselt et al. 2016) | the online network; the target network evaluates its choice |

    Args:
        value: ``[B, A]`` of every action.
        selector: ``[B, A]``; None takes ``value``.

    Returns:
        ``[B]``.

    Raises:
        RheostatError: different shapes.
    """
    if selector is None:
        return value.amax(-1)
    require_same_shape(value=value, selector=selector)
    return value.gather(-1, selector.argmax(-1, keepdim=True)).squeeze(-1)


def critic_loss(
    q: Tensor,
    target: Tensor,
    *,
    critics: OverCritics = "sum",
    scale: float = 1.0,
    huber: float | None = None,
    weight: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> Tensor:
    """Error of K critics against one target, mean over rows; a scalar to be minimised.

    The published forms differ by factors that change the effective learning rate:

    | code | loss | arguments |
    |---|---|---|
    | TD3, TD3+BC, CleanRL SAC, IQL (JAX), CQL | sum_k mean (Q_k - y)^2 | the defaults |
    | Stable-Baselines3 SAC | 0.5 sum_k mean (Q_k - y)^2 | ``scale=0.5`` |
    | CORL IQL, RLPD | mean over k and rows | ``critics="mean"`` |
    | d3rlpy FQE, discrete actions | mean Huber with delta 1 | ``huber=1.0`` |

    Huber's error is ``d^2 / 2`` inside ``|d| < delta`` and ``delta (|d| - delta / 2)`` outside: half the square, not the square.

    Args:
        q: ``[K, B]`` Q_k(s, a); carries the gradient.
        target: ``[B]``, a constant.
        critics: sum over critics, or their mean.
        scale: factor on the whole loss.
        huber: delta in units of value; None squares.
        weight: ``[B]``, a constant (importance weights of a prioritised replay). Rows of weight 0 may hold NaN.
        denominator: divides the sum over rows; None is the number of rows, whatever their weights.

    Raises:
        RheostatError: q is not ``[K, B]``, different numbers of rows, or a reduction that does not exist.
    """
    require_critics(q)
    require_same_shape(one_critic=q[0], target=target, weight=weight)
    if critics not in ("sum", "mean"):
        raise unknown("reduction over critics", critics, ("sum", "mean"))
    kept = counted(weight)
    target = select(target, kept).detach().expand_as(q)
    q = select(q, kept)
    error = (q - target).square() if huber is None else huber_loss(q, target, reduction="none", delta=huber)
    per_row = error.sum(0) if critics == "sum" else error.mean(0)
    return scale * masking.aggregate(weighted(per_row, weight), None, denominator=denominator)


@torch.no_grad()
def absolute_td_error(q: Tensor, target: Tensor, *, critics: ErrorOverCritics = "mean") -> Tensor:
    """``|Q_k - y|`` per row, over critics: the priorities of a prioritised replay.

    Args:
        q: ``[K, B]``.
        target: ``[B]``.
        critics: the mean over critics, or the largest.

    Returns:
        ``[B]``, at least 0, a constant.

    Raises:
        RheostatError: q is not ``[K, B]``, different numbers of rows, or a reduction that does not exist.
    """
    require_critics(q)
    require_same_shape(one_critic=q[0], target=target)
    error = (q - target).abs()
    if critics == "mean":
        return error.mean(0)
    if critics == "max":
        return error.amax(0)
    raise unknown("reduction over critics", critics, ("mean", "max"))


def counted(weight: Tensor | None) -> Tensor | None:
    """Bool ``[B]``, true where the weight ``[B]`` of a row is not 0; None, which keeps all, stays None."""
    return None if weight is None else weight != 0


def weighted(per_row: Tensor, weight: Tensor | None) -> Tensor:
    """Losses ``[B]`` of rows times their weights ``[B]``, which are constants; None leaves them as they are."""
    return per_row if weight is None else weight.detach() * per_row


def one_number(x: float | Tensor, name: str) -> float | Tensor:
    """A factor that all rows share, as a number or a scalar tensor.

    Raises:
        RheostatError: a tensor of several elements.
    """
    if not isinstance(x, Tensor):
        return x
    if x.numel() != 1:
        raise RheostatError(f"{name} is one number for all rows, not a tensor of the shape {list(x.shape)}.")
    return x.reshape(())
