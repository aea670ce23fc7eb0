"""``translations``: short programs of one tiny language put into others, graded by running them.

The source is a program in prefix form, ``+*?34`` for ``?*3+4``, and the end of the prompt says into what it is to be put:

    +*?34:   postfix, for a stack machine:       ?3*4+
    +*?34=   infix, a formula:                   ?*3+4          (``*`` binds tighter than ``+`` and ``-``)
    +*?34;   three-address code, line by line:   ?*3;#1+4       (``#1`` is the value of line 1; the last line is the result)

``?`` is the input, everything is modulo 10. An answer is right when it returns what the source says on every one of five inputs. Two
programs are *equivalent* when they return the same on all ten, so equivalence is decided and not guessed. Groups of representations are
three-address code: equivalent members come of operands that change places, constants that are folded or split, and lines that nothing
reads; inequivalent ones of one operator or operand that is another.

Nothing that a model writes is evaluated by Python: the three machines are a few dozen lines here and in
:mod:`rheostat.tasks.language.stack_programs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rheostat.credit.verifiers.programs import credit_of
from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores, Verifier
from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.chain_sum import BLOCK, ChainSum, apply
from rheostat.tasks.language.stack_programs import (
    INPUT,
    LONGEST,
    MODULUS,
    SIGNS,
    TESTS,
    StackError,
    StackPrograms,
    compiled,
    evaluate,
    execute,
    products,
)
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Prompt, PromptStream, Split, is_validation

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

Into = Literal["both", "postfix", "infix", "three-address"]
ENDS = {":": "postfix", "=": "infix", ";": "three-address"}
"""The end of a prompt, and the language that it asks for."""
LINE, VALUE = ";", "#"
MEMBERS = 4
"""Members of each kind that a group has."""
DIGITS = "0123456789"
MOST_LINES = 9
"""Lines of three-address code that are run: their values have one digit each."""

Line = tuple[str, str, str]
"""Left operand, sign, right operand; an operand is a digit, the input, or ``#`` and the number of a line."""


def prefix(formula: str) -> str:
    """A formula in prefix form.

    Raises:
        RheostatError: it is no formula.
    """
    parts = [(sign, "*" * (len(factors) - 1) + "".join(factors)) for sign, factors in products(formula)]
    return "".join(sign for sign, _ in reversed(parts[1:])) + "".join(text for _, text in parts)


def formula_of(source: str) -> str:
    """The formula of a program in prefix form.

    Raises:
        RheostatError: it is none, or of a form that :func:`prefix` does not write.
    """
    place = 0

    def read(depth: int) -> str:
        nonlocal place
        if place >= len(source) or depth > LONGEST:
            raise RheostatError(f"{source[:LONGEST]!r} is no program in prefix form.")
        symbol = source[place]
        place += 1
        if symbol not in SIGNS:
            return symbol
        left = read(depth + 1)
        return f"{left}{symbol}{read(depth + 1)}"

    found = read(0)
    if place != len(source) or prefix(found) != source:
        raise RheostatError(f"{source[:LONGEST]!r} is no program in prefix form.")
    return found


# --- three-address code -------------------------------------------------------------------------------------------------------------------


def written(lines: Sequence[Line]) -> str:
    """Lines as text."""
    return LINE.join("".join(line) for line in lines)


def lines_of(code: str) -> list[Line]:
    """Text as lines.

    Raises:
        StackError: it is none.
    """
    if len(code) > LONGEST:
        raise StackError(f"longer than {LONGEST} characters")
    found: list[Line] = []
    for text in code.split(LINE):
        operands = []
        rest = text
        for place in range(2):
            size = 2 if rest[:1] == VALUE else 1
            operands.append(rest[:size])
            rest = rest[size:]
            if not place:
                sign, rest = rest[:1], rest[1:]
        if rest or not sign or sign not in SIGNS or not all(_is_operand(each, len(found)) for each in operands):
            raise StackError(f"line {len(found) + 1} is no operation")
        found.append((operands[0], sign, operands[1]))
    if len(found) > MOST_LINES:
        raise StackError(f"more than {MOST_LINES} lines")
    return found


def _is_operand(text: str, before: int) -> bool:
    if text[:1] == VALUE:
        return len(text) == 2 and text[1] in DIGITS[1 : before + 1]
    return len(text) == 1 and text in DIGITS + INPUT


def run_lines(lines: Sequence[Line], value: int) -> int:
    """The value of the last line for an input, modulo 10."""
    values: list[int] = []

    def number(operand: str) -> int:
        if operand[0] == VALUE:
            return values[int(operand[1]) - 1]
        return value % MODULUS if operand == INPUT else int(operand)

    for left, sign, right in lines:
        values.append(apply(sign, number(left), number(right), MODULUS))
    return values[-1]


