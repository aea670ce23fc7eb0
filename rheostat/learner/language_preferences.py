"""Answers that the methods of preferences share: where pairs come from, and what is measured of the policy on held-out data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from rheostat.collect.language.experts import expert_rows
from rheostat.collect.language.pairs import COLUMNS, Pairs, pairs_of
from rheostat.collect.language.prompt_groups import Graded, validation_metrics
from rheostat.collect.language.sampled_pairs import SampledPairs, TaughtPairs
from rheostat.credit.annotations import ModelScores
from rheostat.credit.preference_measures import calibration_error, correlation, judged, length_bias, win_rate
from rheostat.learner.language import policy_models
from rheostat.learner.learner import Composition
from rheostat.learner.models import Frozen
from rheostat.learner.update import Update
from rheostat.masking import masked_sum
from rheostat.objectives.kl import kl_estimate
from rheostat.objectives.preference_terms import PairTerm
from rheostat.options import option
from rheostat.parts import Batch, Metrics, Weighted
from rheostat.tasks.language.demonstrations import Completion
from rheostat.tasks.language.preference_rows import PreferencePrompts
from rheostat.tasks.language.task_interface import Prompt

LEAST = 2.0**-100
"""Probability below which one is not told from 0, whose logarithm is no number."""
PairSource = Pairs | SampledPairs | TaughtPairs
"""A file of annotated pairs, pairs that the policy samples, or an expert's answers against wrong ones of the policy."""


@dataclass(frozen=True)
class StartComparison:
    """Whether a method without a reference keeps a copy of the starting model to be measured against."""

    compare: bool = option(True, short="compare_with_start")
    """Keep a copy of the starting model, and measure the policy against it: win rate, KL and log-ratios of held-out answers."""
    start: ClassVar[str] = "start"

    @property
    def models(self) -> dict[str, Any]:
        """The copy."""
        return {self.start: Frozen()} if self.compare else {}


class PairMethod(Protocol):
    """Options that the methods of pairs share, under these names."""

    @property
    def data(self) -> PairSource: ...
    @property
    def update(self) -> Update: ...


def from_pairs(
    method: PairMethod, term: PairTerm, *beside: Weighted, start: StartComparison | None = None, coefficient: float = 1.0
) -> Composition:
    """What the methods of pairs share.

    Args:
        method: its options.
        term: what it minimises on pairs; it names what is compared in measurements.
        beside: other terms.
        start: of a method without a reference: whether one is kept for measurements.
        coefficient: weight of the term on pairs beside the others.
    """
    reference = start is None
    models = policy_models(method.update) | ({"reference": Frozen()} if start is None else start.models)
    return Composition(
        collect=method.data,
        retain=[],
        credit=[ModelScores()] if reference else [],
        improve=[method.update.of(Weighted(term, coefficient, "preference"), *beside)],
        models=models,
        measure=partial(measure, term=term),
    )


def start_of(context: Any) -> str | None:
    """The model that the policy is measured against: its reference, else the start that is kept; None without one."""
    return next((name for name in ("reference", StartComparison.start) if name in context.models), None)


def held_out_of(task: Any, count: int) -> list[Prompt]:
    """Held-out prompts of a task, at most so many; of a file of preferences every row, although prompts repeat."""
    found: list[Prompt] = task.held_out(count) if isinstance(task, PreferencePrompts) else task.validation(count)
    return found


def measure(context: Any, count: int, term: PairTerm | None = None) -> Metrics:
    """What is measured of a policy on held-out data: how it ranks pairs, if there are any, and what it samples, if that can be graded.

    Args:
        context: of the learner.
        count: prompts of the validation side, at most.
        term: says what of the two answers of a pair is compared.
    """
    found: Metrics = {}
    held_out = held_out_of(context.setup.task, count)
    if term is not None and all(column in prompt.columns for prompt in held_out for column in COLUMNS):
        found |= measure_pairs(context, held_out, term)
    for column in ("label", "score"):
        if term is None and all({"completion", column} <= set(prompt.columns) for prompt in held_out):
            found |= measure_answers(context, held_out, column)
    if context.setup.gradable and not getattr(term, "needs_value_head", False):  # a reward model writes nothing
        found |= measure_samples(context, count)
    return found


