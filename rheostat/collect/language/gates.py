"""Gates: they select the prompts that a policy is trained on, by its present ability."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from rheostat.collect.language.language_collectors import AroundGroups
from rheostat.collect.language.pass_rates import RIGHT
from rheostat.credit.verifiers.verifier_interface import Scores
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.flops import FORWARD
from rheostat.tasks.language.task_interface import Prompt

BARREN = 10
"""Batches of prompts in a row, or an epoch, without one that is left: then the run stops."""
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


@dataclass(frozen=True)
class EasyDropped(AroundGroups):
    """Prompts whose whole group was right are never asked again (AceReason's second stage of code).

    A prompt comes once in an epoch, so it is gone from the next one on.
    """

    selects_groups: ClassVar[bool] = True
    keeps_units: ClassVar[bool] = True
    solved: set[str] = field(default_factory=set, init=False, compare=False)
    """Keys of the prompts that are gone."""

    def collect(self, context: Any) -> Batch:
        """As many groups as ever, of prompts that are left; ``easy_prompts`` counts those that are gone.

        Raises:
            RheostatError: a whole epoch, or ``BARREN`` draws of prompts, held no other.
        """
        context.collector.offer(self.left(context.collector))
        batch: Batch = self.inner.collect(context)
        graded = batch.facts["graded"]
        right = (graded.scores.valid & (graded.scores.reward >= RIGHT)).tolist()
        missed = {prompt.key for prompt, each in zip(graded.prompts, right, strict=True) if not each}
        self.solved.update({prompt.key for prompt in graded.prompts} - missed)
        batch.metrics = batch.metrics | {"easy_prompts": float(len(self.solved))}
        return batch

    def left(self, collector: Any) -> list[tuple[Drawn, int]]:
        """The next prompts that are not easy, with their numbers."""
        wanted, barren = self.rows // self.group_size, 0
        found: list[tuple[Drawn, int]] = []
        while len(found) < wanted:
            drawn, numbers = collector.draw(wanted - len(found))
            passed = [(each, number) for each, number in zip(drawn, numbers, strict=True) if each[0].key not in self.solved]
            found += passed
            barren = 0 if passed else barren + len(drawn)
            if barren > max(BARREN * wanted, collector.stream.epoch):
                raise RheostatError(
                    f"Nothing is left to train on: whole groups of the policy's answers to {len(self.solved)} prompts were right, and no "
                    "other prompt comes. Use harder prompts, or keep the easy ones (easy keep)."
                )
        return found

    def state_dict(self) -> dict[str, Any]:
        """The prompts that are gone."""
        return {"solved": sorted(self.solved)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue without them."""
        self.solved.clear()
        self.solved.update(state["solved"])


def resized(collector: Any, prompts: int) -> Any:
    """The same collector for another number of prompts, with all its wrappers."""
    inner = getattr(collector, "inner", None)
    return replace(collector, prompts=prompts) if inner is None else replace(collector, inner=resized(inner, prompts))
