"""``chain-sum``: a chain of small sums, worked out from left to right, in characters.

``3+7+5=`` is answered ``#5`` (the sum modulo 10). A model of a few hundred thousand parameters cannot give the answer at once, but learns
to work it out step by step: ``3+7=0;0+5=5;#5``. Reinforcement learning quickly improves a base model that knows both ways and mostly takes
the wrong one. Operators have no precedence: every chain is worked out strictly from left to right.

The knobs make the task harder: longer chains than the base was trained on (capacity mismatch), several operations of different
difficulty (interference, curricula), two digits, verification questions about a given solution (self-verification), a sign that means
another operation (knowledge that only an expert has). A final digit can be guessed one time in ten; where the whole working is graded,
chance falls to ten to the minus number of steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores, Verifier
from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Prompt, Split, Worked, is_validation

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

Style = Literal["direct", "steps", "rewrite"]
STYLES: tuple[Style, ...] = ("direct", "steps", "rewrite")
Graded = Literal["answer", "working"]
OPERATIONS = "+-*"
BLOCK = 256

_PROBLEM = re.compile(r"(\d+(?:[-+*]\d+)+)=(.*)", re.DOTALL)
_STEPS = re.compile(r"(?:-?\d+[-+*]\d+=-?\d+;)+#-?\d+")
_REWRITE = re.compile(r"(?:-?\d+(?:[-+*]\d+)*;)+#-?\d+")
_DIRECT = re.compile(r"#-?\d+")


def apply(operation: str, left: int, right: int, modulus: int | None) -> int:
    """One step of a chain."""
    value = left + right if operation == "+" else left - right if operation == "-" else left * right
    return value % modulus if modulus else value


def strategy(completion: str) -> str:
    """How a completion was written: ``steps``, ``rewrite``, ``direct`` (the answer alone) or ``other``; by form, right or wrong."""
    if _STEPS.fullmatch(completion):
        return "steps"
    if _DIRECT.fullmatch(completion):
        return "direct"
    return "rewrite" if _REWRITE.fullmatch(completion) else "other"


def final_answer(completion: str) -> str | None:
    """The text after the last ``#``; None without one."""
    _, marker, answer = completion.rpartition("#")
    return answer if marker else None


def final_answers(completions: Sequence[str]) -> str:
    """The final answers of completions one after the other, ``#4#9``; what has none, or no number of at most four digits, is left out."""
    found = filter(None, map(final_answer, completions))
    return "".join(f"#{answer}" for answer in found if re.fullmatch(r"-?\d{1,4}", answer))


