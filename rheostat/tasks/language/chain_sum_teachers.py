"""``chain-sum-teachers``: the same sums, demonstrated by one of four teachers of which the best one is not the best to learn from.

| teacher | how it works a chain out | slips |
|---|---|---|
| varied | each time in another of four styles: left to right, the rest rewritten, in pairs, with repeated checks | 1 in 100 steps |
| steady | left to right; one step in four is written twice | 3 in 100 steps |
| terse | not at all: the answer alone | never |
| poor | left to right | 4 in 10 steps |

The student (chain-sum-short) knows chains of 2 to 4 terms and is asked for 3 to 6. Validation prompts are half such that it knew (2 to 4
terms, outside of what is taught) and half longer ones; ``validation_easy`` and ``validation_hard`` tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from rheostat.errors import RheostatError, unknown
from rheostat.tasks.language.chain_sum import ChainSum, Style, apply
from rheostat.tasks.language.task_interface import Limits, Prompt, Split

if TYPE_CHECKING:
    from torch import Tensor

Writing = Literal["left", "rewrite", "pairs", "checked"]
KNOWN, LONG = 4, 5
"""Most terms of what the student knew, and fewest of what it did not."""


@dataclass(frozen=True)
class Manner:
    """How a teacher writes."""

    writings: tuple[Writing, ...] = ("left",)
    slips: float = 0.0
    """Chance that a step is wrong."""
    repeats: float = 0.0
    """Chance that a step is written twice, of what is written from left to right."""
    bare: bool = False
    """The answer alone."""


TEACHERS: dict[str, Manner] = {
    "varied": Manner(("left", "rewrite", "pairs", "checked"), 0.01),
    "steady": Manner(slips=0.03, repeats=0.25),
    "terse": Manner(bare=True),
    "poor": Manner(slips=0.4),
}


def worked(numbers: Sequence[int], manner: Manner, rng: np.random.Generator) -> str:
    """A teacher's solution of a chain of sums modulo 10, with its slips."""

    def add(left: int, right: int) -> int:
        slip = int(rng.integers(1, 10)) if rng.random() < manner.slips else 0
        return (apply("+", left, right, 10) + slip) % 10

    if manner.bare:
        return f"#{sum(numbers) % 10}"
    writing = manner.writings[int(rng.integers(len(manner.writings)))]
    repeats = 0.75 if writing == "checked" else manner.repeats
    rest, lines = list(numbers), []
    while len(rest) > 1:
        if writing == "pairs":
            pairs = [(rest[place], rest[place + 1]) for place in range(0, len(rest) - 1, 2)]
            found = [add(*pair) for pair in pairs]
            lines += [f"{a}+{b}={c};" for (a, b), c in zip(pairs, found, strict=True)]
            rest = found + rest[2 * len(pairs) :]
            continue
        value = add(rest[0], rest[1])
        line = f"{rest[0]}+{rest[1]}={value};"
        rest = [value, *rest[2:]]
        lines += ["+".join(map(str, rest)) + ";"] if writing == "rewrite" else [line] * (1 + (rng.random() < repeats))
    return "".join(lines) + f"#{rest[0]}"


@dataclass(frozen=True)
class ChainSumTeachers(ChainSum):
    """Chains of 3 to 6 terms and a teacher."""

    teacher: str = "steady"
    """Who demonstrates: varied, steady, terse or poor."""
    name: str = "chain-sum-teachers"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher not in TEACHERS:
            raise unknown("teacher", self.teacher, TEACHERS)
        if self.operations != "+" or self.modulus != 10 or self.digits != 1 or self.max_terms < LONG:
            raise RheostatError(f"The teachers add digits modulo 10, in chains of up to {LONG} terms or more: leave the other knobs alone.")

    @property
    def base(self) -> str:
        """Knows chains of 2 to 4 terms."""
        return "chain-sum-short"

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """Room for every step written twice, for the answer and two to spare."""
        return replace(super().limits, max_new_tokens=12 * (self.max_terms - 1) + 5)

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """As ever; for validation, a prompt of what the student knew after each longer one."""
        if split == "train":
            return super().block(number, split, seed)
        easy = ChainSum(2, KNOWN, validation_share=self.validation_share).block(number, split, seed)
        hard = ChainSum(LONG, self.max_terms, validation_share=self.validation_share).block(number, split, seed)
        return [prompt for pair in zip(hard, easy, strict=False) for prompt in pair]

    def expert(self, prompt: Prompt, rng: np.random.Generator, style: Style = "steps", error_rate: float | None = None) -> str:
        """The teacher's solution; how it is written and whether it slips is the teacher's own matter."""
        numbers, _, _ = self.parse(str(prompt.content))
        return worked(numbers, TEACHERS[self.teacher], rng)

    def metrics(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> dict[str, Tensor]:
        """As ever, and ``easy`` and ``hard`` [N] float32: 1 where an answer to such a prompt is right, NaN for others; where they occur."""
        import torch

        right = self.verifier().score([prompt.rollout(text) for prompt, text in zip(prompts, completions, strict=True)]).reward
        terms = torch.tensor([prompt.columns["terms"] for prompt in prompts])
        parts = {"easy": torch.where(terms <= KNOWN, right, torch.nan), "hard": torch.where(terms >= LONG, right, torch.nan)}
        return super().metrics(prompts, completions) | {name: each for name, each in parts.items() if not bool(each.isnan().all())}
