"""A proxy of the policy without its noise: tokens that are very unlikely are deleted, and the rest share their probability.

The assumption (Lp-Reg, arXiv 2510.03222): among rare tokens, those far below the likeliest of their step are noise, and the others may
begin another way to the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch

Threshold = Literal["min-p", "fixed"]
"""A share of the largest probability of the step; or that probability itself."""
DELETED = -1e4
"""Logit of a deleted token, as released: its probability is 0, and its logarithm is finite."""


def proxy_logp(
    logits: Tensor,
    tokens: Tensor,
    *,
    threshold: float = 0.02,
    form: Threshold = "min-p",
    temperature: float = 1.0,
    delete: bool = True,
) -> Tensor:
    """Log-probability of each token under the proxy, in nats.

    ``p = softmax(logits)`` at temperature 1 selects the deleted: ``p < threshold * max p`` (``min-p``) or ``p < threshold`` (``fixed``).
    The logits of the rest are divided by the temperature and normalised, so a kept token has ``log p - log(kept mass)`` at temperature 1.

    Args:
        logits: ``[n, V]`` float, before any temperature.
        tokens: ``[n]`` int64.
        threshold: in [0, 1]; 0 deletes nothing.
        form: what the threshold is compared with.
        temperature: of the sampler.
        delete: False gives a deleted token the smallest logit of its row instead of -1e4.

    Returns:
        ``[n]``; about -1e4 where the token itself is deleted.

    Raises:
        RheostatError: a form that does not exist.
    """
    if form not in get_args(Threshold):
        raise RheostatError(f"Unknown threshold {form!r}: one of {', '.join(get_args(Threshold))}.")
    p = torch.softmax(logits, -1)
    least = threshold * p.max(-1, keepdim=True).values if form == "min-p" else threshold
    fill = torch.full_like(logits[:, :1], DELETED) if delete else logits.min(-1, keepdim=True).values
    kept = torch.where(p < least, fill, logits) / temperature
    return torch.log_softmax(kept, -1).gather(-1, tokens[:, None])[:, 0]


@dataclass(frozen=True)
class ProxyScores:
    """The proxy's log-probabilities of the sampled tokens, from the policy at the start of the update."""

    threshold: float = option(0.02, share=True)
    """Tokens below this are deleted from the proxy; 0 deletes none."""
    form: Threshold = option("min-p", short="threshold_form")
    """The threshold is a share of the largest probability of the step (min-p), or a probability itself (fixed)."""
    delete: bool = option(True)
    """Deleted tokens have no probability; False leaves them the smallest of their step (the released soft variant)."""
    writes: ClassVar[Sequence[str]] = ("proxy_logp",)

    def __call__(self, context: Any, batch: Batch) -> Batch:
        read = partial(proxy_logp, threshold=self.threshold, form=self.form, temperature=context.sampling.temperature, delete=self.delete)
        batch.columns["proxy_logp"] = context.read_logits(batch.rows, read)
        return batch
