"""Updates of a behaviour policy that acts in the policy's place (ROS, PROPS): it starts from the policy and pushes down the probability of
what the window will still hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.objectives.behaviour import advantage_weight, behaviour_loss
from rheostat.objectives.derivatives import behaviour_dloss_dlogp, ros_dloss_dlogp
from rheostat.objectives.kl import kl_estimate
from rheostat.options import option
from rheostat.parts import Batch, Metrics
from rheostat.policies.control.distributions import Distribution, Gaussian
from rheostat.policies.flops import TRAIN
from rheostat.trajectories import Transitions

REFUSES = {
    "lag": "who acts is its own behaviour policy, derived from the present one",
    "replay_share": "it repairs the data of its window, so what is kept is set by window",
    "expert_share": "it repairs the data of its own policy",
}
"""Settings of the dial that are refused beside such an update."""


def rows_to_repair(batch: Batch, block: int) -> Transitions:
    """The rows that will still be kept after the next block: once the window is full, all but its oldest block.

    Args:
        batch: of the window.
        block: steps of every environment in a block.
    """
    found: Transitions = batch.rows[:, block if batch.facts["full"] else 0 :].transitions()
    return found


@dataclass(frozen=True)
class RosUpdate:
    """One plain gradient step that makes the window's actions less likely."""

    learning_rate: float = option(0.1, short="behaviour_learning_rate", at_least=0)
    """Step size alpha of the behaviour policy."""
    max_grad_norm: float = 0.5
    block: int = 1
    """Steps of every environment in a block."""
    model: str = "behaviour"
    target: str = "policy"
    refuses: ClassVar[dict[str, str]] = REFUSES

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        if method.keep.batches * method.collect.turns > 1:
            return {}
        why = "behaviour_steps is a whole batch and window is 1, so nothing is kept that the behaviour policy could repair; raise window"
        return dict.fromkeys((each.name for each in fields(self)), why)

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """Reset the behaviour policy to the present policy, then update it."""
        context.models[self.model].restart_from(context.models[self.target].parameters)
        rows = rows_to_repair(batch, self.block)
        return self.update_behaviour(context, rows) if len(rows) else {}

    def update_behaviour(self, context: Any, rows: Transitions) -> Metrics:
        """The step on some rows."""
        behaviour, observation = context.models[self.model], context.see(rows.observation)
        context.flops += TRAIN * context.models[self.target].weights * len(rows)
        now = behaviour.evaluate(observation)
        with torch.no_grad():
            log_prob, score = now.distribution.log_prob_and_gradient(rows.action)
            gradient = score.mul_(ros_dloss_dlogp(log_prob, log_prob).unsqueeze(-1))
            behaviour.step(now, gradient, max_grad_norm=self.max_grad_norm, step_size=self.learning_rate)
            moved = behaviour.network.distribution(observation).log_prob(rows.action)
        return {"behaviour_kl": (log_prob - moved).mean().item()}


@dataclass(frozen=True)
class PropsUpdate(RosUpdate):
    """Clipped, regularised minibatch steps with Adam that make the window's actions less likely, up to the KL stop."""

    learning_rate: float = option(1e-3, short="behaviour_learning_rate", at_least=0)
    """Adam step size of the behaviour policy; never annealed."""
    passes: int = option(16, short="behaviour_epochs", at_least=1)
    """Passes over the window per behaviour update."""
    pieces: int = option(16, short="behaviour_minibatches", at_least=1)
    """Minibatches per pass, counted on a full window; their size is the same while it fills."""
    clip: float = option(0.3, short="behaviour_clip", at_least=0)
    """Clip range eps: a row whose ratio is below 1 - eps has no gradient."""
    kl_coefficient: float = option(0.3, short="behaviour_kl_coefficient")
    """Weight lambda of the KL regulariser."""
    target_kl: float = option(0.05, short="behaviour_target_kl")
    """KL threshold delta: the behaviour update stops before a minibatch whose k3 KL exceeds it."""
    advantage_weighted: bool = option(False)
    """Push rows down in proportion to their absolute advantage (an option of the first release, off in its runs)."""
    window_steps: int = 0
    """Environment steps that a full window holds beside the newest block."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if self.passes * self.pieces > 1:
            return {}
        return {"target_kl": "the first step of an update starts at a KL of 0, and there is no second one, so leave it alone"}

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that it reads."""
        return ("advantage",) if self.advantage_weighted else ()

    def update_behaviour(self, context: Any, rows: Transitions) -> Metrics:
        """Every step on some rows."""
        behaviour, policy = context.models[self.model], context.models[self.target]
        observation = context.see(rows.observation)
        target = policy.network.distribution(observation).detach()
        target_logp = target.log_prob(rows.action)
        weight = advantage_weight(rows.advantage) if self.advantage_weighted else None
        seen: list[tuple[Tensor, Tensor]] = []
        for index in self.minibatches(context, len(rows)):
            now = behaviour.evaluate(observation[index])
            with torch.no_grad():
                log_prob, score = now.distribution.log_prob_and_gradient(rows.action[index])
                reference_logp = target_logp[index]
                if kl_estimate(reference_logp, log_prob).mean() > self.target_kl:
                    break
                push = behaviour_dloss_dlogp(log_prob, reference_logp, clip=self.clip, weight=None if weight is None else weight[index])
                gradient = score.mul_(push.unsqueeze(-1))
                gradient.add_(kl_gradient(now.distribution, target[index]), alpha=self.kl_coefficient / len(index))
                behaviour.step(now, gradient, max_grad_norm=self.max_grad_norm)
            seen.append((log_prob, reference_logp))
        context.flops += TRAIN * policy.weights * sum(len(log_prob) for log_prob, _ in seen)
        with torch.no_grad():
            moved = behaviour.network.distribution(observation).log_prob(rows.action)
        metrics = {"behaviour_kl": kl_estimate(target_logp, moved).mean().item(), "behaviour_gradient_steps": len(seen)}
        if not seen:
            return metrics | {"behaviour_clip_fraction": 0.0}
        log_prob, reference_logp = map(torch.cat, zip(*seen, strict=True))
        loss = behaviour_loss(log_prob, reference_logp, clip=self.clip, kl_coef=0.0)
        return metrics | {"behaviour_clip_fraction": loss.clip_fraction.item()}

    def minibatches(self, context: Any, count: int) -> Iterator[Tensor]:
        """Indices of rows: every pass in a new random order, in minibatches as large as on a full window."""
        size = max(1, self.window_steps // self.pieces)
        for _ in range(self.passes):
            yield from torch.randperm(count, generator=context.streams["behaviour"]).split(size)


def kl_gradient(behaviour: Distribution, target: Distribution) -> Tensor:
    """Derivative of every row's KL term with respect to the parameters of ``behaviour``."""
    if isinstance(behaviour, Gaussian):
        return behaviour.kl_gradient(target) / behaviour.mean.shape[-1]
    return behaviour.reverse_kl_gradient(target)
