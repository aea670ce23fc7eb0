"""Losses of preference data, as pure functions: from log-ratios, log-probabilities or rewards of answers to a loss.

With ``w`` and ``l`` the summed log-ratios of the chosen and the rejected answer to a reference, ``D = w - l``, ``n`` the lengths of the
answers in tokens, ``ls`` the logarithm of the sigmoid ``s`` and ``e`` the label smoothing:

| link | loss per pair | function | paper |
|---|---|---|---|
| sigmoid | ``-(1 - e) ls(beta D) - e ls(-beta D)`` | :func:`sigmoid_loss` | DPO 2305.18290; with e > 0 conservative DPO |
| robust | ``[-(1 - e) ls(beta D) + e ls(-beta D)] / (1 - 2 e)``; may be negative | :func:`robust_loss` | 2403.00409 |
| ipo | ``(D - 1 / (2 beta))^2`` on sums | :func:`ipo_loss` | IPO 2310.12036 |
| ipo-mean | the same with ``w`` and ``l`` divided by their lengths | :func:`ipo_loss` | as in TRL's DPO trainer |
| ipo-scaled | ``(beta D - 1 / 2)^2`` on sums: ``beta^2`` times ipo | :func:`scaled_ipo_loss` | 2405.08448, appendix B |
| hinge | ``max(0, 1 - beta D)`` | :func:`hinge_loss` | SLiC 2305.10425 |
| sigmoid-mean | ``-ls(beta (w / n_w - l / n_l))`` | :func:`sigmoid_loss` | length-normalised DPO |
| nca | ``-ls(beta w) - ls(-beta w) / 2 - ls(-beta l) / 2`` | :func:`nca_loss` | 2402.05369 |
| bco | ``-ls(beta w) - ls(-beta l)``, without a running shift | :func:`bco_loss` | 2404.04656 |
| sppo | ``(w - 1 / (2 beta))^2 + (l + 1 / (2 beta))^2`` | :func:`sppo_loss` | 2405.00675 |
| apo-zero | ``1 - s(beta w) + s(beta l)`` | :func:`apo_zero_loss` | 2408.06266 |
| apo-down | ``s(beta w) + 1 - s(beta D)`` | :func:`apo_down_loss` | 2408.06266 |
| exo | ``q (log q - log(1 - e)) + (1 - q) (log(1 - q) - log e)``, q = s(beta D), e > 0 | :func:`exo_loss` | 2402.00856 |

The three scales of IPO are not interchangeable at one beta: ``ipo`` and ``ipo-scaled`` have the same optimum ``D = 1 / (2 beta)`` and
gradients that differ by ``beta^2``; the optimum of ``ipo-mean`` is a difference of log-ratios per token.

With a probability p of its own for every pair instead of a label: :func:`soft_preference_loss`.

Without a reference, on log-probabilities: CPO is the sigmoid link on their sums (2401.08417), :func:`simpo_loss` (2405.14734) and
:func:`odds_ratio_loss` (ORPO 2403.07691) are on their means. Without pairs: :func:`kto_loss` (2402.01306). Without labels, from rewards:
:func:`exponential_weights` and :func:`softmax_weights` (reward-weighted regression), :func:`best_of_n`. Of a reward model:
:func:`bradley_terry_loss`.

TRL 1.16.0 ignores the smoothing of its plain sigmoid loss; here it acts.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rheostat.errors import RheostatError
from rheostat.masking import require_same_shape

Link = Literal[
    "sigmoid", "robust", "ipo", "ipo-mean", "ipo-scaled", "hinge", "sigmoid-mean", "nca", "bco", "sppo", "apo-zero", "apo-down", "exo"
]  # fmt: skip
SMOOTHED: tuple[Link, ...] = ("sigmoid", "robust", "exo")
"""Links with label smoothing."""
BY_LENGTH: tuple[Link, ...] = ("ipo-mean", "sigmoid-mean")
"""Links of log-ratios per token."""
LARGEST_MEAN_LOGP = -1e-6
"""The odds of an answer that is certain are infinite: ORPO takes its mean log-probability as at most this."""


def sigmoid_loss(margin: Tensor, beta: float, smoothing: float | Tensor = 0.0) -> Tensor:
    """``-(1 - e) ls(beta D) - e ls(-beta D)``: DPO, and conservative DPO with label smoothing.

    Args:
        margin: of any shape.
        beta: its scale.
        smoothing: e; a tensor of the margin's shape where every label has a probability ``1 - e`` of its own.
    """
    return -(1 - smoothing) * logsigmoid(beta * margin) - smoothing * logsigmoid(-beta * margin)


def soft_preference_loss(margin: Tensor, strength: Tensor, beta: float) -> Tensor:
    """``-p ls(beta D) - (1 - p) ls(-beta D)``: cross-entropy to the probability p that the first answer is the better one.

    Its optimum is finite, ``beta D = logit p``. ``p = 1`` is DPO, ``p = 1 - e`` conservative DPO.

    Args:
        margin: D, of any shape; carries the gradient.
        strength: p, of the same shape, in [0, 1], a constant.
        beta: scale of the margin.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(margin=margin, strength=strength)
    return sigmoid_loss(margin, beta, 1 - strength.detach())


