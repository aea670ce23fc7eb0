"""The meter: how far off-policy a batch is, as numbers. Pure functions of log-probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat.masking import require_same_shape
from rheostat.trajectories import Source

QUANTILES = (0.05, 0.5, 0.95)


def effective_sample_size(log_ratio: Tensor) -> Tensor:
    """Share of the batch that importance sampling would effectively use, (sum w)^2 / (n sum w^2) in (0, 1] (Kong 1992); scalar."""
    weight = (log_ratio - log_ratio.max()).exp()  # the scale cancels; this one cannot overflow
    return weight.sum().square() / (weight.square().sum() * weight.numel())


def off_policyness(
    learner_logp: Tensor, sampler_logp: Tensor, *, age: Tensor | None = None, source: Tensor | None = None
) -> dict[str, float]:
    """How far the data are from the policy about to learn from them.

    Args:
        learner_logp: ``[n]`` under the learner's weights at the start of the update.
        sampler_logp: ``[n]`` under what really sampled; NaN where unknown (expert data), which is left out.
        age: ``[n]`` policy updates between sampling and now.
        source: ``[n]`` :class:`~rheostat.trajectories.Source` codes.

    Returns:
        ``meter/ess`` (share), ``meter/kl_behaviour_k1`` and ``_k3`` (estimates of KL(sampler || learner) in nats per step),
        ``meter/ratio_*``
        (quantiles and maximum of learner/sampler), ``meter/gap`` (mean absolute log-prob gap), ``meter/age_mean`` and ``_max``, and the
        share of every source that is present.
    """
    require_same_shape(learner_logp=learner_logp, sampler_logp=sampler_logp)
    result: dict[str, float] = {}
    known = ~sampler_logp.isnan()
    if bool(known.any()):
        log_ratio = (learner_logp - sampler_logp)[known].double()
        ratio = log_ratio.exp()
        low, middle, high = torch.quantile(ratio[: 2**24], torch.tensor(QUANTILES, dtype=ratio.dtype)).tolist()
        result |= {
            "meter/ess": effective_sample_size(log_ratio).item(),
            "meter/kl_behaviour_k1": -log_ratio.mean().item(),
            "meter/kl_behaviour_k3": (ratio - 1 - log_ratio).mean().item(),
            "meter/ratio_low": low,
            "meter/ratio_median": middle,
            "meter/ratio_high": high,
            "meter/ratio_max": ratio.max().item(),
            "meter/gap": log_ratio.abs().mean().item(),
        }
    if age is not None:
        result |= {"meter/age_mean": age.double().mean().item(), "meter/age_max": float(age.max())}
    if source is not None:
        counts = torch.bincount(source.flatten(), minlength=len(Source))
        result |= {f"meter/share_{kind.name.lower()}": (counts[kind] / counts.sum()).item() for kind in Source if counts[kind]}
    return result
