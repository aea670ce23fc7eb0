"""A gradient step of SAC or TD3 as one call of a compiled kernel, in the place of the parts of
:class:`~rheostat.learner.off_policy.PerStep`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import nn

from rheostat.credit.td_annotations import SmoothedTarget, SoftTarget, soft_draw
from rheostat.learner import compiled_kernels as kernels
from rheostat.learner.actor_critic_updates import (
    CriticStep,
    DeterministicActorStep,
    SoftActorStep,
    TemperatureStep,
    first_q,
    rank,
    smallest_q,
)
from rheostat.learner.compiled_ppo import dense, moving
from rheostat.learner.compute import NotCompiled, one_thread
from rheostat.learner.rhythm import Delayed
from rheostat.parts import Batch
from rheostat.policies.control.actors import DeterministicActor, SquashedActor
from rheostat.policies.control.critics import EnsembleQ
from rheostat.policies.parameters import Adam

Found = dict[str, Any]


class CompiledStep(ABC):
    """What both have in common: critics, a policy, and the rows of a batch.

    Args:
        context: of the learner; its models are bound.
        size: rows of a gradient step.

    Raises:
        NotCompiled: an option in use that the kernel does not know.
    """

    actor_kind: type = SquashedActor

    def __init__(self, context: Any, size: int) -> None:
        policy, critics = context.models["policy"], context.models["critics"]
        if type(policy.network) is not self.actor_kind or type(critics.network) is not EnsembleQ:
            raise NotCompiled("the kernels of replays know continuous actions and the networks that the method makes itself")
        if critics.network.stack.norms:
            raise NotCompiled("the kernels of replays do not know critics with layer normalisation")
        if not all(isinstance(each.network.front, nn.Identity) for each in (policy, critics)):
            raise NotCompiled("the kernels of replays know perceptrons, and observations hold images")
        if not all(
            type(each.optimizer) is Adam and each.optimizer.param_groups[0]["eps"] == 1e-8 and each.parameters.vector.dtype == torch.float32
            for each in (policy, critics)
        ):
            raise NotCompiled("the kernels of replays know Adam and parameters in float32 only")
        self.actor, self.critics = (ensemble(context.models[name].network.stack) for name in ("policy", "critics"))
        width, actions = int(self.critics.widths[0]), context.action_size
        if critics.network.columns + actions != width or int(self.actor.widths[0]) != width - actions:
            raise NotCompiled("the kernels of replays know policies and critics that read the same observation")
        self.shape = width - actions, actions
        self.compile(context, size)

    @abstractmethod
    def compile(self, context: Any, size: int) -> None:
        """A first call on copies, which compiles the kernel or reads it from the cache."""

    def rows(self, rows: Any) -> kernels.ReplayRows:
        """A batch as the kernel reads it."""
        weight = torch.ones_like(rows.reward) if rows.weight is None else rows.weight
        columns = (rows.observation, rows.action, rows.reward, rows.next_observation, rows.discount, weight)
        return kernels.ReplayRows(*map(dense, columns))

    def nothing(self, size: int) -> kernels.ReplayRows:
        """Rows of zeros."""
        seen, acted = self.shape
        shapes = ((size, seen), (size, acted), (size,), (size, seen), (size,), (size,))
        return kernels.ReplayRows(*(np.zeros(shape, np.float32) for shape in shapes))

    def room(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the critics' values and their target go."""
        return np.zeros((len(self.critics.weights), size), np.float32), np.zeros(size, np.float32)

    @staticmethod
    def counted(*models: Any) -> np.ndarray:
        """The numbers of the next steps of Adam, counted already."""
        found = []
        for model in models:
            model.optimizer.moments["step"] += 1
            found.append(int(model.optimizer.moments["step"]))
        return np.array(found, np.int64)

    @staticmethod
    def of_critics(context: Any, batch: Batch, loss: float, q: np.ndarray, target: np.ndarray) -> Found:
        """Everything that follows the critics' step."""
        values, aims = torch.from_numpy(q), torch.from_numpy(target)
        rank(context, batch.rows, values, aims)
        context.finish_update("critics")
        return {"critic_loss": torch.tensor(loss), "q": values.mean(), "target": aims.mean()}


class CompiledSoftStep(CompiledStep):
    """SAC's.

    Args:
        context: of the learner.
        size: rows of a gradient step.
        target: a :class:`SoftTarget`.
        critic: a :class:`CriticStep`.
        temperature: what moves the temperature; it is not compiled.
    """

    def __init__(self, context: Any, size: int, target: SoftTarget, critic: CriticStep, temperature: list[Any]) -> None:
        self.target, self.critic, self.temperature = target, critic, temperature
        super().__init__(context, size)

    def compile(self, context: Any, size: int) -> None:
        """See :meth:`CompiledStep.compile`."""
        q, target = self.room(size)
        noise, log_prob = np.zeros((2, size, self.shape[1]), np.float32), np.zeros(size, np.float32)
        copies = [nowhere(context.models[name]) for name in ("policy", "critics")]
        self.call(context, self.nothing(size), noise, copies, 1.0, np.ones(2, np.int64), q, target, log_prob)

    def call(
        self, context: Any, rows: kernels.ReplayRows, noise: np.ndarray, moved: list[Any], alpha: float, steps: np.ndarray, *out: Any
    ) -> Any:
        """The kernel; returns the losses of critics and policy."""
        networks = len(self.critics.weights)
        factor = np.float32(self.critic.scale / (networks if self.critic.over == "mean" else 1))
        limits = np.array(context.models["policy"].network.limits, np.float32)
        rates = np.array([context.models[name].learning_rate for name in ("policy", "critics")])
        slow = context.models["target critics"].parameters.vector.detach().numpy()
        more = (limits, np.float32(alpha), bool(self.target.entropy_in_backup), factor, rates, steps)
        with one_thread():
            return kernels.soft_step(rows, noise, self.actor, self.critics, slow, *moved, *more, *out)

    def __call__(self, context: Any, batch: Batch) -> Found:
        """One gradient step of every model; returns scalars."""
        models, size = context.models, len(batch.rows)
        alpha = float(models["temperature"].network.value)
        noise = torch.stack([torch.randn(size, self.shape[1], generator=context.streams["updates"]) for _ in range(2)]).numpy()
        q, target = self.room(size)
        log_prob = np.zeros(size, np.float32)
        moved, steps = [moving(models[name]) for name in ("policy", "critics")], self.counted(models["policy"], models["critics"])
        losses = self.call(context, self.rows(batch.rows), noise, moved, alpha, steps, q, target, log_prob)
        found = self.of_critics(context, batch, losses[0], q, target)
        context.finish_update("policy")
        batch.columns["log_prob"] = torch.from_numpy(log_prob)
        found |= {"policy_loss": torch.tensor(losses[1]), "entropy": -batch.columns["log_prob"].mean(), "temperature": alpha}
        for update in self.temperature:
            found |= update.step(context, batch)
        return found


