"""Self-verification: the policy judges solutions that it has just sampled; the right judgement is their reward (RISE)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.collect.language.generation.sampling import Sampling, row_streams
from rheostat.collect.language.language_collectors import AroundGroups, batch_of
from rheostat.collect.language.prompt_groups import Graded, PromptCollector, join, validation_metrics
from rheostat.credit.token_rewards import reward_at_last_token
from rheostat.credit.verifiers.verifier_interface import Scores
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch, Metrics
from rheostat.policies.flops import FORWARD
from rheostat.streams import derive_seed
from rheostat.tasks.language.encoding import encode_prompt
from rheostat.tasks.language.task_interface import LanguageTask, Prompt

Rewards = Literal["three-valued", "task"]
"""1 right, -0.5 wrong, -1 without an answer, for solutions and judgements alike; or the task's own rewards, and 1 or 0 for judgements."""
RIGHT, WRONG, SILENT = 1.0, -0.5, -1.0
RULES: dict[Rewards, str] = {
    "three-valued": "The score is 1 if its final answer is right, -0.5 if its final answer is wrong, and -1 if it gives no final answer.",
    "task": "The score is 1 if its final answer is right, and 0 if it is not.",
}


NEEDS_ANSWERS = (
    "Three-valued rewards need a grader that notes the answer it has found (or that there is none), which this one does not: "
    "choose solution_rewards task."
)


def solution_rewards(scores: Scores, rewards: Rewards) -> Tensor:
    """Rewards of solutions, ``[N]`` float32.

    Raises:
        RheostatError: three values are requested of a verifier that does not report whether there is an answer.
    """
    if rewards == "task":
        return scores.reward
    if "answer" not in scores.notes:
        raise RheostatError(NEEDS_ANSWERS)
    answered = torch.tensor([bool(note) for note in scores.notes["answer"]])
    three = torch.where(scores.reward == 1.0, RIGHT, torch.where(answered, WRONG, SILENT))
    return torch.where(scores.valid, three, scores.reward)


def judgement_rewards(stated: Sequence[float | None], earned: Tensor, rewards: Rewards) -> Tensor:
    """Rewards of judgements, ``[N]`` float32: whether the stated score equals the solution's reward.

    Args:
        stated: scores, None where none is stated.
        earned: ``[N]`` rewards of the solutions.
        rewards: see :data:`Rewards`.
    """
    right, wrong, silent = (RIGHT, WRONG, SILENT) if rewards == "three-valued" else (1.0, 0.0, 0.0)
    pairs = zip(stated, earned.tolist(), strict=True)
    return torch.tensor([silent if said is None else right if said == worth else wrong for said, worth in pairs])


def per_group(groups: int, total: int) -> list[int]:
    """How many solutions of each group are judged: as evenly as possible, one more in the first ones."""
    each, more = divmod(total, groups)
    return [each + (number < more) for number in range(groups)]


@dataclass
class Judged:
    """Judgements of solutions."""

    graded: Graded
    """Judgements, groups next to each other."""
    earned: Tensor
    """``[N]`` reward of the solution of every judgement."""
    stated: list[float | None]
    """Scores that the judgements state."""
    rows: list[int]
    """Rows of the solutions that were judged, one for each group."""

    def metrics(self) -> Metrics:
        """Accuracy of judgements; the balanced one is the mean over the possible rewards of solutions, since early on nearly all are
        wrong."""
        right = torch.tensor(
            [said is not None and said == worth for said, worth in zip(self.stated, self.earned.tolist(), strict=True)]
        ).float()
        classes = [right[self.earned == worth].mean() for worth in self.earned.unique()]
        return {
            "verification_accuracy": right.mean().item(),
            "verification_balanced_accuracy": torch.stack(classes).mean().item(),
            "verification_stated_share": sum(said is not None for said in self.stated) / len(self.stated),
        }


def judge(
    collector: PromptCollector,
    solutions: Graded,
    earned: Tensor,
    chosen: Sequence[int],
    size: int,
    sampling: Sampling,
    *,
    rewards: Rewards,
    purpose: str,
    version: int,
) -> Judged | None:
    """The policy's judgements of some solutions; changes no state. None where no question fits the model's context.

    Args:
        collector: its policy judges.
        solutions: sampled by it.
        earned: ``[N]`` their rewards.
        chosen: rows of solutions to judge.
        size: judgements of each.
        sampling: how to draw.
        rewards: of judgements.
        purpose: names the random stream.
        version: of the policy.
    """
    setup = collector.setup
    task: LanguageTask = setup.task
    room = (setup.policy.longest or 10**9) - sampling.max_new_tokens
    asked: list[tuple[Prompt, list[int], int]] = []
    for row in chosen:
        prompt = task.verification(solutions.prompts[row], solutions.completions[row], RULES[rewards])
        ids = encode_prompt(prompt, setup.encoder.tokenizer, setup.encoder.template_options)
        if len(ids) <= room:  # nothing is cut: the released code cuts the end, which can take the question away
            asked.append((prompt, ids, row))
    if not asked:
        return None
    streams = row_streams(derive_seed(collector.seed, purpose), version, [row for _, _, row in asked], size)
    found = setup.engine.generate([ids for _, ids, _ in asked], streams=streams, group_size=size, sampling=sampling)
    rows = found.trajectories(setup.policy.pad_id)
    texts, _ = setup.texts(found.completions())
    stated = [task.stated_score(text) for text in texts]
    worth = earned[torch.tensor([row for _, _, row in asked])].repeat_interleave(size)
    reward = judgement_rewards(stated, worth, rewards)
    everything = torch.ones(len(texts), dtype=torch.bool)
    scores = Scores(reward, everything, ~everything, notes={"answer": ["" if said is None else f"{said:g}" for said in stated]})
    prompts = [replace(prompt, answer=f"{earned[row].item():g}") for prompt, _, row in asked for _ in range(size)]
    group = solutions.trajectories.group[:, 0]
    numbers = [-1 - (int(group[row]) * len(group) + row) for _, _, row in asked for _ in range(size)]
    graded = collector.graded(rows, prompts, texts, scores, numbers, reward=reward_at_last_token(reward, rows.mask))
    return Judged(graded, worth, stated, [row for _, _, row in asked])


