"""AsymRE: REINFORCE with a baseline that is moved on purpose.

Paper: Arnal et al. 2025, arXiv 2506.20520.

Equations (mu whoever sampled, R the reward of a completion, group the completions of one prompt)
    A    = R - (mean of the group + delta)
    loss = -E_mu[ A log pi(y) ]                      no ratio and no clip

WHO ACTS   the policy samples a group of completions for every prompt.
KEPT       the fresh batch, for one gradient step.
WORTH      the reward relative to a baseline. On-policy the baseline changes nothing but the variance; off-policy a
           lower one (delta < 0) trusts right completions more than wrong ones.
MOVES      the log-likelihood, weighted by the advantage.

What differs from grpo: the baseline has an offset, nothing is divided by the deviation, nothing is clipped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import rheostat
from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import OldScores
from rheostat.credit.group_advantages import group_statistics, to_tokens
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import policy_models
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.methods.language.reinforce import OneStepLikelihood
from rheostat.methods.table import METHODS, Entry
from rheostat.objectives.clipping import DetachedClip
from rheostat.options import option
from rheostat.parts import Aggregate, Batch, Tokens, Weighted, row_reward
from rheostat.training.run import Run


@dataclass(frozen=True)
class MovedBaseline:
    """The reward less the mean of its group and an offset, on every token."""

    delta: float = option(-0.1, short="baseline_offset")
    """Offset of the baseline; below 0 the right completions count for more."""
    writes: ClassVar[Sequence[str]] = ("advantage",)

    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows = batch.rows
        reward = row_reward(batch)  # [B]
        group = group_statistics(reward, rows.group[:, 0], valid=rows.valid[:, 0])
        rows.advantage = to_tokens(reward - group.mean - self.delta, rows.mask)  # [B, T]
        return batch


@dataclass(frozen=True)
class AsymRE:
    """One part of its own, the rest from the library."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    baseline: MovedBaseline = MovedBaseline()
    aggregate: Aggregate = Aggregate("sequence-sum")
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4}}

    def compose(self) -> Composition:
        """The four answers."""
        likelihood = OneStepLikelihood(Tokens(self.aggregate), DetachedClip())
        return Composition(
            collect=self.groups,
            retain=[self.keep],
            credit=[OldScores(), self.baseline],
            improve=[self.update.of(Weighted(likelihood))],
            models=policy_models(self.update),
        )


METHODS["asym-re"] = Entry("asym_re:AsymRE", "language", "REINFORCE with a moved baseline", "2506.20520", "an example")


def main(model: str | None, directory: Path, task: Any = "chain-sum", steps: int = 20, **options: Any) -> Run:
    return rheostat.train("asym-re", task, model=model, directory=directory, steps=steps, dial={"lag": 4}, **options)


if __name__ == "__main__":
    run = main(sys.argv[1] if len(sys.argv) > 1 else None, Path("runs/asym-re"))
    print({name: round(run.metrics[-1][name], 3) for name in ("reward", "meter/ess", "meter/share_stale")})