class CompiledSmoothedStep(CompiledStep):
    """TD3's.

    Args:
        context: of the learner.
        size: rows of a gradient step.
        target: a :class:`SmoothedTarget`.
        delay: gradient steps per step of the policy.
    """

    actor_kind = DeterministicActor

    def __init__(self, context: Any, size: int, target: SmoothedTarget, delay: int) -> None:
        self.target, self.delay = target, delay
        super().__init__(context, size)

    def compile(self, context: Any, size: int) -> None:
        """See :meth:`CompiledStep.compile`."""
        copies = [nowhere(context.models[name]) for name in ("policy", "critics")]
        noise = np.zeros((size, self.shape[1]), np.float32)
        self.call(context, self.nothing(size), noise, copies, True, np.ones(2, np.int64), *self.room(size))

    def call(
        self, context: Any, rows: kernels.ReplayRows, noise: np.ndarray, moved: list[Any], moves: bool, steps: np.ndarray, *out: Any
    ) -> Any:
        """The kernel; returns the losses of critics and policy."""
        slow = [context.models[name].parameters.vector.detach().numpy() for name in ("target policy", "target critics")]
        rates = np.array([context.models[name].learning_rate for name in ("policy", "critics")])
        how = (np.float32(self.target.noise), np.float32(self.target.clip), moves, rates, steps)
        with one_thread():
            return kernels.smoothed_step(rows, noise, self.actor, self.critics, *slow, *moved, *how, *out)

    def __call__(self, context: Any, batch: Batch) -> Found:
        """One gradient step of every model; returns scalars."""
        models, size = context.models, len(batch.rows)
        noise = torch.randn(size, self.shape[1], generator=context.streams["updates"]).numpy()
        q, target = self.room(size)
        moved, moves = [moving(models[name]) for name in ("policy", "critics")], (context.updates + 1) % self.delay == 0
        steps = self.counted(*([models["policy"]] if moves else []), models["critics"])
        steps = steps if moves else np.array([0, *steps], np.int64)
        losses = self.call(context, self.rows(batch.rows), noise, moved, moves, steps, q, target)
        found = self.of_critics(context, batch, losses[0], q, target)
        if moves:
            context.finish_update("policy")
            found["policy_loss"] = torch.tensor(losses[1])
        return found


def compiled_step(context: Any, size: int, credit: list[Any], updates: list[Any]) -> CompiledStep:
    """The compiled form of a gradient step.

    Args:
        context: of the learner.
        size: rows of a gradient step.
        credit, updates: of :class:`~rheostat.learner.off_policy.PerStep`.

    Raises:
        NotCompiled: there is none.
    """
    if isinstance(credit[0], SoftTarget) and len(credit) == 1 and credit[0].subset is None and credit[0].sampler is soft_draw:
        critic, actor, *temperature = updates
        known = type(critic) is CriticStep and type(actor) is SoftActorStep and actor.q_value is smallest_q
        if known and all(type(each) is TemperatureStep for each in temperature):
            return CompiledSoftStep(context, size, credit[0], critic, temperature)
    if isinstance(credit[0], SmoothedTarget) and len(credit) == 1 and len(updates) == 2 and type(updates[1]) is Delayed:
        critic, (actor, *others) = updates[0], updates[1].updates
        known = critic == CriticStep() and type(actor) is DeterministicActorStep and actor.alpha is None and actor.q_value is first_q
        if known and not others:
            return CompiledSmoothedStep(context, size, credit[0], updates[1].steps)
    raise NotCompiled("the kernels of replays know the gradient steps of sac and td3 only")


def ensemble(stack: Any) -> kernels.Ensemble:
    """Where the perceptrons of a stack lie in the vector that holds their parameters."""
    weights, biases = list(stack.weights), list(stack.biases)
    places = (
        [[int(each.storage_offset()) + k * each[0].numel() for each in parts] for k in range(stack.networks)] for parts in (weights, biases)
    )
    widths = [weights[0].shape[2], *(each.shape[1] for each in weights)]
    return kernels.Ensemble(np.array(widths, np.int64), *(np.array(each, np.int64) for each in places))


def nowhere(model: Any) -> kernels.Moving:
    """Copies of a model's size, for a call that moves nothing."""
    return kernels.Moving(*np.zeros((4, model.parameters.vector.numel()), np.float32))
