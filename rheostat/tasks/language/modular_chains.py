"""``modular-chains``: up to eight additions modulo 97, for methods that ask a failed problem again with another prompt.

``45+7+8=`` asks for the answer, ``?45+7+8=`` for the working, and ``#51#60?45+7+8=`` shows wrong answers to be corrected. Worked examples
stand before, each closed by a colon: ``?9+4=9+4=13;#13:?45+7+8=``. The answer is ``#60`` or ``45+7=52;52+8=60;#60`` whatever the prompt:
the working may be written after any of them.

Its base answers a plain prompt at once, which is right one time in ten for one addition and a guess for more (0.02 for three and more, one
sample each). Asked for the working it slips: it is right with 0.66, 0.39, 0.28, 0.21, 0.12 and 0.07 for one to six additions, and with
wrong answers in view with 0.08 for seven and eight. It is built in four and a half minutes of a core.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from rheostat.errors import RheostatError
from rheostat.tasks.language.chain_sum import ChainSum, Style
from rheostat.tasks.language.task_interface import Limits, Prompt, Split, Worked, is_validation

if TYPE_CHECKING:
    from torch import Tensor

Asked = Literal["plain", "working", "correction"]
_CHAIN = re.compile(r"(\d{1,2})((?:\+\d)+)=")
EASY, MIDDLE = 3, 7
"""Most terms of an easy chain, and of one of middle length: two additions, and six."""


@dataclass(frozen=True)
class ModularChains(ChainSum):
    """A residue, and digits that are added to it one after the other."""

    min_terms: int = 2
    max_terms: int = 9
    modulus: int | None = 97
    asked: Asked = "plain"
    """How prompts are written: plain, asking for the working, or with wrong answers in view. Base models are taught all three."""
    shown: int = 0
    """Most worked examples before a prompt that is not plain; how many, and wrong answers, are drawn for each prompt."""
    name: str = "modular-chains"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.modulus is None or self.modulus > 100 or self.operations != "+" or self.digits != 1 or self.mixed or self.reads:
            raise RheostatError("modular-chains adds digits modulo a number of at most 100: leave the other knobs of chain-sum alone.")
        if self.asked not in ("plain", "working", "correction"):
            raise RheostatError(f"A prompt of modular-chains is plain, or asks for the working or a correction; got {self.asked!r}.")
        if self.shown < 0 or (self.shown and self.asked == "plain"):
            raise RheostatError("shown is a number of worked examples, which stand before prompts that are not plain.")

    @property
    def base(self) -> str:
        """The recipe of the same name."""
        return "modular-chains"

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """Room for the longest prompt and its working, and for the end and two tokens to spare."""
        steps = self.max_terms - 1
        return Limits(3 + 2 * steps, 8 * steps + 3 + 3)

    def draw(self, rng: np.random.Generator, count: int) -> list[tuple[list[int], str]]:
        """``count`` chains as (numbers, operations between them); the first number is a residue, the others are digits."""
        assert self.modulus is not None
        chains = super().draw(rng, count)
        first = rng.integers(0, self.modulus, count).tolist()
        return [([start, *numbers[1:]], signs) for start, (numbers, signs) in zip(first, chains, strict=True)]

    def locate(self, prompt: Prompt) -> tuple[Split, Prompt] | None:
        """The side of a plain chain that these knobs can draw, with its answer; None for any other text."""
        found = _CHAIN.fullmatch(str(prompt.content))
        if not found or self.modulus is None:
            return None
        numbers = [int(found[1]), *map(int, re.findall(r"\d", found[2]))]
        own = self.problem(numbers, "+" * (len(numbers) - 1))
        weights = self.length_weights
        fits = self.min_terms <= len(numbers) <= self.max_terms and numbers[0] < self.modulus and own.content == prompt.content
        if not fits or (weights is not None and not weights[len(numbers) - self.min_terms]):
            return None
        return ("validation" if is_validation(own.key, self.validation_share) else "train"), own

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """As ever; with ``asked``, each prompt is written otherwise, behind worked examples of its own block."""
        plain = super().block(number, split, seed)
        if self.asked == "plain":
            return plain
        rng = np.random.default_rng([seed % 2**32, number, 97])
        return [self._asked(prompt, plain, rng) for prompt in plain]

    def _asked(self, prompt: Prompt, others: list[Prompt], rng: np.random.Generator) -> Prompt:
        chosen = [others[int(rng.integers(len(others)))] for _ in range(int(rng.integers(0, self.shown + 1)))]
        wrong = [self._wrong(each, rng) for each in (*chosen, prompt)]
        examples = [
            Worked(str(each.content), str(each.columns["solution"]), tries if self.asked == "correction" else ())
            for each, tries in zip(chosen, wrong, strict=False)
        ]
        return self.decomposition(prompt, examples) if self.asked == "working" else self.reflection(prompt, wrong[-1], examples)

    def _wrong(self, prompt: Prompt, rng: np.random.Generator) -> tuple[str, ...]:
        """One or two wrong answers."""
        assert self.modulus is not None
        count = int(rng.integers(1, 3))
        return tuple(f"#{(int(prompt.answer) + int(rng.integers(1, self.modulus))) % self.modulus}" for _ in range(count))

    def expert(self, prompt: Prompt, rng: np.random.Generator, style: Style = "steps", error_rate: float | None = None) -> str:
        """A demonstration of the chain that a prompt ends with, however it is asked."""
        plain = str(prompt.content).rpartition("?")[2] or str(prompt.content)
        return super().expert(replace(prompt, content=plain), rng, style, error_rate)

    def family(self, prompt: Prompt) -> str:
        """Easy up to two additions, middle up to six, else long."""
        terms = prompt.columns["terms"]
        return "easy" if terms <= EASY else "middle" if terms <= MIDDLE else "long"

    def metrics(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> dict[str, Tensor]:
        """As ever, and ``easy`` and ``hard`` [N] float32, where they occur: the reward of chains of up to two additions and of longer ones,
        NaN for the others."""
        import torch

        right = self.verifier().score([prompt.rollout(text) for prompt, text in zip(prompts, completions, strict=True)]).reward
        easy = torch.tensor([self.family(prompt) == "easy" for prompt in prompts])
        parts = {"easy": torch.where(easy, right, torch.nan), "hard": torch.where(easy, torch.nan, right)}
        return super().metrics(prompts, completions) | {name: each for name, each in parts.items() if not bool(each.isnan().all())}
