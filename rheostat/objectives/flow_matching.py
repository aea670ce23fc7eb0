"""Flow matching over hidden states: how far a velocity field is from the straight way between noise and a token's latent.

    x_t = t h + (1 - t) noise,   u = h - noise,   e_t = mean over D of (v(x_t, t, condition) - u)^2        (t = 1 is the latent)

Lipman et al. 2023, arXiv 2210.02747; with the latent of the neighbouring token as the condition: RLFR, arXiv 2510.10201.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from rheostat.errors import RheostatError
from rheostat.objectives.terms import TokenTerm
from rheostat.parts import Batch, Context, Report

Pairing = Literal["token-post", "token-pre"]
"""A token's latent is predicted from that of the token before it, which is causal; or from that of the token after it."""
Velocity = Callable[[Tensor, Tensor], Tensor]
"""From points ``[n, D]`` and times ``[n]`` to velocities ``[n, D]``."""


def deviation(velocity: Velocity, target: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """``e_t`` of every row, ``[n]``.

    Args:
        velocity: the field, with its condition.
        target, noise: ``[n, D]``.
        time: ``[n]``.
    """
    t = time[:, None]
    return (velocity(t * target + (1 - t) * noise, time) - (target - noise)).square().mean(-1)


def debiased(deviations: Tensor, times: Sequence[float], *, released: bool = False) -> Tensor:
    """One score from the deviations at several times, ``[...]``: the mean of ``t / (1 - t) e_t``.

    Args:
        deviations: ``[..., K]``.
        times: K of them, between 0 and 1.
        released: the weight of the last time for all of them, as in the authors' code.
    """
    weights = deviations.new_tensor([t / (1 - t) for t in times])
    return (deviations * (weights[-1:] if released else weights)).mean(-1)


def partners(attention: Tensor, pairing: Pairing) -> Tensor:
    """Positions ``[B, T]`` bool that have the neighbour of a pairing inside their row.

    Args:
        attention: ``[B, T]`` bool, real tokens.
        pairing: which neighbour.

    Raises:
        RheostatError: a pairing that does not exist.
    """
    if pairing not in get_args(Pairing):
        raise RheostatError(f"Unknown pairing {pairing!r}: one of {', '.join(get_args(Pairing))}.")
    return attention & (pad(attention[:, :-1], (1, 0)) if pairing == "token-post" else pad(attention[:, 1:], (0, 1)))


def neighbours(positions: Tensor, pairing: Pairing) -> Tensor:
    """Where the neighbours of some positions ``[B, T]`` bool stand, as such a tensor."""
    return pad(positions[:, 1:], (0, 1)) if pairing == "token-post" else pad(positions[:, :-1], (1, 0))


@dataclass(frozen=True)
class FlowMatching(TokenTerm):
    """The mean deviation of a flow field from the latents of tokens, over its times, layers and repeats."""

    times: tuple[float, ...] = ()
    """Where on the way; empty draws one time for every token, the logistic function of a normal number."""
    repeats: int = 1
    """Draws of noise for every token."""
    model: str = "flow"
    reads: ClassVar[Sequence[str]] = ("flow_seed",)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        field = context.models[self.model]
        found = field.deviations(context, batch.rows, batch.columns["flow_seed"], times=self.times, repeats=self.repeats)
        return self.reduce(found.mean(-1), batch, denominator), Report()


def logistic_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Times in (0, 1): the logistic function of normal numbers (Esser et al. 2024, arXiv 2403.03206)."""
    return torch.randn(shape, generator=generator).sigmoid()
