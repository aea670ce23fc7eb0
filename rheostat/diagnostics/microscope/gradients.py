"""Gradients of the methods, one batch at a time, through their own code.

A method is run as the training loop runs it: ``collect() -> retain() -> credit() -> improve()``. Two things are exchanged: whoever samples
has the behaviour policy's parameters, and the optimiser is a :class:`Recorder`, which keeps the gradient it is handed and moves the policy
along the exact path instead. So every method is looked at from the same pair of policies, and nothing of it is written a second time.

What is set aside, so that the gradient is that of the expected reward and is seen whole: the gradient's norm limit, KL and entropy
regularisers, DAPO's overlong penalty (its buffer is longer than these completions), and, because they change the policy between two
batches, the running normalisation of observations and rewards. ``options`` bring any of them back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from rheostat.diagnostics.microscope.control_problem import ControlProblem
from rheostat.diagnostics.microscope.estimators import WEIGHTED, composition_of_estimator
from rheostat.diagnostics.microscope.exact import Problem, assign
from rheostat.diagnostics.microscope.language_problem import LanguageProblem
from rheostat.errors import RheostatError, unknown
from rheostat.learner.language import build, composition_of
from rheostat.learner.learner import Learner
from rheostat.learner.update import Update, usable_rows
from rheostat.methods import table
from rheostat.methods.control.ppo import PPO, PPOConfig
from rheostat.methods.language.reinforce import Reinforce
from rheostat.options import options_of, with_options
from rheostat.parts import Batch
from rheostat.streams import Streams
from rheostat.training.settings import configure

NO_REWARD = {
    "sft": "it imitates demonstrations and never sees a reward",
    "dpo": "it learns from preference pairs and never sees a reward",
}
"""Methods without a policy gradient of the reward, and why."""
ENDLESS = 2**40  # budget of a method that is only looked at

LANGUAGE_SETTINGS: dict[str, Any] = {"prompts_per_batch": 64, "group_size": 4, "kl_coefficient": 0.0, "overlong_buffer": 0}
CONTROL_SETTINGS: dict[str, Any] = {
    "num_envs": 8,
    "batch_steps": 256,
    "entropy_coefficient": 0.0,
    "normalise_observations": False,
    "normalise_rewards": False,
}
FIXED = ("epochs", "minibatches", "max_grad_norm", "max_new_tokens", "evaluate_every")


class Sampler(Protocol):
    """Yields independent gradients of one estimator."""

    def gradients(self) -> Iterator[Tensor]:
        """Estimates of the gradient of the expected reward, ``[P]`` float64, one per batch."""
        ...

    def close(self) -> None:
        """Release the worlds."""
        ...


def domain_of(name: str) -> str:
    """``language`` or ``control``.

    Raises:
        RheostatError: unknown name, or a method without a policy gradient of the reward.
    """
    if name in WEIGHTED:
        return "language"
    if name not in table.METHODS:
        raise unknown("method or estimator", name, [*table.METHODS, *WEIGHTED])
    if name in NO_REWARD:
        raise RheostatError(f"{name} has no policy gradient of the reward to look at: {NO_REWARD[name]}.")
    if not looked_at(name):
        raise RheostatError(f"{name} is no policy-gradient method built on grpo or ppo: the microscope cannot record its gradient.")
    return table.entry(name).domain


def looked_at(name: str) -> bool:
    """Whether a method moves a policy by terms over its log-probabilities."""
    cls = table.entry(name).load()
    return table.entry(name).domain == "language" if hasattr(cls, "compose") else issubclass(cls, PPO)


def sampler(name: str, problem: Problem, path: list[Tensor], lag: int, *, seed: int, options: dict[str, Any] | None = None) -> Sampler:
    """A method or estimator, ready to be looked at.

    Args:
        name: of the table of methods, or of :data:`~rheostat.diagnostics.microscope.estimators.WEIGHTED`.
        problem: what it acts in.
        path: parameters of the behaviour policy (first), of the learner at the start of the update (number ``lag``), and of the learner
            after each gradient step already made on the batch (the rest).
        lag: see ``path``.
        seed: of its random streams.
        options: settings of the method.

    Raises:
        RheostatError: a setting that does not exist, is the microscope's own, or does not fit.
    """
    options = dict(options or {})
    for setting in FIXED:
        if setting in options:
            raise RheostatError(
                f"The microscope looks at one whole gradient step: leave {setting} alone (--updates makes steps before it, --length "
                "sets the completions' length)."
            )
    if any(setting.partition(".")[0] == "dial" for setting in options):
        raise RheostatError("The microscope has a dial of its own, the same for every method: use --lag and --updates.")
    if domain_of(name) == "language":
        assert isinstance(problem, LanguageProblem)
        return LanguageSampler(name, problem, path, lag, seed, options)
    assert isinstance(problem, ControlProblem)
    return ControlSampler(name, problem, path, lag, seed, options)


class Recorder:
    """In the place of an optimiser: keeps every gradient and moves the policy along a path that was fixed before.

    Args:
        optimizer: the method's own, whose place it takes.
        read: the present gradient, a copy.
        move: puts the policy at the path's step of this number.
    """

    def __init__(self, optimizer: Any, read: Callable[[], Tensor], move: Callable[[int], None]) -> None:
        self.read, self.move = read, move
        self.param_groups: list[dict[str, Any]] = optimizer.param_groups
        self.state: dict[Tensor, dict[str, Any]] = {}  # no moments
        self.gradients: list[Tensor] = []

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient of the parameters."""
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            parameter.grad = None

    def step(self) -> None:
        """Note the gradient and move on."""
        self.gradients.append(self.read())
        self.move(len(self.gradients))

    def last(self, steps: int, size: int) -> Tensor:
        """What the ``steps``-th step was handed, as an ascent direction; 0 where the method made no such step. Starts a new batch."""
        found = -self.gradients[-1].double() if len(self.gradients) == steps else torch.zeros(size, dtype=torch.float64)
        self.gradients = []
        return found


