"""The vocabulary of parts: what a method is composed of, and what flows between its parts.

    WHO ACTS?                  a Collector    ``collect(context) -> Batch``
    WHAT IS KEPT?              Retainers      ``retain(context, batch) -> Batch``
    WHAT IS IT WORTH?          Annotations    ``(context, batch) -> Batch``
    HOW DOES THE POLICY MOVE?  Updates        ``improve(context, batch) -> Metrics``, gradient steps down a sum of Terms

A part is a frozen dataclass, whose fields are then its options, or a class with ``state_dict`` and ``load_state_dict``. A part with
``bind(context)`` is bound once, when the learner is built. What a part reads and writes beyond the shared vocabulary it declares in
``reads`` and ``writes``, so that a composition that cannot work is refused before anything is spent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import Aggregation, natural_denominator
from rheostat.options import option
from rheostat.streams import Streams
from rheostat.trajectories import Source, Trajectories, Transitions, join_columns

Metrics = dict[str, float]
BEGUN = "begun"
"""The fact that terms have seen a whole gradient step (``begin``), so that a batch may be a part of it."""


class NonFinite(RheostatError):
    """A loss or gradient became NaN or infinite; the loop saves the batch that caused it beside the run."""

    def __init__(self, message: str, batch: Trajectories | Transitions) -> None:
        super().__init__(message)
        self.batch = batch


@dataclass
class Batch:
    """Rows, what one method knows about them beyond the shared vocabulary, and which of them must stay together."""

    rows: Any
    """:class:`~rheostat.trajectories.Trajectories` ``[B, T]``, or :class:`~rheostat.trajectories.Transitions` ``[n]``."""
    columns: dict[str, Tensor] = field(default_factory=dict)
    """``[B]``, ``[B, T]`` or ``[n]``, by the names of the parts that write and read them."""
    units: Tensor | None = None
    """int64 ``[B]``: rows of one number are never torn apart (pairs, groups); None: every row stands alone."""
    metrics: Metrics = field(default_factory=dict)
    """What the log says of this batch."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Facts of the whole batch or gradient step that its rows share."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Batch:
        """Some of the rows, with their columns; facts are those of the whole."""
        columns = {name: value[index] for name, value in self.columns.items()}
        units = None if self.units is None else self.units[index]
        return Batch(self.rows[index], columns, units, self.metrics, self.facts)

    def split(self, size: int) -> list[Batch]:
        """Micro-batches of at most ``size`` rows, whole units each (a unit larger than ``size`` is a micro-batch of its own)."""
        count = len(self)
        if size >= count:
            return [self]
        if self.units is None:
            return [self[start : start + size] for start in range(0, count, size)]
        found: list[Batch] = []
        now: list[Tensor] = []
        for unit in _in_order(self.units):
            members = (self.units == unit).nonzero().flatten()
            if now and sum(map(len, now)) + len(members) > size:
                found.append(self[torch.cat(now)])
                now = []
            now.append(members)
        return [*found, self[torch.cat(now)]]

    def with_rows(self, rows: Any) -> Batch:
        """The same batch with other rows of the same number and order, or with further ones below them, whose columns are 0."""
        extra = len(rows) - len(self)
        columns = self.columns
        if extra:
            below = {name: value.new_zeros((extra, *self._shape_of(value, rows))) for name, value in columns.items()}
            columns = {name: join_columns([value, below[name]]) for name, value in columns.items()}
        return Batch(rows, columns, self.units, self.metrics, self.facts)

    def _shape_of(self, column: Tensor, rows: Any) -> Sequence[int]:
        """What follows the number of rows in the shape of a column, for other rows: as wide as they are where it is a column of steps."""
        of_steps = column.dim() > 1 and column.shape[:2] == self.rows.shape[:2]
        return (rows.shape[1], *column.shape[2:]) if of_steps else column.shape[1:]


def _in_order(units: Tensor) -> list[Tensor]:
    """Each unit once, by its first row."""
    return [units[index] for index in sorted({int(unit): row for row, unit in reversed(list(enumerate(units.tolist())))}.values())]


