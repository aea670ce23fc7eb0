"""Behaviour cloning by several policies that should not all become the same one (Uni-O4)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rheostat.errors import RheostatError, unknown
from rheostat.masking import require_same_shape
from rheostat.objectives.kl import gaussian_kl

Diversity = Literal["distribution", "heuristic"]
OverDimensions = Literal["mean", "sum"]


@torch.no_grad()
def likeliest_other(logp: Tensor) -> Tensor:
    """For every member and row the other member under which the row is likeliest: ``[K, B]`` log-probabilities to int64 ``[K, B]``.

    Raises:
        RheostatError: fewer than two members.
    """
    members = len(logp)
    if members < 2:
        raise RheostatError("One member alone has no others to differ from: use at least two, or alpha 0.")
    own = torch.eye(members, dtype=torch.bool, device=logp.device).unsqueeze(-1)  # [K, K, 1]
    return logp.unsqueeze(0).masked_fill(own, -torch.inf).argmax(1)


def diverse_cloning_loss(
    logp: Tensor,
    mean: Tensor,
    log_std: Tensor,
    *,
    alpha: float,
    kind: Diversity = "distribution",
    dimensions: OverDimensions = "mean",
) -> Tensor:
    """``mean[-log pi_i(a|s) - alpha * distance_i]`` of every member i, to be minimised: likely actions, far from the others.

    With j the other member under which the row's action is likeliest (a constant, like everything about it):

    | kind | distance | its gradient |
    |---|---|---|
    | distribution | KL(pi_i, pi_j) at the state | pushes member i away from member j |
    | heuristic | log pi_i(a given s) - log pi_j(a given s) | that of log pi_i: the whole loss is 1 + alpha times plain cloning |

    So the released default, the heuristic, only rescales the step: its members differ by their initialisation. All members are updated at
    once against the present others.

    Args:
        logp: ``[K, B]`` log pi_i(a|s) of the data's actions; carries the gradient.
        mean, log_std: ``[K, B, D]`` of the members' Gaussians; carry the gradient (kind distribution).
        alpha: how much distance counts; 0, or a single member, is plain cloning.
        kind: see the table.
        dimensions: the divergence as a mean over action dimensions (the release, by its broadcasting) or their sum.

    Returns:
        ``[K]``; add them up, the members share nothing.

    Raises:
        RheostatError: different shapes, or a kind or reduction that does not exist.
    """
    require_same_shape(mean=mean, log_std=log_std)
    require_same_shape(logp=logp, rows=mean[..., 0])
    if kind not in ("distribution", "heuristic"):
        raise unknown("kind of diversity", kind, ("distribution", "heuristic"))
    if dimensions not in ("mean", "sum"):
        raise unknown("reduction over the action's dimensions", dimensions, ("mean", "sum"))
    if alpha == 0 or len(logp) == 1:
        return -logp.mean(-1)
    other, row = likeliest_other(logp), torch.arange(logp.shape[1], device=logp.device)
    if kind == "heuristic":
        distance = logp - logp.detach()[other, row]
    else:
        divergence = gaussian_kl(mean, log_std, mean.detach()[other, row], log_std.detach()[other, row])
        distance = divergence.mean(-1) if dimensions == "mean" else divergence.sum(-1)
    return (-logp - alpha * distance).mean(-1)
