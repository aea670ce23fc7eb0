"""A learned dynamics model: an ensemble of networks that predict the next observation and the reward with their spread.

PETS (Chua et al. 2018) as MBPO (Janner et al. 2019) trains it: every network has a bootstrap sample of its own, training stops when none
has improved on held-out steps for some passes, every network returns to its best weights, and the best networks, the elites, are used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from rheostat.errors import RheostatError
from rheostat.objectives.dynamics_losses import between, holdout_error, model_likelihood
from rheostat.policies.control.critics import Stack
from rheostat.policies.control.ensembles import take_over
from rheostat.policies.parameters import OptimizedNetwork
from rheostat.trajectories import Transitions

LOG_VARIANCE = (-10.0, 0.5)
"""Where the learned limits of the log-variance start."""
LIMITS_WEIGHT = 0.01
"""How much the loss pulls these limits together."""
IMPROVEMENT = 0.01
"""Share by which a held-out error must fall to count as better."""
HOLDOUT = 0.2
"""Share of the rows that is held out."""
SPREAD_EPSILON = 1e-6
"""Below this, a feature of the inputs counts as constant."""


class DynamicsEnsemble(nn.Module):
    """E networks, ``(s, a)`` to the Gaussian of ``(s' - s, r)``, or to one point.

    Args:
        observations, actions: features of an observation and of a unit action.
        networks: E.
        hidden: widths of the hidden layers.
        spread: whether the networks predict a variance; False predicts a point, whose log-variance is minus infinity.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        observations: int,
        actions: int,
        *,
        networks: int = 7,
        hidden: tuple[int, ...] = (200, 200, 200, 200),
        spread: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.observations, self.actions, self.hidden, self.spread = observations, actions, hidden, spread
        outputs = observations + 1
        self.stack = Stack(networks, observations + actions, hidden, (1 + spread) * outputs, activation=silu, generator=generator)
        if spread:
            self.low = nn.Parameter(torch.full((outputs,), LOG_VARIANCE[0]))
            self.high = nn.Parameter(torch.full((outputs,), LOG_VARIANCE[1]))
        self.shift, self.scale = torch.zeros(observations + actions), torch.ones(observations + actions)

    def of(self, networks: int) -> DynamicsEnsemble:
        """A new ensemble of the same shape with another number of networks; its weights are not set yet."""
        return DynamicsEnsemble(
            self.observations, self.actions, networks=networks, hidden=self.hidden, spread=self.spread, generator=torch.Generator()
        )

    def see(self, observation: Tensor, action: Tensor) -> None:
        """Standardise inputs by the mean and deviation of these from now on."""
        inputs = torch.cat([observation, action], -1)
        spread = inputs.std(0, unbiased=False)
        self.shift, self.scale = inputs.mean(0), torch.where(spread < SPREAD_EPSILON, 1.0, spread)

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance ``[E, B, observations + 1]`` of the change of the observation and of the reward.

        Args:
            observation: ``[B, observations]``, or ``[E, B, observations]`` with rows of its own for every network.
            action: ``[B, actions]`` or ``[E, B, actions]``.
        """
        inputs = (torch.cat([observation, action], -1) - self.shift) / self.scale
        if not self.spread:
            mean = self.stack(inputs)
            return mean, mean.new_full((), -torch.inf).expand_as(mean)
        mean, log_variance = self.stack(inputs).chunk(2, -1)
        return mean, between(log_variance, self.low, self.high)

    def limits(self) -> Tensor:
        """What pulls the learned limits of the log-variance together; 0 where there are none. A scalar."""
        return LIMITS_WEIGHT * (self.high.sum() - self.low.sum()) if self.spread else torch.zeros(())

    def decay(self, first: float, last: float) -> Tensor:
        """Half the sum of squared weights, weighted from ``first`` to ``last`` layer in equal steps; a scalar."""
        weights = list(self.stack.weights)
        rates = torch.linspace(first, last, len(weights)).tolist()
        return torch.stack([0.5 * rate * weight.square().sum() for rate, weight in zip(rates, weights, strict=True)]).sum()


def split(rows: int, holdout: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Places of rows that are held out, and of those that are learned from; int64.

    Raises:
        RheostatError: too few rows to hold any out.
    """
    kept_back = round(rows * holdout)
    if not 1 <= kept_back < rows:
        raise RheostatError(f"A model needs data to learn from and data held out; {rows} steps are too few to share.")
    order = torch.randperm(rows, generator=generator)
    return order[:kept_back], order[kept_back:]


def target_of(rows: Transitions) -> Tensor:
    """``(s' - s, r)`` of rows, ``[n, observations + 1]``."""
    return torch.cat([rows.next_observation - rows.observation, rows.reward.unsqueeze(-1)], -1)


class TrainedEnsemble:
    """The ensemble with its optimiser: keeps every network's best weights, chooses the elites, and predicts with them.

    Args:
        ensemble: the networks.
        elites: how many of the best networks are used.
        learning_rate: Adam step size.
        decay: weight decay of the first and of the last layer.
        patience: training stops after so many looks in which no network improved.

    Raises:
        RheostatError: more elites than networks.
    """

    def __init__(self, ensemble: DynamicsEnsemble, *, elites: int, learning_rate: float, decay: tuple[float, float], patience: int) -> None:
        networks = ensemble.stack.networks
        if not 1 <= elites <= networks:
            raise RheostatError(f"{elites} elites cannot be chosen from {networks} networks of the model: use 1 to {networks}.")
        self.ensemble, self.decay_rates, self.patience = ensemble, decay, patience
        self.learner = OptimizedNetwork(ensemble, learning_rate)
        self.used = ensemble.of(elites)  # the elites alone: what predicts
        self.best = self.learner.parameters.vector.detach().clone()
        self.errors = torch.full((networks,), float("inf"))
        self.elites = torch.arange(elites)
        self.idle = 0

    def move(self, loss: Tensor) -> None:
        """One Adam step of every network down a loss, with weight decay; a scalar."""
        self.learner.step(loss + self.ensemble.limits() + self.ensemble.decay(*self.decay_rates))

    def judge(self, found: Tensor) -> None:
        """Keep the weights of every network whose held-out error, ``[E]``, is better than its best so far."""
        better = (found < (1 - IMPROVEMENT) * self.errors) | self.errors.isinf()
        self.errors = torch.where(better, found, self.errors)
        for parameter in self.ensemble.stack.parameters():
            best = self.learner.parameters.part(self.best, parameter)
            best[better] = parameter.detach()[better]
        self.idle = 0 if bool(better.any()) else self.idle + 1

    @property
    def stalled(self) -> bool:
        """Whether no network has improved for so many looks that training should stop."""
        return self.idle >= self.patience

    def restore(self) -> None:
        """Go back to the best weights and choose the elites."""
        with torch.no_grad():
            for parameter in self.ensemble.stack.parameters():
                parameter.copy_(self.learner.parameters.part(self.best, parameter))
        self.elites = self.errors.argsort(stable=True)[: len(self.elites)]
        self.use_elites()

    def use_elites(self) -> None:
        """Predict with the elites from now on."""
        ensemble, used = self.ensemble, self.used
        take_over(used.stack, ensemble.stack, self.elites)
        used.shift, used.scale = ensemble.shift, ensemble.scale
        if ensemble.spread:
            used.low.data, used.high.data = ensemble.low.data, ensemble.high.data

    @torch.no_grad()
    def predict(self, observation: Tensor, action: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the next observation ``[N, observations]`` and the reward ``[N]``, each row from one elite.

        The rows are dealt out to the elites at random in equal numbers, so that each is computed once and not by every network.
        """
        count, elites = len(observation), len(self.elites)
        share = -(-count // elites)
        order = torch.randperm(count, generator=generator)
        dealt = order.repeat(-(-share * elites // count))[: share * elites].view(elites, share)  # the last rows may occur twice
        mean, log_variance = (x.flatten(0, 1)[:count] for x in self.used(observation[dealt], action[dealt]))
        noise = torch.randn(mean.shape, generator=generator)
        drawn = torch.empty_like(mean)
        drawn[order] = torch.addcmul(mean, (0.5 * log_variance).exp(), noise)
        return observation + drawn[:, :-1], drawn[:, -1]

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimiser, best weights, errors and elites."""
        return {
            "learner": self.learner.state_dict(),
            "best": self.best,
            "errors": self.errors,
            "elites": self.elites,
            "idle": self.idle,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.learner.load_state_dict(state["learner"])
        self.best, self.errors, self.elites = state["best"].clone(), state["errors"].clone(), state["elites"].clone()
        self.idle = state["idle"]


class DynamicsModel(TrainedEnsemble):
    """The ensemble with its data: trains step by step, stops early, selects its elites, and predicts.

    Args:
        ensemble: the networks.
        rows: the data, with observations and actions as the networks read them.
        elites: how many of the best networks are used.
        learning_rate: Adam step size.
        batch_size: rows of every network per step.
        decay: weight decay of the first and of the last layer.
        holdout: share of the rows held out.
        patience: training stops after so many passes in which no network improved.
        generator: splits the data and draws the bootstrap samples.

    Raises:
        RheostatError: more elites than networks, or too few rows to hold any out.
    """

    def __init__(
        self,
        ensemble: DynamicsEnsemble,
        rows: Transitions,
        *,
        elites: int,
        learning_rate: float = 1e-3,
        batch_size: int = 256,
        decay: tuple[float, float] = (2.5e-5, 1e-4),
        holdout: float = HOLDOUT,
        patience: int = 5,
        generator: torch.Generator,
    ) -> None:
        networks = ensemble.stack.networks
        self.held_out, train = split(len(rows), holdout, generator)
        super().__init__(ensemble, elites=elites, learning_rate=learning_rate, decay=decay, patience=patience)
        self.rows, self.batch_size = rows, batch_size
        drawn = torch.randint(len(train), (networks, len(train)), generator=generator)
        self.bootstrap = train.to(torch.int32)[drawn]  # [E, rows] int32: it is as long as the data
        self.pass_length = -(-len(train) // batch_size)
        ensemble.see(rows.observation[train], rows.action[train])
        self.steps = 0
        self.finished = False

    def draw(self, steps: int, generator: torch.Generator) -> Tensor:
        """Places in the data of the rows of so many steps, int64 ``[steps * E * batch_size]``: each network draws from its own sample."""
        networks, size = self.bootstrap.shape
        place = torch.randint(size, (networks, steps * self.batch_size), generator=generator)
        drawn = self.bootstrap.gather(1, place).view(networks, steps, self.batch_size)
        return drawn.transpose(0, 1).flatten().long()

    def step(self, rows: Transitions) -> dict[str, float | Tensor]:
        """One gradient step of every network on rows ``[E * batch_size]`` of :meth:`draw`; after each pass over the data, evaluate on the
        held-out rows."""
        networks = len(self.bootstrap)
        observation, action, target = (x.view(networks, self.batch_size, -1) for x in (rows.observation, rows.action, target_of(rows)))
        mean, log_variance = self.ensemble(observation, action)
        likelihood = model_likelihood(mean, log_variance, target)
        self.move(likelihood)
        self.steps += 1
        if self.steps % self.pass_length == 0:
            self._look()
        return {"model_loss": likelihood.detach() / networks}

    def _look(self) -> None:
        """Evaluate on the held-out rows and keep every network's best weights."""
        rows = self.rows[self.held_out]
        with torch.no_grad():
            mean, _ = self.ensemble(rows.observation, rows.action)
        self.judge(holdout_error(mean, target_of(rows)))

    def finish(self) -> None:
        """Restore the best weights and choose the elites; if the last pass was not completed, evaluate once more first."""
        if self.steps % self.pass_length:
            self._look()
        self.restore()
        self.finished = True

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimiser, best weights and counters; the split and the bootstrap samples follow from the seed."""
        return super().state_dict() | {"steps": self.steps, "finished": self.finished}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        super().load_state_dict(state)
        self.steps, self.finished = state["steps"], state["finished"]
        if self.finished:
            self.use_elites()
