"""PPO's update, once for every method that has it: passes of minibatch steps on a clipped surrogate.

Where policy and critic are one model (:class:`~rheostat.learner.control_models.PolicyNetwork`), derivatives are by hand: the objective
defines the loss, its ``derivatives`` must be the derivatives of that loss, and the network's backward pass is a fast one. Where they are
two models, each with an optimiser of its own (Uni-O4), autograd differentiates the same objective.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.learner.control_models import CONVOLUTIONS, OWN_NETWORK
from rheostat.masking import standardise, standardise_pieces
from rheostat.objectives.control_terms import ClippedSurrogate, MinibatchTargets
from rheostat.objectives.meter import off_policyness
from rheostat.options import option
from rheostat.parts import Batch, Metrics
from rheostat.policies.control.actor_critic import ActorCritic, evaluate
from rheostat.policies.control.neural_sampling_error import neural_sampling_error
from rheostat.policies.flops import FORWARD, TRAIN
from rheostat.policies.optimizers import moments_on_the_meter
from rheostat.streams import derive_seed
from rheostat.trajectories import Source, Transitions

BATCH_EPSILON = 1e-5
"""Added to the deviation of the advantages of a whole batch (Uni-O4)."""


class Minibatch(NamedTuple):
    """Rows of a gradient step."""

    observation: Any
    """``[N, ...]``, as the networks read them; sequences, for those that remember."""
    action: Tensor
    targets: MinibatchTargets
    places: Tensor
    """int64 ``[N]``, where they are in the batch."""


class Step(NamedTuple):
    """One gradient step: the policy's outputs on a minibatch before the step."""

    log_prob: Tensor
    value: Tensor
    targets: MinibatchTargets
    gradient_norm: float = 0.0


@dataclass(frozen=True)
class Network:
    """The reference network: separate actor and critic, or convolutions that both read."""

    hidden: tuple[int, ...] = option((64, 64), at_least=1)
    """Hidden layers of actor and critic."""
    activation: Literal["tanh", "relu"] = option("tanh")
    """Activation of the hidden layers."""
    tanh_mean: bool = option(False)
    """Squash the Gaussian mean (what the code of PROPS v1 does)."""

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        if "policy" in context.networks:
            return dict.fromkeys(("hidden", "activation", "tanh_mean"), OWN_NETWORK)
        found = dict.fromkeys(("hidden", "activation"), CONVOLUTIONS) if context.images else {}
        return found if context.continuous else found | {"tanh_mean": "choices have no mean, so leave it alone"}

    def __call__(self, context: Any) -> ActorCritic:
        """Build the untrained network for the spaces of the environments."""
        return ActorCritic(
            context.observation_space,
            context.action_space,
            hidden=self.hidden,
            activation=self.activation,
            tanh_mean=self.tanh_mean,
            seed=derive_seed(context.streams.seed, "network"),
        )


