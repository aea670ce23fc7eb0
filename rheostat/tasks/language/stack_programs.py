"""``stack-programs``: short programs for a stack machine, in characters, graded by running them; and the same beside ``chain-sum``.

The prompt is a formula of one input, ``?*3+4*?:``, where ``*`` binds tighter than ``+`` and ``-``. The answer is a program that computes
it, ``?3*4?*+``: a digit or ``?`` is pushed, a sign takes two values and pushes its result, everything modulo 10. A program is right when
it returns what the formula says on every one of five inputs. Several programs are right (``?4*?3*+``); how many operations a formula
has is how hard it is.

A program has no loops and at most a few dozen steps, and the machine is a dozen lines of this file: nothing that a model writes is
evaluated by Python. Programs in Python are graded in the sandbox, see :mod:`rheostat.credit.verifiers.programs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rheostat.credit.verifiers.programs import credit_of
from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores, Verifier
from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.chain_sum import BLOCK, ChainSum, ChainSumVerifier, apply
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Prompt, Split, is_validation

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

INPUT, END, SIGNS, MODULUS = "?", ":", "+-*", 10
TESTS = 5
LONGEST = 64
"""Characters of a program that are run."""
Learn = Literal["math", "code", "both"]


class StackError(ValueError):
    """A program that is none."""


def execute(program: str, value: int) -> int:
    """What a program returns for an input.

    Args:
        program: digits, ``?`` and the signs ``+-*``.
        value: of every ``?``.

    Raises:
        StackError: another character, too long, too few values for a sign, or not exactly one value at the end.
    """
    if len(program) > LONGEST:
        raise StackError(f"longer than {LONGEST} characters")
    stack: list[int] = []
    for symbol in program:
        if symbol == INPUT:
            stack.append(value % MODULUS)
        elif symbol in SIGNS:
            if len(stack) < 2:
                raise StackError(f"{symbol} finds fewer than two values")
            right, left = stack.pop(), stack.pop()
            stack.append(apply(symbol, left, right, MODULUS))
        elif symbol.isascii() and symbol.isdigit():
            stack.append(int(symbol))
        else:
            raise StackError("a character that is no instruction")
    if len(stack) != 1:
        raise StackError(f"{len(stack)} values are left, not one")
    return stack[0]


def products(formula: str) -> list[tuple[str, list[str]]]:
    """The products of a formula, each with the sign before it (the first has ``+``) and its factors.

    Raises:
        RheostatError: it is no formula such as ``?*3+4``.
    """
    parts: list[tuple[str, list[str]]] = [("+", [])]
    for place, symbol in enumerate(formula):
        value = symbol == INPUT or (symbol.isascii() and symbol.isdigit())
        if value == bool(place % 2) or not (value or symbol in SIGNS):
            raise RheostatError(f"{formula!r} is no formula such as '?*3+4'.")
        if value:
            parts[-1][1].append(symbol)
        elif symbol != "*":
            parts.append((symbol, []))
    if not len(formula) % 2:
        raise RheostatError(f"{formula!r} is no formula such as '?*3+4'.")
    return parts


def evaluate(formula: str, value: int) -> int:
    """What a formula says for an input, modulo 10."""
    total = 0
    for sign, factors in products(formula):
        product = 1
        for factor in factors:
            product = apply("*", product, value if factor == INPUT else int(factor), MODULUS)
        total = apply(sign, total, product, MODULUS)
    return total


def compiled(formula: str) -> str:
    """The program that computes a formula from left to right."""
    parts = [(sign, factors[0] + "".join(f"{factor}*" for factor in factors[1:])) for sign, factors in products(formula)]
    return parts[0][1] + "".join(program + sign for sign, program in parts[1:])


@dataclass(frozen=True)
class StackPrograms(LanguageTask):
    """The task and its knobs.

    Raises:
        RheostatError: knobs that make no task.
    """

    min_operations: int = 1
    max_operations: int = 4
    validation_share: float = 0.1
    """Share of all prompts set aside for validation."""
    name: str = "stack-programs"

    def __post_init__(self) -> None:
        if not 1 <= self.min_operations <= self.max_operations <= 12:
            raise RheostatError(
                f"{self.name} needs 1 <= min_operations <= max_operations <= 12; got {self.min_operations} and {self.max_operations}."
            )
        if not 0 <= self.validation_share < 1:
            raise RheostatError(f"validation_share lies in [0, 1); got {self.validation_share}.")

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """Enough for the longest formula, and for its program with an end token and two to spare."""
        return Limits(2 * self.max_operations + 2, 2 * self.max_operations + 4)

    @property
    def base(self) -> str:
        """The recipe that knows both sides."""
        return "math-and-code"

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Characters, 21 symbols."""
        return ChainSum().tokenizer()

    def verifier(self) -> Verifier:
        """All tests must pass."""
        return StackVerifier()

    def family(self, prompt: Prompt) -> str | None:
        """How many operations, where that differs."""
        return f"{prompt.columns['operations']} operations" if self.max_operations > self.min_operations else None

    def problem(self, rng: np.random.Generator) -> Prompt:
        """A formula drawn from a random generator; the input occurs in it."""
        count = int(rng.integers(self.min_operations, self.max_operations + 1))
        values = [
            INPUT if known else str(digit) for known, digit in zip(rng.random(count + 1) < 0.4, rng.integers(0, 10, count + 1), strict=True)
        ]
        values[int(rng.integers(count + 1))] = INPUT
        signs = rng.choice(list(SIGNS), count).tolist()
        return self.prompt(values[0] + "".join(sign + value for sign, value in zip(signs, values[1:], strict=True)))

    def prompt(self, formula: str) -> Prompt:
        """The prompt of a formula, with its tests."""
        inputs = np.random.default_rng(derive_seed(0, "stack tests", int.from_bytes(formula.encode(), "big") % 2**31))
        tests = [
            {"inputs": [value], "output": evaluate(formula, value)} for value in sorted(inputs.choice(10, TESTS, replace=False).tolist())
        ]
        return Prompt(formula + END, compiled(formula), {"operations": len(formula) // 2, "tests": tests})

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """The formulas of one draw of 256 that belong to the split."""
        rng = np.random.default_rng([derive_seed(seed, self.name, split), number])
        prompts = [self.problem(rng) for _ in range(BLOCK)]
        return [prompt for prompt in prompts if is_validation(prompt.key, self.validation_share) == (split == "validation")]

    def locate(self, prompt: Prompt) -> tuple[Split, Prompt] | None:
        """The task's own form of a formula from elsewhere; None for what is none."""
        text = prompt.content
        if not isinstance(text, str) or not text.endswith(END):
            return None
        try:
            own = self.prompt(text.removesuffix(END))
        except RheostatError:
            return None
        drawn = INPUT in text and self.min_operations <= own.columns["operations"] <= self.max_operations
        return (("validation" if is_validation(own.key, self.validation_share) else "train"), own) if drawn else None

    def expert(self, prompt: Prompt, rng: np.random.Generator, style: str = "steps", error_rate: float | None = None) -> str:
        """The program that computes the formula from left to right; with ``error_rate`` a symbol of it is another.

        Raises:
            RheostatError: a prompt that is no formula.
        """
        program = list(compiled(str(prompt.content).removesuffix(END)))
        if error_rate and rng.random() < error_rate:
            place = int(rng.integers(len(program)))
            others = SIGNS if program[place] in SIGNS else "0123456789?"
            program[place] = str(rng.choice([each for each in others if each != program[place]]))
        return "".join(program)


class StackVerifier:
    """1 where the program returns what is expected on all inputs; parts: ``passed``, their share; note ``error``: the first failure."""

    name = "stack-programs"
    notes_answer = False

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade; a rollout without tests is invalid."""
        return Scores.from_grades([self._grade(rollout) for rollout in rollouts])

    @staticmethod
    def _grade(rollout: Rollout) -> Grade:
        tests: Sequence[Mapping[str, Any]] | None = rollout.columns.get("tests")
        if not tests:
            return Grade.failure("the prompt has no tests")
        passed, errors = [], []
        for test in tests:
            try:
                found = execute(rollout.completion, test["inputs"][0])
            except StackError as error:
                return Grade(0.0, {"passed": 0.0}, {"error": str(error)})
            passed.append(found == test["output"])
            errors += [] if passed[-1] else [f"input {test['inputs'][0]}: {found} is not the expected value"]
        return Grade(credit_of(passed), {"passed": sum(passed) / len(passed)}, {"error": errors[0]} if errors else {})


@dataclass(frozen=True)
class MathAndCode(LanguageTask):
    """Chains of sums and stack programs for one model, of which one or both are trained on; both are validated on, half each."""

    learn: Learn = "both"
    """Prompts that are trained on."""
    max_terms: int = 6
    max_operations: int = 4
    name: str = "math-and-code"
    validation_share: float = 0.1
    """Share of all prompts set aside for validation."""

    def __post_init__(self) -> None:
        if self.learn not in ("math", "code", "both"):
            raise RheostatError(f"math-and-code trains on math, code or both; got learn={self.learn!r}.")
        _ = self.math, self.code  # their knobs are checked now

    @cached_property
    def math(self) -> ChainSum:
        """The side of sums."""
        return ChainSum(max_terms=self.max_terms, validation_share=self.validation_share)

    @cached_property
    def code(self) -> StackPrograms:
        """The side of programs."""
        return StackPrograms(max_operations=self.max_operations, validation_share=self.validation_share)

    def side(self, prompt: Prompt) -> ChainSum | StackPrograms:
        """The task that a prompt belongs to."""
        return self.code if str(prompt.content).endswith(END) else self.math

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """Those of the longer side."""
        one, other = self.math.limits, self.code.limits
        return Limits(max(one.max_prompt_tokens, other.max_prompt_tokens), max(one.max_new_tokens, other.max_new_tokens))

    @property
    def base(self) -> str:
        """The recipe of the same name."""
        return "math-and-code"

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Characters, 21 symbols."""
        return self.math.tokenizer()

    def verifier(self) -> Verifier:
        """Each side by its own."""
        return EitherVerifier()

    def family(self, prompt: Prompt) -> str | None:
        """Mathematics or code."""
        return "code" if self.side(prompt) is self.code else "math"

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """Prompts of one side, or of both in turn."""
        if split == "train" and self.learn != "both":
            return (self.math if self.learn == "math" else self.code).block(number, split, seed)
        pairs = zip(self.math.block(number, split, seed), self.code.block(number, split, seed), strict=False)
        return [prompt for pair in pairs for prompt in pair]

    def locate(self, prompt: Prompt) -> tuple[Split, Prompt] | None:
        """As the side that it belongs to says."""
        return self.side(prompt).locate(prompt)

    def expert(self, prompt: Prompt, rng: np.random.Generator) -> str:
        """The expert of its side."""
        return self.side(prompt).expert(prompt, rng)

    def metrics(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> dict[str, Tensor]:
        """``math`` and ``code`` [N] float32: 1 where an answer of this side is right, NaN for the other's; only for sides that occur."""
        import torch

        right = self.verifier().score([prompt.rollout(text) for prompt, text in zip(prompts, completions, strict=True)]).reward
        code = torch.tensor([self.side(prompt) is self.code for prompt in prompts])
        found = {"math": torch.where(code, torch.nan, right), "code": torch.where(code, right, torch.nan)}
        return {name: values for name, values in found.items() if not bool(values.isnan().all())}


class EitherVerifier:
    """Chains by their answer, programs by their tests."""

    name = "math-and-code"

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade, each by its own side."""
        return Scores.from_grades([self._grade(rollout) for rollout in rollouts])

    @staticmethod
    def _grade(rollout: Rollout) -> Grade:
        code = isinstance(rollout.prompt, str) and rollout.prompt.endswith(END)
        found = StackVerifier._grade(rollout) if code else ChainSumVerifier._grade(rollout)
        found.parts = {}  # each side has others
        return found
