"""Evaluation of a language model from several completions of each prompt.

The prompt is the unit: completions of one prompt are not independent evidence, so intervals are over prompts (score intervals for shares,
Student's for other means). Nothing here draws from a global random stream, so evaluating never changes training. Rows are prompts, columns
are completions: ``[P, n]``. An invalid completion (its grader failed) is left out, never counted as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rheostat.analysis.shares import clustered_share, share_of
from rheostat.analysis.statistics import Interval, interval_of, mean
from rheostat.errors import RheostatError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class LanguageSummary:
    """One evaluation."""

    pass_at: Mapping[int, Interval]
    """k -> pass@k; pass@1 is the accuracy."""
    majority: Interval | None
    """Accuracy of the most frequent answer, where answers were given."""
    length: Interval
    """Tokens per completion."""
    invalid: Interval
    """Share of completions whose grader failed."""
    entropy: float | None = None
    """Mean over tokens, in nats."""
    truncated: float | None = None
    """Share of completions cut at the length limit."""
    task: Mapping[str, Interval] = field(default_factory=dict)
    """The task's own metrics."""
    families: Mapping[str, Mapping[int, Interval]] = field(default_factory=dict)
    """Kind of prompt -> k -> pass@k, where the task tells kinds apart."""
    chance: float | None = None
    """pass@1 of guessing, where the task gives it."""

    @property
    def accuracy(self) -> Interval:
        """pass@1."""
        return self.pass_at[1]

    def scalars(self) -> dict[str, float]:
        """Estimates under the names that logs use."""
        result = {f"pass@{k}": interval.estimate for k, interval in self.pass_at.items()}
        if self.majority is not None:
            result["majority"] = self.majority.estimate
        result |= {"length": self.length.estimate, "invalid": self.invalid.estimate}
        result |= {name: value for name, value in (("entropy", self.entropy), ("truncated", self.truncated)) if value is not None}
        result |= {f"pass@{k} ({kind})": interval.estimate for kind, found in self.families.items() for k, interval in found.items()}
        return result | {name: interval.estimate for name, interval in self.task.items()}


def summarise(
    correct: ArrayLike,
    lengths: ArrayLike,
    *,
    valid: ArrayLike | None = None,
    answers: Sequence[Sequence[str | None]] | None = None,
    entropy: ArrayLike | None = None,
    truncated: ArrayLike | None = None,
    task: Mapping[str, ArrayLike] | None = None,
    families: Sequence[str | None] | None = None,
    chance: float | None = None,
    ks: Sequence[int] | None = None,
    level: float = 0.95,
) -> LanguageSummary:
    """Everything about ``n`` completions of each of ``P`` prompts.

    Args:
        correct: [P, n] bool (or 0 and 1).
        lengths: [P, n] tokens.
        valid: [P, n] bool, False where the grader failed; None: all valid.
        answers: [P][n] extracted answers for the vote, None where there is none.
        entropy: [P, n] mean entropy of a completion's tokens, in nats.
        truncated: [P, n] bool.
        task: further metrics, each [P, n].
        families: [P] kind of each prompt, None where it has none.
        chance: pass@1 of guessing.
        ks: which pass@k; None: 1, 2, 4, ... up to n.
        level: of the intervals.

    Raises:
        RheostatError: different shapes, no completion, or k larger than the valid completions of every prompt.
    """
    right, kept = _outcomes(correct, valid)
    tokens = _matrix(lengths, right.shape, "lengths")
    n = right.shape[1]
    ks = [k for k in (2**i for i in range(n.bit_length())) if k <= n] if ks is None else sorted({1, *ks})

    def clustered(values: Floats) -> Interval:
        return clustered_mean(values, level=level)

    summary = LanguageSummary(
        pass_at={k: pass_at_k_interval(right, k, valid=kept, level=level) for k in ks if (kept.sum(1) >= k).any()},
        majority=None,
        length=clustered(tokens),
        invalid=clustered_share(list((~kept).astype(float)), level=level),
        entropy=None if entropy is None else float((_matrix(entropy, right.shape, "entropy") * tokens).sum() / max(1.0, tokens.sum())),
        truncated=None if truncated is None else float(_matrix(truncated, right.shape, "truncated").mean()),
        task={name: clustered(_matrix(values, right.shape, name)) for name, values in (task or {}).items()},
        families=_by_family(right, kept, families, ks, level),
        chance=chance,
    )
    if 1 not in summary.pass_at:
        raise RheostatError("No completion could be graded, so there is nothing to summarise: mend the reward function.")
    if answers is None:
        return summary
    votes = majority_vote(answers, right, valid=kept)
    return replace(summary, majority=share_of(votes, level=level))


