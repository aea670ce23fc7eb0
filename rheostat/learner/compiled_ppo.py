"""PPO's passes as one call of a compiled kernel, in the place of :class:`~rheostat.learner.fast_ppo.FastPPO`'s own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rheostat.learner import compiled_kernels as kernels
from rheostat.learner.compute import NotCompiled, one_thread
from rheostat.objectives.control_terms import ClippedSurrogate
from rheostat.parts import Metrics
from rheostat.policies.control.actor_critic import ActorCritic
from rheostat.policies.parameters import Adam
from rheostat.trajectories import Transitions

CLIPS = {"none": kernels.NO_CLIP, "clip": kernels.CLIP, "detached": kernels.DETACHED_CLIP}


class CompiledPasses:
    """PPO's passes over rows by a kernel.

    Args:
        update: a :class:`~rheostat.learner.fast_ppo.FastPPO`.
        model: the policy that it moves.

    Raises:
        NotCompiled: an option in use that the kernel does not know.
    """

    def __init__(self, update: Any, model: Any) -> None:
        require_known(update, model)
        policy: ActorCritic = model.policy
        self.update = update
        self.actor = layers(policy.actor_body, policy.actor_head)
        self.critic = layers(policy.critic_body, policy.critic_head)
        self.sizes = np.array(policy.sizes, np.int64)
        self.log_std = 0 if policy.sizes else int(policy.log_std.storage_offset())
        self.tanh_mean = bool(policy.tanh_mean)
        nothing, nowhere = torch.zeros(1), kernels.Moving(*np.zeros((4, model.parameters.vector.numel()), np.float32))
        action = torch.zeros(1, len(self.sizes), dtype=torch.int64) if policy.sizes else torch.zeros(1, int(self.actor.widths[-1]))
        rows = self.rows(torch.zeros(1, int(self.actor.widths[0])), action, *[nothing] * 5)
        no_pass = np.zeros((0, 1), np.int64)
        kernels.ppo_passes(no_pass, rows, self.actor, self.critic, self.rule(1, 0.0, 1e-5), nowhere, 0)  # compiles, or reads the cache

    def __call__(self, context: Any, rows: Transitions, observation: Tensor) -> tuple[int, int, Metrics]:
        """Make all passes of an update.

        Args:
            context: of the learner.
            rows: with what annotations wrote, ``[N]``.
            observation: theirs, as the networks read them.

        Returns:
            Gradient steps made, rows visited by them, and metrics as means over those.
        """
        update, model = self.update, context.models[self.update.model]
        factor = update.sampler.weight(rows) if update.corrects else torch.ones(len(rows))
        old_logp = update.objective.denominator(rows)
        arrays = self.rows(observation, rows.action, old_logp, rows.advantage, rows.value_target, rows.value, factor)
        group, memory = model.optimizer.param_groups[0], moving(model)
        rule = self.rule(-(-len(rows) // update.minibatches), float(group["lr"]), float(group["eps"]))
        counter = model.optimizer.moments["step"]
        first = done = int(counter.item())
        visited, total = 0, np.zeros(5)
        at_once = 1 if math.isfinite(rule.target_kl) else update.epochs  # no order is drawn for a pass that is not begun
        generator = context.streams["minibatches"]
        for _ in range(update.epochs // at_once):
            orders = torch.stack([torch.randperm(len(rows), generator=generator) for _ in range(at_once)]).numpy()
            with one_thread():
                done, seen, stopped, sums = kernels.ppo_passes(orders, arrays, self.actor, self.critic, rule, memory, done)
            visited, total = visited + seen, total + sums
            if stopped:
                break
        counter.fill_(float(done))
        names = ("policy_loss", "value_loss", "approx_kl", "meter/clip_fraction")
        means = {name: float(value) / visited for name, value in zip(names, total[:4], strict=True)} if visited else {}
        return done - first, visited, means | ({"meter/gradient_norm": float(total[4]) / (done - first)} if visited else {})

    def rows(self, observation: Tensor, action: Tensor, *columns: Tensor) -> kernels.PPORows:
        """Rows as the kernel reads them; columns are the last five of :class:`~rheostat.learner.compiled_kernels.PPORows`."""
        count, gaussian = len(observation), not len(self.sizes)
        choice = np.empty((count, 0), np.int64) if gaussian else dense(action.view(count, -1), np.int64)
        continuous = dense(action.view(count, -1)) if gaussian else np.empty((count, 0), np.float32)
        return kernels.PPORows(dense(observation.flatten(1)), choice, continuous, *map(dense, columns))

    def rule(self, size: int, learning_rate: float, epsilon: float) -> kernels.PPORule:
        """The options, for minibatches of ``size`` rows."""
        update, objective, f4 = self.update, self.update.objective, np.float32
        stops = update.stop is not None and update.stop.target is not None
        return kernels.PPORule(
            sizes=self.sizes,
            log_std=self.log_std,
            tanh_mean=self.tanh_mean,
            size=size,
            normalise=bool(update.normalise_advantage),
            clip=CLIPS[objective.clip_kind],
            epsilon=f4(objective.epsilon),
            clip_value=objective.value_clip is not None,
            value_scale=f4(objective.value_scale),
            value_coefficient=f4(update.value_coefficient),
            entropy_coefficient=f4(update.entropy_coefficient),
            target_kl=f4(update.stop.target if stops else math.inf),
            before_step=stops and update.stop.when == "before-step",
            max_norm=f4(update.max_grad_norm),
            learning_rate=learning_rate,
            adam_epsilon=f4(epsilon),
        )


def require_known(update: Any, model: Any) -> None:
    """Refuse what the kernel does not know.

    Raises:
        NotCompiled: naming it.
    """
    policy, vector = model.policy, model.parameters.vector
    if not update.step_by_step or update.critic is not None or update.minibatch_size:
        raise NotCompiled("PPO's kernel knows single steps and one model of actor and critic only")
    if update.extra is not None:
        raise NotCompiled(f"PPO's kernel does not know the loss that {type(update.extra).__name__} adds")
    if type(update.objective) is not ClippedSurrogate:
        raise NotCompiled(f"PPO's kernel does not know the objective {type(update.objective).__name__}")
    if type(model.optimizer) is not Adam:
        raise NotCompiled(f"PPO's kernel knows Adam, and the optimiser is {type(model.optimizer).__name__}")
    if type(policy) is not ActorCritic:
        raise NotCompiled(f"PPO's kernel knows perceptrons, and the network is {type(policy).__name__}")
    if not isinstance(policy.trunk, nn.Flatten):
        raise NotCompiled("PPO's kernel knows perceptrons, and observations hold images")
    if vector.dtype != torch.float32 or vector.device.type != "cpu":
        raise NotCompiled("PPO's kernel knows parameters in float32 on a CPU only")


def layers(body: nn.Module, head: nn.Module) -> kernels.Layers:
    """Where the linear layers of a perceptron lie in the vector that holds its parameters."""
    modules = [*body.children(), head]
    linears = [each for each in modules if isinstance(each, nn.Linear)]
    return kernels.Layers(
        widths=np.array([linears[0].in_features, *(each.out_features for each in linears)], np.int64),
        weights=np.array([each.weight.storage_offset() for each in linears], np.int64),
        biases=np.array([each.bias.storage_offset() for each in linears], np.int64),
        tanh=not any(isinstance(each, nn.ReLU) for each in modules),
    )


def moving(model: Any) -> kernels.Moving:
    """A model's parameters, gradient and moments, as the same memory."""
    moments, vector = model.optimizer.moments, model.parameters.vector.detach()
    return kernels.Moving(*(each.numpy() for each in (vector, model.parameters.gradient, moments["exp_avg"], moments["exp_avg_sq"])))


def dense(column: Tensor, dtype: Any = np.float32) -> np.ndarray:
    """A tensor as an array whose rows follow each other in memory."""
    return np.ascontiguousarray(column.numpy(), dtype)
