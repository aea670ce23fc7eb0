"""The dynamics model of a replay: how it is fitted round by round, by which loss, and how wrong it is (MBPO)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from rheostat.learner.behaviour_model import ModelOptions
from rheostat.learner.value_functions import ValueFunctions
from rheostat.objectives.dynamics_losses import holdout_error, model_likelihood
from rheostat.options import option, value_or
from rheostat.parts import NonFinite
from rheostat.policies.control.dynamics import HOLDOUT, DynamicsEnsemble, TrainedEnsemble, split, target_of
from rheostat.trajectories import Transitions

Found = dict[str, Any]
CHUNK = 4096
"""Held-out rows that are judged at once."""


@dataclass(frozen=True)
class ReplayModelOptions(ModelOptions):
    """The dynamics model, and when it is fitted."""

    patience: int = option(10, short="model_patience", at_least=1)
    """A round stops after so many passes over the data without improvement on the fifth of it that is held out."""
    most_passes: int | None = option(None, short="model_passes", at_least=1)
    """Passes over the data in a round at most; None goes on until the patience is out."""
    every: int = option(250, short="model_every", at_least=1)
    """Environment steps between rounds of fitting and imagining; the first comes with the first gradient step."""


class Errors(Protocol):
    """How wrong the model is about the rows of a round."""

    def loss(self, mean: Tensor, log_variance: Tensor, place: Tensor) -> Tensor:
        """What a gradient step goes down, a scalar, from predictions ``[E, B, n + 1]`` about the rows ``place`` ``[E, B]``."""
        ...

    def score(self, mean: Tensor, place: Tensor) -> Tensor:
        """Mean over the rows ``place`` ``[B]`` of what the networks are judged by, ``[E]``."""
        ...


class ModelLoss(Protocol):
    """A rule by which the model learns."""

    @property
    def spread(self) -> bool:
        """Whether the model predicts a variance."""
        ...

    def of(self, context: Any, rows: Transitions, after: int) -> Errors:
        """The errors of a round, with what is known of its rows ``[N]``; ``after``: environment steps before learning."""
        ...


@dataclass(frozen=True)
class Likelihood:
    """Negative Gaussian log-likelihood; networks are judged by their squared error (PETS, MBPO)."""

    spread: ClassVar[bool] = True

    def of(self, context: Any, rows: Transitions, after: int) -> Errors:
        """See :class:`ModelLoss`."""
        return LikelihoodErrors(target_of(rows))


@dataclass(frozen=True)
class LikelihoodErrors:
    """Those of :class:`Likelihood`; ``target`` is ``[N, n + 1]``."""

    target: Tensor

    def loss(self, mean: Tensor, log_variance: Tensor, place: Tensor) -> Tensor:
        """See :class:`Errors`."""
        return model_likelihood(mean, log_variance, self.target[place])

    def score(self, mean: Tensor, place: Tensor) -> Tensor:
        """See :class:`Errors`."""
        return holdout_error(mean, self.target[place])


class ReplayModel(TrainedEnsemble):
    """The model of a growing replay, over raw observations and unit actions.

    Args:
        options: of the model.
        loss: by which it learns.
    """

    def __init__(self, options: ReplayModelOptions, loss: ModelLoss) -> None:
        self.options, self.loss = options, loss

    def bind(self, context: Any, name: str) -> None:
        """Build the networks.

        Raises:
            RheostatError: more elites than networks.
        """
        chosen = self.options
        super().__init__(
            DynamicsEnsemble(
                *context.sizes,
                networks=chosen.networks,
                hidden=chosen.hidden,
                spread=self.loss.spread,
                generator=context.streams["networks"],
            ),
            elites=chosen.elites,
            learning_rate=chosen.learning_rate,
            decay=chosen.decay,
            patience=chosen.patience,
        )

    def fit(self, context: Any, rows: Transitions, after: int) -> Found:
        """One round: split the rows ``[N]``, pass over bootstrap samples until no network improves, return to the best weights.

        Returns:
            ``model_loss`` of the last pass, ``model_passes``, and what :meth:`errors_of` says about the held-out rows.

        Raises:
            NonFinite: the loss is not finite.
        """
        generator = context.streams["model"]
        errors = self.loss.of(context, rows, after)
        held_out, train = split(len(rows), HOLDOUT, generator)
        bootstrap = train[torch.randint(len(train), (self.options.networks, len(train)), generator=generator)]
        self.ensemble.see(rows.observation[train], rows.action[train])
        self.errors, self.idle, passes, loss = torch.full_like(self.errors, torch.inf), 0, 0, torch.zeros(())
        self.judge(self.scores(errors, rows, held_out))
        while not self.stalled and passes < value_or(self.options.most_passes, math.inf):
            loss = self.one_pass(errors, rows, bootstrap, generator)
            if not bool(loss.isfinite()):
                raise NonFinite("The model's loss is not finite: lower model_learning_rate or look at the rewards", rows)
            self.judge(self.scores(errors, rows, held_out))
            passes += 1
        self.restore()
        return {"model_loss": loss, "model_passes": passes} | self.errors_of(context, rows[held_out])

    def one_pass(self, errors: Errors, rows: Transitions, bootstrap: Tensor, generator: torch.Generator) -> Tensor:
        """Gradient steps on every network's own sample ``[E, n]``, in a new order; returns their mean loss."""
        order = torch.rand(bootstrap.shape, generator=generator).argsort(1)
        places = bootstrap.gather(1, order).split(self.options.batch_size, 1)
        total = torch.zeros(())
        for place in places:
            mean, log_variance = self.ensemble(rows.observation[place], rows.action[place])
            loss = errors.loss(mean, log_variance, place)
            self.move(loss)
            total += loss.detach()
        return total / len(places)

    @torch.no_grad()
    def scores(self, errors: Errors, rows: Transitions, held_out: Tensor) -> Tensor:
        """What the networks are judged by, mean over the held-out rows, ``[E]``."""
        total = torch.zeros(self.options.networks)
        for place in held_out.split(CHUNK):
            total += len(place) * errors.score(self.ensemble(rows.observation[place], rows.action[place])[0], place)
        return total / len(held_out)

    @torch.no_grad()
    def errors_of(self, context: Any, rows: Transitions) -> Found:
        """How wrong the elites are about rows ``[N]``: root mean squares.

        Returns:
            ``model/error/D`` of every dimension of the observation, in its units; ``model/reward_error``; and ``model/value_error``, of
            the critics' value of the predicted next observation against that of the observed one.
        """
        values, squares, value_square = ValueFunctions(context, "all"), torch.zeros(rows.observation.shape[-1] + 1), torch.zeros(())
        for first in range(0, len(rows), CHUNK):
            part = rows[first : first + CHUNK]
            error = self.used(part.observation, part.action)[0] - target_of(part)
            squares += error.square().mean(0).sum(0)
            predicted = values((part.next_observation + error[..., :-1]).flatten(0, 1)).unflatten(1, error.shape[:2])
            value_square += (predicted - values(part.next_observation).unsqueeze(1)).square().mean((0, 1)).sum()
        root = (squares / len(rows)).sqrt().tolist()
        found: Found = {f"model/error/{place}": each for place, each in enumerate(root[:-1])}
        return found | {"model/reward_error": root[-1], "model/value_error": (value_square / len(rows)).sqrt()}

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimiser, elites and the statistics that inputs are standardised by."""
        return super().state_dict() | {"shift": self.ensemble.shift, "scale": self.ensemble.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        super().load_state_dict(state)
        self.ensemble.shift, self.ensemble.scale = state["shift"].clone(), state["scale"].clone()
        self.use_elites()
