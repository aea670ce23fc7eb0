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

from rheostat.buffers.control_retainers import DataRewards, DataSet, ReplayAndData, States
from rheostat.collect.control.control_collectors import StepByStep
from rheostat.learner.actor_critic_updates import Critics, Entropy, squashed_actor, tanh_mean_actor
from rheostat.learner.conservative_critics import Penalty, conservative_composition, conservative_models, conservative_step
from rheostat.learner.control_models import TrainableNetwork
from rheostat.learner.dial import Dial
from rheostat.learner.implicit import Cosine, ImplicitCritics, imitation_of
from rheostat.learner.off_policy import AsRead, Logging, PerStep, Rhythm, UsesData, data_first
from rheostat.learner.policy_family import (
    NOT_ASKED,
    BalanceTemperature,
    Coefficients,
    Family,
    ImplicitBalanceStep,
    SoftBalanceStep,
    UniversalPolicy,
    WeightedQ,
)
from rheostat.learner.stages import Staged
from rheostat.objectives.action_weights import FamilyWeights
from rheostat.options import option
from rheostat.policies.control.actors import Temperature


@dataclass(frozen=True)
class FamO2O:
    """The authors' setting, with their class's range of coefficients; the preset antmaze is that of their experiments."""

    collect: StepByStep = StepByStep()
    replay: ReplayAndData = ReplayAndData()
    rewards: DataRewards = DataRewards()
    states: States = States()
    batches: Rhythm = Rhythm()
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    learning_rate: float = option(3e-4, at_least=0)
    """Adam step size of the universal policy."""
    schedule: Cosine = Cosine(False)
    hidden: tuple[int, ...] = option((256, 256), at_least=1)
    """Hidden layers of actor, critics and balance model."""
    log_std: tuple[float, float] = option((-5.0, 2.0))
    """Limits of the universal policy's log standard deviation."""
    critics: ImplicitCritics = ImplicitCritics(values_in_use="after")
    weights: FamilyWeights = FamilyWeights()
    family: Family = Family()
    heat: BalanceTemperature = BalanceTemperature()
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    uses_data: ClassVar[UsesData] = "first"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "antmaze": {"expectile": 0.9, "coefficient_low": 8.0, "coefficient_high": 14.0, "reward_shift": -1.0}
    }

    def compose(self) -> Staged:
        """IQL's answers, with a coefficient for every row and a model that picks it once the policy acts."""
        family = self.family
        build = tanh_mean_actor(self.hidden, self.log_std, family.encoding_size)
        models: dict[str, Any] = {"policy": UniversalPolicy(build, self.learning_rate, family)}
        models |= self.critics.models(self.hidden, self.learning_rate)
        models["balance"] = family.model(self.hidden)
        models["balance temperature"] = TrainableNetwork(lambda context: Temperature(self.heat.initial), self.heat.learning_rate)
        imitation = imitation_of(self, self.weights, self.weights.cap)
        balance = ImplicitBalanceStep(family, self.heat.target_entropy)

        def step(picked: bool) -> PerStep:
            return self.critics.step(self.batches.size, imitation, before=[Coefficients(family, picked)], between=[balance])

        return data_first(
            self.collect,
            self.replay.with_discount(self.gamma),
            self.batches.draw(self.replay.share),
            step(False),
            models,
            stores=[DataSet(), self.rewards, self.states],
            read=AsRead(beside=True),
            log=self.log,
            online=step(family.balance == "model"),
        )


@dataclass(frozen=True)
class FamO2OCQL:
    """The authors' locomotion setting over cql."""

    collect: StepByStep = StepByStep()
    replay: ReplayAndData = ReplayAndData()
    rewards: DataRewards = DataRewards()
    states: States = States()
    batches: Rhythm = Rhythm()
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    tau: float = option(0.005, share=True)
    """Share of the new critics in the target critics after each gradient step."""
    learning_rate: float = option(3e-5, at_least=0)
    """Adam step size of the universal policy and of the temperature."""
    hidden: tuple[int, ...] = option((256, 256, 256), at_least=1)
    """Hidden layers of actor, critics and balance model."""
    critics: Critics = Critics(learning_rate=3e-4)
    penalty: Penalty = Penalty(1.0)
    entropy: Entropy = Entropy(form="log")
    entropy_in_backup: bool = option(False)
    """The entropy of later actions counts in the critics' target."""
    best_next_action: bool = option(False)
    """The target takes the best of ``penalty_actions`` actions at s' instead of one (AntMaze)."""
    imitation_steps: int = option(0, at_least=0)
    """First gradient steps, in which the policy imitates the data instead of asking the critics."""
    simultaneous: bool = option(False)
    """The policy is judged by the critics from before their step (CORL), not from after it."""
    family: Family = Family(0.5, 1.5)
    released_map: bool = option(False)
    """Map (-1, 1) onto (2 low - high, high), as the authors' code does: Q can then count negatively."""
    next_coefficient: Literal["own", "current"] = option("own")
    """The next state has a coefficient of its own, or (the authors' code) that of the present one."""
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    uses_data: ClassVar[UsesData] = "first"
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {"released_map": NOT_ASKED} if self.family.balance == "random" else {}

    def compose(self) -> Staged:
        """CQL's answers, with a coefficient for every row and a model that picks it once the policy acts."""
        family = self.family
        policy = UniversalPolicy(squashed_actor(self.hidden, family.encoding_size), self.learning_rate, family)
        models = {"policy": policy} | conservative_models(self) | {"balance": family.model(self.hidden, released_map=self.released_map)}

        def step(penalty: Penalty, picked: bool) -> PerStep:
            draw = Coefficients(family, picked, self.next_coefficient)
            return conservative_step(self, penalty, q_value=WeightedQ(), before=(draw,), after=(SoftBalanceStep(family),))

        online = step(self.penalty.online, family.balance == "model")
        return conservative_composition(self, models, step(self.penalty, False), online, AsRead(beside=True))
