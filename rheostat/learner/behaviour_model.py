"""Models that are fitted to a data set before any policy: critics of the behaviour policy, and a dynamics model (Uni-O4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.buffers.control_retainers import per_turn
from rheostat.credit.returns import discounted_return
from rheostat.errors import RheostatError
from rheostat.learner.off_policy import AsRead
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.control.behaviour_critics import BehaviourCritics, Kind
from rheostat.policies.control.dynamics import DynamicsEnsemble, DynamicsModel
from rheostat.streams import derive_seed
from rheostat.trajectories import Transitions

Found = dict[str, Any]


@dataclass(frozen=True)
class CriticOptions:
    """V and Q of the behaviour."""

    form: Kind = option("sarsa", short="critics")
    """V and Q of the behaviour, or implicit Q-learning with two critics (the authors: on the medium sets)."""
    hidden: tuple[int, ...] = option((1024, 1024), short="critic_hidden", at_least=1)
    """Hidden layers of Q."""
    value_hidden: tuple[int, ...] = option((512, 512, 512), at_least=1)
    """Hidden layers of V."""
    learning_rate: float = option(1e-4, short="critic_learning_rate", at_least=0)
    """Adam step size of Q and V."""
    tau: float = option(0.005, share=True)
    """Polyak weight of the critics in each update of the target critics."""
    target_every: int = option(2, at_least=1)
    """Gradient steps between Polyak updates of the target critics."""
    expectile: float = option(0.7, above=0, below=1)
    """Expectile of Q that V regresses on (iql)."""
    bootstrap_on_truncation: bool = option(True)
    """Bootstrap returns of truncated episodes with V of the last observation; False: with 0, as the authors do (sarsa)."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.tau else {"target_every": "tau is 0, so the target critics never follow; raise it, or leave it alone"}

    def __post_init__(self) -> None:
        if self.form == "sarsa" and self.expectile != 0.7:
            raise RheostatError("expectile is of critics iql: choose them, or leave it alone.")
        if self.form == "iql" and not self.bootstrap_on_truncation:
            raise RheostatError("bootstrap_on_truncation is of the returns that critics sarsa regress on: leave it alone, iql has none.")


class BehaviourCriticsModel(BehaviourCritics):
    """V and Q of the behaviour as a model of a learner; arguments as in :class:`CriticOptions`."""

    def __init__(self, options: CriticOptions) -> None:
        self.options = options

    def bind(self, context: Any, name: str) -> None:
        """Build the networks."""
        chosen = self.options
        super().__init__(
            *context.sizes,
            kind=chosen.form,
            critic_hidden=chosen.hidden,
            value_hidden=chosen.value_hidden,
            learning_rate=chosen.learning_rate,
            tau=chosen.tau,
            target_every=chosen.target_every,
            expectile=chosen.expectile,
            generator=context.streams["networks"],
        )


@dataclass(frozen=True, eq=False)
class DataAsRead:
    """The data set as the networks read it, with returns and successors of every step.

    Attributes:
        rows: ``[n]``.
        returns: discounted rewards to the end of the episode, ``[n]``.
        left: discount of what lies beyond, 0 where the environment ended, ``[n]``.
        last: place of the episode's last step, int64 ``[n]``.
    """

    rows: Transitions
    returns: Tensor
    left: Tensor
    last: Tensor


@dataclass(frozen=True)
class ReadData:
    """Converts the data set for the networks and stores it for models and annotations."""

    read: AsRead
    gamma: float

    def prepare(self, context: Any) -> None:
        """Create the store."""
        offline, gamma = context.offline, self.gamma
        rows = self.read(context, Batch(context.stores["learned rewards"](offline.transitions))).rows
        cut = offline.breaks & ~rows.terminated
        returns = discounted_return(rows.reward, rows.terminated, cut, gamma=gamma)
        left = discounted_return(gamma * cut.float(), rows.terminated, cut, gamma=gamma)
        ends = offline.breaks.nonzero().flatten()
        last = ends[torch.searchsorted(ends, torch.arange(len(offline)))]
        context.stores["data as read"] = DataAsRead(rows, returns, left, last)


