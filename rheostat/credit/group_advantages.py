"""Group-relative advantages: rewards compared with those of the other answers to the same prompt.

One number per row, ``[B]``; :func:`to_tokens` spreads it over the row's tokens. Groups are named by any integers in ``group``; rows of a
group need not be adjacent. Differences between codebases are named arguments:

| method | function | arguments |
|---|---|---|
| GRPO as in verl | :func:`grpo_advantage` | the defaults (unbiased std, eps 1e-6) |
| GRPO as in TRL | :func:`grpo_advantage` | ``eps=1e-4``; ``scale`` is its ``scale_rewards`` |
| Dr. GRPO | :func:`grpo_advantage` | ``scale="none"`` |
| RLOO | :func:`rloo_advantage` | |
| REINFORCE++-baseline | :func:`reinforce_pp_baseline_advantage` | |

A group whose rewards are all equal gives exactly 0 everywhere. Rows where ``valid`` is False (a verifier failed) enter no statistic and
get 0: invalid is not reward 0.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import require_same_shape, select, standardise

Scale = Literal["group", "batch", "none"]
Singleton = Literal["keep", "zero"]


class GroupStatistics(NamedTuple):
    """Statistics of each row's group, ``[B]`` each."""

    mean: Tensor
    centred: Tensor
    """Reward minus the group's mean; exactly 0 where the group's rewards are equal, and for invalid rows."""
    std: Tensor
    """0 for a group of one."""
    size: Tensor
    """int64, valid members."""
    equal: Tensor
    """bool, all valid members have the same reward."""


def group_statistics(reward: Tensor, group: Tensor, *, valid: Tensor | None = None, unbiased: bool = True) -> GroupStatistics:
    """Mean, spread and size of every row's group over its valid members.

    Args:
        reward: ``[B]`` float.
        group: ``[B]`` integers.
        valid: ``[B]`` bool; None means all are.
        unbiased: divide the variance by n - 1 (torch's convention) or by n (numpy's). With binary rewards and n = 4 they differ by 15 %.

    Raises:
        RheostatError: different or wrong shapes, or a valid reward that is not finite.
    """
    _require_rows(reward=reward, group=group, valid=valid)
    valid = torch.ones_like(reward, dtype=torch.bool) if valid is None else valid
    reward = select(reward, valid)
    if not bool(reward.isfinite().all()):
        raise RheostatError("A reward is not finite: mark rows whose verifier failed with valid=False instead.")
    _, index = torch.unique(group, return_inverse=True)
    groups = int(index.max()) + 1 if index.numel() else 0
    zeros = reward.new_zeros(groups)
    lowest = zeros.scatter_reduce(0, index, reward.masked_fill(~valid, torch.inf), "amin", include_self=False)[index]
    highest = zeros.scatter_reduce(0, index, reward.masked_fill(~valid, -torch.inf), "amax", include_self=False)[index]
    size = zeros.index_add(0, index, valid.to(reward.dtype))[index]
    shifted = select(reward - lowest, valid)  # from the group's lowest reward: equal rewards are then exactly 0, whatever the rounding
    mean = zeros.index_add(0, index, shifted)[index] / size.clamp(min=1)
    centred = select(shifted - mean, valid)
    variance = zeros.index_add(0, index, centred.square())[index] / (size - int(unbiased)).clamp(min=1)
    empty = size == 0
    return GroupStatistics((mean + lowest).masked_fill(empty, 0.0), centred, variance.sqrt(), size.long(), (lowest == highest) | empty)


