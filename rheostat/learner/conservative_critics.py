"""Critics that are pushed down where the data have nothing to say: options, their gradient step, and the way from a data set to acting.

:mod:`rheostat.methods.control.cql` has the equations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import Tensor

from rheostat.buffers.control_retainers import NEVER_ACTS, DataSet
from rheostat.credit.td_annotations import BestNextTarget, OtherActions, SoftTarget
from rheostat.errors import RheostatError
from rheostat.learner.actor_critic_updates import Found, QValue, SoftActorStep, rank, smallest_q
from rheostat.learner.control_models import TrainableNetwork
from rheostat.learner.off_policy import AsRead, PerStep, data_first
from rheostat.learner.stages import Staged
from rheostat.objectives.conservative import conservative_gap, conservative_penalty, lagrange_multiplier, multiplier_loss
from rheostat.objectives.temporal_difference import OverCritics, critic_loss
from rheostat.options import option, value_or
from rheostat.parts import Batch
from rheostat.policies.control.actors import Temperature
from rheostat.policies.control.discrete_q import scores_of
from rheostat.trajectories import Transitions

ALL_CHOICES = "discrete actions are all summed, and none is drawn, so leave it at its default"
"""Why an option of drawn actions cannot act."""
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
        found = {"weight_online": NEVER_ACTS} if context.never_acts else {}
        return found if context.continuous else found | dict.fromkeys(("actions", "form", "sum_over_actions"), ALL_CHOICES)

    @property
    def held(self) -> bool:
        """Whether a learned multiplier holds the mean gap at the threshold."""
        return self.threshold is not None

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

    def exact_gap(self, q: Tensor, everything: Tensor) -> Tensor:
        """The same from values of the data's choices ``[K, B]`` and of all of them ``[K, B, A]``."""
        return conservative_gap(q, everything, form="exact", temperature=self.temperature)

    def loss(self, context: Any, gap: Tensor, rows: Transitions, over: OverCritics) -> Tensor:
        """Weight times gap; moves the multiplier where there is one.

        Args:
            context: of the learner.
            gap: ``[K, B]`` of :meth:`gap` or :meth:`exact_gap`; carries the gradient.
            rows: ``[B]``, whose ``weight`` weighs the gap.
            over: sum over critics, or their mean, as in the critics' loss.

        Returns:
            A scalar that carries the gradient of the critics alone.
        """
        if self.smallest_gap is not None or self.largest_gap is not None:
            gap = gap.clamp(self.smallest_gap, self.largest_gap)
        if self.threshold is None:
            return conservative_penalty(gap, alpha=self.weight, critics=over, weight=rows.weight)
        model = context.models["multiplier"]
        log = model.network.log
        penalty = conservative_penalty(
            gap, alpha=self.weight, multiplier=lagrange_multiplier(log), threshold=self.threshold, critics=over, weight=rows.weight
        )
        model.step(multiplier_loss(log, gap, threshold=self.threshold, alpha=self.weight, weight=rows.weight))
        context.finish_update("multiplier")
        return penalty


@dataclass(frozen=True)
class ConservativeCriticStep:
    """All critics, and the multiplier; the critics take the multiplier from before its step."""

    reads: ClassVar[tuple[str, ...]] = ("target", "other actions", "log density")
    penalty: Penalty
    over: OverCritics = "sum"
    scale: float = 1.0
    networks: int = 2
    """K, critics of the ensemble."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that move."""
        return ("critics", "multiplier") if self.penalty.held else ("critics",)

    def describe(self) -> dict[str, int | str]:
        """The size of the penalty."""
        return {"critic evaluations per row of continuous actions": self.networks * (1 + 3 * self.penalty.actions)}

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of all critics on rows ``[B]``, and one of the multiplier where a threshold holds the gap.

        Returns:
            ``critic_loss`` (squared errors alone), ``penalty_loss``, the mean ``gap`` in units of value, the ``multiplier`` after its step
            (1 where there is none), and the means ``q`` and ``target``.

        Raises:
            NonFinite: an error is not finite where the replay ranks rows by it.
        """
        rows, model, target = batch.rows, context.models["critics"], batch.columns["target"]
        if context.continuous:
            q = model.network(rows.observation, rows.action)
            others = model.network.of_many(rows.observation, batch.columns["other actions"])
            gap = self.penalty.gap(q, others, batch.columns["log density"])
        else:
            values = model.network.of_all(rows.observation)
            q = scores_of(values, rows.action.expand(len(values), -1))
            gap = self.penalty.exact_gap(q, values)
        error = critic_loss(q, target, critics=self.over, scale=self.scale, weight=rows.weight)
        penalty = self.penalty.loss(context, gap, rows, self.over)
        model.step(error + penalty)
        rank(context, rows, q, target)
        context.finish_update("critics")
        return {
            "critic_loss": error.detach(),
            "penalty_loss": penalty.detach(),
            "gap": gap.detach().mean(),
            "multiplier": context.models["multiplier"].network.value if self.penalty.held else 1.0,
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
        """Columns that it reads."""
        return tuple(getattr(self.then, "reads", ()))

    def __call__(self, context: Any, batch: Batch, action: Tensor) -> Tensor:
        """What the policy climbs, ``[B]``: log-likelihoods of the data's actions (nats), or values of ``action`` ``[B, D]``."""
        if context.updates >= self.steps:
            return self.then(context, batch, action)
        found: Tensor = context.models["policy"].network.distribution(batch.rows.observation).log_prob(batch.rows.action)
        return found


def conservative_models(method: Any) -> dict[str, Any]:
    """Models beside the policy of a method of this family, by name; a multiplier where there is a threshold.

    Args:
        method: its parts (``critics``, ``entropy``, ``penalty``, ``hidden``, ``learning_rate``, ``tau``).
    """
    found: dict[str, Any] = method.critics.models(method.hidden, method.learning_rate, method.tau)
    found["temperature"] = method.entropy.model(method.learning_rate)
    if method.penalty.held:
        rate = value_or(method.critics.learning_rate, method.learning_rate)
        found["multiplier"] = TrainableNetwork(lambda context: Temperature(method.penalty.initial_multiplier), rate)
    return found


def conservative_step(
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


def conservative_composition(method: Any, models: dict[str, Any], step: PerStep, online: PerStep, read: AsRead) -> Staged:
    """The stages of a method of this family.

    Args:
        method: its parts.
        models: by name.
        step: a gradient step on the data set.
        online: one once the policy acts.
        read: how rows are read.
    """
    return data_first(
        method.collect,
        method.replay.with_discount(method.gamma),
        method.batches.draw(method.replay.share),
        step,
        models,
        stores=[DataSet(), method.rewards, method.states],
        read=read,
        log=method.log,
        online=online,
    )
