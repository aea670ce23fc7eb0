"""CQL: conservative Q-learning, SAC whose critics are pushed down where the data have nothing to say.

Paper: Kumar et al. 2020, arXiv 2006.04779, CQL(H).

Equations (beyond sac; a_i: n actions each from uniform, pi(s) and pi(s'), all judged at s; mu: the density that drew each)
    gap_k       = log mean_i exp(Q_k(s, a_i) - log mu(a_i)) - Q_k(s, a)
    critics     = sum_k [mean (Q_k(s, a) - y)^2 + weight mean gap_k],         y without the entropy of later actions
    with a gap_threshold, weight becomes multiplier * weight * (mean gap_k - gap_threshold), and the multiplier climbs the same term

WHO ACTS   nobody, then the policy of sac.
KEPT       one buffer that begins with the data set, uniformly; or a fixed share of either (``offline_share``).
WORTH      sac's target, learned by critics that stay below it outside the data.
MOVES      sac's step, with a slower policy.

Codes differ. CORL (preset) has weight 10, the sum over i instead of the mean (``sum_over_actions``; larger by log 3n, which counts with
a threshold or limits only), standardised states, and judges the policy by the critics from before their step (``simultaneous``). Its
warm-up by imitation (``imitation_steps``) never reads the data's action; this one does, as the authors' does. CORL's policy has two more
learned numbers, a factor and an offset of the log standard deviation; this one does not.
Checked against: CORL (``tests/vectors``: baselines-control, cases cql_critic_importance and cql_critic_plain).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.buffers.control_retainers import NEVER_ACTS, DataRewards, DataSet, ReplayAndData, States
from rheostat.collect.control.collectors import StepByStep
from rheostat.credit.td_annotations import SoftTarget
from rheostat.errors import RheostatError
from rheostat.learner.actor_critic import Critics, Entropy, Found, QValue, SoftActorStep, rank, smallest_q, squashed_actor
from rheostat.learner.control_models import Trainable
from rheostat.learner.dial import Dial
from rheostat.learner.off_policy import AsRead, Logging, PerStep, Rhythm, UsesData, data_first
from rheostat.learner.stages import Staged
from rheostat.objectives.conservative import (
    conservative_gap,
    conservative_penalty,
    lagrange_multiplier,
    multiplier_loss,
    uniform_log_density,
)
from rheostat.objectives.temporal_difference import OverCritics, critic_loss, td_target
from rheostat.options import option, value_or
from rheostat.parts import Batch
from rheostat.policies.control.actors import Temperature
from rheostat.trajectories import Transitions

SampledForm = Literal["importance", "plain"]


@dataclass(frozen=True)
class Penalty:
    """What pushes the critics down where the data have nothing to say."""

    weight: float = option(5.0, short="conservative_weight", at_least=0)
    """Weight of the gap in the critics' loss."""
    weight_online: float | None = option(None, short="conservative_weight_online", at_least=0)
    """The same once the policy acts; None keeps it."""
    actions: int = option(10, short="penalty_actions", at_least=1)
    """Actions from each of the three sources (n)."""
    form: SampledForm = option("importance", short="gap_form")
    """Actions count by the density that drew them, or (plain) all alike and the data's action with them."""
    temperature: float = option(1.0, short="gap_temperature", above=0)
    """t of ``t log mean exp(Q / t)``."""
    sum_over_actions: bool = option(False)
    """Sum instead of mean over actions in the importance form (the codes)."""
    smallest_gap: float | None = option(None)
    """Gaps of rows below this count as this, and no longer pull; None for no limit."""
    largest_gap: float | None = option(None)
    """The same from above."""
    threshold: float | None = option(None, short="gap_threshold")
    """Largest wanted mean gap, held by a learned multiplier; None keeps the weight fixed."""
    initial_multiplier: float = option(1.0, above=0)
    """Where the multiplier starts (CORL: e)."""

    def __post_init__(self) -> None:
        low, high = self.smallest_gap, self.largest_gap
        if low is not None and high is not None and not low < high:
            raise RheostatError(f"smallest_gap is {low} and largest_gap {high}: the first must be below the second.")
        if self.sum_over_actions and self.form != "importance":
            raise RheostatError("sum_over_actions belongs to gap_form importance; the plain form sums already.")
        if self.threshold is None and self.initial_multiplier != 1.0:
            raise RheostatError("initial_multiplier is where a learned multiplier starts: set gap_threshold too.")

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if self.weight or self.weight_online:
            return {}
        return {"threshold": "conservative_weight is 0, and so is whatever a multiplier makes of it; raise it, or leave it alone"}

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        return {"weight_online": NEVER_ACTS} if context.never_acts else {}

    @property
    def online(self) -> Penalty:
        """Once the policy acts."""
        return self if self.weight_online is None else replace(self, weight=self.weight_online)

    def gap(self, q: Tensor, others: Tensor, log_density: Tensor) -> Tensor:
        """By critic and row, ``[K, B]``, from values of the data's actions ``[K, B]`` and of others ``[K, B, 3n]``."""
        return conservative_gap(
            q,
            others,
            log_density if self.form == "importance" else None,
            form=self.form,
            temperature=self.temperature,
            average=not self.sum_over_actions,
        )

    def loss(self, context: Any, gap: Tensor, rows: Transitions, over: OverCritics) -> Tensor:
        """Weight times gap, a scalar; moves the multiplier where there is one."""
        if self.smallest_gap is not None or self.largest_gap is not None:
            gap = gap.clamp(self.smallest_gap, self.largest_gap)
        if self.threshold is None:
            return conservative_penalty(gap, alpha=self.weight, critics=over, weight=rows.weight)
        model = context.models["multiplier"]
        log = model.network.log
        penalty = conservative_penalty(
            gap, alpha=self.weight, multiplier=lagrange_multiplier(log), threshold=self.threshold, critics=over, weight=rows.weight
        )
        model.descend(multiplier_loss(log, gap, threshold=self.threshold, alpha=self.weight, weight=rows.weight))
        context.finish_update("multiplier")
        return penalty


