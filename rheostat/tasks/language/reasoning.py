"""``reasoning-gym:NAME``: any data set of reasoning-gym (extra ``reasoning``), with its options and its curriculum.

The adapter guards against faults of reasoning-gym 0.1.25: neighbouring seeds share nearly all items (here the split goes by the
hash of the question); nine graders evaluate the answer as Python (here only text within the data set's grammar reaches them, see
:mod:`rheostat.tasks.language.reasoning_grammars`, in a process with a time limit); graders give credit to answers that merely contain the
right one (here only full marks earn 1, unless ``partial_credit``; the raw mark is the part ``mark``); some raise on an answer they cannot
read. An answer on which a grader raises counts as wrong if the same grader gives the true answer full marks, which shows that it works,
and as invalid otherwise. An answer outside the grammar is wrong (note ``refused``).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from rheostat.credit.verifiers.answer_extraction import extractor
from rheostat.credit.verifiers.isolation import Isolated
from rheostat.credit.verifiers.sandbox.guard import Guarded, refused
from rheostat.credit.verifiers.verifier_interface import Grade, Rollout, Verifier
from rheostat.errors import MissingExtra, RheostatError, unknown
from rheostat.streams import derive_seed
from rheostat.tasks.language.reasoning_grammars import grammar_of
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Message, Prompt, Split, is_validation

BLOCK = 64
TOGETHER = 256
"""Answers that are graded in one fork: they lie within a grammar, or the grader runs no text."""
PREFIX = "reasoning-gym:"

COMPACT: dict[str, str] = {
    "chain_sum": r"problem: (.*=)$",
    "decimal_chain_sum": r"problem: (.*=)$",
    "products": r"multiplication: ([^.]*)\.",
    "basic_arithmetic": r"Calculate (.*)\.$",
    "spell_backward": r"-> nus\): (.*)$",
    "count_bits": r"number (\d+)\?$",
    "gcd": r"numbers: ([\d, ]*)\.",
    "lcm": r"numbers: ([\d, ]*)$",
    "prime_factorization": r"factorization of (\d+)\.",
}
"""The part of a question that varies, for tiny models: sequences become several times shorter. The official grader is kept."""


class ReasoningGym(LanguageTask):
    """One data set of reasoning-gym.

    Args:
        dataset: its name (``chain_sum``).
        level: of the data set's curriculum, 0 the easiest; None leaves the options alone.
        levels: levels of single attributes of the curriculum, on top of ``level``.
        compact: reduce the question to the part that varies (see ``COMPACT``).
        pattern: a regular expression whose first group is the prompt, instead of ``compact``.
        system_prompt: makes every prompt a chat with this system message; reasoning-gym's own have names (``default``, ``direct``).
        extract: extractor of the answer in a completion (see :func:`rheostat.credit.verifiers.extractor`).
        partial_credit: the reward is the raw mark in [0, 1] instead of 1 for full marks.
        timeout: seconds one grading may take.
        max_prompt_tokens, max_new_tokens: default limits.
        validation_share: share of all questions set aside for validation.
        options: of the data set (``max_terms=3``); they override the curriculum.

    Raises:
        RheostatError: unknown data set, option, level or attribute, nothing to compact, or a grader that evaluates the answer without a
            grammar; MissingExtra without reasoning-gym.
    """

    def __init__(
        self,
        dataset: str,
        *,
        level: int | None = None,
        levels: Mapping[str, int] | None = None,
        compact: bool = False,
        pattern: str | None = None,
        system_prompt: str | None = None,
        extract: str = "tag-or-whole",
        partial_credit: bool = False,
        timeout: float = 10.0,
        max_prompt_tokens: int = 1024,
        max_new_tokens: int = 1024,
        validation_share: float = 0.1,
        **options: Any,
    ) -> None:
        self._library = library()
        dataset = dataset.removeprefix(PREFIX)
        names = self._library.factory.DATASETS
        if dataset not in names:
            raise unknown("reasoning-gym data set", dataset, names)
        if dataset == "composite":
            raise RheostatError("composite is a mixture of other reasoning-gym data sets: train on one of those.")
        if compact and pattern is None and dataset not in COMPACT:
            raise RheostatError(f"There is no compact form of {dataset} (only of {', '.join(COMPACT)}): give a pattern of your own.")
        if not 0 <= validation_share < 1:
            raise RheostatError(f"validation_share lies in [0, 1); got {validation_share}.")
        self._grammar = grammar_of(dataset, names[dataset][0])
        self.name, self.dataset, self.validation_share = PREFIX + dataset, dataset, validation_share
        self.limits = Limits(max_prompt_tokens, max_new_tokens)
        self._pattern = pattern or (COMPACT[dataset] if compact else None)
        self._system = system_prompt_text(system_prompt)
        self._grading: dict[str, Any] = {"extract": extract, "partial_credit": partial_credit}
        self._timeout = timeout
        extractor(extract)  # refuse an unknown one now
        self._options = {**self._curriculum(level, dict(levels or {}), options), **options}
        self._dataset(0)  # refuse impossible options now

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """The questions among 64 consecutive items that belong to the split and whose reference answer is within the grammar."""
        first = derive_seed(seed, "reasoning-gym", split) + number * BLOCK
        dataset = self._dataset(first)
        entries = [dataset[index] for index in range(BLOCK)]
        if self._grammar is not None:  # a reference outside it is no answer: sympy's unsolved integrals
            entries = [entry for entry in entries if self._grammar.objection(str(entry["answer"])) is None]
        prompts = [self._prompt(entry) for entry in entries]
        return [prompt for prompt in prompts if is_validation(prompt.key, self.validation_share) == (split == "validation")]

    def verifier(self) -> Verifier:
        """The data set's own grader, in a process of its own."""
        options = {"dataset": self.dataset, "options": self._options, **self._grading}
        target = f"{__name__}:{ReasoningGrader.__name__}"
        isolated = Isolated(
            target, options=options, timeout=self._timeout, name=self.name, sandbox=self.sandbox, together=TOGETHER
        )  # fmt: skip
        return isolated if self._grammar is None else Guarded(isolated, self._grammar, extractor(self._grading["extract"]))

    def highest_level(self) -> int | None:
        """The curriculum's highest level, or None without a curriculum."""
        if not self._library.factory.has_curriculum(self.dataset):
            return None
        attributes = self._library.factory.create_curriculum(self.dataset).attributes.values()
        return min(len(attribute.levels) for attribute in attributes) - 1

    def _curriculum(self, level: int | None, levels: dict[str, int], options: dict[str, Any]) -> dict[str, Any]:
        """The options of a curriculum at the given levels."""
        if level is None and not levels:
            return {}
        if not self._library.factory.has_curriculum(self.dataset):
            raise RheostatError(f"The reasoning-gym data set {self.dataset} has no curriculum: set its options instead of a level.")
        curriculum = self._library.factory.create_curriculum(self.dataset)
        for attribute in levels:
            if attribute not in curriculum.attributes:
                raise unknown(f"curriculum attribute of {self.dataset}", attribute, curriculum.attributes)
        for attribute, wanted in ({name: level for name in curriculum.attributes if level is not None} | levels).items():
            highest = len(curriculum.attributes[attribute].levels) - 1
            if not 0 <= wanted <= highest:
                raise RheostatError(f"The curriculum of {self.dataset} has levels 0 to {highest} for {attribute}; got {wanted}.")
            curriculum.set_attr_level(attribute, wanted)
        try:
            made = vars(curriculum.generate_configuration({**options, "seed": 0, "size": 1}))
        except (TypeError, AssertionError) as error:
            raise RheostatError(f"The options of the reasoning-gym data set {self.dataset} do not fit together: {error}.") from error
        return {key: value for key, value in made.items() if key not in ("seed", "size")}

    def _dataset(self, seed: int) -> Any:
        return make_dataset(self.dataset, self._options, seed, BLOCK)

    def _prompt(self, entry: Mapping[str, Any]) -> Prompt:
        question = str(entry["question"])
        if self._pattern is not None:
            found = re.search(self._pattern, question, re.DOTALL)
            if not found or not found.groups():
                raise RheostatError(f"The pattern {self._pattern!r} with one group does not match the question {question!r:.120}.")
            question = found[1]
        content: str | list[Message] = question
        if self._system is not None:
            content = [{"role": "system", "content": self._system}, {"role": "user", "content": question}]
        return Prompt(content, entry["answer"], {"entry": dict(entry), "data_source": self.name})