def _by_family(
    right: Bools, kept: Bools, families: Sequence[str | None] | None, ks: Sequence[int], level: float
) -> dict[str, dict[int, Interval]]:
    """Kind of prompt -> k -> pass@k, over the prompts of that kind; kinds in alphabetical order."""
    found: dict[str, dict[int, Interval]] = {}
    for kind in sorted({kind for kind in families or () if kind is not None}):
        rows = np.array([kind == own for own in families or ()])
        known = [k for k in ks if (kept[rows].sum(1) >= k).any()]
        found[kind] = {k: pass_at_k_interval(right[rows], k, valid=kept[rows], level=level) for k in known}
    return found


def pass_at_k(correct: ArrayLike, k: int, *, valid: ArrayLike | None = None) -> Floats:
    """Unbiased chance that at least one of ``k`` completions is right, for every prompt: ``1 - C(n-c, k) / C(n, k)``.

    Source: Chen et al. 2021 (arXiv 2107.03374), equation 1, in the product form that does not overflow. Drawing ``k`` of the ``n``
    completions with replacement instead (verl's bootstrap) is biased low.

    Args:
        correct: [P, n] bool.
        k: how many tries; at least 1.
        valid: [P, n] bool; ``n`` and ``c`` count valid completions only.

    Returns:
        [P] float64 in [0, 1]; NaN for prompts with fewer than ``k`` valid completions.

    Raises:
        RheostatError: different shapes, or k outside 1 to n.
    """
    right, kept = _outcomes(correct, valid)
    if not 1 <= k <= right.shape[1]:
        raise RheostatError(f"pass@{k} needs at least {k} completions per prompt and k of at least 1; there are {right.shape[1]}.")
    n = kept.sum(1)
    wrong = n - (right & kept).sum(1)
    miss = np.ones(len(n))
    for drawn in range(k):  # the chance that this draw misses too, given that all before it did
        miss *= np.clip(wrong - drawn, 0, None) / np.maximum(n - drawn, 1)
    return np.where(n >= k, 1.0 - miss, np.nan)