def run_code(code: str, value: int) -> int:
    """What three-address code returns for an input.

    Raises:
        StackError: it is none.
    """
    return run_lines(lines_of(code), value)


def lowered(formula: str) -> list[Line]:
    """The lines that compute a formula, its products first."""
    lines: list[Line] = []
    values: list[tuple[str, str]] = []
    for sign, factors in products(formula):
        held = factors[0]
        for factor in factors[1:]:
            lines.append((held, "*", factor))
            held = f"{VALUE}{len(lines)}"
        values.append((sign, held))
    held = values[0][1]
    for sign, right in values[1:]:
        lines.append((held, sign, right))
        held = f"{VALUE}{len(lines)}"
    return lines


def with_line(lines: Sequence[Line], place: int, line: Line) -> list[Line]:
    """A line put before the others from ``place`` on, whose numbers move."""

    def moved(operand: str) -> str:
        return f"{VALUE}{int(operand[1]) + 1}" if operand[0] == VALUE and int(operand[1]) > place else operand

    later = [(moved(left), sign, moved(right)) for left, sign, right in lines[place:]]
    return [*lines[:place], line, *later]


def swapped(lines: list[Line], rng: np.random.Generator) -> list[Line]:
    """The operands of a sum or a product change places, if there is one."""
    places = [place for place, (_, sign, _) in enumerate(lines) if sign in "+*"]
    if not places:
        return lines
    place = int(rng.choice(places))
    left, sign, right = lines[place]
    return [*lines[:place], (right, sign, left), *lines[place + 1 :]]


def unread(lines: list[Line], rng: np.random.Generator) -> list[Line]:
    """A line that nothing reads, not as the last."""
    if len(lines) == MOST_LINES:
        return lines
    place = int(rng.integers(len(lines)))
    return with_line(lines, place, (_constant(rng), str(rng.choice(list(SIGNS))), _constant(rng)))


def split(lines: list[Line], rng: np.random.Generator) -> list[Line]:
    """A constant becomes the value of a sum of two others, if there is one."""
    places = [(place, side) for place, line in enumerate(lines) for side in (0, 2) if line[side] in DIGITS]
    if not places or len(lines) == MOST_LINES:
        return lines
    place, side = places[int(rng.integers(len(places)))]
    value, part = int(lines[place][side]), int(rng.integers(MODULUS))
    found = with_line(lines, place, (str(part), "+", str((value - part) % MODULUS)))
    return _replaced(found, place + 1, side, f"{VALUE}{place + 1}")


def folded(lines: list[Line], rng: np.random.Generator) -> list[Line]:
    """A line of two constants becomes its value where it is read, if there is one that is not the last."""
    places = [place for place, (left, _, right) in enumerate(lines[:-1]) if left in DIGITS and right in DIGITS]
    if not places:
        return lines
    place = int(rng.choice(places))
    value = str(apply(lines[place][1], int(lines[place][0]), int(lines[place][2]), MODULUS))

    def read(operand: str) -> str:
        if operand[0] != VALUE or int(operand[1]) <= place:
            return operand
        return value if int(operand[1]) == place + 1 else f"{VALUE}{int(operand[1]) - 1}"

    return [*lines[:place], *((read(left), sign, read(right)) for left, sign, right in lines[place + 1 :])]


def altered(lines: list[Line], rng: np.random.Generator) -> list[Line]:
    """One operator or operand is another."""
    place, side = int(rng.integers(len(lines))), int(rng.integers(3))
    old = lines[place][side]
    choices = SIGNS if side == 1 else [*DIGITS, INPUT, *(f"{VALUE}{number + 1}" for number in range(place))]
    return _replaced(lines, place, side, str(rng.choice([each for each in choices if each != old])))


def _replaced(lines: Sequence[Line], place: int, side: int, text: str) -> list[Line]:
    line = list(lines[place])
    line[side] = text
    return [*lines[:place], (line[0], line[1], line[2]), *lines[place + 1 :]]


def _constant(rng: np.random.Generator) -> str:
    return str(rng.integers(MODULUS))


CHANGES: tuple[Callable[[list[Line], np.random.Generator], list[Line]], ...] = (swapped, unread, split, folded)
"""Changes that keep the meaning."""


def same(one: Sequence[Line], other: Sequence[Line]) -> bool:
    """Whether two programs return the same for every input."""
    return all(run_lines(one, value) == run_lines(other, value) for value in range(MODULUS))