def robust_loss(margin: Tensor, beta: float, smoothing: float) -> Tensor:
    """``[-(1 - e) ls(beta D) + e ls(-beta D)] / (1 - 2 e)``: without bias where a share e < 1/2 of labels is flipped; unbounded below."""
    return (-(1 - smoothing) * logsigmoid(beta * margin) + smoothing * logsigmoid(-beta * margin)) / (1 - 2 * smoothing)


def ipo_loss(margin: Tensor, beta: float) -> Tensor:
    """``(D - 1 / (2 beta))^2``; the margin is of sums in the paper, of means per token in TRL's trainer of pairs."""
    return (margin - 1 / (2 * beta)).square()


def scaled_ipo_loss(margin: Tensor, beta: float) -> Tensor:
    """``(beta D - 1 / 2)^2``, which is ``beta^2`` times :func:`ipo_loss`."""
    return (beta * margin - 0.5).square()


def hinge_loss(margin: Tensor, beta: float) -> Tensor:
    """``max(0, 1 - beta D)``."""
    return torch.relu(1 - beta * margin)


def nca_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """``-ls(beta w) - ls(-beta w) / 2 - ls(-beta l) / 2``: the chosen log-ratio is held at ``log 2 / beta``."""
    return -logsigmoid(beta * chosen) - 0.5 * logsigmoid(-beta * chosen) - 0.5 * logsigmoid(-beta * rejected)


def bco_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """``-ls(beta w) - ls(-beta l)``: one classifier of chosen and rejected answers, without a running shift of its rewards."""
    return -logsigmoid(beta * chosen) - logsigmoid(-beta * rejected)


def sppo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """``(w - 1 / (2 beta))^2 + (l + 1 / (2 beta))^2``: SPPO with hard labels."""
    return (chosen - 1 / (2 * beta)).square() + (rejected + 1 / (2 * beta)).square()


def apo_zero_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """``1 - s(beta w) + s(beta l)``: chosen answers become likelier, rejected ones less likely."""
    return 1 - (beta * chosen).sigmoid() + (beta * rejected).sigmoid()


def apo_down_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """``s(beta w) + 1 - s(beta D)``: both answers become less likely, the rejected one by more."""
    return (beta * chosen).sigmoid() + 1 - (beta * (chosen - rejected)).sigmoid()


def exo_loss(margin: Tensor, beta: float, smoothing: float) -> Tensor:
    """``q (log q - log(1 - e)) + (1 - q) (log(1 - q) - log e)`` with ``q = s(beta D)``: the reverse KL to smoothed labels, e > 0."""
    q = (beta * margin).sigmoid()
    right = logsigmoid(beta * margin) - math.log1p(-smoothing)
    return q * right + (1 - q) * (logsigmoid(-beta * margin) - math.log(smoothing))


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
    """The loss of a link by its name; see the table of the module.

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
    match link:
        case "sigmoid" | "sigmoid-mean":
            return sigmoid_loss(margin, beta, smoothing)
        case "robust":
            return robust_loss(margin, beta, smoothing)
        case "ipo" | "ipo-mean":
            return ipo_loss(margin, beta)
        case "ipo-scaled":
            return scaled_ipo_loss(margin, beta)
        case "hinge":
            return hinge_loss(margin, beta)
        case "nca":
            return nca_loss(chosen, rejected, beta)
        case "bco":
            return bco_loss(chosen, rejected, beta)
        case "sppo":
            return sppo_loss(chosen, rejected, beta)
        case "apo-zero":
            return apo_zero_loss(chosen, rejected, beta)
        case "apo-down":
            return apo_down_loss(chosen, rejected, beta)
    return exo_loss(margin, beta, smoothing)


def simpo_loss(chosen: Tensor, rejected: Tensor, *, beta: float, gamma: float, smoothing: float = 0.0) -> Tensor:
    """``-(1 - e) ls(u) - e ls(-u)`` with ``u = beta (A_w - A_l) - gamma``: SimPO, equation 6; no reference.

    Args:
        chosen, rejected: ``[P]`` mean log-probs per token of the answers, in nats; they carry the gradient.
        beta: scale of the log-probs.
        gamma: the margin that is asked for, after the scale (TRL's ``simpo_gamma`` is the same number).
        smoothing: share of labels taken as flipped.

    Returns:
        ``[P]``.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(chosen=chosen, rejected=rejected)
    return sigmoid_loss(beta * (chosen - rejected) - gamma, 1.0, smoothing)


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(x))`` of ``x < 0``, in the form that keeps its digits on either side of ``-log 2``."""
    near = x > -math.log(2)
    return torch.where(near, torch.log(-torch.expm1(x.clamp(min=-math.log(2)))), torch.log1p(-torch.exp(x.clamp(max=-math.log(2)))))


def log_odds_ratio(chosen: Tensor, rejected: Tensor) -> Tensor:
    """``log [p_w / (1 - p_w)] - log [p_l / (1 - p_l)]`` of ``p = exp(A)``: ORPO, equation 7.

    Args:
        chosen, rejected: ``[P]`` mean log-probs per token of the answers, in nats; taken as at most ``LARGEST_MEAN_LOGP``.

    Returns:
        ``[P]``.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(chosen=chosen, rejected=rejected)
    chosen, rejected = (side.clamp(max=LARGEST_MEAN_LOGP) for side in (chosen, rejected))
    return (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected))


