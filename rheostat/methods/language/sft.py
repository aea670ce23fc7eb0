"""SFT: supervised fine-tuning on demonstrations.

Equation
    loss = -1/(sum_i |y_i|) sum_i sum_t log pi(y_it | x, y_i<t)

WHO ACTS   an expert: the run's file of expert rows, the ``completion`` column of the prompts' rows, or the task's own expert.
What differs from grpo: nobody samples and nobody grades; every demonstrated token has weight 1. It is the policy-gradient kernel with
advantage 1 and the ratio of the policy to itself. ``group_size`` is 1: one demonstration per prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.collect.language.experts import demonstration, expert_rows
from rheostat.collect.language.groups import Graded, World
from rheostat.credit.verifiers.interface import Scores
from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, Advantage, GRPOConfig, LimitName
from rheostat.streams import Streams
from rheostat.trajectories import Trajectories


@dataclass(frozen=True)
class SFTConfig(GRPOConfig):
    """Plain maximum likelihood."""

    prompts_per_batch: int = 128
    """Demonstrations per batch."""
    group_size: int = 1
    """One demonstration per prompt."""
    advantage: Advantage = "reward"
    """Every token counts 1."""
    limit: LimitName = "detached"
    """The log-likelihood itself."""
    clip_low: float | None = None
    """No bound."""
    clip_high: float | None = None
    """No bound."""
    aggregation: Aggregation = "token-mean"
    """Every token weighs the same."""
    learning_rate: float = 1e-5
    """AdamW step size."""
    kl_coefficient: float = 0.0
    """No KL."""


class SFT(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = SFTConfig
    search_refused: ClassVar[str] = "every token counts 1, so there are no sides to balance"
    uses_experts: ClassVar[bool] = True
    dial_refused: ClassVar[dict[str, str]] = dict.fromkeys(
        ("lag", "replay_share", "expert_share"), "nobody samples, every row is the expert's"
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 1e-3}}

    def __init__(self, config: GRPOConfig, world: World, streams: Streams, *, total_steps: int) -> None:
        super().__init__(config, world, streams, total_steps=total_steps)
        if world.experts is not None:  # every one of its rows is the lesson, not one of each prompt
            self.collector.stream = world.experts.stream(streams.seed)

    def collect(self) -> Trajectories:
        """WHO ACTS? The expert."""
        collector, world = self.collector, self.world
        drawn, numbers = collector.draw(self.config.prompts_per_batch)
        texts = [demonstration(world, prompt, collector.seed, number) for (prompt, _), number in zip(drawn, numbers, strict=True)]
        rows = expert_rows(world, drawn, texts, numbers)
        collector.generated_tokens += rows.count()  # the budget counts what is learned from, whoever wrote it
        ones = torch.ones(len(drawn))
        scores = Scores(ones, ones.bool(), torch.zeros(len(drawn), dtype=torch.bool))
        self.graded = Graded(
            rows, [prompt for prompt, _ in drawn], texts, scores, {"completion_length": rows.mask.sum(1).float().mean().item()}
        )
        return rows

    def advantages(self, rows: Trajectories, reward: Tensor) -> Tensor:
        """1 on every demonstrated token."""
        return rows.mask.float()