@dataclass(frozen=True)
class SelfVerification(AroundGroups):
    """Groups of solutions, and below them groups of judgements of some of these solutions, by the same policy in the same update."""

    questions: int = option(2, short="verification_prompts", at_least=0)
    """Solutions per batch that are judged, each by a group of judgements (128 of 8192 in the paper)."""
    rewards: Rewards = option("three-valued", short="solution_rewards")
    """1, -0.5 and -1 for right, wrong and no answer; or the task's own rewards for solutions, and 1 or 0 for judgements."""
    refuses: ClassVar[dict[str, str]] = {"expert_share": "solutions that the policy did not write are not its own to verify"}

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return int(self.inner.rows) + self.questions * self.group_size

    def check(self, composition: Any) -> None:
        """Refuse more questions than there are solutions."""
        if self.questions > self.inner.rows:
            raise RheostatError(f"verification_prompts is {self.questions}: a batch has only {self.inner.rows} solutions to judge.")

    def bind(self, context: Any) -> None:
        """Refuse tasks and graders whose answers cannot be judged this way.

        Of a function of the user's only its first grades tell whether it notes answers; then :func:`solution_rewards` refuses it.
        """
        task = context.setup.task
        if context.collector.turns != 1 or task.episodes() is not None:
            raise RheostatError(f"{task.name} is a conversation: only single answers are verified here.")
        known = task.verification_scores
        if known is not None and self.rewards == "three-valued" and not {RIGHT, WRONG, SILENT} <= set(known):
            raise RheostatError(
                f"Judgements of {task.name} can only state {' or '.join(f'{each:g}' for each in known)}: choose solution_rewards task."
            )
        if self.rewards == "three-valued" and not getattr(context.setup.verifier, "notes_answer", True):
            raise RheostatError(NEEDS_ANSWERS)

    def collect(self, context: Any) -> Batch:
        """``[rows, T]``: solutions, then judgements, whose groups have numbers below 0."""
        batch: Batch = self.inner.collect(context)
        own: Graded = batch.facts["graded"]
        rows, collector = own.trajectories, context.collector
        earned = solution_rewards(own.scores, self.rewards)
        rows.reward = reward_at_last_token(torch.where(own.scores.valid, earned, 0.0), rows.mask)
        own.scores = replace(own.scores, reward=earned)
        chosen = self.choose(own, context.streams["verification"])
        options: dict[str, Any] = {"rewards": self.rewards, "purpose": "verification", "version": context.updates}
        found = judge(collector, own, earned, chosen, self.group_size, context.sampling, **options) if chosen else None
        told = {"solution_reward": earned[own.scores.valid].mean().item()} if bool(own.scores.valid.any()) else {}
        if found is None:
            return replace(batch_of(own), metrics=batch.metrics | told)
        context.count_flops(FORWARD, found.graded.trajectories)
        collector.generated_tokens += found.graded.trajectories.count()
        joined = join([own, found.graded], len(own.prompts) + len(found.graded.prompts))
        assert joined is not None
        unasked = 1 - len(found.stated) / (len(chosen) * self.group_size)
        return replace(batch_of(joined), metrics=batch.metrics | told | found.metrics() | {"verification_too_long_share": unasked})

    def choose(self, own: Graded, generator: torch.Generator) -> list[int]:
        """Rows of solutions that are judged: in each group uniformly without replacement, in their order; rows without a grade are not."""
        group = own.trajectories.group[:, 0]
        numbers = list(dict.fromkeys(group.tolist()))
        found: list[int] = []
        for number, wanted in zip(numbers, per_group(len(numbers), self.questions), strict=True):
            members = ((group == number) & own.scores.valid).nonzero()[:, 0]
            if wanted:
                found += sorted(members[torch.randperm(len(members), generator=generator)[:wanted]].tolist())
        return found

    def measure(self, context: Any, prompts: int) -> Metrics:
        """One solution of each held-out prompt, and one judgement of each solution; with streams of their own, so that nothing changes."""
        with context.evaluating():
            seen = context.collector.validation_sample(prompts, context.sampling, version=context.updates)
            earned = solution_rewards(seen.scores, self.rewards)
            chosen = seen.scores.valid.nonzero()[:, 0].tolist()
            options: dict[str, Any] = {"rewards": self.rewards, "purpose": "validation of verification", "version": context.updates}
            found = judge(context.collector, seen, earned, chosen, 1, context.sampling, **options) if chosen else None
        told = {} if found is None else {f"validation_{name}": value for name, value in found.metrics().items()}
        return validation_metrics(seen) | told
