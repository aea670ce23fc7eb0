"""PPO for language models: PPO with a critic on every token.

Papers: Schulman et al. 2017, arXiv 1707.06347; Ouyang et al. 2022, arXiv 2203.02155 (InstructGPT).

Equations
    r_t    = -beta (log pi_old - log pi_ref)_t + R at the last token
    A, Ret = GAE(gamma, lam) over the completion's tokens, A whitened over the batch
    loss   = token mean of the clipped surrogate + c_V 1/2 mean max((V - Ret)^2, (clip(V, V_old +- 0.5) - Ret)^2)

What differs from grpo: a value head on the model tells what each token is worth, so one completion per prompt is enough and credit goes
to tokens. The critic shares the model's trunk (the published systems train a second model of the same size). A completion cut by the
length limit bootstraps from the value after its last token.
Checked against: verl 0.8.0.dev (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.credit.token_returns import token_gae
from rheostat.credit.token_rewards import kl_shaped_reward, reward_at_last_token
from rheostat.errors import RheostatError
from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, Advantage, GRPOConfig
from rheostat.objectives.value import value_loss
from rheostat.policies.language.model import TokenScores
from rheostat.trajectories import Trajectories


@dataclass(frozen=True)
class PPOLMConfig(GRPOConfig):
    """verl's defaults."""

    prompts_per_batch: int = 256
    """Prompts per batch."""
    group_size: int = 1
    """One completion per prompt."""
    gamma: float = 1.0
    """Discount per token."""
    lam: float = 1.0
    """GAE lambda."""
    value_coefficient: float = 0.5
    """Weight c_V of the critic's loss."""
    value_clip: float | None = 0.5
    """Clip of the critic's change."""
    advantage: Advantage = "reward"
    """GAE, always."""
    minibatches: int = 4
    """Gradient steps per batch."""
    aggregation: Aggregation = "token-mean"
    """Every token weighs the same."""
    kl_coefficient: float = 0.001
    """beta."""
    kl_in_reward: bool = True
    """The KL is part of the token rewards."""


class PPOLM(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = PPOLMConfig
    config: PPOLMConfig
    needs_value_head: ClassVar[bool] = True
    kl_in_reward_advantages: ClassVar[tuple[str, ...]] = ("reward",)
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 3e-4, "kl_coefficient": 0.0}}

    @classmethod
    def derived(cls, config: GRPOConfig) -> dict[str, int | str]:
        """GRPO's numbers; the advantage cannot be another."""
        if config.advantage != "reward":
            raise RheostatError(
                f"ppo-lm takes its advantage from the critic: leave advantage alone (it is {config.advantage!r}), or use grpo."
            )
        return super().derived(config)

    @property
    def needs_start_scores(self) -> bool:
        """GAE needs the critic's values before the first step."""
        return True

    def store_start(self, rows: Trajectories, scores: TokenScores) -> None:
        """Log-probabilities and values at the start of the update."""
        assert scores.value is not None and scores.next_value is not None
        super().store_start(rows, scores)
        rows.value, rows.next_value = scores.value, scores.next_value

    def advantages(self, rows: Trajectories, reward: Tensor) -> Tensor:
        """GAE over the tokens; also stores what the critic regresses on."""
        config = self.config
        tokens = reward_at_last_token(reward, rows.mask)
        if config.kl_coefficient:
            tokens = kl_shaped_reward(reward, rows.learner_logp, rows.reference_logp, rows.mask, coefficient=config.kl_coefficient)
        tokens = tokens + torch.where(rows.truncated, config.gamma * rows.next_value, 0.0)
        advantage, rows.value_target = token_gae(tokens, rows.value, rows.mask, gamma=config.gamma, lam=config.lam)
        return advantage

    def losses(self, scores: TokenScores, rows: Trajectories, denominator: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """GRPO's loss and the critic's."""
        loss, parts = super().losses(scores, rows, denominator)
        assert scores.value is not None
        critic = value_loss(
            scores.value,
            rows.value_target,
            old_value=rows.value,
            clip=self.config.value_clip,
            mask=rows.mask,
            aggregate=self.config.aggregation,
            denominator=denominator,
        )
        return loss + self.config.value_coefficient * critic, parts | {"value_loss": critic.detach()}