def settings(name: str, defaults: dict[str, Any], updates: int, options: dict[str, Any], method: Any) -> dict[str, Any]:
    """The microscope's settings, as far as the method has them, and the user's."""
    chosen = {"epochs": updates + 1, "minibatches": 1, "evaluate_every": 0} | defaults
    known = short_options(method()) if hasattr(method, "compose") else method.Config.__dataclass_fields__
    extra = {} if hasattr(method, "compose") else {"max_grad_norm": math.inf}
    return {key: value for key, value in (chosen | extra).items() if key in known} | options


def short_options(config: Any) -> set[str]:
    """The short names that a method's options have."""
    return {each.short for each in options_of(config)}


class LanguageSampler:
    """A language method in a :class:`LanguageProblem`; arguments as in :func:`sampler`."""

    def __init__(self, name: str, problem: LanguageProblem, path: list[Tensor], lag: int, seed: int, options: dict[str, Any]) -> None:
        self.problem, self.path, self.lag, self.updates = problem, path, lag, len(path) - 1 - lag
        if name in WEIGHTED:
            chosen = settings(name, LANGUAGE_SETTINGS, self.updates, {"advantage": "rloo"} | options, Reinforce)
            config: Any = with_options(Reinforce(), chosen, name)
            composition = composition_of_estimator(name, config)
        else:
            config = configure(name, settings(name, LANGUAGE_SETTINGS, self.updates, options, table.entry(name).load()))
            composition = composition_of(config, name)
        many, prompts = len(problem.prompts), composition.innermost.prompts
        if prompts % many:
            raise RheostatError(
                f"prompts_per_batch is {prompts}: {problem.name} has {many} prompts, equally likely, so take a multiple of {many}."
            )
        world = problem.world(value_head=composition.any("needs_value_head"))
        self.learner = build(config, name, world, Streams(seed), ENDLESS, composition=composition)
        self.parameters: list[Tensor] = list(world.policy.model.parameters())

    def gradients(self) -> Iterator[Tensor]:
        """See :class:`Sampler`."""
        learner, context = self.learner, self.learner.context
        while True:
            assign(self.parameters, self.path[0])
            context.world.engine.update_weights(learner.policy, context.updates)
            yield self.gradient_on(learner.collect())

    def gradient_on(self, batch: Batch) -> Tensor:
        """The method's ascent direction on a collected batch, ``[P]`` float64; counts an update."""
        learner = self.learner
        update = learner.composition.update_of()
        batch = learner.retain(batch)
        assign(self.parameters, self.path[self.lag])
        batch = learner.credit(batch)
        assign(self.parameters, self.path[-1])
        found = ascent_direction(learner, update, batch, self.parameters)
        learner.context.finish_update(update.model)
        return found

    def close(self) -> None:
        """See :class:`Sampler`."""
        self.learner.close()