@dataclass
class Report:
    """What a term says about the rows it saw, beside its loss."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    """Scalars relative to the term's denominator: micro-batches add up."""
    means: dict[str, Tensor] = field(default_factory=dict)
    """Scalars that are means over the tokens of the diagnostics: micro-batches are averaged by their tokens."""
    clipped: Tensor | None = None
    """``[B, T]`` bool: tokens whose gradient a clip cuts."""


class Context(Protocol):
    """What every part may see; the learner's context has more (:mod:`rheostat.learner.context`)."""

    streams: Streams
    models: dict[str, Any]
    stores: dict[str, Any]

    @property
    def updates(self) -> int:
        """How many times the deployed policy has been improved: the version of the next data."""
        ...

    @property
    def longest(self) -> int:
        """Language: tokens that a completion may have."""
        ...

    def score(self, rows: Trajectories, model: str = "policy", *, entropy: bool = True) -> Any:
        """Language: a model's log-probabilities ``[B, T]`` of masked tokens under the distribution that is sampled, in nats."""
        ...


class Schedule(Protocol):
    """A number that depends on the update."""

    def at(self, step: int) -> float:
        """Its value in an update, counted from 0."""
        ...


class Term(Protocol):
    """A summand of an objective: a pure function of the model's scores and the batch."""

    @property
    def reads(self) -> Sequence[str]:
        """Fields of the rows, and columns, that must have been written."""
        ...

    def mask(self, batch: Batch) -> Tensor:
        """``[B, T]`` bool: the tokens of this term."""
        ...

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """What its sum is divided by, over a whole gradient step."""
        ...

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        """The loss of some rows, a scalar with a gradient, and what is told about it."""
        ...


@dataclass(frozen=True)
class Weighted:
    """A term, its coefficient (a number or a schedule over updates) and its name in the log (``NAME_loss``)."""

    term: Any
    coefficient: float | Any = 1.0
    name: str = "policy"

    def at(self, update: int) -> float:
        """The coefficient in an update, counted from 0."""
        return float(self.coefficient) if isinstance(self.coefficient, int | float) else self.coefficient.at(update)


@dataclass(frozen=True)
class Aggregate:
    """How token losses become one number."""

    mode: Aggregation = option("token-mean", short="aggregation")
    """How token losses become one number."""
    constant: float = option(0.0, short="constant_denominator", at_least=0)
    """Denominator of the constant aggregation; 0 takes rows x longest completion allowed."""

    def __post_init__(self) -> None:
        if self.constant and self.mode != "constant":
            raise RheostatError(f"constant_denominator is for the aggregation 'constant', not for {self.mode!r}: leave it at 0.")


@dataclass(frozen=True)
class Tokens:
    """Whose tokens a term is about, and how they become one number."""

    aggregate: Aggregate = Aggregate()
    only: Source | None = None
    """Tokens of this source alone."""
    without: Source | None = None
    """Tokens of every source but this one."""

    def mask(self, rows: Trajectories) -> Tensor:
        """``[B, T]`` bool."""
        mask = rows.mask
        if self.only is not None:
            mask = mask & (rows.source == int(self.only))
        return mask if self.without is None else mask & (rows.source != int(self.without))

    def denominator(self, rows: Trajectories, longest: int) -> Tensor:
        """What the aggregation divides by, over a whole gradient step.

        Args:
            rows: of the step.
            longest: tokens that a completion may have.
        """
        if self.aggregate.mode != "constant":
            return natural_denominator(self.mask(rows), self.aggregate.mode)
        return torch.tensor(self.aggregate.constant or float(len(rows) * longest))


def row_reward(batch: Batch) -> Tensor:
    """What every row has earned, ``[B]``: its reward, and what annotations added to it (the column ``row_reward``)."""
    found = batch.columns.get("row_reward")
    return batch.rows.reward.sum(1) if found is None else found
