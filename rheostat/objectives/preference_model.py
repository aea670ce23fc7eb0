"""A model of preferences between two answers, the likelihood of winners, and what is read from log-ratios (arXiv 2405.08448).

A preference model gives a logit for "the first answer is better", and may like the first place for its own sake. So it is trained on both
orders, and decides by the difference of the two: online training would find and exploit what is left of that bias.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from rheostat.masking import masked_sum, require_same_shape
from rheostat.objectives.kl import categorical_kl


def both_orders_loss(winner_first: Tensor, loser_first: Tensor) -> Tensor:
    """``-mean [log r(x, y_w, y_l) + log(1 - r(x, y_l, y_w))] / 2`` with ``r`` the sigmoid of a logit.

    Args:
        winner_first: ``[P]`` logits with the winner in the first place; they carry the gradient.
        loser_first: ``[P]`` logits of the same pairs in the other order.

    Returns:
        A scalar.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(winner_first=winner_first, loser_first=loser_first)
    return -0.5 * (logsigmoid(winner_first) + logsigmoid(-loser_first)).mean()


def debiased_preference(first: Tensor, swapped: Tensor) -> Tensor:
    """``r(x, y_1, y_2) - r(x, y_2, y_1)`` in (-1, 1): above 0 where the first answer is better; exactly 0 is a tie.

    Args:
        first: ``[P]`` logits of the pairs.
        swapped: ``[P]`` logits of the same pairs in the other order.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(first=first, swapped=swapped)
    return first.sigmoid() - swapped.sigmoid()


def winner_likelihood_loss(logp: Tensor) -> Tensor:
    """``-mean log pi(y_w | x)`` of summed log-probabilities ``[P]``: best-of-2, and nothing pushes the loser down."""
    return -logp.mean()


def path_kl(logits: Tensor, reference_logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """KL(policy, reference) of answers that the policy drew, from the exact KL of every next token: unbiased, of low variance.

    Args:
        logits, reference_logits: ``[B, T, V]`` along the policy's own answers.
        mask: bool ``[B, T]``, the tokens of the answers.

    Returns:
        The KL of every token ``[B, T]`` in nats, 0 outside of the mask, and the mean over rows of their sums, a scalar.

    Raises:
        RheostatError: different shapes.
    """
    tokens = categorical_kl(logits, reference_logits).masked_fill(~mask, 0.0)
    return tokens, masked_sum(tokens, mask, -1).mean()


def win_rate(preference: Tensor) -> Tensor:
    """Share of comparisons that the policy wins; a tie counts one half.

    Args:
        preference: ``[P]``, above 0 where the policy's answer is better, 0 for a tie (a judge's logit or difference).

    Returns:
        A scalar.
    """
    return (0.5 * (preference.sign() + 1)).mean()


def prefers(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Whether a policy classifies pairs right: bool ``[P]``, log-ratio of the winner strictly above that of the loser.

    Log-ratios to a reference, and not log-probabilities: those mostly say which answer is shorter.
    """
    return chosen > rejected
