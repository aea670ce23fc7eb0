"""Losses on preference pairs: links from the two log-ratios of a pair to a loss. Pure functions, one number per pair.

With ``w`` and ``l`` the summed log-ratios of the chosen and the rejected answer to a reference, ``D = w - l``, ``ls`` the logarithm of the
sigmoid ``s`` and ``e`` the label smoothing:

| link | loss per pair | paper |
|---|---|---|
| sigmoid | ``-(1 - e) ls(beta D) - e ls(-beta D)`` | DPO 2305.18290; with e > 0 conservative DPO |
| robust | ``[-(1 - e) ls(beta D) + e ls(-beta D)] / (1 - 2 e)``; may be negative | 2403.00409 |
| ipo | ``(D - 1 / (2 beta))^2`` on sums | IPO 2310.12036 |
| ipo-mean | the same with ``w`` and ``l`` divided by their lengths | as in TRL's DPO trainer |
| hinge | ``max(0, 1 - beta D)`` | SLiC 2305.10425 |
| sigmoid-mean | ``-ls(beta (w / n_w - l / n_l))`` | length-normalised DPO |
| nca | ``-ls(beta w) - ls(-beta w) / 2 - ls(-beta l) / 2`` | 2402.05369 |
| bco | ``-ls(beta w) - ls(-beta l)``, without a running shift | 2404.04656 |
| sppo | ``(w - 1 / (2 beta))^2 + (l + 1 / (2 beta))^2`` | 2405.00675 |
| apo-zero | ``1 - s(beta w) + s(beta l)`` | 2408.06266 |
| apo-down | ``s(beta w) + 1 - s(beta D)`` | 2408.06266 |
| exo | ``q (log q - log(1 - e)) + (1 - q) (log(1 - q) - log e)``, q = s(beta D), e > 0 | 2402.00856 |

TRL 1.16.0 ignores the smoothing of its plain sigmoid loss; here it acts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rheostat.errors import RheostatError
from rheostat.masking import masked_sum, require_same_shape
from rheostat.objectives.terms import TokenTerm
from rheostat.parts import Batch, Context, Report

Link = Literal[
    "sigmoid", "robust", "ipo", "ipo-mean", "hinge", "sigmoid-mean", "nca", "bco", "sppo", "apo-zero", "apo-down", "exo"
]  # fmt: skip
SMOOTHED: tuple[Link, ...] = ("sigmoid", "robust", "exo")
"""Links with label smoothing."""
BY_LENGTH: tuple[Link, ...] = ("ipo-mean", "sigmoid-mean")
"""Links of log-ratios per token."""


def check_link(link: Link, beta: float, smoothing: float) -> None:
    """Refuse settings that have no meaning for the link.

    Raises:
        RheostatError: an unknown link, a beta that is not positive, or a smoothing that does nothing or breaks the link.
    """
    if link not in get_args(Link):
        raise RheostatError(f"Unknown link {link!r}: one of {', '.join(get_args(Link))}.")
    if beta <= 0:
        raise RheostatError(f"beta is {beta}: it must be above 0.")
    if smoothing and link not in SMOOTHED:
        raise RheostatError(f"The link {link!r} does not know label smoothing: use one of {', '.join(SMOOTHED)}, or leave it at 0.")
    if not 0 <= smoothing < 0.5:
        raise RheostatError(f"label_smoothing is {smoothing}: the share of flipped labels is at least 0 and below one half.")
    if link == "exo" and not smoothing:
        raise RheostatError("The link 'exo' compares with smoothed labels: give label_smoothing a value above 0, for example 0.001.")


def preference_loss(
    chosen: Tensor,
    rejected: Tensor,
    *,
    link: Link = "sigmoid",
    beta: float = 0.1,
    smoothing: float = 0.0,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
) -> Tensor:
    """See the table of the module.

    Args:
        chosen, rejected: ``[P]`` summed log-ratios to the reference (or log-probs, without one); they carry the gradient.
        link: its name.
        beta: scale of the log-ratios, above 0.
        smoothing: share of labels taken as flipped.
        chosen_length, rejected_length: ``[P]`` tokens of both answers, for links per token; an empty answer counts one.

    Returns:
        ``[P]``.

    Raises:
        RheostatError: what :func:`check_link` refuses, different shapes, or lengths that a link needs and that are missing.
    """
    check_link(link, beta, smoothing)
    require_same_shape(chosen=chosen, rejected=rejected, chosen_length=chosen_length, rejected_length=rejected_length)
    if link in BY_LENGTH:
        if chosen_length is None or rejected_length is None:
            raise RheostatError(f"The link {link!r} divides by the answers' lengths: give both.")
        chosen, rejected = chosen / chosen_length.clamp(min=1), rejected / rejected_length.clamp(min=1)
    margin = chosen - rejected
    scaled = beta * margin
    if link in ("sigmoid", "sigmoid-mean"):
        return -(1 - smoothing) * logsigmoid(scaled) - smoothing * logsigmoid(-scaled)
    if link == "robust":
        return (-(1 - smoothing) * logsigmoid(scaled) + smoothing * logsigmoid(-scaled)) / (1 - 2 * smoothing)
    if link in ("ipo", "ipo-mean"):
        return (margin - 1 / (2 * beta)).square()
    if link == "hinge":
        return torch.relu(1 - scaled)
    if link == "nca":
        return -logsigmoid(beta * chosen) - 0.5 * logsigmoid(-beta * chosen) - 0.5 * logsigmoid(-beta * rejected)
    if link == "bco":
        return -logsigmoid(beta * chosen) - logsigmoid(-beta * rejected)
    if link == "sppo":
        return (chosen - 1 / (2 * beta)).square() + (rejected + 1 / (2 * beta)).square()
    if link == "apo-zero":
        return 1 - (beta * chosen).sigmoid() + (beta * rejected).sigmoid()
    if link == "apo-down":
        return (beta * chosen).sigmoid() + 1 - scaled.sigmoid()
    q = scaled.sigmoid()
    return q * (logsigmoid(scaled) - math.log1p(-smoothing)) + (1 - q) * (logsigmoid(-scaled) - math.log(smoothing))


@dataclass(frozen=True)
class PreferenceTerm(TokenTerm):
    """See :func:`~rheostat.objectives.preference.preference_loss`; a mean over pairs."""

    link: Link = "sigmoid"
    beta: float = 0.1
    smoothing: float = 0.0
    reads: ClassVar[Sequence[str]] = ("reference_logp", "chosen")
    needs_units: ClassVar[bool] = True

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """Pairs of the gradient step."""
        assert batch.units is not None
        return torch.tensor(float(len(batch.units.unique())))

    def log_ratios(self, logp: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Summed log-ratios ``[P]`` of the chosen and of the rejected answers, pair by pair, from log-probs ``[B, T]``."""
        return self.by_side(masked_sum(logp - batch.rows.reference_logp, batch.rows.mask, -1), batch)

    @staticmethod
    def by_side(values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Values ``[B]`` of rows as those of the chosen and of the rejected ones, in the order of their pairs."""
        assert batch.units is not None
        chosen = batch.columns["chosen"]
        return values[chosen][batch.units[chosen].argsort()], values[~chosen][batch.units[~chosen].argsort()]

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        chosen, rejected = self.log_ratios(scores.logp, batch)
        lengths = self.by_side(batch.rows.mask.sum(-1), batch)
        loss = preference_loss(
            chosen,
            rejected,
            link=self.link,
            beta=self.beta,
            smoothing=self.smoothing,
            chosen_length=lengths[0],
            rejected_length=lengths[1],
        )
        margin = (chosen - rejected).detach()
        sums = {
            "margin": margin.sum() / denominator,
            "preference_accuracy": (margin > 0).sum() / denominator,
            "chosen_log_ratio": chosen.detach().sum() / denominator,
            "rejected_log_ratio": rejected.detach().sum() / denominator,
        }
        return loss.sum() / denominator, Report(sums=sums)
