"""Hints: the beginning of a solution, shown to a policy that fails without it.

A hint belongs to the prompt: it is never in the mask, so no loss uses its tokens. The completion is sampled from the hinted prompt
and all its log-probabilities, of the learner and of a reference, are conditioned on the hinted prompt. Rows carry the source HINTED.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from rheostat.collect.language.experts import demonstrations
from rheostat.collect.language.generation.sampling import Sampling
from rheostat.collect.language.language_collectors import AroundGroups, batch_of
from rheostat.collect.language.prompt_groups import Graded, PromptCollector, join
from rheostat.credit.verifiers.verifier_interface import Progress, Scores
from rheostat.errors import RheostatError, unknown
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.flops import FORWARD
from rheostat.tasks.language.encoding import PromptEncoder, encode_prompt
from rheostat.tasks.language.task_interface import Message, Prompt
from rheostat.trajectories import Source

Unit = Literal["tokens", "characters"]
Place = Literal["question", "answer"]
Sequential = TypeVar("Sequential", str, list[int])

SEPARATOR = "\n\nA correct solution begins as follows; go on from there or use it as a reference:\n"


def prefix(solution: Sequential, fraction: float) -> Sequential:
    """The first ``round(fraction * length)`` characters or tokens (halves go to the even number, as in Python).

    Raises:
        RheostatError: no fraction of a solution, so the hint would be empty or longer than the solution.
    """
    if not 0 < fraction <= 1:
        kind = "longer than the solution" if fraction > 1 else "nothing"
        raise RheostatError(f"A hint of {fraction:g} of the solution is {kind}: give fractions above 0 and at most 1.")
    return solution[: round(fraction * len(solution))]


class HintedPrompt(NamedTuple):
    """A prompt with a hint."""

    prompt: Prompt
    """The prompt with the hint; its key is that of the plain prompt."""
    ids: list[int]
    """Its token ids, hint included."""
    answer_prefix: str
    """The part of the answer that is given as a hint; a grader sees it before the completion."""


@dataclass(frozen=True)
class Hint:
    """How a hint is truncated and where it is placed."""

    unit: Unit = "tokens"
    """Cut by tokens, or by characters (which may end inside a word or a formula)."""
    place: Place = "question"
    """At the end of the question, behind a separator; or as the beginning of the answer, which the policy continues."""
    separator: str = SEPARATOR
    """Between question and hint; not used where the hint opens the answer."""

    def apply(self, encoder: PromptEncoder, prompt: Prompt, solution: str, fraction: float) -> HintedPrompt:
        """The prompt with the first part of its solution.

        Raises:
            RheostatError: a fraction outside (0, 1], or text the tokenizer does not know.
        """
        tokenizer = encoder.tokenizer
        if self.unit == "tokens":
            ids = prefix(list(tokenizer(solution, add_special_tokens=False)["input_ids"]), fraction)
            text = str(tokenizer.decode(ids))
        else:
            text = prefix(solution, fraction)
            ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        if self.place == "answer":
            plain = encode_prompt(prompt, tokenizer, encoder.template_options)
            content: str | list[Message] = (
                prompt.content + text if isinstance(prompt.content, str) else [*prompt.content, {"role": "assistant", "content": text}]
            )
            return HintedPrompt(replace(prompt, content=content), plain + ids, text)
        shown = replace(prompt, content=appended(prompt.content, self.separator + text))
        return HintedPrompt(shown, encode_prompt(shown, tokenizer, encoder.template_options), "")


def appended(content: str | list[Message], text: str) -> str | list[Message]:
    """A prompt's content with text at its end: of the whole, or of the last message of the user."""
    if isinstance(content, str):
        return content + text
    last = max((i for i, message in enumerate(content) if message["role"] == "user"), default=len(content) - 1)
    return [message | {"content": message["content"] + text} if i == last else message for i, message in enumerate(content)]


class HintResult(NamedTuple):
    """The outcome of sampling with hints, for every prompt."""

    accuracy: Tensor
    """``[P, G]`` of the groups that were kept."""
    stage: Tensor
    """``[P]`` int64: 0 for the plain prompt, k for the k-th hint."""
    generations: Tensor
    """``[P]`` int64, groups that were sampled for each prompt."""


