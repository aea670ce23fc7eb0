"""Attempts: every prompt is tried until the answer is right; the wrong attempts are unlearned with care.

Paper: the loss is TOPR, Le Roux et al. 2025, arXiv 2503.14286; who acts is this example's own.

Equations (mu whoever sampled, sg a constant)
    right    -log pi(y)
    wrong    +sg[min(pi(y) / mu(y), 1)] log pi(y)

WHO ACTS   the policy answers every prompt, and answers again where it was wrong, at most ``attempts`` times.
KEPT       every attempt.
WORTH      right or wrong.
MOVES      right completions up. Wrong ones down, as long as the policy would still write them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

import rheostat
from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import SamplingOptions, batch_of
from rheostat.collect.language.prompt_groups import join
from rheostat.credit.annotations import OldScores
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import policy_models
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.masking import select
from rheostat.methods.table import METHODS, Entry
from rheostat.objectives.terms import TokenTerm
from rheostat.options import option
from rheostat.parts import Aggregate, Batch, Context, Report, Tokens, Weighted, row_reward
from rheostat.policies.flops import FORWARD
from rheostat.training.run import Run


@dataclass(frozen=True)
class Attempts:
    """The policy answers every prompt until it is right."""

    prompts: int = option(64, short="prompts_per_batch", at_least=1)
    """Prompts per batch."""
    most: int = option(4, short="attempts", at_least=1)
    """Attempts that a prompt gets at most."""
    group_size: ClassVar[int] = 1
    refuses: ClassVar[Mapping[str, str]] = {"expert_share": "a prompt has attempts instead of a group"}

    @property
    def rows(self) -> int:
        """Rows of the largest batch."""
        return self.prompts * self.most

    def collect(self, context: Any) -> Batch:
        """``[B, T]`` with ``prompts <= B <= prompts * most``: first attempts, second attempts, and so on."""
        drawn, numbers = context.collector.draw(self.prompts)
        found = []
        for attempt in range(self.most):
            graded = context.collector.answer(
                drawn,
                1,
                context.sampling,
                numbers=numbers,
                purpose=f"attempt {attempt}",  # every attempt has random numbers of its own
                version=context.updates,
                progress=context.progress,
            )
            context.count_flops(FORWARD, graded.trajectories)
            found.append(graded)
            wrong = (graded.scores.reward < 1).nonzero().flatten().tolist()
            drawn, numbers = [drawn[row] for row in wrong], [numbers[row] for row in wrong]
            if not drawn:
                break
        whole = join(found, sum(len(part.prompts) for part in found))
        assert whole is not None
        whole.metrics = {**found[0].metrics, "attempts": len(whole.prompts) / self.prompts}
        return batch_of(whole)


@dataclass(frozen=True)
class Taper(TokenTerm):
    """TOPR's loss: likelihood of right completions, tapered unlearning of wrong ones."""

    reads: ClassVar[Sequence[str]] = ("sampler_logp",)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        mask = self.mask(batch)  # [B, T]
        log_ratio = select(scores.logp.detach() - batch.rows.sampler_logp, mask).sum(1)  # [B]
        weight = torch.where(row_reward(batch) >= 1, -1.0, log_ratio.clamp(max=0).exp())  # [B]
        return self.reduce(weight[:, None] * scores.logp, batch, denominator), Report()


@dataclass(frozen=True)
class ToprAttempts:
    """A collector and a term of its own."""

    attempts: Attempts = Attempts()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    aggregate: Aggregate = Aggregate("sequence-sum")
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4}}

    def compose(self) -> Composition:
        """The four answers."""
        return Composition(
            collect=self.attempts,
            retain=[self.keep],
            credit=[OldScores()],
            improve=[self.update.of(Weighted(Taper(Tokens(self.aggregate))))],
            models=policy_models(self.update),
        )


METHODS["topr-attempts"] = Entry("topr_attempts:ToprAttempts", "language", "Attempts until one is right", "2503.14286", "an example")


def main(model: str | None, directory: Path, task: Any = "chain-sum", steps: int = 20, **options: Any) -> Run:
    return rheostat.train("topr-attempts", task, model=model, directory=directory, steps=steps, minibatches=4, **options)


if __name__ == "__main__":
    run = main(sys.argv[1] if len(sys.argv) > 1 else None, Path("runs/topr-attempts"))
    print({name: round(run.metrics[-1][name], 3) for name in ("attempts", "reward", "policy_loss")})
