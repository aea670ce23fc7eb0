"""A corpus chosen from an expert's answers: right ones, to questions that the policy cannot solve, far from each other.

The answers are the run's file of expert rows, or are asked of the task's own expert. The choice is made once, at the first update, with the
policy as it is then; it is part of the run's state.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from rheostat.collect.language.experts import demonstration, encoded_answer
from rheostat.collect.language.language_collectors import Demonstrations
from rheostat.collect.language.pass_rates import pass_rates
from rheostat.credit.verifiers.verifier_interface import Scores
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch, Metrics
from rheostat.policies.flops import FORWARD
from rheostat.streams import derive_seed
from rheostat.tasks.language import demonstrations
from rheostat.tasks.language.encoding import Turn
from rheostat.tasks.language.task_interface import Prompt, PromptStream
from rheostat.tasks.language.text_episodes import grade
from rheostat.tasks.language.trajectory_choice import MOST_EXACT, Choice, Form, far_apart, well_formed


@dataclass(frozen=True)
class RowChoice:
    """Which of an expert's answers are learned from."""

    least_reward: float = option(1.0)
    """Answers to which the verifier gives less are left out."""
    form: Form = option("any", short="answer_form")
    """Form that an answer must have: any, or one block <think>...</think> with an answer behind it."""
    most_solved: float = option(0.5, at_least=0, at_most=1)
    """Questions that the policy solves more often than this before it learns are left out; 1 keeps all and asks nothing."""
    student_samples: int = option(8, at_least=1)
    """Answers of the policy to each question, for that."""
    per_question: int = option(4, at_least=1)
    """Answers that are kept of each question."""
    among: Choice = option("max-min", short="choice")
    """How they are chosen: far from the nearest other one, as a set with the largest sum of distances (of at most 12 answers), at random,
    or all."""
    unit: Literal["tokens", "characters"] = option("tokens", short="distance_unit")
    """What an edit distance counts."""
    normalise: bool = option(False, short="normalise_distance")
    """Divide a distance by the length of the longer answer; otherwise long answers lie far from short ones."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found = {} if self.most_solved < 1 else {"student_samples": "most_solved is 1, so the policy is asked nothing; leave it alone"}
        if self.among == "all":
            found["per_question"] = "choice is all, so none is left out; leave it alone"
        if self.among in ("all", "random"):
            why = f"choice is {self.among}, which looks at no distance; leave it alone"
            found |= dict.fromkeys(("unit", "normalise"), why)
        return found


@dataclass(frozen=True)
class Teacher:
    """How the task's own expert is asked, where the run has no file of expert rows."""

    questions: int = option(64, at_least=1)
    """Questions that the task's own expert answers; a file of expert rows has its own."""
    answers: int = option(8, at_least=1, short="answers_per_question")
    """Its answers to each."""


