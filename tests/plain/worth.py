"""What completions are worth, by loops over rows: numbers alone, one for each token of each row."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.plain.rows import Row

Worth = dict[Row, list[float]]


def mean(values: list[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)


def deviation(values: list[float]) -> float:
    """Unbiased; 0 of a single value."""
    centre = mean(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / max(1, len(values) - 1))


def members(row: Row, batch: list[Row]) -> list[Row]:
    """The graded rows of a row's group, itself included."""
    return [other for other in batch if other.group == row.group and other.valid]


def on_tokens(of: Callable[[Row], float], batch: list[Row]) -> Worth:
    """A row's number on each of its tokens; rows without a grade have none."""
    return {row: [of(row) if row.valid else 0.0] * len(row) for row in batch}


def reward(row: Row) -> float:
    """As the verifier said."""
    return row.reward


def in_deviations(batch: list[Row], *, eps: float = 1e-6, worth: Callable[[Row], float] = reward) -> Worth:
    """DeepSeekMath, section 4.1.2 (outcome supervision): the distance to the group's mean in deviations of the group."""

    def of(row: Row) -> float:
        all_worth = [worth(other) for other in members(row, batch)]
        return (worth(row) - mean(all_worth)) / (deviation(all_worth) + eps)

    return on_tokens(of, batch)


def from_mean(batch: list[Row], *, worth: Callable[[Row], float] = reward) -> Worth:
    """Dr. GRPO, section 3.2: the distance to the group's mean."""
    return on_tokens(lambda row: worth(row) - mean([worth(other) for other in members(row, batch)]), batch)


def from_others(batch: list[Row], *, worth: Callable[[Row], float] = reward) -> Worth:
    """RLOO: the distance to the mean of the others; a member whose others have no grade is compared with nobody and teaches nothing."""

    def of(row: Row) -> float:
        others = [worth(other) for other in members(row, batch) if other is not row]
        return worth(row) - mean(others) if others else 0.0

    return on_tokens(of, batch)


def by_own_rows(batch: list[Row], *, scaled: bool) -> Worth:
    """The second estimator of RL-PLUS's code: mean and deviation of the policy's own rows of the group, a deviation of 0 counting as 1."""

    def of(row: Row) -> float:
        own = [other.reward for other in members(row, batch) if not other.expert]
        return (row.reward - mean(own)) / ((deviation(own) or 1.0) + 1e-6 if scaled else 1.0)

    return on_tokens(of, batch)


def whitened(worth: Worth) -> Worth:
    """Over all tokens of the batch, 1e-8 inside the root."""
    every = [value for values in worth.values() for value in values]
    centre, spread = mean(every), math.sqrt(deviation(every) ** 2 + 1e-8)
    return {row: [(value - centre) / spread for value in values] for row, values in worth.items()}


def token_rewards(row: Row, beta: float, worth: float) -> list[float]:
    """The reward at the last token, and on every token minus beta times the log-ratio to the base model (k1)."""
    found = [-beta * (old - base) for old, base in zip(row.old, row.reference, strict=True)]
    found[-1] += worth
    return found


def to_go(rewards: list[float], gamma: float = 1.0) -> list[float]:
    """Returns: what is still to come of rewards."""
    return [sum(gamma ** (later - step) * rewards[later] for later in range(step, len(rewards))) for step in range(len(rewards))]


def overlong(row: Row, longest: int, buffer: int) -> float:
    """DAPO, equation 13: minus how far a completion has come into the buffer before the limit, as a share of it."""
    return min(0.0, (longest - buffer - len(row)) / buffer)