@dataclass(frozen=True)
class KLStop:
    """When an update is stopped."""

    target: float | None = option(None, short="target_kl")
    """Stop the update when the k3 estimate of KL(start || policy) exceeds this; None never stops."""
    when: Literal["before-step", "after-epoch"] = option("after-epoch", short="kl_stop")
    """When target_kl is checked: before the step on every minibatch (PROPS), or after each pass (CleanRL)."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        why = "nothing stops an update without target_kl, so set that too, or leave it alone"
        return {"when": why} if self.target is None else {}


@dataclass(frozen=True)
class SamplingErrorMeter:
    """Measures the neural sampling error before the update, because the data are meant for the policy of that time."""

    every: int = option(0, short="sampling_error_every", at_least=0)
    """Updates between measurements of the neural sampling error; 0 never measures it."""

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """The number, where it is due; NaN for a network that cannot be split into body and head."""
        if not self.every or (context.updates + 1) % self.every:
            return {}
        policy, rows = context.models["policy"].policy, batch.rows.transitions()
        if not isinstance(policy, ActorCritic):
            return {"meter/sampling_error": float("nan")}
        generator = context.streams["sampling error"]
        return {"meter/sampling_error": neural_sampling_error(policy, context.see(rows.observation), rows.action, generator=generator)}


@dataclass(frozen=True)
class FastPPO:
    """Passes of minibatch steps on everything kept."""

    epochs: int = option(10, at_least=1)
    """Passes over the kept data per update."""
    minibatches: int = option(32, at_least=1)
    """Minibatches per pass."""
    learning_rate: float = option(3e-4, at_least=0)
    """Step size of the optimiser (Adam; RMSprop in a2c)."""
    anneal: bool = option(True)
    """Decay the learning rate linearly to 0 over the budget (detail 4)."""
    entropy_coefficient: float = option(0.0)
    """Weight of the entropy bonus (c_H)."""
    value_coefficient: float = option(0.5)
    """Weight of the value loss (c_V)."""
    max_grad_norm: float = option(0.5, above=0)
    """Global gradient norm limit (detail 11)."""
    normalise_advantage: bool = option(True)
    """Standardise advantages per minibatch, unbiased deviation + 1e-8 (detail 7)."""
    objective: Any = None
    sampler: Any = None
    """A :class:`~rheostat.objectives.control_terms.SamplerWeight`; None corrects nothing."""
    stop: Any = None
    """A :class:`KLStop`; None never stops."""
    extra: Any = None
    """An additional loss: an object with ``add_gradient`` (PMOE)."""
    batch_steps: int = 0
    """Environment steps per update, for annealing; 0 takes the rows of the batch."""
    rows: int = 0
    """Rows of a full batch; 0 where that is unknown beforehand."""
    minibatch_size: int = 0
    """Rows per gradient step, in place of ``minibatches``."""
    critic: str | None = None
    """Name of the critic, where it is a model of its own."""
    critic_learning_rate: float = 0.0
    """Step size of that critic."""
    model: str = "policy"
    step_by_step: ClassVar[bool] = True
    """Whether a step is learned from apart from those before it."""

    def of(self, objective: Any, *, batch_steps: int, rows: int, **others: Any) -> FastPPO:
        """This update on an objective.

        Args:
            objective: see :mod:`rheostat.objectives.control_terms`.
            batch_steps: environment steps per update.
            rows: of a full batch.
            others: ``sampler``, ``stop``, ``extra``.
        """
        return replace(self, objective=objective, batch_steps=batch_steps, rows=rows, **others)

    def with_share(self, share: float) -> FastPPO:
        """The same with other rows, which are this share of the batch."""
        return replace(self, rows=round(self.rows / (1 - share)))

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if method.dial.updates_per_batch is None:
            return {}
        return dict.fromkeys(("epochs", "minibatches"), "dial.updates_per_batch says how many gradient steps there are, so use one of both")

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that it reads."""
        return ("learner_logp", "value", "advantage", "value_target")

    @property
    def corrects(self) -> bool:
        """Whether rows are weighted for what sampled them."""
        return self.sampler is not None and self.sampler.on

    @property
    def gradient_steps(self) -> int:
        """Most gradient steps on a batch."""
        return self.epochs * self.minibatches

    def check(self, composition: Any) -> None:
        """Refuse more minibatches than rows, and corrections that are made twice."""
        if self.rows and not self.minibatch_size and self.minibatches > self.rows:
            raise RheostatError(f"{self.minibatches} minibatches cannot be cut from {self.rows} rows: use at most {self.rows}.")
        to_sampler = isinstance(self.objective, ClippedSurrogate) and self.objective.ratio_to == "sampler"
        if to_sampler and self.corrects:
            raise RheostatError("ratio_to='sampler' and sampler_correction both correct for what sampled: use one, or it is done twice.")

    def bind(self, context: Any) -> None:
        """Take compiled passes where they are asked for and know every option in use."""

        def compiled() -> Any:
            from rheostat.learner.compiled_ppo import CompiledPasses  # needs the extra fast

            return CompiledPasses(self, context.models[self.model])

        context.compute.take(self, compiled)

    def describe(self) -> dict[str, int | str]:
        """Derived numbers."""
        if self.minibatch_size:
            return {"gradient steps per online update": self.epochs * -(-self.rows // self.minibatch_size)}
        return {
            "rows per update": self.rows,
            "rows per minibatch": -(-self.rows // self.minibatches),
            "gradient steps per update": self.gradient_steps,
        }

    # --- an update --------------------------------------------------------------------------------------------------------------------

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """Make all gradient steps; returns metrics."""
        model, rows = context.models[self.model], batch.rows.transitions()
        metrics = self.meter(context, rows)
        if self.anneal:
            self.slow_down(context, len(rows))
        if self.critic is not None:
            return metrics | self.improve_apart(context, rows)
        observation = self.read(context, batch)
        passes = context.compute.of(self, self.passes)
        steps, visited, found = passes(context, rows, observation)
        context.updates += 1
        context.finish_update(self.model)
        metrics |= found
        if steps:
            metrics |= moments_on_the_meter(model.optimizer)
        metrics["gradient_steps"] = steps
        metrics["learning_rate"] = model.learning_rate
        context.flops += TRAIN * model.weights * visited
        metrics["flops"] = context.flops + FORWARD * model.weights * context.collector.steps
        with torch.no_grad():
            metrics["entropy"] = model.network.distribution(observation).entropy().mean().item()
        metrics["explained_variance"] = explained_variance(rows.value, rows.value_target)
        return metrics

    def passes(self, context: Any, rows: Transitions, observation: Any) -> tuple[int, int, Metrics]:
        """Make all passes; returns gradient steps made, rows visited by them, and metrics as means over those."""
        steps: list[Step] = []
        reports: list[dict[str, float]] = []
        for _ in range(self.epochs):
            if self.one_pass(context, rows, observation, steps, reports):
                break
        return len(steps), sum(len(step.log_prob) for step in steps), self.report(steps) | means(reports)

    def read(self, context: Any, batch: Batch) -> Any:
        """Observations of a batch as the networks read them, in the order of its transitions."""
        return context.see(batch.rows.observation[batch.rows.mask], self.model)

    def meter(self, context: Any, rows: Transitions) -> Metrics:
        """Measure how far off-policy the rows are, by source."""
        age = torch.where(rows.source == int(Source.EXPERT), -1, context.updates - rows.version)
        sampler = rows.sampler_logp if context.bounds is None else rows.sampler_logp + context.bounds.log_volume
        source = rows.source if self.critic is None else None  # strictly fresh rows come from one source
        metrics = off_policyness(rows.learner_logp, sampler, age=age, source=source)
        if self.corrects:
            metrics["meter/capped_share"] = (self.sampler.weight(rows) >= self.sampler.cap).float().mean().item()
        return metrics

    def slow_down(self, context: Any, rows: int) -> None:
        """Set the step sizes of this update by the share of the budget that was left before its batch: all of it in the first."""
        begun = context.steps - context.offline_budget - (self.batch_steps or rows)
        left = max(0.0, 1 - begun / (context.budget - context.offline_budget))
        if self.batch_steps and not context.updates:
            left = 1.0
        context.models[self.model].learning_rate = self.learning_rate * left
        if self.critic is not None:
            context.models[self.critic].learning_rate = self.critic_learning_rate * left

    def passed(self, context: Any, rows: Transitions, observation: Any) -> Iterator[Minibatch]:
        """The minibatches of one pass over the rows, in random order; the last one may be smaller.

        Args:
            context: of the learner.
            rows: with what annotations wrote, ``[N]``.
            observation: theirs, as the networks read them.
        """
        order = torch.randperm(len(rows), generator=context.streams["minibatches"])
        size = self.minibatch_size or -(-len(rows) // self.minibatches)
        old_logp, advantage = self.objective.denominator(rows), rows.advantage
        if self.minibatch_size and self.normalise_advantage:
            advantage = standardise(advantage, eps=BATCH_EPSILON)  # over the whole batch
        fields = (old_logp, advantage, rows.value_target, rows.value, observation, rows.action)
        logp, advantage, *others = (field[order] for field in fields)
        if self.normalise_advantage and not self.minibatch_size:
            advantage = standardise_pieces(advantage, size)
        if self.corrects:  # a factor of the loss, and the loss is proportional to the advantage
            advantage = advantage * self.sampler.weight(rows)[order]
        pieces = (field.split(size) for field in (logp, advantage, *others, order))
        for logp, advantage, target, value, observed, taken, index in zip(*pieces, strict=True):
            yield Minibatch(observed, taken, MinibatchTargets(logp, advantage, target, value), index)

    def one_pass(self, context: Any, rows: Transitions, observation: Any, steps: list[Step], reports: list[dict[str, float]]) -> bool:
        """One pass over the rows; appends to ``steps``. Returns whether the KL stop ended the update."""
        for minibatch in self.passed(context, rows, observation):
            step = self.gradient_step(context, minibatch, reports)
            if step is None:
                return True
            steps.append(step)
        return self.stops_after(steps[-1])

    def stops_after(self, last: Step) -> bool:
        """Whether the KL stop ends the update after a pass whose last step this was."""
        return self.stops(last, "after-epoch")

    def stops(self, step: Step, when: str) -> bool:
        """Whether the KL stop ends the update here."""
        if self.stop is None or self.stop.target is None or self.stop.when != when:
            return False
        return bool(self.objective.policy_loss(step.log_prob, step.targets).approx_kl > self.stop.target)

    def gradient_step(self, context: Any, minibatch: Minibatch, reports: list[dict[str, float]] | None = None) -> Step | None:
        """One gradient step on ``policy - c_H entropy + c_V value`` for a minibatch; None where the KL stop ends the update."""
        model = context.models[self.model]
        step = self.accumulate(context, minibatch, reports)
        if step is None:
            return None
        norm = model.parameters.clip_gradient(self.max_grad_norm)
        model.optimizer.step()
        return step._replace(gradient_norm=norm)

    def accumulate(self, context: Any, minibatch: Minibatch, reports: list[dict[str, float]] | None = None) -> Step | None:
        """Add the hand-written gradient of a minibatch to the parameters' vector, without a step. None where the KL stop ends the update.

        Args:
            context: of the learner.
            minibatch: the rows.
            reports: takes what ``extra`` says of the step.
        """
        model, objective = context.models[self.model], self.objective
        observation, action, targets, _ = minibatch
        now = evaluate(model.network, observation)
        assert now.value is not None
        with torch.no_grad():
            log_prob, score = now.distribution.log_prob_and_gradient(action)
            step = Step(log_prob, now.value, targets)
            if self.stops(step, "before-step"):
                return None
            policy, value = objective.derivatives(log_prob, now.value, targets)
            outputs = score.mul_(policy.unsqueeze(-1))
            if self.entropy_coefficient:
                outputs.sub_(now.distribution.entropy_gradient(), alpha=self.entropy_coefficient / len(outputs))
            model.parameters.gradient.zero_()
            if self.extra is not None:
                found = self.extra.add_gradient(context, now.distribution, minibatch, outputs)
                if reports is not None:
                    reports.append(found)
            now.backward(outputs, value.mul_(self.value_coefficient))
        return step

    def report(self, steps: list[Step]) -> Metrics:
        """Metrics of the gradient steps of one update, as means over their rows."""
        if not steps:
            return {}
        log_prob, value, targets, norms = zip(*steps, strict=True)
        joined = MinibatchTargets(*map(torch.cat, zip(*targets, strict=True)))
        policy, critic = self.objective.policy_loss(torch.cat(log_prob), joined), self.objective.value_loss(torch.cat(value), joined)
        return {
            "policy_loss": policy.loss.item(),
            "value_loss": critic.item(),
            "approx_kl": policy.approx_kl.item(),
            "meter/clip_fraction": policy.clip_fraction.item(),
            "meter/gradient_norm": sum(norms) / len(norms),
        }

    # --- policy and critic apart ------------------------------------------------------------------------------------------------------

    def improve_apart(self, context: Any, rows: Transitions) -> Metrics:
        """Make all gradient steps of policy and critic by autograd; the log accumulates the metrics of both."""
        for _ in range(self.epochs):
            for minibatch in self.passed(context, rows, rows.observation):
                context.log.add(context, self.step_apart(context, minibatch), rows)
        context.updates += 1
        context.finish_update(self.model)
        return {"learning_rate": context.models[self.model].learning_rate}

    def step_apart(self, context: Any, minibatch: Minibatch) -> dict[str, Tensor | float]:
        """One step of the policy and one of the critic, on a minibatch."""
        model, critic = context.models[self.model], context.models[self.critic]
        observation, action, targets, _ = minibatch
        policy = model.distribution(observation)
        surrogate = self.objective.policy_loss(policy.log_prob(action), targets)
        entropy = policy.entropy().mean()
        norm = model.step(surrogate.loss - self.entropy_coefficient * entropy, max_grad_norm=self.max_grad_norm)
        error = self.objective.value_loss(critic.network(observation), targets)
        critic.step(error, max_grad_norm=self.max_grad_norm)
        return {
            "policy_loss": surrogate.loss.detach(),
            "value_loss": error.detach(),
            "entropy": entropy.detach(),
            "approx_kl": surrogate.approx_kl,
            "meter/clip_fraction": surrogate.clip_fraction,
            "meter/gradient_norm": norm,
        }


def ppo_update(composition: Any) -> FastPPO | None:
    """The update of a composition's policy, whatever its rhythm; None where no part is PPO's, or where its rows are whole sequences."""
    inner = [getattr(part, "part", part) for part in getattr(composition, "improve", ())]
    return next((part for part in inner if isinstance(part, FastPPO) and part.step_by_step), None)


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Column by column."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}


def explained_variance(value: Tensor, target: Tensor) -> float:
    """1 - Var(target - value) / Var(target): 1 is a perfect critic, 0 no better than a constant (detail 12); 0 when the target is
    constant."""
    if len(target) < 2:
        return 0.0
    variance = target.var()
    return (1 - (target - value).var() / variance).item() if variance > 0 else 0.0