@dataclass(frozen=True)
class DataReturns:
    """Writes the regression target of V into the column ``returns``; truncated episodes bootstrap with V of their last observation."""

    bootstrap: bool = True
    models: ClassVar[tuple[str, ...]] = ("behaviour critics",)
    writes: ClassVar[tuple[str, ...]] = ("returns",)

    def __call__(self, context: Any, batch: Batch) -> Batch:
        data, index = context.stores["data as read"], batch.rows.index
        returns = data.returns[index]
        if self.bootstrap:
            beyond = context.models["behaviour critics"].value(data.rows.next_observation[data.last[index]])
            returns = returns + data.left[index] * beyond
        batch.columns["returns"] = returns
        return batch


@dataclass(frozen=True)
class BehaviourCriticStep:
    """V, Q and the target critics."""

    models: ClassVar[tuple[str, ...]] = ("behaviour critics",)

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of V and of Q on rows ``[B]`` (and the column ``returns`` ``[B]``, sarsa); returns their losses and means."""
        return dict(context.models["behaviour critics"].step(batch.rows, batch.columns.get("returns")))


@dataclass(frozen=True)
class ModelOptions:
    """The dynamics model."""

    networks: int = option(7, short="model_networks", at_least=1)
    """Networks in the ensemble of the dynamics model."""
    elites: int = option(5, short="model_elites", at_least=1)
    """Number of best networks that are used."""
    hidden: tuple[int, ...] = option((200, 200, 200, 200), short="model_hidden", at_least=1)
    """Hidden layers of the model."""
    learning_rate: float = option(1e-3, short="model_learning_rate", at_least=0)
    """Adam step size of the model."""
    batch_size: int = option(256, short="model_batch_size", at_least=1)
    """Transitions of every network of the model per gradient step."""
    decay: tuple[float, float] = option((2.5e-5, 1e-4), short="model_decay", at_least=0)
    """Weight decay of the first and the last layer of the model, in between in equal steps."""
    patience: int = option(5, short="model_patience", at_least=1)
    """The model stops after so many passes over the data without improvement on the fifth of it that is held out."""

    @property
    def rows(self) -> int:
        """Of a gradient step of all networks."""
        return self.networks * self.batch_size


class WorldModel(DynamicsModel):
    """The model over observations and actions as the networks read them; arguments as in :class:`ModelOptions`."""

    def __init__(self, options: ModelOptions) -> None:
        self.options = options

    def bind(self, context: Any, name: str) -> None:
        """Build the networks and split the data among them."""
        chosen = self.options
        draw = context.streams["networks"]
        super().__init__(
            DynamicsEnsemble(*context.sizes, networks=chosen.networks, hidden=chosen.hidden, generator=draw),
            context.stores["data as read"].rows,
            elites=chosen.elites,
            learning_rate=chosen.learning_rate,
            batch_size=chosen.batch_size,
            decay=chosen.decay,
            patience=chosen.patience,
            generator=torch.Generator().manual_seed(derive_seed(context.streams.seed, "model data")),  # the same after loading
        )


@dataclass(frozen=True)
class DrawForModel:
    """Samples batches for the dynamics model, whose networks have data of their own."""

    size: int

    def retain(self, context: Any, batch: Batch) -> Batch:
        """The batches of all gradient steps of the turn, concatenated."""
        places = context.models["world model"].draw(per_turn(context), context.streams["model"])
        return Batch(context.stores["learned rewards"](context.offline.transitions[places]), facts={"size": self.size})


@dataclass(frozen=True)
class ModelStep:
    """Updates every network of the dynamics model."""

    models: ClassVar[tuple[str, ...]] = ("world model",)

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of every network on its own share of the rows ``[networks * batch]``; returns losses, scalars."""
        return dict(context.models["world model"].step(batch.rows))