def measure_pairs(context: Any, held_out: list[Prompt], term: PairTerm, rows: Callable[..., Batch] = pairs_of) -> Metrics:
    """How the policy ranks held-out pairs: whether strictly as the annotator did, by how much, and what became of both answers.

    Args:
        context: of the learner.
        held_out: prompts with both answers.
        term: compares the answers.
        rows: of the context, encoded prompts and their numbers: writes the pairs.
    """
    drawn = [(prompt, ids) for prompt in held_out if (ids := context.setup.encoder.encode(prompt)) is not None]
    batch = rows(context, drawn, list(range(len(drawn))))
    start = start_of(context)
    with torch.no_grad():
        if start is not None:
            batch.rows.reference_logp = context.score(batch.rows, start, entropy=False, count=False).logp
        scores = context.score(batch.rows, entropy=False, count=False)
    chosen, rejected = term.sides(scores, batch)
    margin = chosen - rejected
    found = {"validation_preference_accuracy": (margin > 0).float().mean().item(), "validation_margin": margin.mean().item()}
    probability = term.probability(chosen, rejected)
    if probability is not None:
        found["validation_calibration_error"] = calibration_error(probability)
        found["validation_preference_loss"] = -probability.clamp(min=LEAST).log().mean().item()
    if getattr(term, "needs_value_head", False):
        lengths = term.by_side(batch.rows.mask.sum(1).float(), batch)
        return found | {f"validation_{name}": value for name, value in length_bias(chosen, rejected, *lengths).items()}
    return found | (displacement(scores.logp, batch) if start is not None else {})


def displacement(logp: Tensor, batch: Batch) -> Metrics:
    """How much likelier both answers of held-out pairs have become since the start, in nats per answer, from log-probs ``[B, T]``."""
    sides = PairTerm.by_side(masked_sum(logp - batch.rows.reference_logp, batch.rows.mask, -1), batch)
    return {f"validation_{name}_log_ratio": side.mean().item() for name, side in zip(COLUMNS, sides, strict=True)}


def measure_answers(context: Any, held_out: list[Prompt], column: str) -> Metrics:
    """How much likelier single held-out answers have become since the start, beside what was said of them.

    Labels: the mean log-ratio of both kinds, and the probability that a desirable answer has a larger one than another answer. Scores: the
    correlation of log-ratio and score.

    Args:
        context: of the learner.
        held_out: prompts with answers.
        column: ``label`` or ``score``.
    """
    start, drawn = start_of(context), [(prompt, ids) for prompt in held_out if (ids := context.setup.encoder.encode(prompt)) is not None]
    if start is None:
        return {}
    texts = [Completion.of(prompt.columns["completion"], prompt.columns) for prompt, _ in drawn]
    rows = expert_rows(context.setup, drawn, texts, list(range(len(drawn))))
    with torch.no_grad():
        base = context.score(rows, start, entropy=False, count=False).logp
        ratio = masked_sum(context.score(rows, entropy=False, count=False).logp - base, rows.mask, -1)
    said = torch.tensor([float(prompt.columns[column]) for prompt, _ in drawn])
    if column == "score":
        return {"validation_score_correlation": correlation(ratio, said)}
    good, bad = ratio[said > 0], ratio[said <= 0]
    sides = {"desirable": good, "undesirable": bad}
    found = {f"validation_{name}_log_ratio": side.mean().item() for name, side in sides.items() if len(side)}
    return found | ({"validation_label_accuracy": win_rate(*outer(good, bad))} if len(good) and len(bad) else {})


def outer(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Every entry of one ``[n]`` beside every entry of another ``[m]``, ``[n m]`` each."""
    return one.repeat_interleave(len(other)), other.repeat(len(one))


def measure_samples(context: Any, count: int) -> Metrics:
    """Graded samples of the policy; beside samples of the start, with the win rate and the KL to it, where there is one."""
    with context.evaluating():
        mine: Graded = context.collector.validation_sample(count, context.sampling, version=context.updates)
        found = validation_metrics(mine)
        start = start_of(context)
        if start is None:
            return found
        with context.sampling_from(start):
            theirs: Graded = context.collector.validation_sample(count, context.sampling, version=0)
        rows = mine.trajectories
        with torch.no_grad():
            logp = context.score(rows, entropy=False, count=False).logp
            base = context.score(rows, start, entropy=False, count=False).logp
        kl = masked_sum(kl_estimate(logp, base, "k3", mask=rows.mask), rows.mask, -1).mean().item()
    if context.setup.judge is not None:
        said = judged(context.setup.judge, mine.prompts, mine.completions, theirs.completions)
        found |= {
            "validation_judged_win_rate": said.win_rate,
            "validation_position_bias": said.position_bias,
            "validation_inconsistent_share": said.inconsistent,
        }
    return found | {"validation_kl": kl} | win_rates(mine, theirs)


def win_rates(mine: Graded, theirs: Graded) -> Metrics:
    """How often the policy's sample has the higher reward, by the reward and by each of its parts."""
    found = {"validation_win_rate": win_rate(mine.scores.reward, theirs.scores.reward)}
    for name, part in mine.scores.parts.items():
        if name in theirs.scores.parts:
            found[f"validation_win_rate/{name}"] = win_rate(part, theirs.scores.parts[name])
    return {name: value for name, value in found.items() if value == value}
