"""The meter: how far off-policy a batch is, as numbers. Pure functions of log-probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rheostat.masking import require_same_shape
from rheostat.trajectories import Source

QUANTILES = (0.05, 0.5, 0.95)
AGES: tuple[tuple[int, int | None], ...] = ((0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, None))
"""Bins of the age histogram, in policy updates."""
RARE = 0.05
"""A token is rare where the policy gave it less than this."""
WHOLE_ONLY = ("kl_behaviour_k1", "kl_behaviour_k2")
"""Metrics that are not repeated for every source."""


def effective_sample_size(log_ratio: Tensor) -> Tensor:
    """Effective sample size of importance sampling as a share of the batch, (sum w)^2 / (n sum w^2) in (0, 1] (Kong 1992); scalar."""
    weight = (log_ratio - log_ratio.max()).exp()  # the scale cancels; this one cannot overflow
    return weight.sum().square() / (weight.square().sum() * weight.numel())


def rare_tokens(logp: Tensor, advantage: Tensor | None) -> dict[str, float]:
    """What a batch does to rare tokens, those of a probability below 5 %.

    Args:
        logp: ``[n]`` of the chosen tokens at the start of the update, in nats.
        advantage: ``[n]``; None where a method has none.

    Returns:
        ``rare/share`` of all tokens; and of the rare ones, where there are any, ``rare/rewarded`` and ``rare/penalised``: the shares with a
        positive and with a negative advantage.
    """
    rare = logp < math.log(RARE)
    found = {"rare/share": rare.float().mean().item()}
    if advantage is not None and bool(rare.any()):
        worth = advantage[rare]
        found |= {"rare/rewarded": (worth > 0).float().mean().item(), "rare/penalised": (worth < 0).float().mean().item()}
    return found


def off_policyness(
    learner_logp: Tensor,
    sampler_logp: Tensor,
    *,
    age: Tensor | None = None,
    source: Tensor | None = None,
    entropy: Tensor | None = None,
) -> dict[str, float]:
    """How far off-policy data are, as a whole and, where they come from several sources, of every source.

    Args:
        learner_logp: ``[n]`` under the learner's weights at the start of the update.
        sampler_logp: ``[n]`` under the true sampler; NaN where unknown (expert data), which is left out.
        age: ``[n]`` policy updates between sampling and now; negative for expert data, which no version sampled and which are left out.
        source: ``[n]`` :class:`~rheostat.trajectories.Source` codes.
        entropy: ``[n]`` of the learner's distribution, nats.

    Returns:
        ``meter/ess`` (share), ``meter/kl_behaviour_k1``, ``_k2`` and ``_k3`` (estimates of KL(sampler || learner) in nats per step),
        ``meter/ratio_*`` (quantiles and maximum of learner/sampler), ``meter/gap`` (mean absolute log-prob gap), ``meter/age_mean`` and
        ``_max``, the age histogram (``meter/age_share_0``, ``_1``, ``_2_3``, ...: shares) where anything is older than 0, and the share of
        every source that is present. With several sources the numbers of each as ``meter/SOURCE/...``, with its entropy and its mean
        log-probability under the learner.
    """
    require_same_shape(learner_logp=learner_logp, sampler_logp=sampler_logp)
    result = _ratios(learner_logp, sampler_logp)
    if age is not None:
        result |= _ages(age)
    if source is None:
        return {f"meter/{name}": value for name, value in result.items()}
    counts = torch.bincount(source.flatten(), minlength=len(Source))
    present = [kind for kind in Source if counts[kind]]
    result |= {f"share_{kind.name.lower()}": (counts[kind] / counts.sum()).item() for kind in present}
    for kind in present if len(present) > 1 else []:
        mine = source == int(kind)
        part = _ratios(learner_logp[mine], sampler_logp[mine]) | {"logp": learner_logp[mine].mean().item()}
        part |= _ages(age[mine], histogram=False) if age is not None else {}
        part |= {"entropy": entropy[mine].mean().item()} if entropy is not None else {}
        result |= {
            f"{kind.name.lower()}/{name}": value for name, value in part.items() if name not in ("kl_behaviour_k1", "kl_behaviour_k2")
        }
    return {f"meter/{name}": value for name, value in result.items()}


def _ratios(learner_logp: Tensor, sampler_logp: Tensor) -> dict[str, float]:
    """Metrics of the log-ratio of the known entries."""
    known = ~sampler_logp.isnan()
    if not bool(known.any()):
        return {}
    log_ratio = (learner_logp - sampler_logp)[known].double()
    ratio = log_ratio.exp()
    low, middle, high = torch.quantile(ratio[: 2**24], torch.tensor(QUANTILES, dtype=ratio.dtype)).tolist()
    return {
        "ess": effective_sample_size(log_ratio).item(),
        "kl_behaviour_k1": -log_ratio.mean().item(),
        "kl_behaviour_k2": 0.5 * log_ratio.square().mean().item(),
        "kl_behaviour_k3": (ratio - 1 - log_ratio).mean().item(),
        "ratio_low": low,
        "ratio_median": middle,
        "ratio_high": high,
        "ratio_max": ratio.max().item(),
        "gap": log_ratio.abs().mean().item(),
    }


def _ages(age: Tensor, *, histogram: bool = True) -> dict[str, float]:
    """Mean, maximum and histogram of the known ages."""
    known = age[age >= 0]
    if not len(known):
        return {}
    oldest = int(known.max())
    result = {"age_mean": known.double().mean().item(), "age_max": float(oldest)}
    if not histogram or not oldest:
        return result
    for low, high in AGES:
        name = f"age_share_{low}" + ("" if high == low else "_up" if high is None else f"_{high}")
        inside = (known >= low) & (known <= (oldest if high is None else high))
        result[name] = inside.double().mean().item()
    return result


def gradient_snr(mean: Tensor, square: Tensor, step: float, betas: tuple[float, float] = (0.9, 0.999)) -> float:
    """Signal-to-noise ratio of the gradient, from Adam's moments.

    With a constant expected gradient g and noise of total variance V, ``|m|^2`` is ``|g|^2 + c V`` in expectation and the sum of ``v`` is
    ``|g|^2 + V``, where m and v are the bias-corrected moments and ``c`` is the variance of a mean with Adam's weights. Solved for
    ``|g|^2 / V``: 1 means that signal and noise are equal in a single step's gradient. The gradient is the clipped one.

    Args:
        mean, square: ``[P]`` uncorrected first and second moments.
        step: steps taken, at least 1.
        betas: decay rates b1 and b2.

    Returns:
        The ratio, at least 0; NaN before the second step.
    """
    if step < 2:
        return float("nan")
    signal = mean.double().square().sum() / (1 - betas[0] ** step) ** 2
    total = square.double().sum() / (1 - betas[1] ** step)
    decay = betas[0] ** step
    c = (1 - betas[0]) / (1 + betas[0]) * (1 + decay) / (1 - decay)  # of a mean over ``step`` steps
    noise = (total - signal) / (1 - c)
    return max(0.0, ((signal - c * noise) / noise).item()) if noise > 0 else float("inf")
