"""From gradients of independent batches to bias, variance and direction, with intervals.

With ``g_1 .. g_B`` the batches' gradients, ``m`` their mean and ``g*`` the exact one:

- scale ``c = <m, g*> / |g*|^2``: 1 for an unbiased estimator; the interval is Student's, over batches.
- bias ``|E g - g*| / |g*|``. ``|m - g*|^2`` is never 0 by chance, so its expectation under no bias, ``tr(Cov) / B``, is subtracted: the
  U-statistic over pairs of batches, unbiased for the squared bias. Its lower bound inverts the distribution under no bias, a sum of
  weighted chi-squares approximated by one scaled chi-square with the same two moments (Welch and Satterthwaite); the term that a bias
  adds to the spread is normal. The interval therefore begins at 0 for an unbiased estimator in at least ``level`` of all cases. The upper
  bound errs on the safe side.
- direction ``min_k |k E g - g*| / |g*|``, the sine of the angle between mean and exact gradient: which no learning rate corrects. The
  same statistic, on the parts of the gradients that are orthogonal to ``g*``.

An estimator is called ``unbiased`` where the intervals of scale and bias contain 1 and 0, ``biased in scale only`` where the direction's
contains 0, else ``biased``. The words refer to the resolution of so many batches: the upper end of the interval is the bias that they leave
open, and where that is more than ``RESOLUTION`` the verdict is ``undecided``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from scipy import stats
from torch import Tensor

from rheostat.analysis.statistics import Interval
from rheostat.errors import RheostatError

Verdict = Literal["unbiased", "biased in scale only", "biased", "undecided"]
LEVEL = 0.99
RESOLUTION = 0.25
"""Where an interval contains 0 but reaches further than this, the batches were too few for a verdict."""


@dataclass(frozen=True)
class Row:
    """One estimator under the microscope."""

    name: str
    verdict: Verdict
    scale: Interval
    """Projection of the mean gradient on the exact one; 1 is right."""
    bias: Interval
    """Norm of the bias, relative to the exact gradient's."""
    direction: Interval
    """The bias that is left after the best rescaling: the sine of the angle to the exact gradient, in [0, 1]."""
    variance: float
    """Trace of the covariance of one batch's gradient, over the exact gradient's squared norm."""
    variance_rescaled: float
    """The same after the estimator was brought to scale 1."""
    cosine: float
    """Mean cosine of one batch's gradient with the exact one; a gradient of 0 counts as 0."""
    cosine_of_mean: float
    """Cosine of the expected gradient with the exact one, without the noise that the finite number of batches adds."""
    improvement: Interval | None
    """Gain of J from a step of fixed length along one batch's gradient, over the gain along the exact one."""
    batches: int

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def mean_interval(x: Tensor, level: float = LEVEL) -> Interval:
    """Mean of independent numbers ``[n]`` with Student's interval."""
    n = len(x)
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * float(x.std()) / math.sqrt(n)
    centre = float(x.mean())
    return Interval(centre, centre - half, centre + half, level, n)


def squared_mean(deviations: Tensor, level: float = LEVEL) -> Interval:
    """Unbiased estimate of ``|E d|^2`` from independent vectors ``[B, P]``, with an interval (see the module).

    The estimate and the lower end may be below 0, as happens for a squared norm of 0.
    """
    count = len(deviations)
    mean = deviations.mean(0)
    centred = deviations - mean
    gram = centred @ centred.T
    trace = float(gram.diagonal().sum()) / (count - 1)
    off = gram - torch.diag(gram.diagonal())
    # centring correlates the rows: the off-diagonal squares hold tr(Cov)^2 / (B - 1) too much
    square = max(float(off.square().sum()) / (count * (count - 1)) - trace**2 / (count - 1) ** 2, trace**2 / count / max(1, len(mean)))
    estimate = float(mean @ mean) - trace / count
    if trace == 0.0:
        return Interval(estimate, estimate, estimate, level, count)
    along = float((centred @ mean).square().sum()) / (count - 1) - square / count
    normal = float(stats.norm.ppf(0.5 + level / 2))
    drift = 2 * normal * math.sqrt(max(along, 0.0) / count)
    unit, freedom = square / trace, trace**2 / square
    surplus = (unit * float(stats.chi2.ppf(0.5 + level / 2, freedom)) - trace) / count
    shortfall = (trace - unit * float(stats.chi2.ppf(0.5 - level / 2, freedom))) / count
    # Two upper bounds, both safe: noise across the bias with the worst noise along it, and the triangle inequality.
    worst = normal * math.sqrt(float(torch.linalg.eigvalsh(gram)[-1]) / (count - 1) / count)
    norm = worst + math.sqrt(worst**2 + max(estimate, 0.0) + shortfall)
    triangle = float(mean.norm()) + math.sqrt(surplus + trace / count)
    return Interval(estimate, estimate - math.hypot(surplus, drift), min(norm, triangle) ** 2, level, count)


