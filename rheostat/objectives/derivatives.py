"""Derivatives of the kernel's losses by hand, for inner loops without autograd.

The minibatches of a control method are so small that autograd's bookkeeping costs more than the arithmetic. Each function here is what
autograd finds for a loss of the kernel (the tests compare them), and nothing else: losses are defined in
:mod:`~rheostat.objectives.policy_gradient` and :mod:`~rheostat.objectives.value` only. All arguments are constants of shape ``[N]``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import require_same_shape
from rheostat.objectives.clipping import Bound, Clip, ClipRule, NoClip


@torch.no_grad()
def policy_dloss_dlogp(
    logp: Tensor, advantage: Tensor, *, denominator_logp: Tensor | None, clip: ClipRule, weight: Tensor | None = None
) -> Tensor:
    """Derivative of :func:`~rheostat.objectives.policy_gradient.policy_gradient` (token ratio, plain mean) with respect to ``logp``.

    Args:
        logp, advantage, denominator_logp, weight: ``[N]``, as there.
        clip: as there.

    Returns:
        ``[N]``.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(logp=logp, advantage=advantage, denominator_logp=denominator_logp, weight=weight)
    ratio = torch.ones_like(logp) if denominator_logp is None else (logp - denominator_logp).exp_()
    dloss_dlogp = clip.dloss_dlogp(ratio, advantage)
    dloss_dlogp.masked_fill_(clip.clipped(ratio, advantage), 0.0)
    if weight is not None:
        dloss_dlogp *= weight
    return dloss_dlogp.div_(len(logp))


def behaviour_dloss_dlogp(logp: Tensor, target_logp: Tensor, *, clip: Bound, weight: Tensor | None = None) -> Tensor:
    """Derivative of the clipped part of :func:`~rheostat.objectives.behaviour.behaviour_loss` by ``logp``.

    Args:
        logp, target_logp, weight: ``[N]``, as there.
        clip: as there.

    Returns:
        ``[N]``.

    Raises:
        RheostatError: different shapes.
    """
    push_down = torch.full_like(target_logp, -1.0)
    return policy_dloss_dlogp(logp, push_down, denominator_logp=target_logp, clip=Clip(clip, clip), weight=weight)


def ros_dloss_dlogp(logp: Tensor, target_logp: Tensor) -> Tensor:
    """Derivative of :func:`~rheostat.objectives.behaviour.ros_loss` with respect to ``logp``: of two ``[N]`` one ``[N]``."""
    return policy_dloss_dlogp(logp, torch.full_like(target_logp, -1.0), denominator_logp=target_logp, clip=NoClip())


@torch.no_grad()
def value_dloss_dvalue(
    value: Tensor,
    target: Tensor,
    *,
    old_value: Tensor | None = None,
    clip: float | None = None,
    pessimistic: bool = True,
    scale: float = 0.5,
) -> Tensor:
    """Derivative of :func:`~rheostat.objectives.value.value_loss` (a plain mean) with respect to ``value``.

    Args:
        value, target, old_value: ``[N]``, as there.
        clip, pessimistic, scale: as there.

    Returns:
        ``[N]``.

    Raises:
        RheostatError: different shapes, or a clip without ``old_value``.
    """
    require_same_shape(value=value, target=target, old_value=old_value)
    error = value - target
    dloss_dlogp = error * (2 * scale / len(value))
    if clip is None:
        return dloss_dlogp
    if old_value is None:
        raise RheostatError("Clipping the value needs the value at the start of the update: give old_value, or clip=None.")
    change = value - old_value
    clipped = change.clamp(-clip, clip)
    left = clipped != change
    if pessimistic:  # no gradient where v left the window and the clipped error is the larger one
        clipped_error = (old_value - target).add_(clipped)
        left &= clipped_error.abs_() > error.abs_()
    return dloss_dlogp.masked_fill_(left, 0.0)
