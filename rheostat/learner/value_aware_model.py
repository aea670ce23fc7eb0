"""How a model learns whose errors are weighed by what they do to the value of the next state (VaGraM, IterVAML)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.learner.replay_model import Errors
from rheostat.learner.value_functions import ValueFunctions, Which
from rheostat.objectives.value_aware import accumulated, limited, value_difference_error, value_gradient_error
from rheostat.options import option
from rheostat.policies.control.dynamics import target_of
from rheostat.trajectories import Transitions


@dataclass(frozen=True)
class ValueAware:
    """The loss of the model, and the value functions that it asks."""

    loss: Literal["value-gradient", "unbounded", "itervaml", "mse"] = option("value-gradient", short="model_loss")
    """Errors are weighed by the gradient of the value, dimension by dimension; or as one inner product; or they are differences of values
    (IterVAML); or squared errors alone."""
    functions: Which = option("all", short="value_functions")
    """Critics and target critics judge the model, or the target critics alone."""
    accumulate: bool = option(False, short="accumulate_gradients")
    """Every value function is weighed by the sum of its gradient and of those before it, as in the authors' code."""
    quantile: float = option(1.0, short="gradient_quantile", share=True)
    """Gradients longer than this quantile of their lengths are cut to it; 1 cuts none."""
    plain_steps: int = option(1_000, short="squared_error_steps", at_least=0)
    """Environment steps, counted from the first gradient step, in which the squared error is added."""
    spread: ClassVar[bool] = False

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if self.loss == "mse":
            why = "a model of squared errors asks no value function, so leave it alone, or choose another model_loss"
            return dict.fromkeys(("functions", "accumulate", "quantile", "plain_steps"), why)
        if self.loss == "itervaml":
            return dict.fromkeys(("accumulate", "quantile"), "itervaml asks values and no gradients, so leave it alone")
        return {}

    def of(self, context: Any, rows: Transitions, after: int) -> Errors:
        """The errors of a round; values and gradients are those of the present critics, computed once."""
        target = target_of(rows)
        plain = context.collector.steps - after < self.plain_steps
        if self.loss == "mse":
            return SquaredErrors(target, plain=False)
        values = ValueFunctions(context, self.functions)
        if self.loss == "itervaml":
            with torch.no_grad():
                observed = torch.cat([values(part) for part in rows.next_observation.split(CHUNK)], 1)
            return ValueErrors(target, plain, values, rows.observation, observed)
        return GradientErrors(target, plain, self.weights(values, rows), self.loss == "value-gradient")

    def weights(self, values: ValueFunctions, rows: Transitions) -> Tensor:
        """``[K, N, n]``, at the observed next states."""
        found = values.gradients(rows.next_observation)
        if self.accumulate:
            found = accumulated(found)
        return found if self.quantile == 1 else limited(found, self.quantile)[0]


CHUNK = 4096
"""Rows whose values are computed at once."""


@dataclass(frozen=True)
class SquaredErrors:
    """Mean over all outputs; ``target`` is ``[N, n + 1]``."""

    target: Tensor
    plain: bool
    """Whether the squared error is added."""

    def of(self, error: Tensor, mean: Tensor, place: Tensor) -> Tensor:
        """Errors ``[E, B, ...]`` of predictions ``[E, B, n + 1]`` about the rows ``place`` ``[E, B]``."""
        return error.square()

    def each(self, mean: Tensor, place: Tensor) -> Tensor:
        """Mean error of every network and row, ``[E, B]``."""
        error = mean - self.target[place]
        found = self.of(error, mean, place).mean(-1)
        return found + error.square().mean(-1) if self.plain else found

    def loss(self, mean: Tensor, log_variance: Tensor, place: Tensor) -> Tensor:
        """See :class:`~rheostat.learner.replay_model.Errors`."""
        return self.each(mean, place).mean()

    def score(self, mean: Tensor, place: Tensor) -> Tensor:
        """See :class:`~rheostat.learner.replay_model.Errors`."""
        return self.each(mean, place.expand(len(mean), -1)).mean(1)


@dataclass(frozen=True)
class GradientErrors(SquaredErrors):
    """Weighed by gradients ``[K, N, n]``."""

    gradient: Tensor
    bounded: bool

    def of(self, error: Tensor, mean: Tensor, place: Tensor) -> Tensor:
        """See :meth:`SquaredErrors.of`."""
        return value_gradient_error(error, self.gradient[:, place], form="bounded" if self.bounded else "unbounded")


@dataclass(frozen=True)
class ValueErrors(SquaredErrors):
    """Differences of values; ``observed`` is ``[K, N]``."""

    values: ValueFunctions
    states: Tensor
    observed: Tensor

    def of(self, error: Tensor, mean: Tensor, place: Tensor) -> Tensor:
        """See :meth:`SquaredErrors.of`."""
        following = self.states[place] + mean[..., :-1]
        predicted = self.values(following.flatten(0, 1)).unflatten(1, place.shape)
        return value_difference_error(predicted, self.observed[:, place], error[..., -1]).unsqueeze(-1)
