"""Score centring: what a policy gradient does to tokens whatever they earn, because another policy sampled them, is subtracted.

Marek and Ryabinin 2026, "Score Centering Stabilizes Off-policy Reinforcement Learning", arXiv 2609.20807.

At one step, with p the learner, q the sampler, s_v = grad log p_v the score, A the advantage of the sampled token y, and g_v(A) what the
loss makes of the score of a token v (1 in plain REINFORCE; the ratio inside a clip, 0 beyond it; times a weight min(p / q, C)):

    gradient ascended      g_y(A) A s_y,   y ~ q
    its mean               E_q[A g s] = E[A] E_q[g s] + Cov_q(A, g s)          (g the same for every A)
    drift                  the first part: sum_v q_v g_v s_v is 0 where q = p, and without rewards still not 0 elsewhere
    centred                A ( g_y(A) s_y - sum_v q_v g_v(A) s_v )

Only the covariance is left. It is under q, so the result is no unbiased gradient; what is gone is the part that pulls p to or from q
whatever is rewarded, and that the next sampler inherits. Nothing changes where q = p. Where token losses are divided by the length of their
completion, which depends on the token, a little drift stays: the aggregations ``sequence-sum`` and ``constant`` leave none.

A head H of the sampler's likeliest tokens is known; the others count as one token "any other", of probability q_o = 1 - sum_H q and
p_o = 1 - sum_H p. With g = 1 the subtracted sum is then that of the paper's tail, q_v = rho p_v with rho = q_o / p_o, since

    sum_H q_v s_v + rho sum_others p_v s_v = sum_H (q_v - rho p_v) s_v        because sum_v p_v s_v = 0

and with weights the same with alpha = rho f(1 / rho) in the place of rho. With the whole vocabulary in the head nothing is approximated.

From the paper's abstract and public implementations: the drift, the subtraction, the tail, the weights, 128 tokens. Reconstruction: the
paper's text was not at hand; that a clip and a ratio to the start of the update belong to g, so that PPO's losses can be centred, is ours
(the paper centres REINFORCE with weights of p / q; here the weight is of the learner at the start of the update, and the ratio does the
rest). The sampler's probabilities are computed again from its weights, where the paper records them as it samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat.masking import select
from rheostat.objectives.clipping import ClipRule
from rheostat.objectives.policy_gradient import policy_terms
from rheostat.objectives.weights import importance_weight


def centring(
    head: Tensor,
    sampler_head: Tensor,
    advantage: Tensor,
    *,
    mask: Tensor,
    clip: ClipRule,
    old_head: Tensor | None = None,
    log_clamp: tuple[float, float] | None = None,
    cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The mean over the sampler's tokens of what the surrogate does, as a loss whose gradient it is; and the distance of the policies.

    Args:
        head: ``[B, T, K]`` log-probabilities of the head's tokens, and of any other one, under the learner; carries the gradient.
        sampler_head: the same under the sampler.
        advantage: ``[B, T]`` of the sampled token.
        mask: bool ``[B, T]``; masked entries may be NaN.
        clip: of token ratios; its rule is that of every entry for itself.
        old_head: ``[B, T, K]`` under the learner at the start of the update; None: the learner is there.
        log_clamp: bounds of the log-ratio.
        cap: of importance weights of the learner at the start of the update to the sampler; None: no weights.

    Returns:
        ``[B, T]`` to be subtracted from the loss of every token, whose value means nothing, and the total variation distance ``[B, T]`` of
        learner and sampler over the head, in [0, 1]; 0 where masked.
    """
    everywhere = mask[..., None].expand_as(head)
    sampler, known = select(sampler_head, everywhere), select(head, everywhere)
    start = None if old_head is None else select(old_head, everywhere)
    weight = None if cap is None else importance_weight(known.detach() if start is None else start, sampler, cap=cap)
    with torch.enable_grad():
        leaf = known.detach().requires_grad_()
        terms = policy_terms(
            leaf,
            select(advantage, mask)[..., None].expand_as(leaf),
            denominator_logp=leaf.detach() if start is None else start,
            clip=clip,
            log_clamp=log_clamp,
            weight=weight,
        )
        (push,) = torch.autograd.grad(terms.loss.sum(), leaf)
    mean = (sampler.exp() * push * known).sum(-1)
    distance = 0.5 * (sampler.exp() - known.detach().exp()).abs().sum(-1)
    return select(mean, mask), select(distance, mask)