def _root(square: Interval, unit: float) -> Interval:
    estimate, low, high = (math.sqrt(max(x, 0.0)) / unit for x in (square.estimate, square.low, square.high))
    return Interval(estimate, low, high, square.level, square.n)


def _sine(across: float, along: float) -> float:
    across = math.sqrt(max(across, 0.0))
    return across / math.hypot(across, along) if across else 0.0


def summarise(name: str, gradients: Tensor, exact: Tensor, improvement: Tensor | None = None, *, level: float = LEVEL) -> Row:
    """Bias, variance and direction of an estimator from the gradients of independent batches.

    Args:
        name: of the estimator.
        gradients: ``[B, P]`` float64.
        exact: ``[P]`` float64.
        improvement: relative gains of single batches, ``[n]``.
        level: of all intervals.

    Raises:
        RheostatError: fewer than 3 batches, or an exact gradient of 0.
    """
    if len(gradients) < 3:
        raise RheostatError(f"{len(gradients)} batches are too few for an interval: take at least 3 (--batches).")
    size = float(exact.norm())
    if size == 0:
        raise RheostatError("The exact gradient is 0 here: there is no direction to compare with.")
    along = gradients @ exact / size**2
    scale = mean_interval(along, level)
    bias = squared_mean(gradients - exact, level)
    across = squared_mean(gradients - along[:, None] * exact, level)
    sine, low, high = (_sine(x / size**2, scale.estimate) for x in (across.estimate, across.low, across.high))
    direction = Interval(sine, low, high, level, len(gradients))
    variance = float(gradients.var(0).sum()) / size**2
    norms = gradients.norm(dim=1)
    cosine = torch.where(norms > 0, along * size / norms.clamp(min=1e-300), 0.0)
    on_scale = scale.low <= 1 <= scale.high
    verdict: Verdict = "biased"
    if on_scale and bias.low <= 0:
        verdict = "unbiased" if bias.high <= (RESOLUTION * size) ** 2 else "undecided"
    elif not on_scale and scale.estimate > 0 and across.low <= 0:
        verdict = "biased in scale only" if direction.high <= RESOLUTION else "undecided"
    return Row(
        name=name,
        verdict=verdict,
        scale=scale,
        bias=_root(bias, size),
        direction=direction,
        variance=variance,
        variance_rescaled=variance / scale.estimate**2 if scale.estimate else math.inf,
        cosine=float(cosine.mean()),
        cosine_of_mean=math.copysign(math.sqrt(1 - sine**2), scale.estimate),
        improvement=None if improvement is None else mean_interval(improvement, level),
        batches=len(gradients),
    )


def relative_gain(value: Callable[[Tensor], float], theta: Tensor, gradients: Tensor, exact: Tensor, length: float) -> Tensor:
    """Gain of a step of this length along each gradient ``[n, P]``, over the gain along the exact one, ``[n]``."""
    start = value(theta)

    def gain(direction: Tensor) -> float:
        norm = float(direction.norm())
        return 0.0 if norm == 0 else value((theta.double() + direction * (length / norm)).to(theta.dtype)) - start

    best = gain(exact)
    return torch.tensor([gain(gradient) / best for gradient in gradients], dtype=torch.float64)
