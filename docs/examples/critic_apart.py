"""Critic apart: the policy gradient with a baseline on every token, from a network of its own.

Source: the equations below; a baseline from a second network is that of Ouyang et al. 2022, arXiv 2203.02155, in its simplest form.

Equations (R the reward of a completion, s_t the row before token t)
    A_t  = R - V(s_t)
    loss = mean_t -min(ratio A, clip(ratio) A)        and, for V, outcome regression on every token

WHO ACTS   the policy samples completions.
KEPT       the fresh batch.
WORTH      the reward less what the critic expected.
MOVES      first the critic, then the policy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

import rheostat
from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import OldScores
from rheostat.learner.context import Budget, Evaluation
from rheostat.learner.dial import Dial
from rheostat.learner.language import policy_models
from rheostat.learner.learner import Composition
from rheostat.learner.reward_training import RewardModelUpdate
from rheostat.learner.update import Update
from rheostat.methods.table import METHODS, Entry
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import PolicyGradient
from rheostat.parts import Batch, Tokens, Weighted, row_reward
from rheostat.training.run import Run


@dataclass(frozen=True)
class LessExpected:
    """The reward less the critic's value before every token."""

    models: ClassVar[Sequence[str]] = ("reward",)
    writes: ClassVar[Sequence[str]] = ("advantage",)

    def __call__(self, context: Any, batch: Batch) -> Batch:
        with torch.no_grad():
            value = context.score(batch.rows, "reward", entropy=False).value
        batch.rows.advantage = torch.where(batch.rows.mask, row_reward(batch)[:, None] - value, 0.0)
        return batch


@dataclass(frozen=True)
class CriticApart:
    """Two networks, an update each."""

    groups: Groups = Groups(128, 1)
    sampling: SamplingOptions = SamplingOptions()
    critic: RewardModelUpdate = RewardModelUpdate()
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "reward_learning_rate": 1e-3}}

    def compose(self) -> Composition:
        critic = replace(self.critic, micro_batch_rows=self.update.micro_batch_rows)
        return Composition(
            collect=self.groups,
            retain=[Valid()],
            credit=[OldScores(), LessExpected()],
            improve=[critic, self.update.of(Weighted(PolicyGradient(Tokens(), Clip(0.2, 0.2))))],  # in this order
            models=policy_models(self.update) | {"reward": critic.trained(of="policy")},
        )


METHODS["critic-apart"] = Entry("critic_apart:CriticApart", "language", "A baseline of its own", "-", "an example")


def main(model: str, directory: Path, task: Any = "chain-sum", steps: int = 100, **options: Any) -> Run:
    return rheostat.train("critic-apart", task, model=model, directory=directory, steps=steps, evaluate_every=0, **options)


if __name__ == "__main__":
    run = main(sys.argv[1] if len(sys.argv) > 1 else "chain-sum", Path("runs/critic-apart"))
    print({name: round(run.metrics[-1][name], 3) for name in ("reward", "reward_model/loss")})