def resample_with_hints(first: Tensor, attempt: Callable[[int, list[int]], tuple[list[int], Tensor]], stages: int) -> HintResult:
    """Groups without a right answer are sampled again with a hint, stage by stage, and replaced.

    A group fails when every member's accuracy is at most 0. One success keeps it; so does a member without a grade (NaN), because the
    group is then not known to fail. A group that fails in the last stage, too, stays as it was sampled there.

    Args:
        first: ``[P, G]`` accuracy of the plain prompts' groups.
        attempt: of (stage, failing prompts), the prompts among them that were sampled again, ``n`` of them, and the accuracy ``[n, G]`` of
            their new groups.
        stages: how many there are beyond the plain prompts.
    """
    accuracy, stage = first.clone(), torch.zeros(len(first), dtype=torch.int64)
    generations = torch.ones_like(stage)
    for number in range(1, stages + 1):
        failing = (accuracy <= 0).all(1).nonzero().flatten().tolist()
        if not failing:
            break
        tried, found = attempt(number, failing)
        if tried:
            index = torch.tensor(tried)
            accuracy[index], stage[index] = found.to(accuracy.dtype), number
            generations[index] += 1
    return HintResult(accuracy, stage, generations)


def with_hints(
    collector: PromptCollector,
    own: Graded,
    hint: Hint,
    fractions: Sequence[float],
    *,
    solution: Callable[[Prompt, int], str],
    accuracy: Callable[[Scores], Tensor],
    group_size: int,
    sampling: Sampling,
    version: int,
    progress: Progress,
) -> tuple[Graded, list[Graded]]:
    """Groups of plain prompts, of which those that fail are replaced by groups of the same prompts with ever longer hints.

    A hint that would leave no room for the completion in the model's context is not given (nothing is cut); it is counted in
    ``hint_too_long``, and the group stays as it is.

    Args:
        collector: of ``own``; it counts the new samples.
        own: whole groups, members next to each other.
        hint: how hints are cut and placed.
        fractions: of the solution, stage by stage.
        solution: of a prompt and its number in the run.
        accuracy: ``[N]`` of graded rows; at most 0 is wrong.
        group_size: members of a group.
        sampling: how to draw.
        version: of the policy, as in :meth:`~rheostat.collect.language.prompt_groups.PromptCollector.sample`.
        progress: of the training, for rewards that depend on it.

    Returns:
        The groups in their order, each prompt as the policy read it, and the outcome of sampling with hints. The metrics are of the kept
        groups, with ``reward_plain`` and ``all_wrong_share`` of the plain prompts, ``hinted_share`` of the groups, ``rescued_share`` of
        those that failed, ``hint_stage`` (mean) and ``groups_per_prompt``.
    """
    setup = collector.setup
    numbers = own.trajectories.group[::group_size, 0].tolist()
    plain = own.prompts[::group_size]
    room = (setup.policy.longest or 10**9) - sampling.max_new_tokens
    solutions: dict[int, str] = {}
    parts, starts = [own], [index * group_size for index in range(len(plain))]
    too_long = 0

    def attempt(stage: int, failing: list[int]) -> tuple[list[int], Tensor]:
        nonlocal too_long
        given: dict[int, HintedPrompt] = {}
        for index in failing:
            if index not in solutions:
                solutions[index] = solution(plain[index], numbers[index])
            hinted_prompt = hint.apply(setup.encoder, plain[index], solutions[index], fractions[stage - 1])
            if len(hinted_prompt.ids) <= room:
                given[index] = hinted_prompt
            else:
                too_long += 1
        if not given:
            return [], torch.zeros(0, group_size)
        graded = collector.answer(
            [(plain[index], hinted_prompt.ids) for index, hinted_prompt in given.items()],
            group_size,
            sampling,
            numbers=[numbers[index] for index in given],
            purpose=f"hint {stage}",
            version=version,
            progress=progress,
            openings=[hinted_prompt.answer_prefix for hinted_prompt in given.values()],
        )
        graded.prompts = [hinted_prompt.prompt for hinted_prompt in given.values() for _ in range(group_size)]
        graded.trajectories.source = torch.full(graded.trajectories.shape, int(Source.HINTED))
        first = sum(len(part.prompts) for part in parts)
        starts_now = range(first, first + len(graded.prompts), group_size)
        for index, start in zip(given, starts_now, strict=True):
            starts[index] = start
        parts.append(graded)
        return list(given), accuracy(graded.scores).view(-1, group_size)

    before = accuracy(own.scores).view(-1, group_size)
    after = resample_with_hints(before, attempt, len(fractions))
    everything = join(parts, sum(len(part.prompts) for part in parts))
    assert everything is not None
    kept = everything.select(torch.tensor([start + member for start in starts for member in range(group_size)]))
    width = int(kept.trajectories.attention.any(0).nonzero().max()) + 1  # rows that were replaced may have been longer
    kept.trajectories = kept.trajectories[:, :width]
    failed = (before <= 0).all(1)
    found: dict[str, Any] = {
        "reward_plain": own.metrics["reward"],
        "all_wrong_share": failed.float().mean().item(),
        "hinted_share": (after.stage > 0).float().mean().item(),
        "hint_stage": after.stage.float().mean().item(),
        "groups_per_prompt": after.generations.float().mean().item(),
        "hint_too_long": too_long,
    }
    if bool(failed.any()):
        found["rescued_share"] = (after.accuracy[failed] > 0).any(1).float().mean().item()
    kept.metrics = collector.summary(kept) | found | setup.checked.metrics()
    return kept, parts[1:]


