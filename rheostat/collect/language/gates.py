"""Gates: they select the prompts that a policy is trained on, by its present ability."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from rheostat.collect.language.language_collectors import AroundGroups
from rheostat.credit.verifiers.verifier_interface import Scores
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.flops import FORWARD
from rheostat.tasks.language.task_interface import Prompt

Drawn = tuple[Prompt, list[int]]
"""A prompt and its token ids."""


class Gated(NamedTuple):
    """The prompts that passed a gate, with their token ids, and their numbers in the run."""

    passed: list[tuple[Drawn, int]]
    held_back: list[tuple[Drawn, int]]


def unsolved(scores: Scores) -> Tensor:
    """``[N]`` bool: answers whose reward is not exactly 1; an answer without a grade is not known to be right."""
    return ~scores.valid | (scores.reward != 1.0)


@dataclass(frozen=True)
class Unsolved(AroundGroups):
    """Only prompts whose greedy answer is wrong pass (SELF); how many there are differs from batch to batch.

    The greedy answers are generated and graded like others, so they count in the budget; nothing is learned from them.
    """

    max_rounds: int = option(10, short="max_gate_rounds", at_least=1)
    """Batches in a row in which every prompt may be solved before the run stops."""
    selects_groups: ClassVar[bool] = True
    keeps_units: ClassVar[bool] = True

    def collect(self, context: Any) -> Batch:
        """Groups of the prompts that pass, ``[at most rows, T]``; the fact ``gated`` holds those that passed.

        Raises:
            RheostatError: every prompt of ``max_rounds`` batches is solved.
        """
        for rounds in range(1, self.max_rounds + 1):
            gated = self.ask(context)
            if gated.passed:
                context.collector.offer(gated.passed)
                batch: Batch = resized(self.inner, len(gated.passed)).collect(context)
                share = len(gated.passed) / (len(gated.passed) + len(gated.held_back))
                batch.metrics = batch.metrics | {"unsolved_share": share, "gate_rounds": float(rounds)}
                batch.facts = batch.facts | {"gated": gated}
                return batch
        raise RheostatError(
            "The gate of unsolved prompts lets nothing through: greedily the policy answers every prompt of "
            f"{self.max_rounds} batches right. Nothing is left to train on: use harder prompts, or a method without the gate."
        )

    def ask(self, context: Any) -> Gated:
        """Greedy answers to the next prompts, and which of them are right."""
        collector = context.collector
        drawn, numbers = collector.draw(self.rows // self.group_size)
        sampling = replace(context.sampling, temperature=0.0, top_k=0, top_p=1.0)
        greedy = collector.answer(drawn, 1, sampling, numbers=numbers, purpose="gate", version=context.updates, progress=context.progress)
        context.count_flops(FORWARD, greedy.trajectories)
        gated = Gated([], [])
        for prompt, number, passes in zip(drawn, numbers, unsolved(greedy.scores).tolist(), strict=True):
            (gated.passed if passes else gated.held_back).append((prompt, number))
        return gated


def resized(collector: Any, prompts: int) -> Any:
    """The same collector for another number of prompts, with all its wrappers."""
    inner = getattr(collector, "inner", None)
    return replace(collector, prompts=prompts) if inner is None else replace(collector, inner=resized(inner, prompts))