def propose(context: Any, observation: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Actions of the policy ``[B, count, d]`` and their log-densities ``[B, count]``, nats."""
    policy = context.models["policy"].network.distribution(observation)
    noise = torch.randn((count, *policy.mean.shape), generator=context.streams["updates"])
    action, log_density = policy.draw(noise)
    return action.transpose(0, 1), log_density.transpose(0, 1)


@dataclass(frozen=True)
class BestNextTarget:
    """``y`` of the best of several next actions of the policy, and alpha as it is now."""

    entropy_in_backup: bool = False
    actions: int = 10
    models: ClassVar[tuple[str, ...]] = ("policy", "target critics", "temperature")
    writes: ClassVar[tuple[str, ...]] = ("target", "alpha")

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows, alpha = batch.rows, context.models["temperature"].network.value
        action, log_density = propose(context, rows.next_observation, self.actions)
        value = context.models["target critics"].network.of_many(rows.next_observation, action).amin(0)
        value, best = value.max(-1)
        if self.entropy_in_backup:
            value = value - alpha * log_density.gather(-1, best.unsqueeze(-1)).squeeze(-1)
        batch.columns["target"] = td_target(rows.reward, value, rows.discount)
        batch.facts["alpha"] = alpha
        return batch


@dataclass(frozen=True)
class OtherActions:
    """Actions that are not the data's: columns ``other actions`` ``[B, 3n, d]`` of uniform, pi(s), pi(s'), and their ``log density``
    ``[B, 3n]``, nats."""

    actions: int = 10
    models: ClassVar[tuple[str, ...]] = ("policy",)
    writes: ClassVar[tuple[str, ...]] = ("other actions", "log density")

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows = batch.rows
        here, here_density = propose(context, rows.observation, self.actions)
        there, there_density = propose(context, rows.next_observation, self.actions)
        anywhere = 2 * torch.rand(here.shape, generator=context.streams["updates"]) - 1
        bound = torch.ones(here.shape[-1])
        uniform = uniform_log_density(-bound, bound).expand_as(here_density)
        batch.columns["other actions"] = torch.cat([anywhere, here, there], 1)
        batch.columns["log density"] = torch.cat([uniform, here_density, there_density], 1)
        return batch


@dataclass(frozen=True)
class ConservativeCriticStep:
    """All critics, and the multiplier; the critics take the multiplier from before its step."""

    penalty: Penalty
    over: OverCritics = "sum"
    scale: float = 1.0
    networks: int = 2
    """Critics."""
    models: ClassVar[tuple[str, ...]] = ("critics", "multiplier")
    reads: ClassVar[tuple[str, ...]] = ("target", "other actions", "log density")

    def describe(self) -> dict[str, int | str]:
        """The size of the penalty."""
        return {"critic evaluations per row": self.networks * (1 + 3 * self.penalty.actions)}

    def step(self, context: Any, batch: Batch) -> Found:
        """One step."""
        rows, model, target = batch.rows, context.models["critics"], batch.columns["target"]
        q = model.network(rows.observation, rows.action)
        others = model.network.of_many(rows.observation, batch.columns["other actions"])
        gap = self.penalty.gap(q, others, batch.columns["log density"])
        error = critic_loss(q, target, critics=self.over, scale=self.scale, weight=rows.weight)
        penalty = self.penalty.loss(context, gap, rows, self.over)
        model.descend(error + penalty)
        rank(context, rows, q, target)
        context.finish_update("critics")
        return {
            "critic_loss": error.detach(),
            "penalty_loss": penalty.detach(),
            "gap": gap.detach().mean(),
            "multiplier": context.models["multiplier"].network.value,
            "q": q.detach().mean(),
            "target": target.mean(),
        }


@dataclass(frozen=True)
class ImitationFirst:
    """The likelihood of the data's action in the first gradient steps, then the critics' value."""

    steps: int
    then: QValue = smallest_q

    @property
    def reads(self) -> tuple[str, ...]:
        """What must have been written."""
        return tuple(getattr(self.then, "reads", ()))

    def __call__(self, context: Any, batch: Batch, action: Tensor) -> Tensor:
        """``[B]``."""
        if context.updates >= self.steps:
            return self.then(context, batch, action)
        found: Tensor = context.models["policy"].network.distribution(batch.rows.observation).log_prob(batch.rows.action)
        return found


@dataclass(frozen=True)
class CQL:
    """The paper's setting for locomotion, with a fixed weight."""

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
    """Adam step size of the policy and of the temperature."""
    hidden: tuple[int, ...] = option((256, 256, 256), at_least=1)
    """Hidden layers of actor and critics."""
    critics: Critics = Critics(learning_rate=3e-4)
    penalty: Penalty = Penalty()
    entropy: Entropy = Entropy(form="log")
    entropy_in_backup: bool = option(False)
    """The entropy of later actions counts in the critics' target."""
    best_next_action: bool = option(False)
    """The target takes the best of ``penalty_actions`` actions at s' instead of one (AntMaze)."""
    imitation_steps: int = option(0, at_least=0)
    """First gradient steps, in which the policy imitates the data instead of asking the critics."""
    simultaneous: bool = option(False)
    """The policy is judged by the critics from before their step (CORL), not from after it."""
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    uses_data: ClassVar[UsesData] = "first"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "corl": {"conservative_weight": 10.0, "sum_over_actions": True, "normalise_states": True, "simultaneous": True},
        "corl-antmaze": {
            "learning_rate": 1e-4,
            "conservative_weight": 5.0,
            "sum_over_actions": True,
            "simultaneous": True,
            "gap_threshold": 0.8,
            "smallest_gap": -200.0,
            "initial_multiplier": 2.718281828459045,
            "best_next_action": True,
            "reward_scale": 10.0,
            "reward_shift": -5.0,
            "hidden": (256,) * 5,
        },
    }

    def compose(self) -> Staged:
        """SAC's answers on a data set first, with critics that stay below it."""
        policy = Trainable(squashed_actor(self.hidden), self.learning_rate)
        step, online = (gradient_step(self, penalty) for penalty in (self.penalty, self.penalty.online))
        return composition_of(self, {"policy": policy} | models_of(self), step, online)