class ChosenRows:
    """Demonstrations from a corpus that is chosen when the first batch is asked for.

    Args:
        demonstrations: rows of a batch.
        choice: the rule.
        teacher: how the task's expert is asked.
    """

    uses_experts = True
    group_size = 1
    refuses: ClassVar[Mapping[str, str]] = Demonstrations.refuses

    def __init__(self, demonstrations: Demonstrations, choice: RowChoice, teacher: Teacher) -> None:
        self.demonstrations, self.choice, self.teacher = demonstrations, choice, teacher
        self.context: Any = None
        self.kept: list[int] | None = None
        """Numbers of the chosen answers; None before the choice."""

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return self.demonstrations.rows

    def bind(self, context: Any) -> None:
        """Remember whom to ask.

        Raises:
            RheostatError: the teacher has options, and a file has its rows already.
        """
        self.context = context
        if context.setup.experts is not None and self.teacher != Teacher():
            raise RheostatError(
                "questions and answers_per_question are for the task's own expert, and the run has a file of expert rows: leave them out."
            )

    def collect(self, context: Any) -> Batch:
        """``[rows, T]``, all of source EXPERT; the first batch tells what was chosen."""
        told: Metrics = {}
        if self.kept is None:
            candidates = self.candidates()
            self.kept, told = self.chosen(candidates)
            self.begin(candidates)
        batch: Batch = self.demonstrations.collect(context)
        batch.metrics = batch.metrics | told
        return batch

    def begin(self, candidates: list[Prompt]) -> None:
        """From now on the chosen answers are what is drawn, shuffled anew every epoch."""
        assert self.kept is not None
        rows, seed = [candidates[number] for number in self.kept], derive_seed(self.context.streams.seed, "epoch", "corpus")

        def block(number: int) -> list[Prompt]:
            return [rows[place] for place in np.random.default_rng([seed, number]).permutation(len(rows)).tolist()]

        self.context.collector.stream = PromptStream(block, epoch=len(rows))

    def candidates(self) -> list[Prompt]:
        """Every answer of the expert, as a prompt with the column ``completion``; the same whenever it is asked.

        Raises:
            RheostatError: there is neither a file nor an expert.
        """
        setup = self.context.setup
        if setup.experts is not None:
            return list(setup.experts.rows)
        seed = derive_seed(self.context.streams.seed, "teacher")
        drawn = setup.encoder.take(setup.task.prompts("train", seed), self.teacher.questions)
        different = list({prompt.key: prompt for prompt, _ in drawn}.values())
        found = []
        for number, prompt in enumerate(different):
            copies = 1 if demonstrations.own_completion(prompt) is not None else self.teacher.answers
            for copy in range(copies):
                text = demonstration(setup, prompt, seed, number * self.teacher.answers + copy)
                known = isinstance(text, demonstrations.Completion)  # and whether it was cut
                columns = {**prompt.columns, "completion": text if known else demonstrations.Completion.of(text, {})}
                found.append(Prompt(prompt.content, prompt.answer, columns, prompt.key, prompt.grader))
        return found

    def chosen(self, candidates: list[Prompt]) -> tuple[list[int], Metrics]:
        """Numbers of the answers that are learned from, in order, and what there is to tell.

        Raises:
            RheostatError: no answer is good, or the policy solves every question.
        """
        tokens = self.encoded(candidates)
        good, reasons = self.good(candidates, tokens)
        if self.choice.among == "max-sum":
            most = max(Counter(candidates[number].key for number in good).values())
            if most > MOST_EXACT:
                raise RheostatError(
                    f"choice max-sum compares all sets of at most {MOST_EXACT} answers, and a question has {most}: take max-min."
                )
        hard, asked = self.hard([candidates[number] for number in good])
        by_question: dict[str, list[int]] = {}
        for number in good:
            if candidates[number].key in hard:
                by_question.setdefault(candidates[number].key, []).append(number)
        kept = sorted(number for key, several in by_question.items() for number in self.diverse(key, several, candidates, tokens))
        short = self._short(by_question, candidates)
        return kept, asked | {
            "corpus/candidates": len(candidates),
            "corpus/good_share": len(good) / len(candidates),
            "corpus/questions": len(by_question),
            "corpus/rows": len(kept),
            "corpus/questions_short": short,
        } | {f"corpus/{reason}": count for reason, count in reasons.items()}

    def encoded(self, candidates: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of every answer with its end."""
        setup = self.context.setup
        turn = Turn(setup.policy.tokenizer, setup.encoder.template_options)
        texts = [row.columns["completion"] for row in candidates]
        return [encoded_answer(setup.policy.tokenizer, turn, row, text, cut=text.cut) for row, text in zip(candidates, texts, strict=True)]

    def good(self, candidates: list[Prompt], tokens: list[list[int]]) -> tuple[list[int], dict[str, int]]:
        """Numbers of the answers that are short enough, have the form and are right; and how many are not, by reason.

        Raises:
            RheostatError: none is left.
        """
        setup = self.context.setup
        texts = [row.columns["completion"] for row in candidates]
        rollouts = [row.rollout(str(text), ids, truncated=text.cut) for row, text, ids in zip(candidates, texts, tokens, strict=True)]
        scores: Scores = grade(candidates, rollouts, setup.verifier, self.context.progress)
        self.context.collector.graded_rows += len(candidates)
        found, reasons = [], dict.fromkeys(("too_long", "ill_formed", "not_graded", "wrong"), 0)
        for number, text in enumerate(texts):
            reason = fault(
                len(tokens[number]), well_formed(text, self.choice.form), float(scores.reward[number]), bool(scores.valid[number]),
                longest=setup.max_new_tokens, least_reward=self.choice.least_reward,
            )  # fmt: skip
            if reason is None:
                found.append(number)
            else:
                reasons[reason] += 1
        if not found:
            told = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in reasons.items() if count)
            raise RheostatError(
                f"The teacher has no correct answer to learn from: of {len(candidates)} answers {told}. Take another teacher, or lower "
                "least_reward."
            )
        return found, reasons

    def hard(self, rows: list[Prompt]) -> tuple[set[str], Metrics]:
        """Keys of the questions that the policy does not solve too often.

        Raises:
            RheostatError: it solves all of them.
        """
        different = {row.key: row for row in rows}
        if self.choice.most_solved >= 1:
            return set(different), {}
        context = self.context
        encoded = [(row, context.setup.encoder.encode(row)) for row in different.values()]
        drawn = [(row, ids) for row, ids in encoded if ids is not None]
        rates: dict[str, float] = {}
        for graded, found in pass_rates(context.collector, drawn, self.choice.student_samples, context.sampling, version=context.updates):
            context.count_flops(FORWARD, graded.trajectories)
            context.collector.generated_tokens += graded.trajectories.count()
            context.collector.graded_rows += len(graded.prompts)
            rates |= found
        kept = rates.keys() - too_often(rates, self.choice.most_solved)
        if not kept:
            seen = f"from {min(rates.values()):.2f} to {max(rates.values()):.2f}" if rates else "unknown: no answer could be graded"
            raise RheostatError(
                f"The student solves every question too often already: its pass rates on {len(drawn)} questions lie {seen}, and "
                f"most_solved is {self.choice.most_solved:g}. Take harder questions, or raise it."
            )
        return kept, {"corpus/student_pass_rate": sum(rates.values()) / len(rates)}

    def diverse(self, key: str, several: list[int], candidates: list[Prompt], tokens: list[list[int]]) -> list[int]:
        """The answers to one question that are kept."""
        rng = np.random.default_rng(derive_seed(self.context.streams.seed, "choice", int(key, 16) % 2**31))
        choice = self.choice
        answers: list[Sequence[Hashable]] = [
            tokens[number] if choice.unit == "tokens" else str(candidates[number].columns["completion"]) for number in several
        ]
        return [several[place] for place in far_apart(answers, choice.per_question, choice.among, rng, normalise=choice.normalise)]

    def _short(self, by_question: Mapping[str, list[int]], candidates: list[Prompt]) -> int:
        """Questions with fewer different good answers than asked for; a note says so."""
        if self.choice.among == "all":
            return 0
        wanted = self.choice.per_question
        texts = [{str(candidates[number].columns["completion"]) for number in several} for several in by_question.values()]
        short = sum(len(each) < wanted for each in texts)
        if short:
            print(
                f"{short} of {len(texts)} questions have fewer than {wanted} different correct answers (per_question): "
                "what they have is kept.",
                file=sys.stderr,
            )
        return short

    def state_dict(self) -> dict[str, Any]:
        """The choice, the identity of the file, and the cursor in the chosen answers."""
        chosen = self.kept is not None
        return {"kept": self.kept, "digest": self.digest, "cursor": self.context.collector.stream.state_dict() if chosen else None}

    @property
    def digest(self) -> str:
        """Of the run's file of expert rows; empty where there is none."""
        experts = self.context.setup.experts
        return "" if experts is None else str(experts.digest)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the same corpus.

        Raises:
            RheostatError: the file of expert rows is another one.
        """
        if state["digest"] != self.digest:
            name = self.context.setup.experts.name
            raise RheostatError(f"The run was begun with other expert rows than {name} holds now: put the file back as it was.")
        self.kept = state["kept"]
        if self.kept is not None:
            self.begin(self.candidates())
            self.context.collector.stream.load_state_dict(state["cursor"])


def too_often(rates: Mapping[str, float], most: float) -> set[str]:
    """Questions whose pass rate is above the most that is wanted."""
    return {key for key, rate in rates.items() if rate > most}


def fault(tokens: int, formed: bool, reward: float, graded: bool, *, longest: int, least_reward: float) -> str | None:
    """Why an answer is not learned from: ``too_long``, ``ill_formed``, ``not_graded`` or ``wrong``; None where it is good.

    Args:
        tokens: of the answer.
        formed: whether it has the form that is asked for.
        reward: of the verifier.
        graded: whether the verifier could grade it.
        longest: most tokens.
        least_reward: of a right answer.
    """
    if tokens > longest:
        return "too_long"
    if not formed:
        return "ill_formed"
    if not graded:
        return "not_graded"
    return None if reward >= least_reward else "wrong"
