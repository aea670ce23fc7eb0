"""Data collection of language methods: prompts are sampled, completed and graded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rheostat.collect.language.generation.checked import CheckedEngine
from rheostat.collect.language.generation.engine import Engine, FinishReason, Generations
from rheostat.collect.language.generation.sampling import Sampling, row_streams
from rheostat.credit.token_rewards import reward_at_last_token
from rheostat.credit.verifiers.verifier_interface import Progress, Scores, Verifier, require_valid
from rheostat.policies.language.model import LanguagePolicy
from rheostat.streams import derive_seed
from rheostat.tasks.language.demonstrations import Demonstrations
from rheostat.tasks.language.encoding import PromptEncoder
from rheostat.tasks.language.task_interface import LanguageTask, Prompt
from rheostat.tasks.language.text_episodes import grade
from rheostat.trajectories import Trajectories, join_columns, join_rows


@dataclass
class LanguageSetup:
    """What a language method trains with: the task, the policy, the engine that samples from it, and the verifier that grades."""

    task: LanguageTask
    policy: LanguagePolicy
    engine: Engine
    verifier: Verifier
    encoder: PromptEncoder
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    experts: Demonstrations | None = None
    """The run's file of expert rows."""
    special_text: bool = False
    """Whether rewards see special tokens in the text (tags that are tokens, say)."""
    gradable: bool = True
    """Whether completions can be graded: not where a file of annotated answers came without a reward."""
    judge: Any = None
    """Says which of two answers is the better one (:class:`~rheostat.collect.language.pair_judge.PairJudge`), where the run has one."""
    reference: LanguagePolicy | None = None
    """The model that log-ratios are measured to, in place of the starting one."""

    def texts(self, completions: list[list[int]]) -> tuple[list[str], list[str]]:
        """Completions as rewards read them, and with their special tokens whatever rewards read; the token that ends one is left out."""
        decode, ends = self.policy.tokenizer.batch_decode, self.policy.stop_ids
        raw = decode([ids[:-1] if ids and ids[-1] in ends else ids for ids in completions], skip_special_tokens=False)
        return (raw if self.special_text else decode(completions, skip_special_tokens=True)), raw

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "engine" and not isinstance(value, CheckedEngine):  # no engine samples here unchecked, whoever puts it in
            value = CheckedEngine(value, self.policy)
        super().__setattr__(name, value)

    @property
    def checked(self) -> CheckedEngine:
        """The engine, which is always wrapped in checks."""
        assert isinstance(self.engine, CheckedEngine)
        return self.engine


@dataclass
class Graded:
    """A batch of completions with their grades, including text."""

    trajectories: Trajectories
    """[B, T]; the reward of a row stands on its last token, invalid rows are marked and have reward 0 nowhere used."""
    prompts: list[Prompt]
    """Prompt of every row."""
    completions: list[str]
    """Decoded completion of every row."""
    scores: Scores
    metrics: dict[str, float] = field(default_factory=dict)
    columns: dict[str, Tensor] = field(default_factory=dict)
    """Additional columns of the batch, ``[B]`` or ``[B, T]``."""

    def select(self, rows: Tensor) -> Graded:
        """The rows of a bool or index tensor ``[B]``."""
        index = rows.nonzero().flatten() if rows.dtype == torch.bool else rows
        chosen = index.tolist()
        return Graded(
            self.trajectories[index],
            [self.prompts[i] for i in chosen],
            [self.completions[i] for i in chosen],
            self.scores.select(chosen),
            self.metrics,
            {name: value[index] for name, value in self.columns.items()},
        )


