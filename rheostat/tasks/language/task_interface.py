"""The interface of language tasks: an endless stream of prompts that can be rewound, a fixed validation set, and a verifier.

Train and validation never overlap: a prompt belongs to one side by the hash of its content, with any seed. (Seeds do not separate
data: in reasoning-gym item i of seed s is item i - 1 of seed s + 1.)
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rheostat.credit.verifiers.answer_extraction import boxed_number
from rheostat.credit.verifiers.verifier_interface import Rollout, Verifier
from rheostat.errors import RheostatError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    from rheostat.tasks.language.text_episodes import TextEpisodes

Split = Literal["train", "validation"]
Message = dict[str, str]

VALIDATION_SEED = 20_230_517
"""The validation set has a random stream of its own, so that it does not depend on a run's seed."""
BARREN_BLOCKS = 50
"""Blocks in a row without a prompt (or a new prompt) after which a stream is taken to be exhausted."""


def content_key(content: str | list[Message]) -> str:
    """16 hexadecimal digits that name a prompt, the same on every machine and in every run."""
    text = content if isinstance(content, str) else json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def is_validation(key: str, share: float) -> bool:
    """Whether the prompt of this key belongs to the validation side, which gets about ``share`` of all prompts."""
    return int(key, 16) < share * 2.0**64


@dataclass(frozen=True)
class Prompt:
    """One prompt with its answer."""

    content: str | list[Message]
    """Text, or chat messages (``{"role": ..., "content": ...}``)."""
    answer: Any = None
    """The reference answer, where there is one."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The other columns of the row; reward functions get them."""
    key: str = ""
    """Stable name of the content; computed when left empty."""
    grader: Verifier | None = field(default=None, compare=False, repr=False)
    """Grades the completions of this prompt instead of the run's rewards."""

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", content_key(self.content))

    def rollout(self, completion: str, completion_ids: Sequence[int] = (), *, truncated: bool = False, raw: str = "") -> Rollout:
        """This prompt with a completion, as graders read it."""
        return Rollout(self.content, completion, completion_ids, self.answer, self.columns, truncated, raw)


class Worked(NamedTuple):
    """A problem with an answer, as an example for others."""

    question: str
    answer: str
    attempts: tuple[str, ...] = ()
    """Wrong answers to it, where they are shown."""


@dataclass(frozen=True)
class Limits:
    """Default lengths of a task, in tokens."""

    max_prompt_tokens: int
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    """Texts that end a completion."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end a completion, in addition to those of the model."""
    template_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the chat template for every prompt."""


class PromptStream:
    """An endless, seeded sequence of prompts with a cursor that can be saved and loaded.

    The prompts come in blocks that depend on nothing but their number, so the cursor is two counters.

    Args:
        block: makes the block of a number.
        digest: of what the blocks are made from, where that may change between two runs (a file); a saved cursor is loaded only with it.
        name: of that, for messages.
        epoch: how many prompts there are, where every block holds all of them; 0 for those that are made without end.
    """

    def __init__(self, block: Callable[[int], list[Prompt]], digest: str = "", name: str = "", epoch: int = 0) -> None:
        self._block, self._digest, self._name, self.epoch = block, digest, name, epoch
        self._number, self._offset, self._drawn = 0, 0, 0
        self._loaded: tuple[int, list[Prompt]] | None = None

    @property
    def drawn(self) -> int:
        """How many prompts were drawn."""
        return self._drawn

    @property
    def epochs(self) -> float:
        """How many passes over the prompts were made, with a fraction for the present one; 0 where the prompts are endless."""
        return self._number + self._offset / self.epoch if self.epoch else 0.0

    def take(self, count: int) -> list[Prompt]:
        """The next ``count`` prompts.

        Raises:
            RheostatError: the task yields no prompt any more for this split.
        """
        prompts: list[Prompt] = []
        barren = 0
        while len(prompts) < count:
            block = self._current()
            taken = block[self._offset : self._offset + count - len(prompts)]
            prompts += taken
            self._offset += len(taken)
            barren = 0 if block else barren + 1
            if barren >= BARREN_BLOCKS:
                raise RheostatError(f"This task has no prompts for the split asked for ({barren} blocks were empty): widen its knobs.")
            if self._offset >= len(block):
                self._number, self._offset = self._number + 1, 0
        self._drawn += count
        return prompts

    def _current(self) -> list[Prompt]:
        if self._loaded is None or self._loaded[0] != self._number:
            self._loaded = (self._number, self._block(self._number))
        return self._loaded[1]

    def state_dict(self) -> dict[str, Any]:
        """The cursor: ``block`` and ``offset`` within it; ``drawn`` counts the drawn prompts; ``digest`` is of their source."""
        cursor = {"block": self._number, "offset": self._offset, "drawn": self._drawn}
        return cursor | ({"digest": self._digest} if self._digest else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved cursor.

        Raises:
            RheostatError: it is a cursor in other prompts.
        """
        if self._digest and state.get("digest", self._digest) != self._digest:
            raise RheostatError(f"The run was begun with other prompts than {self._name} holds now: put the file back as it was.")
        self._number, self._offset, self._drawn = int(state["block"]), int(state["offset"]), int(state["drawn"])


