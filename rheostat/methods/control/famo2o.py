"""FamO2O: one policy for every balance between improving and imitating, and a model that picks the balance of each state.

Paper: Wang et al. 2023, arXiv 2310.17966. ``famo2o`` is its form over iql, ``famo2o-cql`` that over cql.

Equations (beta: the balance coefficient; e: its encoding by sines and cosines; pi_u: the universal model; pi_b: the balance model)
    beta ~ uniform on [low, high] while the data set is learned from, pi_b(.|s) afterwards (a constant in the universal model's loss)

    over iql    universal  = -mean min(exp(beta A), cap) log pi_u(a | s, e(beta)),          A = min_k Qbar_k(s, a) - V(s) with the new V
                balance    = mean [tau log pi_b(u|s) - min_k Qbar_k(s, a')],                a' ~ pi_u(.|s, e(beta(u))), u ~ pi_b(.|s)
                tau        = tau (H - target),                                              H the entropy of u, target -1/2
    over cql    universal  = mean [alpha log pi_u(a'|s, e(beta)) - beta min_k Q_k(s, a')]
                balance    = -mean min_k Q_k(s, a'),                                        a' as above; no entropy

WHO ACTS   pi_u with the deterministic choice of pi_b; a sample while collecting, the mean in evaluation.
KEPT       one buffer that begins with the data set.
WORTH      iql's advantages, or cql's critics; neither sees beta.
MOVES      every row by its own beta: large ones follow the critics, small ones the data.

What differs from the parents: the conditioned policy, beta in its loss, and the balance model. Over iql the critics and values are in use
in the authors' order: V, balance model, its temperature, universal model, critics.
The authors' iql code multiplies advantages [N] with coefficients [N, 1], so that every row is weighted by the batch's mean of
min(exp(beta_i A_j), cap) whatever its own beta is: ``released_broadcast``. Their cql code maps (-1, 1) onto the range without shifting it,
so that Q can count negatively (``released_map``), and judges the next state by the coefficient of the present one (``next_coefficient``).
They draw u and a' with the same random key; here they are independent. The per-row weights are our reading of the paper.
Checked against: the authors' code and the intended equations (``tests/vectors``: famo2o).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.learner.off_policy import OffPolicyConfig
from rheostat.methods.control.cql import CQL, CQLConfig
from rheostat.methods.control.iql import IQL, IQLConfig, ValuesInUse
from rheostat.objectives.actor import deterministic_actor_loss, soft_actor_loss, temperature_loss
from rheostat.objectives.temporal_difference import least
from rheostat.objectives.weights import exponential_weight
from rheostat.policies.control.actors import SquashedActor, TanhMeanActor, Temperature
from rheostat.policies.control.balance import BalanceModel, sin_cos_encoding
from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.control.squashed import SquashedGaussian
from rheostat.policies.parameters import Trained
from rheostat.trajectories import Transitions

Balance = Literal["model", "random"]


@dataclass(frozen=True)
class Family:
    """What both forms have."""

    coefficient_low: float = 1.0
    """Smallest balance coefficient."""
    coefficient_high: float = 5.0
    """Largest balance coefficient."""
    encoding_size: int = 6
    """Features of the encoded coefficient; even."""
    balance: Balance = "model"
    """Who picks coefficients once the policy acts: the balance model, or chance (to see what the model is good for)."""
    balance_learning_rate: float = 3e-4
    """Adam step size of the balance model."""


def check_family(config: Family) -> dict[str, int | str]:
    """The range, for printing.

    Raises:
        RheostatError: an empty range, or an odd number of features.
    """
    if not config.coefficient_low < config.coefficient_high:
        raise RheostatError(
            f"coefficient_low {config.coefficient_low:g} and coefficient_high {config.coefficient_high:g} leave nothing to choose between: "
            "the first must be below the second."
        )
    if config.encoding_size < 2 or config.encoding_size % 2:
        raise RheostatError(f"encoding_size is {config.encoding_size}: sines and cosines come in pairs, so it must be even and at least 2.")
    return {"balance coefficients": f"{config.coefficient_low:g} to {config.coefficient_high:g}"}


class Members:
    """The glue both forms share: a state with its encoded coefficient beside it, and who picks the coefficient.

    Args:
        method: whose networks, streams and phase these are.
        config: its family settings.
        released_map: see :func:`rheostat.policies.control.balance.coefficient_of`.
    """

    def __init__(self, method: IQL | CQL, config: Family, *, released_map: bool = False) -> None:
        self.method, self.config = method, config
        seen = method.sizes[0]
        self.seen = seen
        self.model = BalanceModel(
            seen,
            config.coefficient_low,
            config.coefficient_high,
            hidden=method.config.hidden,
            released_map=released_map,
            generator=method.streams["networks"],
        )
        self.trained = Trained(self.model, config.balance_learning_rate)
        self.drawn = self.chosen = torch.zeros(0)  # coefficients of the gradient step that is being made: nothing to save

    def beside(self, observation: Tensor, coefficient: Tensor) -> Tensor:
        """``[B, observations + encoding]``."""
        return torch.cat([observation[:, : self.seen], sin_cos_encoding(coefficient, self.config.encoding_size)], -1)

    def picked(self, observation: Tensor) -> Tensor:
        """Normalised observations with the deterministic choice of the balance model, or (balance random) a coefficient in the middle."""
        if self.config.balance == "random":
            middle = (self.config.coefficient_low + self.config.coefficient_high) / 2
            return self.beside(observation, torch.full((len(observation),), middle))
        return self.beside(observation, self.model.mode(observation))

    @torch.no_grad()
    def draw(self, observation: Tensor) -> Tensor:
        """Coefficients for learning, ``[B]``: uniform, or from the balance model once the policy acts."""
        generator = self.method.streams["coefficients"]
        if self.method.acting and self.config.balance == "model":
            noise = torch.randn(len(observation), 1, generator=generator)
            return self.model.draw(observation[:, : self.seen], noise)[0]
        low, high = self.config.coefficient_low, self.config.coefficient_high
        return low + (high - low) * torch.rand(len(observation), generator=generator)

    def choose(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Observations with a reparameterised choice of the balance model beside them, and its log-probability ``[B]``."""
        noise = torch.randn(len(observation), 1, generator=self.method.streams["coefficients"])
        coefficient, log_prob = self.model.draw(observation[:, : self.seen], noise)
        self.chosen = coefficient.detach()
        return self.beside(observation, coefficient), log_prob


