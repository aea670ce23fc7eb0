"""Losses on several graded samples of one prompt: who is made likelier, who is pushed down, and by how much.

With ``lp[s, k]`` the log-probability of sample k of prompt s, ``r[s, k]`` its reward, and averages over prompts:

| loss | per prompt | pushes down |
|---|---|---|
| :func:`best_of_n_loss` | ``-lp[best]``, and ``+ weight`` times what ``negative`` says | nobody, or the samples that are not the best |
| :func:`exponential_loss` | ``-mean_k exp(r_k / tau) lp_k`` | nobody |
| :func:`all_pairs_loss` | a link of :mod:`rheostat.objectives.preference` on every ordered pair | the worse one of each pair |
| :func:`reinforce_loss` | ``-mean_k w_k lp_k - beta H`` | samples of negative weight |
| :func:`clipped_sequence_loss` | PPO's clip on every token, with the reward of the whole sequence | sequences of negative reward |

Token losses of language models (:func:`weighted_token_loss`) differ in what they divide by: the tokens of all samples, whatever their
weights, or the tokens of those that a filter keeps.

Source: Tajwar et al. 2024 (arXiv 2404.14367), section 4 and its code; what that code does otherwise stands at the functions.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import masked_mean, masked_sum, require_same_shape
from rheostat.objectives.kl import kl_estimate
from rheostat.objectives.preference import Link, best_of_n, exponential_weights, preference_loss

Negative = Literal["none", "worst", "mean-of-worse", "sum-of-worse", "complement"]
"""What best-of-N pushes down beside the best sample: nothing, the worst one, the mean or the sum over all others, or the sum of
``-log(1 - exp(lp))`` over all others (which asks that something else be drawn)."""


def best_of_n_loss(
    logp: Tensor, reward: Tensor, *, negative: Negative = "none", weight: float = 0.0, least_ratio: float | None = None
) -> Tensor:
    """``-lp[best]`` and, with a weight, the others pushed down; a mean over prompts.

    Log-ratios to a reference ("constrained" variants) in the place of log-probabilities differ by constants: the gradient is the same, but
    for the complement, which is of probabilities.

    Args:
        logp: ``[S, N]`` of whole samples, in nats; carries the gradient.
        reward: ``[S, N]``; of equal ones the first is the best, and the first is the worst.
        negative: what is pushed down.
        weight: of the push, at least 0.
        least_ratio: a sample is pushed down only while ``pi(y_k) / pi(y_best)`` is above this (0.01 in the sequence bandit, where pushes
            without a floor diverge); None always.

    Returns:
        A scalar.

    Raises:
        RheostatError: different shapes, an unknown ``negative``, or a weight without it.
    """
    require_same_shape(logp=logp, reward=reward)
    check_negative(negative, weight)
    best = best_of_n(reward).unsqueeze(-1)
    chosen = logp.gather(-1, best).squeeze(-1)
    if negative == "none":
        return -chosen.mean()
    pushed = torch.ones_like(reward, dtype=torch.bool).scatter(-1, best, False)
    if negative == "worst":
        pushed = torch.zeros_like(pushed).scatter(-1, best_of_n(-reward).unsqueeze(-1), True)
    if least_ratio is not None:
        pushed = pushed & ((logp - chosen.unsqueeze(-1)).detach().exp() > least_ratio)
    values = -torch.log(-torch.expm1(logp.clamp(max=-1e-6))) if negative == "complement" else logp
    total = masked_sum(values, pushed, -1)
    if negative == "mean-of-worse":
        total = total / (logp.shape[-1] - 1)
    return (weight * total - chosen).mean()


def check_negative(negative: Negative, weight: float) -> None:
    """Refuse a push that is none.

    Raises:
        RheostatError: an unknown name, or a weight for nothing.
    """
    if negative not in get_args(Negative):
        raise RheostatError(f"Unknown negative gradient {negative!r}: one of {', '.join(get_args(Negative))}.")
    if negative == "none" and weight:
        raise RheostatError(f"negative_weight is {weight:g}, and nothing is pushed down: choose a negative_gradient, or leave it at 0.")


def exponential_loss(logp: Tensor, reward: Tensor, *, temperature: float) -> Tensor:
    """``-mean exp(r / tau) lp``: advantage- and reward-weighted regression without a baseline and without normalising the weights.

    Args:
        logp: ``[S, N]``, in nats; carries the gradient.
        reward: ``[S, N]``.
        temperature: tau, above 0.

    Returns:
        A scalar.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(logp=logp, reward=reward)
    return -((reward / temperature).exp() * logp).mean()