VERIFICATION = """Here are a problem and an attempt to solve it. Judge the attempt.

Problem:
{question}

Attempt:
{solution}

{rule} Explain in a few sentences why, and end with the score as \\boxed{{score}}."""


DECOMPOSITION = "Split the problem into smaller ones, solve them one after the other, and then give the final answer as the problem asks."
REFLECTION = "All attempts at the problem are wrong. Look at them, correct them, and then give the final answer as the problem asks."


COMPARISON = """Here are a question and two answers. Which answer is better?

Question:
{question}

Answer A:
{first}

Answer B:
{second}

{closing}"""


class LanguageTask(ABC):
    """Prompts, a verifier and default limits. Subclasses define how a block of prompts is made and how a completion is graded."""

    name: str
    limits: Limits
    validation_share: float
    knows_progress: bool = False
    """Whether the grade of every turn says by how much it has changed what is left to do; see
    :data:`~rheostat.tasks.language.text_episodes.PROGRESS`."""
    tags: tuple[str, ...] = ()
    """Tags that a well-formed reply has, in order: a hidden plan between the first two, a message between the last two; none: any text."""
    sandbox: str = "best"
    """Sandbox setting of graders that run in processes of their own (the run's setting; see
    :mod:`rheostat.credit.verifiers.sandbox.levels`)."""
    reward_needs: tuple[str, ...] = ()
    """The restrictions that the user's reward functions opt out of."""

    def wall_off(self, sandbox: str, needs: tuple[str, ...] = ()) -> None:
        """Set the sandbox of the task's graders; see :attr:`sandbox` and :attr:`reward_needs`."""
        object.__setattr__(self, "sandbox", sandbox)  # tasks may be frozen: their prompts are fixed, the sandbox of graders is the run's
        object.__setattr__(self, "reward_needs", needs)

    @abstractmethod
    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """Block ``number`` of the stream: a function of its arguments alone; may be empty."""

    @abstractmethod
    def verifier(self) -> Verifier:
        """A grader of this task's prompts."""

    def episodes(self) -> TextEpisodes | None:
        """New conversations of this task, where it has several turns; None: the prompt, one completion, and the verifier.

        Both the limit ``max_new_tokens`` and the run's setting of that name are then of one turn.
        """
        return None

    @property
    def base(self) -> str | None:
        """Name of the recipe of the tiny base model made for this task, if there is one."""
        return None

    def tokenizer(self) -> PreTrainedTokenizerFast | None:
        """The task's own tokenizer, if it is a character task."""
        return None

    @property
    def chance(self) -> float | None:
        """The expected reward of guessing, where it is known; evaluations report it with pass@k."""
        return None

    def family(self, prompt: Prompt) -> str | None:
        """The kind of a prompt, where pass@k is reported for each kind."""
        return None

    def prompts(self, split: Split = "train", seed: int = 0) -> PromptStream:
        """An endless stream of one split."""
        return PromptStream(lambda number: self.block(number, split, seed))

    def validation(self, count: int = 500) -> list[Prompt]:
        """The fixed validation set: up to ``count`` different prompts (fewer when the task has no more), the same in every run.

        Raises:
            RheostatError: the task has none.
        """
        found: dict[str, Prompt] = {}
        barren = number = 0
        while len(found) < count and barren < BARREN_BLOCKS:
            before = len(found)
            for prompt in self.block(number, "validation", VALIDATION_SEED):
                found.setdefault(prompt.key, prompt)
            barren = barren + 1 if len(found) == before else 0
            number += 1
        if not found:
            raise RheostatError(
                f"The task {self.name!r} has no validation prompts: raise validation_share (it is {self.validation_share:g})."
            )
        return list(found.values())[:count]

    def locate(self, prompt: Prompt) -> tuple[Split, Prompt] | None:
        """The split of a prompt from another source, and the task's own form of it, with answer and columns.

        None where the task never draws it. A task that cannot tell takes the prompt unchanged.
        """
        return ("validation" if is_validation(prompt.key, self.validation_share) else "train"), prompt

    def expert(self, prompt: Prompt, rng: np.random.Generator) -> str:
        """A demonstration for this prompt.

        Raises:
            RheostatError: the task has no expert.
        """
        raise RheostatError(f"The task {self.name!r} has no expert of its own: give demonstrations in a file.")

    def verification(self, prompt: Prompt, solution: str, rule: str) -> Prompt:
        """The prompt that asks for the score of a solution.

        Args:
            prompt: that was answered.
            solution: the text to be judged, which is untrusted: it is shown and never run.
            rule: how scores are given, a sentence.
        """
        question = prompt.content if isinstance(prompt.content, str) else prompt.content[-1]["content"]
        text = VERIFICATION.format(question=question, solution=solution, rule=rule)
        content = text if isinstance(prompt.content, str) else [{"role": "user", "content": text}]
        return Prompt(content, None, {"about": prompt.key})

    def stated_score(self, completion: str) -> float | None:
        """The score that an answer to :meth:`verification` states; None where it states none, or no finite number."""
        return boxed_number(completion)

    @property
    def verification_scores(self) -> tuple[float, ...] | None:
        """Scores that an answer to :meth:`verification` can state; None for any."""
        return None

    def decomposition(self, prompt: Prompt, examples: Sequence[Worked] = ()) -> Prompt:
        """The prompt that asks for smaller problems first; it keeps the key, as the same problem.

        Args:
            prompt: of the problem.
            examples: that stand before it; their answers are untrusted: they are shown and never run.
        """
        return _asked_again(prompt, DECOMPOSITION, examples)

    def reflection(self, prompt: Prompt, attempts: Sequence[str], examples: Sequence[Worked] = ()) -> Prompt:
        """The prompt that shows wrong attempts and asks for a better one; it keeps the key.

        Args:
            prompt: of the problem.
            attempts: the wrong answers, which are untrusted: they are shown and never run.
            examples: that stand before it.
        """
        return _asked_again(prompt, REFLECTION, examples, attempts)

    verdicts: tuple[str, str] = ("A", "B")
    """What follows :meth:`comparison`, one token each: the first answer is better, or the second."""

    def comparison(self, prompt: Prompt, first: str, second: str) -> Prompt:
        """The prompt that asks which of two answers is better; one of :attr:`verdicts` follows it.

        Args:
            prompt: that was answered.
            first, second: the answers, which are untrusted: they are shown and never run.
        """
        chat = not isinstance(prompt.content, str)
        question = prompt.content[-1]["content"] if isinstance(prompt.content, list) else prompt.content
        closing = "Say A or B, and nothing else." if chat else "The better answer is ("
        text = COMPARISON.format(question=question, first=first, second=second, closing=closing)
        return Prompt([{"role": "user", "content": text}] if chat else text, None, {"about": prompt.key})

    def metrics(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> dict[str, Tensor]:
        """The task's own metrics of completions, each [N] float32 (for example which strategy they use)."""
        return {}


def question_of(prompt: Prompt) -> str:
    """The text of a problem: of the last message of the user, in a chat."""
    if isinstance(prompt.content, str):
        return prompt.content
    return str(next((message for message in reversed(prompt.content) if message["role"] == "user"), prompt.content[-1])["content"])


def _asked_again(prompt: Prompt, instruction: str, examples: Sequence[Worked], attempts: Sequence[str] = ()) -> Prompt:
    """The same problem with other words around it; in a chat, the messages before the question stay."""
    shown = [part for each in examples for part in (*_stated(each.question, each.attempts), f"Solution:\n{each.answer}")]
    text = "\n\n".join([*shown, instruction, *_stated(question_of(prompt), attempts)])
    if isinstance(prompt.content, str):
        return replace(prompt, content=f"{text}\n\nSolution:\n")
    asked = max((place for place, message in enumerate(prompt.content) if message["role"] == "user"), default=len(prompt.content) - 1)
    content = [message | {"content": text} if place == asked else message for place, message in enumerate(prompt.content)]
    return replace(prompt, content=content)


def _stated(question: str, attempts: Sequence[str]) -> list[str]:
    return [f"Problem:\n{question}", *(f"Wrong attempt:\n{attempt}" for attempt in attempts)]