@dataclass(frozen=True)
class FamO2OConfig(Family, IQLConfig):
    """The authors' setting, with their class's range of coefficients; the preset antmaze is that of their experiments."""

    normalise_states: bool = False
    """Observations as they are, as in the authors' code."""
    values_in_use: ValuesInUse = "after"
    """V in the critics' target and in the advantage: from after its step."""
    anneal: bool | None = False
    """Constant step sizes."""
    log_std: tuple[float, float] = (-5.0, 2.0)
    """Limits of the universal model's log standard deviation."""
    target_entropy: float = -0.5
    """Entropy that the balance model's temperature holds, nats, of the number in (-1, 1)."""
    initial_temperature: float = 1.0
    """Where tau starts."""
    temperature_learning_rate: float = 3e-4
    """Adam step size of tau."""
    released_broadcast: bool = False
    """Weight every row by the batch's mean over coefficients, as the authors' code does."""


class FamO2O(IQL):
    """See the module docstring."""

    Config: ClassVar[type[OffPolicyConfig]] = FamO2OConfig
    config: FamO2OConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "antmaze": {"expectile": 0.9, "coefficient_low": 8.0, "coefficient_high": 14.0, "reward_shift": -1.0}
    }

    @classmethod
    def derived(cls, config: OffPolicyConfig) -> dict[str, int | str]:
        """IQL's numbers and the range."""
        assert isinstance(config, FamO2OConfig)
        return super().derived(config) | check_family(config)

    def build(self) -> None:
        """IQL's networks, the balance model and its temperature."""
        super().build()
        self.members = Members(self, self.config)
        self.tau = Temperature(self.config.initial_temperature)
        self.thermostat = Trained(self.tau, self.config.temperature_learning_rate)

    def build_policy(self, seen: int, acted: int, draw: torch.Generator) -> TanhMeanActor:
        """The universal model."""
        return super().build_policy(seen + self.config.encoding_size, acted, draw)

    def parts(self) -> dict[str, Any]:
        """Everything that learns."""
        return super().parts() | {"balance": self.members.trained, "balance_temperature": self.thermostat}

    def distribution(self, observation: Tensor) -> Gaussian:
        """Of observations alone, the member that the balance model picks; of those with a coefficient beside them, that member."""
        alone = observation.shape[-1] == self.members.seen
        return super().distribution(self.members.picked(observation) if alone else observation)

    def gradient_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """IQL's, every row with a coefficient of its own."""
        self.members.drawn = self.members.draw(rows.observation)
        seen = rows.clone(recurse=False)
        seen.observation = self.members.beside(rows.observation, self.members.drawn)
        return super().gradient_step(seen)

    def value_step(self, rows: Transitions, best: Tensor) -> dict[str, Tensor | float]:
        """V, and after it the balance model: both before anything else moves."""
        return super().value_step(rows, best) | self.balance_step(rows)

    def balance_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """One step of the balance model through universal model and slow critics, and of its temperature."""
        seen, log_prob = self.members.choose(rows.observation)
        policy = self.distribution(seen)
        noise = torch.randn(policy.mean.shape, generator=self.streams["updates"])
        action = torch.addcmul(policy.mean, policy.log_std.exp(), noise)
        q = least(self.targets.network(rows.observation, action, frozen=True))
        tau = self.tau.value
        loss = soft_actor_loss(q, log_prob, tau)
        self.members.trained.descend(loss)
        self.thermostat.descend(temperature_loss(self.tau.log, log_prob, self.config.target_entropy))
        spread = self.members.chosen
        return {
            "balance_loss": loss.detach(),
            "coefficient": spread.mean(),
            "coefficient_deviation": spread.std(unbiased=False),
            "balance_temperature": tau,
        }

    def action_weight(self, rows: Transitions, advantage: Tensor) -> Tensor:
        """By every row's own coefficient, ``[B]``."""
        return family_weight(advantage, self.members.drawn, self.config.weight_cap, broadcast=self.config.released_broadcast)


