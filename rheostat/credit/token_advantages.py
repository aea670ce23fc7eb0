"""Advantages of tokens from rewards of completions, by name: the reward of a completion compared with its group or with the batch.

| name | reward of a row is compared with | function |
|---|---|---|
| ``grpo`` | its group's mean, in deviations of the group | :func:`~rheostat.credit.group_advantages.grpo_advantage` |
| ``mean-baseline`` | its group's mean | the same, without a scale |
| ``rloo`` | the mean of the group's other rows | :func:`~rheostat.credit.group_advantages.rloo_advantage` |
| ``reinforce-pp`` | all tokens of the batch, as returns-to-go | :func:`~rheostat.credit.token_returns.reinforce_pp_advantage` |
| ``reinforce-pp-baseline`` | its group's mean, then the batch | :func:`~rheostat.credit.group_advantages.reinforce_pp_baseline_advantage` |
| ``reward`` | nothing | |
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rheostat.credit.group_advantages import (
    Scale,
    grpo_advantage,
    reinforce_pp_baseline_advantage,
    rloo_advantage,
    to_tokens,
)
from rheostat.credit.token_returns import reinforce_pp_advantage
from rheostat.credit.token_rewards import kl_penalised_outcome, kl_shaped_reward, reward_at_last_token

Advantage = Literal["grpo", "mean-baseline", "rloo", "reinforce-pp", "reinforce-pp-baseline", "reward"]


def token_advantages(
    kind: Advantage,
    reward: Tensor,
    group: Tensor,
    mask: Tensor,
    *,
    valid: Tensor | None = None,
    eps: float = 1e-6,
    kl_penalty: float = 0.0,
    old_logp: Tensor | None = None,
    reference_logp: Tensor | None = None,
) -> Tensor:
    """See the table of the module.

    Args:
        kind: its name.
        reward: ``[B]``.
        group: ``[B]`` integers.
        mask: ``[B, T]`` bool.
        valid: ``[B]`` bool; invalid rows enter no statistic of a group.
        eps: added to a group's deviation.
        kl_penalty: weight of a KL that is part of the reward (``rloo`` and ``reinforce-pp``); above 0 it needs both log-probs.
        old_logp, reference_logp: ``[B, T]`` under the learner when the update began, and under the reference.

    Returns:
        ``[B, T]``, 0 outside the mask.

    Raises:
        RheostatError: different shapes, or a valid reward that is not finite.
    """
    if kl_penalty:
        assert old_logp is not None and reference_logp is not None
    if kind == "reinforce-pp":
        tokens = reward_at_last_token(reward, mask)
        if kl_penalty and old_logp is not None and reference_logp is not None:
            tokens = kl_shaped_reward(reward, old_logp, reference_logp, mask, coefficient=kl_penalty)
        return reinforce_pp_advantage(tokens, mask)[0]
    if kind == "reinforce-pp-baseline":
        return reinforce_pp_baseline_advantage(reward, group, mask, singleton="zero", valid=valid)
    if kind == "rloo":
        if kl_penalty and old_logp is not None and reference_logp is not None:
            reward = kl_penalised_outcome(reward, old_logp, reference_logp, mask, coefficient=kl_penalty)
        return to_tokens(rloo_advantage(reward, group, singleton="zero", valid=valid), mask)
    if kind == "reward":
        return to_tokens(reward, mask)
    scale: Scale = "group" if kind == "grpo" else "none"
    return to_tokens(grpo_advantage(reward, group, scale=scale, eps=eps, singleton="zero", valid=valid), mask)