@dataclass(frozen=True)
class ChainSum(LanguageTask):
    """The task and its knobs.

    Raises:
        RheostatError: knobs that make no task.
    """

    min_terms: int = 3
    max_terms: int = 6
    digits: int = 1
    """Digits of the numbers in a prompt: 1 (0 to 9) or 2 (10 to 99)."""
    modulus: int | None = 10
    """Every step is taken modulo this; None for plain integers."""
    operations: str = "+"
    """Which of ``+-*`` occur."""
    operation_weights: tuple[float, ...] | None = None
    """How often each operation occurs (same order; need not sum to 1); None: equally."""
    mixed: bool = False
    """Draw every operation of a chain on its own, instead of one operation per chain."""
    length_weights: tuple[float, ...] | None = None
    """How often each number of terms occurs, from min_terms to max_terms (need not sum to 1); None: equally."""
    reads: str = ""
    """Signs that mean another operation, such as ``*=+`` (several with commas): prompts and workings show the first, the second is done."""
    graded: Graded = "answer"
    """What must be right: the final answer, or the whole working (the steps, character for character)."""
    bare_up_to: int = 0
    """Where the working is graded: chains of at most so many terms may be answered bare as well."""
    slips: tuple[float, ...] | None = None
    """Chance that the task's own expert slips in a step, for each operation (same order); None: it never slips."""
    validation_share: float = 0.1
    """Share of all prompts set aside for validation."""
    name: str = "chain-sum"

    def __post_init__(self) -> None:
        if not 2 <= self.min_terms <= self.max_terms <= 20:
            raise RheostatError(
                f"chain-sum needs 2 <= min_terms <= max_terms <= 20; got min_terms={self.min_terms}, max_terms={self.max_terms}."
            )
        if self.digits not in (1, 2):
            raise RheostatError(f"chain-sum takes numbers of 1 or 2 digits, not {self.digits}.")
        if self.modulus is not None and not 2 <= self.modulus <= 1000:
            raise RheostatError(f"The modulus of chain-sum must lie in 2 to 1000, or be None for plain integers; got {self.modulus}.")
        if not self.operations or len(set(self.operations)) < len(self.operations) or not set(self.operations) <= set(OPERATIONS):
            raise RheostatError(f"The operations of chain-sum are different characters out of {OPERATIONS!r}; got {self.operations!r}.")
        if "*" in self.operations and self.modulus is None:
            raise RheostatError("chain-sum with '*' needs a modulus: without one the products outgrow the completion.")
        weights = self.operation_weights
        if weights is not None and (len(weights) != len(self.operations) or min(weights) < 0 or sum(weights) <= 0):
            raise RheostatError(f"operation_weights needs one weight of at least 0 for each of {self.operations!r}; got {weights}.")
        if not 0 <= self.validation_share < 1:
            raise RheostatError(f"validation_share lies in [0, 1); got {self.validation_share}.")
        lengths = self.length_weights
        if lengths is not None and (len(lengths) != self.max_terms - self.min_terms + 1 or min(lengths) < 0 or sum(lengths) <= 0):
            raise RheostatError(
                f"length_weights needs one weight of at least 0 for each of {self.min_terms} to {self.max_terms} terms; got {lengths}."
            )
        if self.graded not in ("answer", "working"):
            raise RheostatError(f"chain-sum grades the answer or the working; got graded={self.graded!r}.")
        if self.bare_up_to and (self.graded != "working" or not self.min_terms <= self.bare_up_to <= self.max_terms):
            raise RheostatError(
                "bare_up_to needs graded='working' and a number of terms that occurs "
                f"({self.min_terms} to {self.max_terms}); got {self.bare_up_to}."
            )
        if self.slips is not None and (len(self.slips) != len(self.operations) or not all(0 <= each <= 1 for each in self.slips)):
            raise RheostatError(f"slips needs one chance in [0, 1] for each of {self.operations!r}; got {self.slips}.")
        if set(self.meaning) - set(self.operations):
            raise RheostatError(f"reads={self.reads!r} explains a sign that does not occur in {self.operations!r}.")
        if "*" in self.meaning.values() and self.modulus is None:
            raise RheostatError("chain-sum with a sign that means '*' needs a modulus: without one the products outgrow the completion.")

    @cached_property
    def meaning(self) -> dict[str, str]:
        """Sign -> the operation that it stands for, where that is another.

        Raises:
            RheostatError: ``reads`` is malformed.
        """
        found = {}
        for pair in filter(None, self.reads.split(",")):
            if not re.fullmatch(r"[-+*]=[-+*]", pair) or pair[0] == pair[2] or pair[0] in found:
                raise RheostatError(f"reads holds pairs such as '*=+' with two different signs, each sign once; got {self.reads!r}.")
            found[pair[0]] = pair[2]
        return found

    @property
    def chance(self) -> float | None:
        """The expected reward of a completion of the right form whose digits are guessed; None without a modulus."""
        if self.modulus is None:
            return None
        lengths = range(self.min_terms, self.max_terms + 1)
        weights = self.length_weights or (1.0,) * len(lengths)
        guessed = [1 if self.graded == "answer" or terms <= self.bare_up_to else terms - 1 for terms in lengths]
        return sum(weight * self.modulus**-steps for weight, steps in zip(weights, guessed, strict=True)) / sum(weights)

    def family(self, prompt: Prompt) -> str | None:
        """The operation where chains of several kinds occur, else short or long where short chains may be answered bare."""
        if len(self.operations) > 1 and not self.mixed:
            return str(prompt.columns["operations"][0])
        if self.bare_up_to:
            return f"up to {self.bare_up_to} terms" if prompt.columns["terms"] <= self.bare_up_to else f"over {self.bare_up_to} terms"
        return None

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """Enough for the longest prompt and for every style's longest demonstration with its end token, plus two to spare."""
        number = self.digits
        results = len(str((self.modulus or 99 * self.max_terms + 1) - 1)) + ("-" in self.operations and not self.modulus)
        steps = (self.max_terms - 1) * (2 * results + number + 3)
        rewrite = sum(results + rest * (number + 1) + 1 for rest in range(self.max_terms - 1))
        return Limits(self.max_terms * (number + 1), max(steps, rewrite) + results + 4)

    @property
    def base(self) -> str:
        """The ready recipe."""
        return "chain-sum"

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Characters, 21 symbols."""
        from rheostat.tasks.language.characters import character_tokenizer

        return character_tokenizer()

    def verifier(self) -> Verifier:
        """Exact match of the final answer, or of the whole working."""
        return ChainSumVerifier() if self.graded == "answer" else WorkingVerifier(self.bare_up_to)

    def draw(self, rng: np.random.Generator, count: int) -> list[tuple[list[int], str]]:
        """``count`` chains as (numbers, operations between them), whichever split they belong to."""
        if self.length_weights is None:
            lengths = rng.integers(self.min_terms, self.max_terms + 1, count).tolist()
        else:
            shares = np.asarray(self.length_weights) / sum(self.length_weights)
            lengths = (self.min_terms + rng.choice(len(shares), count, p=shares)).tolist()
        low, high = (0, 10) if self.digits == 1 else (10, 100)
        numbers = rng.integers(low, high, (count, self.max_terms)).tolist()
        weights = None if self.operation_weights is None else np.asarray(self.operation_weights) / sum(self.operation_weights)
        width = self.max_terms - 1 if self.mixed else 1
        drawn = rng.choice(list(self.operations), size=(count, width), p=weights).tolist()
        return [
            (row[:length], "".join(signs[: length - 1]) if self.mixed else signs[0] * (length - 1))
            for row, length, signs in zip(numbers, lengths, drawn, strict=True)
        ]

    def problem(self, numbers: Sequence[int], operations: str) -> Prompt:
        """The prompt of a chain, with the answer and the worked solution."""
        text = str(numbers[0]) + "".join(f"{sign}{number}" for sign, number in zip(operations, numbers[1:], strict=True)) + "="
        solution = self.demonstrate(numbers, operations, "steps")
        columns = {"terms": len(numbers), "operations": operations, "solution": solution}
        return Prompt(text, final_answer(solution), columns)

    def locate(self, prompt: Prompt) -> tuple[Split, Prompt] | None:
        """The side of a chain that these knobs can draw, with its answer; None for any other text."""
        found = _PROBLEM.fullmatch(str(prompt.content))
        if not found or found[2]:
            return None
        numbers, operations, _ = self.parse(found[0])
        low, high = (0, 9) if self.digits == 1 else (10, 99)
        fits = self.min_terms <= len(numbers) <= self.max_terms and all(low <= number <= high for number in numbers)
        fits = fits and (self.length_weights is None or self.length_weights[len(numbers) - self.min_terms] > 0)
        if not fits or not set(operations) <= set(self.operations) or (len(set(operations)) > 1 and not self.mixed):
            return None
        own = self.problem(numbers, operations)
        if own.content != prompt.content:  # written otherwise, such as 03+7=
            return None
        return ("validation" if is_validation(own.key, self.validation_share) else "train"), own

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """The chains of one draw of 256 that belong to the split."""
        rng = np.random.default_rng([derive_seed(seed, "chain-sum", split), number])
        prompts = [self.problem(numbers, operations) for numbers, operations in self.draw(rng, BLOCK)]
        wanted = split == "validation"
        return [prompt for prompt in prompts if is_validation(prompt.key, self.validation_share) == wanted]

    def demonstrate(
        self,
        numbers: Sequence[int],
        operations: str,
        style: Style = "steps",
        rng: np.random.Generator | None = None,
        error_rate: float | Mapping[str, float] = 0.0,
    ) -> str:
        """A solution of a chain, written in a style.

        Args:
            numbers: of the chain.
            operations: between them, one fewer.
            style: ``steps`` (``3+7=0;0+5=5;#5``), ``rewrite`` (the rest of the chain after each step: ``0+5;5;#5``) or ``direct`` (``#5``).
            rng: for the slips; needed when ``error_rate`` is above 0.
            error_rate: chance that a step's result is wrong (another residue, or off by 1 to 9 without a modulus), one for all signs or
                one for each. The solution continues from the wrong result, as a weaker teacher's would.

        Raises:
            RheostatError: unknown style, or slips without a random generator.
        """
        if style not in STYLES:
            raise RheostatError(f"A demonstration of chain-sum is written as {', '.join(STYLES)}; got {style!r}.")
        if error_rate and rng is None:
            raise RheostatError("Demonstrations with slips (error_rate above 0) need a random generator.")
        value, lines = numbers[0], []
        for position, (sign, right) in enumerate(zip(operations, numbers[1:], strict=True)):
            result = apply(self.meaning.get(sign, sign), value, right, self.modulus)
            slip_rate = error_rate[sign] if isinstance(error_rate, Mapping) else error_rate
            if slip_rate and cast(np.random.Generator, rng).random() < slip_rate:
                slip = int(cast(np.random.Generator, rng).integers(1, self.modulus or 10))
                result = (result + slip) % self.modulus if self.modulus else result + slip
            if style == "steps":
                lines.append(f"{value}{sign}{right}={result};")
            elif style == "rewrite":
                rest = zip(operations[position + 1 :], numbers[position + 2 :], strict=True)
                lines.append(str(result) + "".join(f"{later}{number}" for later, number in rest) + ";")
            value = result
        return "".join(lines) + f"#{value}"

    def parse(self, prompt: str) -> tuple[list[int], str, str]:
        """(numbers, operations, what follows the equals sign) of a prompt's text.

        Raises:
            RheostatError: not a prompt of this task.
        """
        found = _PROBLEM.fullmatch(prompt)
        if not found:
            raise RheostatError(f"{prompt!r} is no chain such as '3+7+5='.")
        return [int(number) for number in re.findall(r"\d+", found[1])], re.sub(r"\d", "", found[1]), found[2]

    def expert(self, prompt: Prompt, rng: np.random.Generator, style: Style = "steps", error_rate: float | None = None) -> str:
        """A demonstration (see :meth:`demonstrate`); the verdict ``#1`` or ``#0`` for a verification question.

        Without an ``error_rate`` the expert slips at the rate ``slips``.
        """
        numbers, operations, rest = self.parse(str(prompt.content))
        if rest:
            return f"#{int(final_answer(rest[:-1]) == final_answer(self.demonstrate(numbers, operations, 'direct')))}"
        own = dict(zip(self.operations, self.slips or (0.0,) * len(self.operations), strict=True))
        return self.demonstrate(numbers, operations, style, rng, own if error_rate is None else error_rate)

    def verification(self, prompt: Prompt, solution: str, rule: str = "") -> Prompt:
        """The question whether a given solution is right: ``3+7+5=3+7=0;0+5=5;#5?``, answered ``#1`` (right) or ``#0``.

        The rule is fixed and takes no characters.
        """
        right = final_answer(solution) == prompt.answer
        columns: dict[str, Any] = {**prompt.columns, "solution": solution, "about": prompt.key}
        return Prompt(f"{prompt.content}{solution}?", str(int(right)), columns)

    @property
    def verdicts(self) -> tuple[str, str]:  # type: ignore[override]
        """Characters."""
        return "1", "2"

    def comparison(self, prompt: Prompt, first: str, second: str) -> Prompt:
        """The question which of two solutions is better: ``3+7+5=#5:#4?``."""
        return Prompt(f"{prompt.content}{first}:{second}?", None, {"about": prompt.key})

    def decomposition(self, prompt: Prompt, examples: Sequence[Worked] = ()) -> Prompt:
        """The prompt that asks for the working: ``?3+7+5=``, behind worked examples that a colon closes, as in ``?2+4=2+4=6;#6:``."""
        shown = "".join(f"?{each.question}{each.answer}:" for each in examples)
        return replace(prompt, content=f"{shown}?{prompt.content}")

    def reflection(self, prompt: Prompt, attempts: Sequence[str], examples: Sequence[Worked] = ()) -> Prompt:
        """The prompt that shows the final answers of wrong attempts: ``#4#9?3+7+5=``, behind examples with theirs."""
        shown = "".join(f"{final_answers(each.attempts)}?{each.question}{each.answer}:" for each in examples)
        return replace(prompt, content=f"{shown}{final_answers(attempts)}?{prompt.content}")

    def stated_score(self, completion: str) -> float | None:
        """1 for ``#1``, 0 for ``#0``, whatever comes before."""
        return {"0": 0.0, "1": 1.0}.get(final_answer(completion) or "")

    @property
    def verification_scores(self) -> tuple[float, ...]:
        """Right or wrong: the characters have no fractions."""
        return (0.0, 1.0)

    def metrics(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> dict[str, Tensor]:
        """``step_by_step`` [N] float32: 1 where the working is written out (``steps`` or ``rewrite``)."""
        import torch

        return {"step_by_step": torch.tensor([float(strategy(text) in ("steps", "rewrite")) for text in completions])}


class ChainSumVerifier:
    """1 where the text after the last ``#`` is the answer, character for character; parts: whether the working is written out."""

    name = "chain-sum"

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade; a completion without ``#`` is wrong, a rollout without a reference answer is invalid."""
        return Scores.from_grades([self._grade(rollout) for rollout in rollouts])

    @staticmethod
    def _grade(rollout: Rollout) -> Grade:
        if rollout.answer is None:
            return Grade.failure("the prompt has no answer to compare with")
        written = float(strategy(rollout.completion) in ("steps", "rewrite"))
        found = final_answer(rollout.completion)
        return Grade(float(found == str(rollout.answer)), {"step_by_step": written}, {"answer": found or ""})


class WorkingVerifier:
    """1 where the completion is the prompt's worked solution, character for character; parts: whether the working is written out.

    Args:
        bare_up_to: chains of at most so many terms may be answered by the final answer alone.
    """

    name = "chain-sum-working"

    def __init__(self, bare_up_to: int = 0) -> None:
        self.bare_up_to = bare_up_to

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade; a rollout without a reference solution is invalid; a verification question is graded by its answer."""
        return Scores.from_grades([self._grade(rollout) for rollout in rollouts])

    def _grade(self, rollout: Rollout) -> Grade:
        if rollout.columns.get("about") is not None:
            return ChainSumVerifier._grade(rollout)
        solution = rollout.columns.get("solution")
        if solution is None:
            return Grade.failure("the prompt has no worked solution to compare with")
        bare = rollout.columns["terms"] <= self.bare_up_to and rollout.completion == f"#{final_answer(solution)}"
        written = float(strategy(rollout.completion) in ("steps", "rewrite"))
        answer = final_answer(rollout.completion)
        return Grade(float(bare or rollout.completion == solution), {"step_by_step": written}, {"answer": answer or ""})