class ReasoningGrader:
    """Grades rollouts of one data set with the data set's own grader; made inside the grading process."""

    def __init__(self, dataset: str, options: dict[str, Any], extract: str, partial_credit: bool) -> None:
        self.name = PREFIX + dataset
        self._dataset = make_dataset(dataset, options, 0, 1)
        self._grammar = grammar_of(dataset, type(self._dataset))
        self._extract, self._partial = extractor(extract), partial_credit

    def warm(self) -> None:
        """Grade a true answer, so that the library's late imports are loaded before any completion is graded."""
        with contextlib.suppress(Exception):  # grading the rows shows a data set whose own answer it cannot read
            entry = self._dataset[0]
            self._dataset.score_answer(entry["answer"], entry)

    def __call__(self, rollout: Rollout) -> Grade:
        """Grade one rollout, which must come from this task (its entry is a column)."""
        entry = rollout.columns["entry"]
        answer = self._extract(rollout.completion)
        if grade := refused(self._grammar, answer):
            return grade
        try:
            mark = float(self._dataset.score_answer(answer, entry))
        except Exception as error:
            if entry["answer"] is None or float(self._dataset.score_answer(entry["answer"], entry)) < 1:
                raise
            return Grade(0.0, {"mark": 0.0}, {"answer": str(answer), "unreadable": f"{type(error).__name__}: {error}"})
        return Grade(mark if self._partial else float(mark >= 1.0), {"mark": mark}, {"answer": str(answer)})


def library() -> Any:
    """The reasoning-gym package.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import reasoning_gym
    except ImportError as error:
        raise MissingExtra("reasoning-gym", "reasoning", "Tasks of reasoning-gym") from error
    return reasoning_gym


def data_sets() -> list[str]:
    """Names of the data sets; none where the package is not installed."""
    try:
        return sorted(set(library().factory.DATASETS) - {"composite"})
    except MissingExtra:
        return []


def make_dataset(name: str, options: Mapping[str, Any], seed: int, size: int) -> Any:
    """A data set of the library.

    Raises:
        RheostatError: options it does not have or that do not fit together.
    """
    try:
        return library().create_dataset(name, **{**options, "seed": seed, "size": size})
    except (TypeError, AssertionError, ValueError) as error:
        raise RheostatError(f"The reasoning-gym data set {name} refuses its options {dict(options)}: {error}.") from error


def system_prompt_text(name: str | None) -> str | None:
    """A system prompt by reasoning-gym's name for it, or the text itself."""
    return name if name is None else library().utils.SYSTEM_PROMPTS.get(name, name)