class PromptCollector:
    """Takes prompts, samples a group of completions for each, and grades them.

    Args:
        setup: task, policy, engine and verifier.
        seed: of the run; every completion's noise is a function of (seed, purpose, update, prompt, sample, position).
        max_invalid_share: share of rows on which graders may fail before the run stops.
    """

    def __init__(self, setup: LanguageSetup, seed: int, *, max_invalid_share: float = 0.1) -> None:
        self.setup, self.seed, self.max_invalid_share = setup, seed, max_invalid_share
        covered = setup.experts if setup.experts is not None and setup.experts.missing == "skip" else None
        self.stream = covered.prompts(seed) if covered else setup.task.prompts("train", derive_seed(seed, "prompts"))
        self.drawn = 0
        self.offered: list[tuple[tuple[Prompt, list[int]], int]] = []  # drawn before, by a gate: the next to be used
        self.generated_tokens = 0
        self.graded_rows = 0
        self.held_out: list[tuple[Prompt, list[int] | None]] = []  # validation prompts, encoded when first needed

    @property
    def turns(self) -> int:
        """Most turns of the policy in a conversation; each has its own token limit."""
        return 1

    @property
    def grader(self) -> str:
        """Name of the verifier, for messages."""
        return f"The reward {self.setup.verifier.name!r}"

    def collect(self, prompts: int, group_size: int, sampling: Sampling, *, version: int, progress: Progress) -> Graded:
        """``prompts`` groups of ``group_size`` completions from the present policy."""
        drawn, numbers = self.draw(prompts)
        return self.answer(drawn, group_size, sampling, numbers=numbers, purpose="train", version=version, progress=progress)

    def draw(self, prompts: int) -> tuple[list[tuple[Prompt, list[int]]], list[int]]:
        """The next prompts with their token ids, and their numbers in the run; those that are offered come first."""
        if self.offered:
            taken, self.offered = self.offered[:prompts], self.offered[prompts:]
            return [each for each, _ in taken], [number for _, number in taken]
        drawn = self.setup.encoder.take(self.stream, prompts)
        numbers = list(range(self.drawn, self.drawn + prompts))
        self.drawn += prompts
        return drawn, numbers

    def offer(self, chosen: list[tuple[tuple[Prompt, list[int]], int]]) -> None:
        """Prompts that a gate has drawn and let through, with their numbers: the next draw takes them."""
        self.offered = chosen

    def answer(self, drawn: list[tuple[Prompt, list[int]]], group_size: int, sampling: Sampling, **options: Any) -> Graded:
        """As :meth:`sample`, but counted, and refused where graders failed on too many rows."""
        graded = self.sample(drawn, group_size, sampling, **options)
        return self.enter(graded, graded.trajectories.count())

    def enter(self, graded: Graded, generated_tokens: int) -> Graded:
        """Count a graded batch; refused where graders failed on too many rows."""
        self.generated_tokens += generated_tokens
        self.graded_rows += len(graded.prompts)
        require_valid(graded.scores, self.max_invalid_share, grader=self.grader)
        graded.metrics |= self.setup.checked.metrics()
        dropped = self.setup.encoder.dropped + getattr(self.setup.task, "dropped", 0)
        graded.metrics |= {"prompts_dropped": dropped} if dropped else {}
        return graded

    def sample(
        self,
        drawn: list[tuple[Prompt, list[int]]],
        group_size: int,
        sampling: Sampling,
        *,
        numbers: list[int],
        purpose: str,
        version: int,
        progress: Progress | None = None,
        openings: list[str] | None = None,
    ) -> Graded:
        """Completions and grades for encoded prompts; changes no state.

        ``openings`` are what of each prompt's answer is given already, in its token ids: graders see them before the completion.
        """
        streams = row_streams(derive_seed(self.seed, purpose), version, numbers, group_size)
        found = self.setup.engine.generate([ids for _, ids in drawn], streams=streams, group_size=group_size, sampling=sampling)
        given = [opening for opening in openings or [""] * len(drawn) for _ in range(group_size)]
        prompts = [prompt for prompt, _ in drawn for _ in range(group_size)]
        return self.grade(found, prompts, [number for number in numbers for _ in range(group_size)], progress=progress, given=given)

    def grade(
        self, found: Generations, prompts: list[Prompt], numbers: list[int], *, progress: Progress | None, given: list[str] | None = None
    ) -> Graded:
        """Grades for completions, whoever sampled them; changes no state.

        Args:
            found: ``N`` completions.
            prompts: of every completion.
            numbers: group of every completion.
            progress: of the training, for rewards that depend on it.
            given: what of each answer is given already, which graders see before the completion.
        """
        rows = found.trajectories(self.setup.policy.pad_id)
        tokens = found.completions()
        texts, raws = self.setup.texts(tokens)
        cut = (found.finish == FinishReason.LENGTH).tolist()
        rollouts = [
            prompt.rollout(opening + text, ids, truncated=long, raw=opening + raw)
            for prompt, opening, text, ids, long, raw in zip(prompts, given or [""] * len(texts), texts, tokens, cut, raws, strict=True)
        ]
        scores = grade(prompts, rollouts, self.setup.verifier, progress)
        reward = reward_at_last_token(torch.where(scores.valid, scores.reward, torch.zeros(())), rows.mask)
        return self.graded(rows, prompts, texts, scores, numbers, reward=reward)

    def graded(
        self,
        rows: Trajectories,
        prompts: list[Prompt],
        texts: list[str],
        scores: Scores,
        numbers: list[int],
        *,
        reward: Tensor,
    ) -> Graded:
        """Sampled rows with their verdicts, the number of every row's group and their rewards ``[B, T]``."""
        shape = rows.shape
        rows.reward = reward
        rows.valid = scores.valid[:, None].expand(shape)
        rows.group = torch.tensor(numbers)[:, None].expand(shape)
        graded = Graded(rows, prompts, texts, scores)
        graded.metrics = self.summary(graded)
        return graded

    def validation(self, count: int, sampling: Sampling, *, version: int) -> dict[str, float]:
        """Mean reward of one sample for each of the first validation prompts, and what else can be told of them."""
        return validation_metrics(self.validation_sample(count, sampling, version=version))

    def validation_sample(self, count: int, sampling: Sampling, *, version: int) -> Graded:
        """One completion of each of the first validation prompts.

        It has a stream of its own, so an evaluation changes no state. A prompt that is too long is left out.
        """
        if len(self.held_out) < count:
            self.held_out = [(prompt, self.setup.encoder.encode(prompt)) for prompt in self.setup.task.validation(count)]
        drawn = [(prompt, ids) for prompt, ids in self.held_out[:count] if ids is not None]
        return self.sample(drawn, 1, sampling, numbers=list(range(len(drawn))), purpose="validation", version=version)

    def summary(self, graded: Graded) -> dict[str, float]:
        """Reward, length and health of a batch, and what the task can tell about it."""
        found = self.setup.task.metrics(graded.prompts, graded.completions)
        return metrics_of(graded.trajectories, graded.scores) | {name: value.float().nanmean().item() for name, value in found.items()}

    def state_dict(self) -> dict[str, Any]:
        """The cursor of the prompts and the counters."""
        return {
            "stream": self.stream.state_dict(),
            "encoder": self.setup.encoder.state_dict(),
            "drawn": self.drawn,
            "generated_tokens": self.generated_tokens,
            "graded_rows": self.graded_rows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.stream.load_state_dict(state["stream"])
        self.setup.encoder.load_state_dict(state["encoder"])
        self.drawn, self.generated_tokens, self.graded_rows = state["drawn"], state["generated_tokens"], state["graded_rows"]


def validation_metrics(seen: Graded) -> dict[str, float]:
    """Metrics of a validation sample."""
    names = {"reward": "accuracy", "completion_length": "validation_length", "truncated_share": "validation_truncated_share"}
    health = ("invalid_share", "abstained_share", "reward_spread")
    rest = {f"validation_{name}": value for name, value in seen.metrics.items() if name not in names and name not in health}
    return {new: seen.metrics[old] for old, new in names.items()} | rest


def metrics_of(rows: Trajectories, scores: Scores) -> dict[str, float]:
    """Reward, length and health of a batch of completions."""
    lengths = rows.mask.sum(1).float()
    valid = scores.valid
    result = {
        "reward": scores.reward[valid].mean().item() if bool(valid.any()) else float("nan"),
        "completion_length": lengths.mean().item(),
        "truncated_share": rows.truncated.any(1).float().mean().item(),
        "invalid_share": scores.invalid_share,
        "abstained_share": scores.abstained.float().mean().item(),
        "reward_spread": (scores.reward[valid].max() - scores.reward[valid].min()).item() if bool(valid.any()) else 0.0,
    }
    for name, part in scores.parts.items():
        known = part[~part.isnan()]
        if len(known):
            result[f"reward/{name}"] = known.mean().item()
    return result | {f"reward/{name}": value for name, value in scores.metrics.items()}


def join(parts: list[Graded], rows: int) -> Graded | None:
    """The first ``rows`` rows of several batches; completions of different lengths are padded to the longest."""
    if not parts:
        return None
    trajectories = join_rows([part.trajectories for part in parts])[:rows]
    prompts = [prompt for part in parts for prompt in part.prompts][:rows]
    completions = [text for part in parts for text in part.completions][:rows]
    scores = Scores.joined([part.scores for part in parts]).select(range(len(prompts)))
    names = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    columns = {name: join_columns([part.columns[name] for part in parts])[:rows] for name in names}
    return Graded(trajectories, prompts, completions, scores, parts[-1].metrics, columns)