def pass_at_k_interval(
    correct: ArrayLike,
    k: int,
    *,
    valid: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """Mean pass@k over the prompts that have ``k`` valid completions; ``n`` is their number.

    Raises:
        RheostatError: see :func:`pass_at_k`; no prompt has ``k`` valid completions.
    """
    values = pass_at_k(correct, k, valid=valid)
    values = values[~np.isnan(values)]
    if not len(values):
        raise RheostatError(f"No prompt has {k} completions that could be graded, so pass@{k} is unknown.")
    return share_of(values, level=level)


def majority_vote(
    answers: Sequence[Sequence[str | None]],
    correct: ArrayLike,
    k: int | None = None,
    *,
    valid: ArrayLike | None = None,
    generator: np.random.Generator | None = None,
    draws: int = 64,
) -> Floats:
    """Whether the most frequent answer is right (maj@k), for every prompt.

    Completions without an answer do not vote; without any vote the prompt counts as wrong. Among answers with equally many votes the
    result is the share of right ones, which is what drawing one of them at random gives on average.

    Args:
        answers: [P][n] extracted answers, None where there is none.
        correct: [P, n] bool.
        k: how many completions vote; None: all. Fewer are drawn without replacement, ``draws`` times.
        valid: [P, n] bool; invalid completions do not vote.
        generator: for the draws; needed when ``k`` is less than the number of completions.
        draws: how many subsets are averaged.

    Returns:
        [P] float64 in [0, 1].

    Raises:
        RheostatError: different shapes, k outside 1 to n, or no generator where one is needed.
    """
    right, kept = _outcomes(correct, valid)
    if [len(row) for row in answers] != [right.shape[1]] * right.shape[0]:
        raise RheostatError(f"The vote needs one answer (or None) for each of the {right.shape[0]} x {right.shape[1]} completions.")
    n = right.shape[1]
    k = n if k is None else k
    if not 1 <= k <= n:
        raise RheostatError(f"{k} completions cannot vote: there are {n} per prompt.")
    if k < n and generator is None:
        raise RheostatError(f"A vote of {k} out of {n} completions draws subsets: give a generator.")
    result = np.zeros(len(right))
    for row, (texts, hits, keep) in enumerate(zip(answers, right, kept, strict=True)):
        if generator is None or k == n:
            result[row] = _vote(texts, hits, keep, np.arange(n))
        else:
            result[row] = np.mean([_vote(texts, hits, keep, generator.permutation(n)[:k]) for _ in range(draws)])
    return result


def weighted_vote(
    answers: Sequence[Sequence[str | None]], weights: ArrayLike, correct: ArrayLike, *, valid: ArrayLike | None = None
) -> Floats:
    """Whether the answer with the largest sum of weights is right, for every prompt (RISE's vote, with the model's own scores as weights).

    Args:
        answers: [P][n] extracted answers, None where there is none.
        weights: [P, n] of the completions; they may be negative.
        correct: [P, n] bool.
        valid: [P, n] bool; invalid completions do not vote.

    Returns:
        [P] float64 in [0, 1]; among answers with equal sums the share of right ones, and 0 without any vote.

    Raises:
        RheostatError: different shapes.
    """
    right, kept = _outcomes(correct, valid)
    if [len(row) for row in answers] != [right.shape[1]] * right.shape[0]:
        raise RheostatError(f"The vote needs one answer (or None) for each of the {right.shape[0]} x {right.shape[1]} completions.")
    table = _matrix(weights, right.shape, "weights")
    result = np.zeros(len(right))
    for row, texts in enumerate(answers):
        sums: dict[str, float] = {}
        hits: dict[str, list[bool]] = {}
        for text, weight, hit, keep in zip(texts, table[row], right[row], kept[row], strict=True):
            if keep and text is not None:
                sums[text] = sums.get(text, 0.0) + float(weight)
                hits.setdefault(text, []).append(bool(hit))
        most = max(sums.values(), default=0.0)
        leaders = [np.mean(hits[text]) for text, total in sums.items() if total == most]
        result[row] = np.mean(leaders) if leaders else 0.0
    return result


def _vote(answers: Sequence[str | None], correct: Bools, kept: Bools, voters: NDArray[np.int64]) -> float:
    votes: dict[str, list[bool]] = {}
    for index in voters.tolist():
        answer = answers[index]
        if kept[index] and answer is not None:
            votes.setdefault(answer, []).append(bool(correct[index]))
    most = max(map(len, votes.values()), default=0)
    leaders = [np.mean(hits) for hits in votes.values() if len(hits) == most]
    return float(np.mean(leaders)) if leaders else 0.0


def clustered_mean(
    values: ArrayLike,
    *,
    valid: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """Mean over prompts of the mean over a prompt's valid completions, with Student's interval.

    Args:
        values: [P, n], finite where valid.
        valid: [P, n] bool; prompts without a valid completion are left out.
        level: of the interval.

    Raises:
        RheostatError: different shapes, or nothing valid.
    """
    table = _matrix(values, None, "values")
    kept = np.ones(table.shape, dtype=bool) if valid is None else _matrix(valid, table.shape, "valid").astype(bool)
    counts = kept.sum(1)
    if not counts.any():
        raise RheostatError("There is no valid completion to average over.")
    means = np.where(kept, table, 0.0).sum(1)[counts > 0] / counts[counts > 0]
    return interval_of(means, mean, level=level)


def _outcomes(correct: ArrayLike, valid: ArrayLike | None) -> tuple[Bools, Bools]:
    right = _matrix(correct, None, "correct")
    kept = np.ones(right.shape, dtype=bool) if valid is None else _matrix(valid, right.shape, "valid").astype(bool)
    if not np.isin(right[kept], (0.0, 1.0)).all():
        raise RheostatError("Whether completions are correct must be True or False (1 or 0): compare the reward with a threshold first.")
    return (right == 1.0) & kept, kept


def _matrix(values: ArrayLike, shape: tuple[int, ...] | None, name: str) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise RheostatError(f"{name} must be a table of prompts x completions with at least one of each; its shape is {list(table.shape)}.")
    if shape is not None and table.shape != shape:
        raise RheostatError(f"{name} has the shape {list(table.shape)}, but the outcomes have {list(shape)}.")
    return table