def family_weight(advantage: Tensor, coefficient: Tensor, cap: float = 100.0, *, broadcast: bool = False) -> Tensor:
    """``min(exp(beta A), cap)`` per row, a constant.

    Args:
        advantage: ``[B]``.
        coefficient: ``[B]``.
        cap: largest weight.
        broadcast: row j takes the mean over i of ``min(exp(beta_i A_j), cap)``: the authors' code.

    Returns:
        ``[B]``.
    """
    if not broadcast:
        return exponential_weight(advantage, coefficient, cap)
    pairs = (len(coefficient), len(advantage))
    return exponential_weight(advantage.expand(pairs), coefficient.unsqueeze(-1).expand(pairs), cap).mean(0)


@dataclass(frozen=True)
class FamO2OCQLConfig(Family, CQLConfig):
    """The authors' locomotion setting over cql."""

    coefficient_low: float = 0.5
    """Smallest balance coefficient."""
    coefficient_high: float = 1.5
    """Largest balance coefficient."""
    conservative_weight: float = 1.0
    """Weight of the gap in the critics' loss."""
    released_map: bool = False
    """Map (-1, 1) onto (2 low - high, high), as the authors' code does: Q can then count negatively."""
    next_coefficient: Literal["own", "current"] = "own"
    """The next state has a coefficient of its own, or (the authors' code) that of the present one."""


class FamO2OCQL(CQL):
    """See the module docstring."""

    Config: ClassVar[type[OffPolicyConfig]] = FamO2OCQLConfig
    config: FamO2OCQLConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    @classmethod
    def derived(cls, config: OffPolicyConfig) -> dict[str, int | str]:
        """CQL's numbers and the range."""
        assert isinstance(config, FamO2OCQLConfig)
        return super().derived(config) | check_family(config)

    def build(self) -> None:
        """CQL's networks and the balance model."""
        super().build()
        self.members = Members(self, self.config, released_map=self.config.released_map)

    def build_actor(self) -> SquashedActor:
        """The universal model."""
        seen, acted = self.sizes
        return SquashedActor(seen + self.config.encoding_size, acted, hidden=self.config.hidden, generator=self.streams["networks"])

    def parts(self) -> dict[str, Any]:
        """Everything that learns."""
        return super().parts() | {"balance": self.members.trained}

    def distribution(self, observation: Tensor) -> SquashedGaussian:
        """Of observations alone, the member that the balance model picks; of those with a coefficient beside them, that member."""
        alone = observation.shape[-1] == self.members.seen
        return super().distribution(self.members.picked(observation) if alone else observation)

    def gradient_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """CQL's, every row with a coefficient of its own, and then the balance model's."""
        members = self.members
        members.drawn = members.draw(rows.observation)
        later = members.drawn if self.config.next_coefficient == "current" else members.draw(rows.next_observation)
        seen = rows.clone(recurse=False)
        seen.observation = members.beside(rows.observation, members.drawn)
        seen.next_observation = members.beside(rows.next_observation, later)
        return super().gradient_step(seen) | self.balance_step(rows)

    def judge(self, rows: Transitions, action: Tensor) -> Tensor:
        """The critics' word times the coefficient, ``[B]``."""
        q = super().judge(rows, action)
        return q if self.updates < self.config.imitation_steps else self.members.drawn * q

    def balance_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """One step of the balance model up the critics, through the universal model."""
        seen, _ = self.members.choose(rows.observation)
        action, _ = self.draw_soft(seen)
        loss = deterministic_actor_loss(least(self.critics.network(rows.observation, action, frozen=True)))
        self.members.trained.descend(loss)
        spread = self.members.chosen
        return {"balance_loss": loss.detach(), "coefficient": spread.mean(), "coefficient_deviation": spread.std(unbiased=False)}