def grpo_advantage(
    reward: Tensor,
    group: Tensor,
    *,
    scale: Scale = "group",
    eps: float = 1e-6,
    unbiased: bool = True,
    singleton: Singleton = "keep",
    valid: Tensor | None = None,
) -> Tensor:
    """``(R_i - mean of the group) / (std + eps)`` (Shao et al. 2024, DeepSeekMath).

    Args:
        reward: ``[B]`` float.
        group: ``[B]`` integers.
        scale: divide by the std of the ``group``, of the whole ``batch``, or by nothing (``none``, Dr. GRPO).
        eps: added to the std; 1e-6 in verl, 1e-4 in TRL.
        unbiased: convention of the std; both codebases use n - 1.
        singleton: a group with one valid member has no baseline. ``keep`` uses mean 0 and std 1 and so keeps its reward (verl); ``zero``
            gives it no gradient. Call :func:`check_groups` first where groups of one can only be a mistake.
        valid: ``[B]`` bool; invalid rows enter no statistic and get 0.

    Returns:
        ``[B]``.

    Raises:
        RheostatError: different shapes, a valid reward that is not finite, or a scale that does not exist.
    """
    statistics = group_statistics(reward, group, valid=valid, unbiased=unbiased)
    if scale == "group":
        spread = statistics.std.masked_fill(statistics.size == 1, 1.0)
    elif scale == "batch":
        kept = reward if valid is None else reward[valid]
        spread = kept.std(correction=int(unbiased)) if kept.numel() > 1 else reward.new_ones(())
    elif scale == "none":
        return _with_singletons(statistics.centred, statistics, reward, valid, singleton)
    else:
        raise RheostatError(f"Unknown scale {scale!r}: one of {', '.join(get_args(Scale))}.")
    return _with_singletons(statistics.centred, statistics, reward, valid, singleton) / (spread + eps)


def split_advantage(
    reward: Tensor,
    group: Tensor,
    own: Tensor,
    *,
    scale: Literal["group", "none"] = "group",
    eps: float = 1e-6,
    valid: Tensor | None = None,
) -> Tensor:
    """``(R_i - mean) / (std + eps)`` with the mean and deviation of the policy's *own* members of the group, for all its members.

    An expert's reward then changes no baseline. A deviation of 0 counts as 1, so that an expert that is right where all others are
    wrong has advantage 1. Source: ``grpo_split`` in the code of LUFFY and RL-PLUS.

    Args:
        reward: ``[B]`` float.
        group: ``[B]`` integers.
        own: ``[B]`` bool, the members that make the statistics.
        scale: divide by the deviation, or by nothing.
        eps: added to the deviation.
        valid: ``[B]`` bool; invalid rows enter no statistic and get 0.

    Returns:
        ``[B]``; 0 in a group without a valid own member.

    Raises:
        RheostatError: different shapes, or a valid reward that is not finite.
    """
    _require_rows(reward=reward, group=group, own=own, valid=valid)
    valid = torch.ones_like(reward, dtype=torch.bool) if valid is None else valid
    statistics = group_statistics(reward, group, valid=valid & own)
    centred = torch.where(own, statistics.centred, select(reward, valid) - statistics.mean)
    advantage = select(centred, valid & (statistics.size > 0))
    return advantage / (statistics.std.masked_fill(statistics.std == 0, 1.0) + eps) if scale == "group" else advantage


def rloo_advantage(reward: Tensor, group: Tensor, *, singleton: Singleton = "keep", valid: Tensor | None = None) -> Tensor:
    """Reward minus the mean of the *other* members, ``(R_i - mean) n / (n - 1)`` (Ahmadian et al. 2024).

    Args:
        reward: ``[B]`` float.
        group: ``[B]`` integers.
        singleton: see :func:`grpo_advantage`.
        valid: ``[B]`` bool; invalid rows enter no statistic and get 0.

    Returns:
        ``[B]``.

    Raises:
        RheostatError: different shapes, or a valid reward that is not finite.
    """
    statistics = group_statistics(reward, group, valid=valid)
    left_out = statistics.centred * statistics.size / (statistics.size - 1).clamp(min=1)
    return _with_singletons(left_out, statistics, reward, valid, singleton)