def ascent_direction(learner: Learner, update: Update, batch: Batch, parameters: Sequence[Tensor], seen: list[Any] | None = None) -> Tensor:
    """Minus the gradient of an update's terms on a whole batch, ``[P]`` float64; 0 where no row is learned from. Nothing moves.

    Args:
        learner: whose parts have credited the batch.
        update: of the model.
        batch: the credited one.
        parameters: of the gradient, in order.
        seen: see :meth:`~rheostat.learner.update.Update.accumulate`.
    """
    rows = usable_rows(batch)
    size = sum(parameter.numel() for parameter in parameters)
    if not len(rows):
        return torch.zeros(size, dtype=torch.float64)
    found = update.accumulate(learner.context, batch[rows], seen=seen)
    bad = [name for name, value in found.items() if not bool(value.isfinite())]
    if bad:
        raise RheostatError(f"{', '.join(bad)} is not finite on this batch: there is no gradient to look at.")
    return -torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.detach().flatten().float().cpu() for p in parameters]).double()


class ControlSampler:
    """A method of the PPO family in a :class:`ControlProblem`, with the exact values of the learner as its critic.

    Only the gradient of the logits is looked at: the critic has parameters of its own. The worlds run on from batch to batch, so that no
    step of an episode is over-represented; a batch shares its rows with no other (of a window of b batches every b-th is taken). Arguments
    as in :func:`sampler`.
    """

    def __init__(self, name: str, problem: ControlProblem, path: list[Tensor], lag: int, seed: int, options: dict[str, Any]) -> None:
        self.problem, self.path, self.lag, self.updates = problem, path, lag, len(path) - 1 - lag
        cls: type[PPO] = table.entry(name).load()
        config = cast(PPOConfig, configure(name, settings(name, CONTROL_SETTINGS, self.updates, options, cls)))
        network = problem.policy()
        self.method = cls(config, problem.environments, Streams(seed), total_steps=ENDLESS, policy=cast(Any, network))
        self.parameters: list[Tensor] = [cast(Tensor, network.logits)]
        critic = problem.state_values(path[lag], config.gamma).float()
        assign([cast(Tensor, network.values)], critic)
        self.recorder = Recorder(self.method.optimizer, self._read, self._move)
        self.method.optimizer = cast(Any, self.recorder)

    def _read(self) -> Tensor:
        return self.method.parameters.gradient[: len(self.path[0])].clone()

    def _move(self, step: int) -> None:
        """Along the path; after its end back to the behaviour policy, which collects next (and from which PROPS derives who acts)."""
        assign(self.parameters, self.path[self.lag + step] if self.lag + step < len(self.path) else self.path[0])

    def gradients(self) -> Iterator[Tensor]:
        """See :class:`Sampler`."""
        method, turn = self.method, 0
        window = method.config.window
        assign(self.parameters, self.path[0])
        while True:
            kept = method.retain(method.collect())
            due = method.due
            if due:
                self._move(0)
            method.improve(method.credit(kept))
            if not due:
                continue
            assign(self.parameters, self.path[0])
            found = self.recorder.last(self.updates + 1, len(self.path[0]))
            turn += 1
            if turn > window and turn % window == 0:  # the first batches begin with fresh episodes, or lack older ones
                yield found

    def close(self) -> None:
        """See :class:`Sampler`."""
        self.method.close()


def first_gradients(source: Sampler, count: int) -> Iterator[Tensor]:
    """The first ``count`` gradients of a sampler."""
    yield from (gradient for gradient, _ in zip(source.gradients(), range(count), strict=False))