def group_of(formula: str, rng: np.random.Generator, longest: int) -> tuple[list[str], list[str]] | None:
    """Equivalent and inequivalent three-address code of a formula, ``MEMBERS`` different texts each; None where few were found.

    Args:
        formula: whose meaning is kept, or not.
        rng: chooses the changes.
        longest: characters of a member.
    """
    straight = lowered(formula)
    kinds: tuple[dict[str, None], dict[str, None]] = ({}, {})
    for _ in range(40 * MEMBERS):
        lines = straight
        for _ in range(int(rng.integers(3))):
            lines = CHANGES[int(rng.integers(len(CHANGES)))](lines, rng)
        corrupt = altered(lines, rng)
        for kept, found in zip(kinds, (lines, corrupt), strict=True):
            if len(kept) < MEMBERS and len(written(found)) <= longest and same(found, straight) == (kept is kinds[0]):
                kept[written(found)] = None
        if all(len(kept) == MEMBERS for kept in kinds):
            return list(kinds[0]), list(kinds[1])
    return None


# --- the task -----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Translations(LanguageTask):
    """The task and its knobs.

    Raises:
        RheostatError: knobs that make no task.
    """

    into: Into = "both"
    """Languages that are asked for: postfix and infix in turn (both), one of them, or three-address code."""
    min_operations: int = 1
    max_operations: int = 3
    validation_share: float = 0.1
    """Share of all formulas set aside for validation, in every language."""
    name: str = "translations"

    def __post_init__(self) -> None:
        if self.into not in ("both", *ENDS.values()):
            raise RheostatError(f"{self.name} translates into both, {', '.join(ENDS.values())}; got into={self.into!r}.")
        if not 1 <= self.min_operations <= self.max_operations <= 5:
            raise RheostatError(
                f"{self.name} needs 1 <= min_operations <= max_operations <= 5; got {self.min_operations} and {self.max_operations}."
            )
        if not 0 <= self.validation_share < 1:
            raise RheostatError(f"validation_share lies in [0, 1); got {self.validation_share}.")

    @cached_property
    def formulas(self) -> StackPrograms:
        """Makes the formulas."""
        return StackPrograms(self.min_operations, self.max_operations, self.validation_share)

    @property
    def longest(self) -> int:
        """Characters of a member of a group: two lines more than a formula has operations."""
        return 6 * (self.max_operations + 2)

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """Enough for the longest source, and for the longest member of a group with an end token."""
        return Limits(2 * self.max_operations + 2, self.longest + 1)

    @property
    def base(self) -> str:
        """The recipe that has seen all three languages, with slips."""
        return "translations"

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Characters, 21 symbols."""
        return ChainSum().tokenizer()

    def verifier(self) -> Verifier:
        """All tests must pass."""
        return TranslationVerifier()

    def family(self, prompt: Prompt) -> str | None:
        """The language that is asked for, where there are several."""
        return language_of(str(prompt.content)) if self.into == "both" else None

    def prompt(self, formula: str, end: str) -> Prompt:
        """The prompt of a formula that asks for one language, with its tests."""
        inputs = np.random.default_rng(derive_seed(0, "translation tests", int.from_bytes(formula.encode(), "big") % 2**31))
        tests = [{"inputs": [each], "output": evaluate(formula, each)} for each in sorted(inputs.choice(10, TESTS, replace=False).tolist())]
        return Prompt(prefix(formula) + end, translated(formula, end), {"operations": len(formula) // 2, "tests": tests})

    def drawn(self, number: int, split: Split, seed: int, what: str) -> list[str]:
        """The formulas of one draw of 256 that belong to the split: all translations of one are on its side."""
        rng = np.random.default_rng([derive_seed(seed, self.name, what, split), number])
        found = [str(self.formulas.problem(rng).content)[:-1] for _ in range(BLOCK)]
        return [each for each in found if self.side(each) == split]

    def side(self, formula: str) -> Split:
        """The split of a formula."""
        return "validation" if is_validation(self.formulas.prompt(formula).key, self.validation_share) else "train"

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """Prompts of the formulas of one draw."""
        ends = [end for end, language in ENDS.items() if language == self.into] or [":", "="]
        formulas = self.drawn(number, split, seed, "prompts")
        return [self.prompt(formula, ends[place % len(ends)]) for place, formula in enumerate(formulas)]

    def representations(self, split: Split = "train", seed: int = 0) -> PromptStream:
        """Groups of three-address code, see the module; their formulas are drawn apart from the prompts', on the same side."""

        def block(number: int) -> list[Prompt]:
            rng = np.random.default_rng([derive_seed(seed, self.name, "members", split), number])
            found = []
            for formula in self.drawn(number, split, seed, "groups"):
                members = group_of(formula, rng, self.longest)
                if members is not None:
                    columns = {"equivalent": members[0], "inequivalent": members[1]}
                    found.append(Prompt(prefix(formula) + LINE, None, columns))
            return found

        return PromptStream(block)

    def locate(self, prompt: Prompt) -> tuple[Split, Prompt] | None:
        """The task's own form of a prompt from elsewhere; None for what is none."""
        text = prompt.content
        if not isinstance(text, str) or language_of(text) is None:
            return None
        try:
            formula = formula_of(text[:-1])
            own = self.prompt(formula, text[-1])
        except RheostatError:
            return None
        asked = self.into == language_of(text) or (self.into == "both" and text[-1] != LINE)
        if not asked or INPUT not in text or not self.min_operations <= own.columns["operations"] <= self.max_operations:
            return None
        return self.side(formula), own

    def expert(self, prompt: Prompt, rng: np.random.Generator, style: str = "steps", error_rate: float | None = None) -> str:
        """The straight translation; with ``error_rate`` a symbol of it is another.

        Raises:
            RheostatError: a prompt that is none of the task's.
        """
        text = str(prompt.content)
        found = list(translated(formula_of(text[:-1]), text[-1]))
        if error_rate and rng.random() < error_rate:
            place = int(rng.integers(len(found)))
            others = SIGNS if found[place] in SIGNS else DIGITS + INPUT
            found[place] = str(rng.choice([each for each in others if each != found[place]]))
        return "".join(found)

    def metrics(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> dict[str, Tensor]:
        """``postfix``, ``infix`` and ``three-address`` [N] float32: 1 where an answer in this language is right, NaN for others'."""
        import torch

        right = self.verifier().score([prompt.rollout(text) for prompt, text in zip(prompts, completions, strict=True)]).reward
        asked = [language_of(str(prompt.content)) for prompt in prompts]
        here = {language: torch.tensor([each == language for each in asked]) for language in ENDS.values()}
        return {name: torch.where(mine, right, torch.nan) for name, mine in here.items() if bool(mine.any())}


def language_of(prompt: str) -> str | None:
    """What a prompt asks for; None where it does not say."""
    return ENDS.get(prompt[-1:])


def translated(formula: str, end: str) -> str:
    """The straight translation of a formula into what the end of a prompt asks for.

    Raises:
        RheostatError: another end.
    """
    if end not in ENDS:
        raise RheostatError(f"A prompt of translations ends with one of {' '.join(ENDS)}; got {end!r}.")
    return TRANSLATORS[end](formula)


def run_formula(formula: str, value: int) -> int:
    """What a formula returns for an input.

    Raises:
        StackError: it is none.
    """
    if len(formula) > LONGEST:
        raise StackError(f"longer than {LONGEST} characters")
    try:
        return evaluate(formula, value)
    except RheostatError as error:
        raise StackError("no formula") from error


TRANSLATORS: dict[str, Callable[[str], str]] = {":": compiled, "=": str, ";": lambda formula: written(lowered(formula))}
"""What an expert writes, by the end of the prompt."""
MACHINES: dict[str, Callable[[str, int], int]] = {"postfix": execute, "infix": run_formula, "three-address": run_code}
"""What runs the programs of a language."""


class TranslationVerifier:
    """1 where the program returns what is expected on all inputs; parts: ``passed``, their share; note ``error``: the first failure."""

    name = "translations"
    notes_answer = False

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade; a rollout without tests is invalid."""
        return Scores.from_grades([self._grade(rollout) for rollout in rollouts])

    @staticmethod
    def _grade(rollout: Rollout) -> Grade:
        tests: Sequence[Mapping[str, Any]] | None = rollout.columns.get("tests")
        language = language_of(rollout.prompt) if isinstance(rollout.prompt, str) else None
        if not tests or language is None:
            return Grade.failure("the prompt has no tests" if not tests else "the prompt asks for no language")
        passed: list[bool] = []
        for test in tests:
            try:
                passed.append(MACHINES[language](rollout.completion, test["inputs"][0]) == test["output"])
            except StackError as error:
                return Grade(0.0, {"passed": 0.0}, {"error": str(error)})
        wrong = next((test["inputs"][0] for test, right in zip(tests, passed, strict=True) if not right), None)
        notes = {} if wrong is None else {"error": f"input {wrong}: not the expected value"}
        return Grade(credit_of(passed), {"passed": sum(passed) / len(passed)}, notes)