def reinforce_pp_baseline_advantage(
    reward: Tensor,
    group: Tensor,
    mask: Tensor,
    *,
    eps: float = 1e-8,
    singleton: Singleton = "keep",
    valid: Tensor | None = None,
) -> Tensor:
    """REINFORCE++-baseline: reward minus the group's mean, spread over the tokens and whitened over every kept token of the batch.

    Long rows weigh more in the whitening. Equal rewards everywhere give exactly 0; one equal group among others does not, because the
    whitening subtracts the batch's mean (as published).

    Args:
        reward: ``[B]`` float.
        group: ``[B]`` integers.
        mask: ``[B, T]`` bool.
        eps: added to the variance inside the root.
        singleton: see :func:`grpo_advantage`.
        valid: ``[B]`` bool; the tokens of invalid rows enter no statistic and get 0.

    Returns:
        ``[B, T]``, 0 outside the mask.

    Raises:
        RheostatError: different shapes, or a valid reward that is not finite.
    """
    kept = mask if valid is None else mask & valid.unsqueeze(-1)
    centred = grpo_advantage(reward, group, scale="none", singleton=singleton, valid=valid)
    return standardise(to_tokens(centred, kept), kept, eps=eps, eps_inside_root=True)


def to_tokens(advantage: Tensor, mask: Tensor) -> Tensor:
    """``[B]`` to ``[B, T]``: every kept token of a row gets the row's number, the others 0.

    Raises:
        RheostatError: as many numbers as rows are not given.
    """
    if advantage.shape != mask.shape[:-1]:
        raise RheostatError(f"One advantage per row is needed: advantages {list(advantage.shape)}, mask {list(mask.shape)}.")
    return select(advantage.unsqueeze(-1).expand(mask.shape), mask)


def check_groups(group: Tensor, size: int) -> None:
    """Refuse a batch in which some group does not have exactly ``size`` members.

    Wrong group ids silently turn GRPO into REINFORCE with a baseline of one sample.

    Args:
        group: ``[B]`` integers.
        size: members every group must have.

    Raises:
        RheostatError: naming the first group that is incomplete.
    """
    names, counts = torch.unique(group, return_counts=True)
    wrong = (counts != size).nonzero().flatten()
    if wrong.numel():
        first = int(wrong[0])
        raise RheostatError(
            f"Group {int(names[first])} has {int(counts[first])} members and every group must have {size} "
            f"({wrong.numel()} of {names.numel()} groups are wrong): keep the rows of a prompt together under one group id."
        )


def informative_groups(metric: Tensor, group: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """DAPO's dynamic sampling: keep the groups whose metric is not the same for all members; groups of one are kept.

    Equality is exact (largest against smallest), so rounding in a standard deviation never keeps a group of equal rewards.

    Args:
        metric: ``[B]`` float, usually the reward or the accuracy.
        group: ``[B]`` integers.
        valid: ``[B]`` bool; invalid rows do not count.

    Returns:
        ``[B]`` bool, the same for all rows of a group.

    Raises:
        RheostatError: different shapes, or a valid metric that is not finite.
    """
    statistics = group_statistics(metric, group, valid=valid)
    return ~statistics.equal | (statistics.size == 1)


def _with_singletons(advantage: Tensor, statistics: GroupStatistics, reward: Tensor, valid: Tensor | None, singleton: Singleton) -> Tensor:
    if singleton not in get_args(Singleton):
        raise RheostatError(f"Unknown treatment of groups of one {singleton!r}: one of {', '.join(get_args(Singleton))}.")
    if singleton == "zero":
        return advantage  # a group of one is centred to 0
    return torch.where(statistics.size == 1, select(reward, valid), advantage)


def _require_rows(**tensors: Tensor | None) -> None:
    require_same_shape(**tensors)
    for name, tensor in tensors.items():
        if tensor is not None and tensor.ndim != 1:
            raise RheostatError(f"Groups are of rows: {name} must be [B], not {list(tensor.shape)}.")