def models_of(method: Any) -> dict[str, Any]:
    """Models beside the policy of a method of this family, by name."""
    found = method.critics.models(method.hidden, method.learning_rate, method.tau)
    found["temperature"] = method.entropy.model(method.learning_rate)
    rate = value_or(method.critics.learning_rate, method.learning_rate)
    found["multiplier"] = Trainable(lambda context: Temperature(method.penalty.initial_multiplier), rate)
    return dict(found)


def gradient_step(
    method: Any, penalty: Penalty, *, q_value: QValue = smallest_q, before: tuple[Any, ...] = (), after: tuple[Any, ...] = ()
) -> PerStep:
    """Critics and policy, each from what the other was before this step, or the policy from the new critics.

    Args:
        method: its parts.
        penalty: of the stage.
        q_value: by which the policy is judged once it no longer imitates.
        before: annotations before all others.
        after: updates after all others.
    """
    target: SoftTarget | BestNextTarget = SoftTarget(method.entropy_in_backup)
    if method.best_next_action:
        target = BestNextTarget(method.entropy_in_backup, penalty.actions)
    critics = [ConservativeCriticStep(penalty, method.critics.over, method.critics.scale, method.critics.number)]
    actor = [SoftActorStep(ImitationFirst(method.imitation_steps, q_value)), *method.entropy.steps]
    updates = [*actor, *critics] if method.simultaneous else [*critics, *actor]
    return PerStep(method.batches.size, [*before, target, OtherActions(penalty.actions)], [*updates, *after])


def composition_of(method: Any, models: dict[str, Any], step: PerStep, online: PerStep) -> Staged:
    """The stages of a method of this family.

    Args:
        method: its parts.
        models: by name.
        step: a gradient step on the data set.
        online: one once the policy acts.
    """
    return data_first(
        method.collect,
        method.replay.with_discount(method.gamma),
        method.batches.draw(method.replay.share),
        step,
        models,
        stores=[DataSet(), method.rewards, method.states],
        read=AsRead(),
        log=method.log,
        online=online,
    )