@dataclass(frozen=True)
class Hints(AroundGroups):
    """A collector: groups of plain prompts; where no answer is right, groups of the same prompts with ever longer hints."""

    fractions: tuple[float, ...] = option((0.25, 0.5, 0.75), short="hints", above=0, at_most=1)
    """Fractions of the solution that are shown, stage by stage."""
    after: int = option(20, short="hint_after", at_least=0)
    """Updates without hints at the start, because early failures are often failures of format."""
    unit: Unit = option("tokens", short="hint_unit")
    """Cut hints by tokens, or by characters (as released)."""
    place: Place = option("question", short="hint_place")
    """At the end of the question, or as the beginning of the answer, which the policy continues."""
    separator: str = option(SEPARATOR, short="hint_separator")
    """Between question and hint; not used where the hint opens the answer."""
    column: str = option("", short="hint_column")
    """Column of the prompts' rows that holds the reference solution; empty takes the experts'."""
    accuracy_part: str = option("")
    """Part of the reward that distinguishes right from wrong; empty takes the whole reward."""
    uses_experts: ClassVar[bool] = True
    refuses: ClassVar[Mapping[str, str]] = {"expert_share": "a whole solution does not continue a prompt that has a part of it already"}

    def __post_init__(self) -> None:
        if list(self.fractions) != sorted(self.fractions) or not self.fractions:
            raise RheostatError(f"hints are {self.fractions}: at least one fraction, the shortest first.")
        for fraction in self.fractions:
            prefix("", fraction)  # refuses a number that is no fraction
        if self.separator != SEPARATOR and self.place == "answer":
            raise RheostatError("hint_separator stands between question and hint: it needs hint_place 'question'.")

    def describe(self) -> dict[str, int | str]:
        """Derived numbers, for printing."""
        return {"most groups per prompt": 1 + len(self.fractions)}

    def check_budget(self, updates: int) -> None:
        """Refuse a run that ends before the first hint."""
        if self.after >= updates:
            raise RheostatError(f"Hints begin after {self.after} updates, but the run makes {updates}: lower hint_after or raise steps.")

    def collect(self, context: Any) -> Batch:
        """The latest group of every prompt."""
        batch: Batch = self.inner.collect(context)
        if context.updates < self.after:
            return batch
        kept, hinted = with_hints(
            context.collector,
            batch.facts["graded"],
            Hint(self.unit, self.place, self.separator),
            self.fractions,
            solution=lambda prompt, number: self.solution(context, prompt, number),
            accuracy=self.accuracy,
            group_size=self.group_size,
            sampling=context.sampling,
            version=context.updates,
            progress=context.progress,
        )
        for part in hinted:
            context.count_flops(FORWARD, part.trajectories)
        return batch_of(kept)

    def solution(self, context: Any, prompt: Prompt, number: int) -> str:
        """The reference solution of a prompt.

        Raises:
            RheostatError: its row has no solution, or the task has none.
        """
        if not self.column:
            return demonstrations(context.setup, prompt, context.collector.seed, number)[0]
        if not isinstance(prompt.columns.get(self.column), str):
            raise RheostatError(
                f"The prompt with key {prompt.key} has no solution as text in its column {self.column!r}: name another hint_column."
            )
        return str(prompt.columns[self.column])

    def accuracy(self, scores: Scores) -> Tensor:
        """Right or wrong, ``[N]``; NaN without a grade.

        Raises:
            RheostatError: the reward has no such part.
        """
        if not self.accuracy_part:
            return scores.reward
        if self.accuracy_part not in scores.parts:
            raise unknown("part of the reward", self.accuracy_part, scores.parts)
        return scores.parts[self.accuracy_part]