def ordered_pairs(reward: Tensor, *, threshold: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of samples of one prompt, ordered by their reward.

    Args:
        reward: ``[S, N]``; the first one of two that are equal counts as the better one.
        threshold: pairs whose rewards differ by less are left out; None keeps all, those of equal rewards too.

    Returns:
        ``prompt``, ``winner`` and ``loser``: int64 ``[P]``, with P at most ``S N (N - 1) / 2``.
    """
    first, second = torch.triu_indices(reward.shape[-1], reward.shape[-1], offset=1)
    difference = reward[:, first] - reward[:, second]
    kept = torch.ones_like(difference, dtype=torch.bool) if threshold is None else difference.abs() >= threshold
    prompt, pair = kept.nonzero(as_tuple=True)
    ahead = difference[prompt, pair] >= 0
    one, other = first[pair], second[pair]
    return prompt, torch.where(ahead, one, other), torch.where(ahead, other, one)


def all_pairs_loss(
    logp: Tensor, reference_logp: Tensor, reward: Tensor, *, link: Link, beta: float, threshold: float | None = None
) -> tuple[Tensor, Tensor]:
    """A link on all pairs of samples of every prompt; a mean over the pairs that are kept.

    The authors' code says its IPO with ``(D - beta)^2``, where beta is the margin that is asked for: that is ``link="ipo"`` with
    ``beta = 1 / (2 margin)`` here.

    Args:
        logp: ``[S, N]`` of whole samples, in nats; carries the gradient.
        reference_logp: ``[S, N]``, a constant.
        reward: ``[S, N]``.
        link, beta: see :func:`~rheostat.objectives.preference.preference_loss`; links per token are refused there.
        threshold: see :func:`ordered_pairs`.

    Returns:
        The loss, a scalar (0 without a pair), and the margins ``[P]`` of the pairs, a constant.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(logp=logp, reference_logp=reference_logp, reward=reward)
    prompt, winner, loser = ordered_pairs(reward, threshold=threshold)
    ratio = logp - reference_logp
    chosen, rejected = ratio[prompt, winner], ratio[prompt, loser]
    loss = preference_loss(chosen, rejected, link=link, beta=beta)
    return loss.sum() / max(1, len(loss)), (chosen - rejected).detach()


def reinforce_loss(logp: Tensor, weight: Tensor, *, entropy: float = 0.0) -> Tensor:
    """``-mean(w lp) - beta H`` with the entropy estimated by ``-mean(lp)``.

    The gradient of that estimate is the expected score, which is 0: the entropy coefficient only adds noise. It is here because the authors
    have it.

    Args:
        logp: ``[S, N]``, in nats; carries the gradient.
        weight: ``[S, N]``, a constant; negative ones push down.
        entropy: beta.

    Returns:
        A scalar.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(logp=logp, weight=weight)
    return (entropy * logp - weight * logp).mean()


def clipped_sequence_loss(
    logp: Tensor, old_logp: Tensor, reference_logp: Tensor, reward: Tensor, *, clip: float, kl_coefficient: float = 0.0
) -> Tensor:
    """``sum_t max(-R rho_t, -R clip(rho_t, 1 - eps, 1 + eps)) + beta (lp_t - ref_t)``: PPO on tokens with one reward for all of them.

    Args:
        logp: ``[..., T]`` of tokens, in nats; carries the gradient.
        old_logp: of the policy that made the batch, a constant.
        reference_logp: a constant.
        reward: ``[...]`` of sequences.
        clip: eps.
        kl_coefficient: beta. The gradient of its term is the constant beta on every token: it lowers what was sampled, whatever it is.

    Returns:
        ``[...]``, the sum over tokens.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(logp=logp, old_logp=old_logp, reference_logp=reference_logp)
    ratio, paid = (logp - old_logp).exp(), reward.unsqueeze(-1)
    surrogate = torch.maximum(-paid * ratio, -paid * ratio.clamp(1 - clip, 1 + clip))
    return (surrogate + kl_coefficient * (logp - reference_logp)).sum(-1)


def weighted_token_loss(
    logp: Tensor,
    mask: Tensor,
    weight: Tensor,
    *,
    divide_by: Literal["tokens", "kept"] = "tokens",
    reference_logp: Tensor | None = None,
    kl_coefficient: float = 0.0,
) -> Tensor:
    """Weighted negative log-likelihood of tokens, with a quadratic penalty on log-ratios to a reference.

    Reward-weighted regression takes :func:`bounded_weights`, REINFORCE the scores, filtering and best-of-N weights of 0 and 1, and
    fine-tuning on winners ("Pref-FT") weights of 1.

    Args:
        logp: ``[B, T]`` of tokens, in nats; carries the gradient.
        mask: bool ``[B, T]``, the tokens that are learned from.
        weight: ``[B]``, a constant.
        divide_by: all tokens of the mask whatever their weight, or those of samples whose weight is not 0.
        reference_logp: ``[B, T]``, a constant.
        kl_coefficient: of ``mean (lp - ref)^2 / 2`` over the tokens of the mask.

    Returns:
        A scalar.

    Raises:
        RheostatError: different shapes, or a coefficient without a reference.
    """
    require_same_shape(logp=logp, mask=mask, reference_logp=reference_logp)
    counted = mask if divide_by == "tokens" else mask & (weight != 0).unsqueeze(-1)
    loss = masked_sum(-weight.unsqueeze(-1) * logp, mask) / counted.sum().clamp(min=1)
    if not kl_coefficient:
        return loss
    if reference_logp is None:
        raise RheostatError("The quadratic penalty compares with a reference: give reference_logp, or leave kl_coefficient at 0.")
    return loss + kl_coefficient * masked_mean(kl_estimate(logp, reference_logp, "k2", mask=mask), mask)


def bounded_weights(
    score: Tensor, *, temperature: float, form: Literal["exp", "sigmoid", "linear"] = "exp", low: float = 0.0, high: float = 20.0
) -> Tensor:
    """``clamp(f(score), low, high)``: exp(score / tau), sigmoid(score / tau), or score times tau; constants of the shape of ``score``."""
    if form == "exp":
        return exponential_weights(score, temperature, high).clamp(min=low)
    scaled = score.detach() * temperature if form == "linear" else (score.detach() / temperature).sigmoid()
    return scaled.clamp(low, high)


def top_k_weights(score: Tensor, k: int) -> Tensor:
    """1 for the k largest scores ``[B]``, 0 for the others; of equal scores the earlier ones are kept.

    Raises:
        RheostatError: k is not between 1 and the number of scores.
    """
    if not 1 <= k <= len(score):
        raise RheostatError(f"The best {k} of {len(score)} samples cannot be kept: choose between 1 and {len(score)}.")
    kept = score.argsort(descending=True, stable=True)[:k]
    return torch.zeros_like(score).scatter(0, kept, 1.0)


def tokenwise_pair_loss(
    chosen: Tensor, rejected: Tensor, mask: Tensor, *, link: Link, beta: float, scale: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """A link on log-ratios token by token, winner's token t against loser's token t, averaged over the winner's tokens.

    This is no preference loss on answers: the authors' language code has it, and it is here to reproduce that code, whose IPO is
    ``(beta D - 1 / (2 beta))^2``: the link with ``beta^2`` in the place of beta and of the scale.

    Args:
        chosen, rejected: ``[P, T]`` log-ratios of tokens to the reference; they carry the gradient.
        mask: bool ``[P, T]`` of the winner.
        link, beta: see :func:`~rheostat.objectives.preference.preference_loss`.
        scale: of the loss.
        weight: ``[P]`` 1 where the first answer is the winner and 0 for pairs that are left out; None keeps all.

    Returns:
        A scalar.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(chosen=chosen, rejected=rejected, mask=mask)
    kept = mask if weight is None else mask & (weight != 0).unsqueeze(-1)
    return scale * masked_mean(preference_loss(chosen, rejected, link=link, beta=beta), kept)