def odds_ratio_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """``-ls(log odds ratio)`` ``[P]``: what ORPO adds to the likelihood of the chosen answer; see :func:`log_odds_ratio`."""
    return -logsigmoid(log_odds_ratio(chosen, rejected))


def kto_baseline(mismatched: Tensor) -> Tensor:
    """``z = max(0, mean of the log-ratios of mismatched pairs)``, a constant scalar: KTO's estimate of the KL to the reference.

    Args:
        mismatched: ``[B]`` summed log-ratios of each prompt with the answer of another one, in nats. All of a gradient step: the mean is
            clamped, never a part of it.
    """
    return mismatched.detach().mean().clamp(min=0)


def kto_loss(
    log_ratio: Tensor,
    desirable: Tensor,
    baseline: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """``lambda_D (1 - s(beta (h - z)))`` of desirable answers, ``lambda_U (1 - s(beta (z - h)))`` of others: KTO, equation 8.

    Args:
        log_ratio: ``[B]`` summed log-ratios of the answers to the reference, in nats; they carry the gradient.
        desirable: ``[B]`` bool, the labels.
        baseline: scalar, a constant; see :func:`kto_baseline`.
        beta: scale of the log-ratios.
        desirable_weight, undesirable_weight: of the two kinds of labels; with n examples each, the paper keeps
            ``desirable_weight n_D / (undesirable_weight n_U)`` in about [1, 4/3].

    Returns:
        ``[B]``.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(log_ratio=log_ratio, desirable=desirable)
    value = torch.where(desirable, log_ratio - baseline, baseline - log_ratio)
    weight = torch.full_like(value, undesirable_weight).masked_fill(desirable, desirable_weight)
    return weight * (1 - (beta * value).sigmoid())


def exponential_weights(reward: Tensor, temperature: float, largest: float) -> Tensor:
    """``min(exp(r / tau), w_max)`` of rewards of any shape: reward-weighted regression without a normaliser; constants."""
    return (reward.detach() / temperature).clamp(max=math.log(largest)).exp()


def softmax_weights(reward: Tensor, temperature: float) -> Tensor:
    """``softmax(r / tau)`` over the N answers of each prompt, ``[X, N]``: reward-weighted regression, self-normalised; constants."""
    return (reward.detach() / temperature).softmax(-1)


def best_of_n(reward: Tensor) -> Tensor:
    """The index int64 ``[X]`` of the best of N answers ``[X, N]``; of equal rewards the first."""
    return reward.argmax(-1)


def best_of_n_kl_bound(n: Tensor) -> Tensor:
    """``log N - (N - 1) / N`` in nats: the KL of best-of-N sampling to its base policy is at most this (2401.01879)."""
    return n.log() - (n - 1) / n


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, *, margin: Tensor | None = None, centring: float = 0.0) -> Tensor:
    """``-ls(r_w - r_l - margin) + c (r_w + r_l)^2``: a reward model from pairs (Bradley and Terry 1952; 2203.02155, equation 1).

    Args:
        chosen, rejected: ``[P]`` rewards of the answers; they carry the gradient.
        margin: ``[P]``, at least 0: by how much the chosen answer is better; None is 0.
        centring: c, which keeps the mean reward near 0 (2312.09244); the loss of pairs leaves it open.

    Returns:
        ``[P]``.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(chosen=chosen, rejected=rejected, margin=margin)
    difference = chosen - rejected if margin is None else chosen - rejected - margin
    loss = -logsigmoid(difference)
    return loss + centring * (chosen + rejected).square() if centring else loss
