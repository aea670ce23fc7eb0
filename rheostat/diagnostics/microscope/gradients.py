"""Gradients of the methods, one batch at a time, through their own code.

A method is run as the training loop runs it, ``collect() -> retain() -> credit()``, and then its update computes the gradient of its
own terms on the batch (``accumulate``). The sampler has the behaviour policy's parameters, and the policy is moved along the exact
path. So every method is examined at the same pair of policies, and nothing of it is replaced or implemented twice.

Switched off, so that the gradient is that of the expected reward, unclipped: the limit of the gradient norm, KL and entropy
regularisers, DAPO's overlong penalty (its buffer is longer than these completions), and, because they change the policy between two
batches, the running normalisation of observations and rewards. ``options`` switch any of them on again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from rheostat.diagnostics.microscope.control_problem import ControlProblem
from rheostat.diagnostics.microscope.estimators import WEIGHTED, composition_of_estimator
from rheostat.diagnostics.microscope.exact import Problem, assign
from rheostat.diagnostics.microscope.language_problem import LanguageProblem
from rheostat.errors import RheostatError, unknown
from rheostat.learner.control import build as build_control
from rheostat.learner.fast_ppo import FastPPO, Minibatch, Step, ppo_update
from rheostat.learner.language import build, composition_of
from rheostat.learner.learner import Learner
from rheostat.learner.update import Update, usable_rows
from rheostat.methods import table
from rheostat.methods.language.reinforce import Reinforce
from rheostat.options import options_of, with_options
from rheostat.parts import Batch
from rheostat.streams import Streams
from rheostat.training.settings import by_path, configure, merged

COMPARES = "its loss compares the two completions of a pair and weighs no reward"
NO_REWARD = {
    **dict.fromkeys(("cdpo", "dpo", "ipo", "online-dpo", "orpo", "robust-dpo", "simpo"), COMPARES),
    "osp": "it learns from its own preferences and weighs no reward",
    "best-of-n": "it imitates the best of its completions and weighs no reward",
    "kto": "it learns from labels and never sees a reward",
    "pairwise-policy-gradient": "its completions come in pairs; with groups of two rloo has the same gradient",
    **dict.fromkeys(("polar", "reward-model"), "it trains a reward, and no policy"),
    "rwr": "it imitates its completions by their rewards, which is no gradient of the reward",
    "ctrls": "its actions are distributions over states of steps, and no gradient reaches the language model",
    **dict.fromkeys(("ded", "sft"), "it imitates demonstrations and never sees a reward"),
}
"""Methods without a policy gradient of the reward, and why."""
ENDLESS = 2**40  # budget of a method that is only examined

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
        """Release the environments."""
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
    row = table.entry(name)
    return row.domain == "language" or ppo_update(row.load()().compose()) is not None


def sampler(name: str, problem: Problem, path: list[Tensor], lag: int, *, seed: int, options: dict[str, Any] | None = None) -> Sampler:
    """A method or estimator, ready to be examined.

    Args:
        name: of the table of methods, or of :data:`~rheostat.diagnostics.microscope.estimators.WEIGHTED`.
        problem: its environment or task.
        path: parameters of the behaviour policy (first), of the learner at the start of the update (number ``lag``), and of the learner
            after each gradient step already made on the batch (the rest).
        lag: see ``path``.
        seed: of its random streams.
        options: settings of the method.

    Raises:
        RheostatError: a setting that does not exist, is the microscope's own, or does not fit.
    """
    options = dict(options or {})
    if domain_of(name) == "language":
        assert isinstance(problem, LanguageProblem)
        return LanguageSampler(name, problem, path, lag, seed, options)
    assert isinstance(problem, ControlProblem)
    return ControlSampler(name, problem, path, lag, seed, options)


def settings(name: str, defaults: dict[str, Any], updates: int, options: dict[str, Any], method: Any) -> dict[str, Any]:
    """The microscope's settings, as far as the method has them, and the user's, by path.

    Raises:
        RheostatError: a setting that does not exist, or is the microscope's own.
    """
    given = by_path(name, method(), options)
    shorts = {each.path: each.short for each in options_of(with_options(method(), given, name))}
    for path in given:
        if shorts[path] in FIXED:
            raise RheostatError(
                f"The microscope looks at one whole gradient step: leave {shorts[path]} alone (--updates makes steps before it, --length "
                "sets the completions' length)."
            )
        if path.startswith("dial."):
            raise RheostatError("The microscope has a dial of its own, the same for every method: use --lag and --updates.")
    chosen = {"epochs": updates + 1, "minibatches": 1, "evaluate_every": 0} | defaults
    return merged(name, method(), chosen, given).values


class LanguageSampler:
    """A language method in a :class:`LanguageProblem`; arguments as in :func:`sampler`."""

    def __init__(self, name: str, problem: LanguageProblem, path: list[Tensor], lag: int, seed: int, options: dict[str, Any]) -> None:
        self.problem, self.path, self.lag, self.updates = problem, path, lag, len(path) - 1 - lag
        if name in WEIGHTED:
            chosen = settings(name, LANGUAGE_SETTINGS | {"advantage": "rloo"}, self.updates, options, Reinforce)
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
        setup = problem.setup(value_head=composition.any("needs_value_head"))
        self.learner = build(config, name, setup, Streams(seed), ENDLESS, composition=composition)
        self.parameters: list[Tensor] = list(setup.policy.model.parameters())

    def gradients(self) -> Iterator[Tensor]:
        """See :class:`Sampler`."""
        learner, context = self.learner, self.learner.context
        while True:
            assign(self.parameters, self.path[0])
            context.setup.engine.update_weights(learner.policy, context.updates)
            yield self.gradient_on(learner.collect())

    def gradient_on(self, batch: Batch) -> Tensor:
        """The method's ascent direction on a collected batch, ``[P]`` float64; counts an update."""
        learner = self.learner
        update = learner.composition.update_of()
        assign(self.parameters, self.path[0])
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
    batch, _ = update.accepted(batch)
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

    Only the gradient of the logits is examined: the critic has parameters of its own. The environments continue from batch to batch, so
    that no step of an episode is over-represented; a batch shares its rows with no other (of a window of b batches every b-th is taken).
    Arguments
    as in :func:`sampler`.
    """

    def __init__(self, name: str, problem: ControlProblem, path: list[Tensor], lag: int, seed: int, options: dict[str, Any]) -> None:
        self.problem, self.path, self.lag = problem, path, lag
        config = configure(name, settings(name, CONTROL_SETTINGS, len(path) - 1 - lag, options, table.entry(name).load()))
        network = problem.policy()
        built = build_control(config, name, problem.environments, Streams(seed), ENDLESS, policy=network)
        assert isinstance(built, Learner)
        update = ppo_update(built.composition)
        assert update is not None
        self.learner, self.update = built, update
        self.parameters: list[Tensor] = [cast(Tensor, network.logits)]
        critic = problem.state_values(path[lag], config.gae.gamma).float()
        assign([cast(Tensor, network.values)], critic)

    def gradients(self) -> Iterator[Tensor]:
        """See :class:`Sampler`."""
        learner, context, turn = self.learner, self.learner.context, 0
        collector, window = learner.composition.innermost, learner.config.keep.batches
        others = [part for part in learner.composition.improve if getattr(part, "model", "policy") != "policy"]
        assign(self.parameters, self.path[0])
        while True:
            batch = learner.retain(learner.collect())
            due = context.turns % collector.turns == 0
            if due:
                assign(self.parameters, self.path[self.lag])
            batch = learner.credit(batch)
            found = self.gradient_on(batch) if due else None
            for part in others:  # the next behaviour policy follows from the collector
                part.improve(context, batch)
            if found is None:
                continue
            turn += 1
            if turn > window and turn % window == 0:  # the first batches begin with fresh episodes, or lack older ones
                yield found

    def gradient_on(self, batch: Batch) -> Tensor:
        """The method's ascent direction on a credited batch, ``[P]`` float64, 0 where it stops before; counts an update."""
        context, size = self.learner.context, len(self.path[0])
        last = walked(self.learner, self.update, batch, lambda step: assign(self.parameters, self.path[self.lag + step]), self.steps)
        gradient = context.models[self.update.model].parameters.gradient[:size]
        found = torch.zeros(size, dtype=torch.float64) if last is None else -gradient.double()
        context.updates += 1
        context.finish_update(self.update.model)
        assign(self.parameters, self.path[0])
        return found

    @property
    def steps(self) -> int:
        """Gradient steps of an update: those that were made, and the one that is examined."""
        return len(self.path) - self.lag

    def close(self) -> None:
        """See :class:`Sampler`."""
        self.learner.close()


def walked(learner: Learner, update: FastPPO, batch: Batch, move: Callable[[int], None], steps: int) -> tuple[Minibatch, Step] | None:
    """The last of some gradient steps of a control method on a whole batch along a given path: the gradient is in the vector of the model's
    parameters, nothing else moves. None where the method stops before it (``target_kl``).

    Args:
        learner: whose parts have credited the batch.
        update: of the policy.
        batch: the credited one.
        move: puts the policy where it is before the step of this number.
        steps: how many.
    """
    context, rows = learner.context, batch.rows.transitions()
    observation = context.see(rows.observation, update.model)
    last: tuple[Minibatch, Step] | None = None
    for number in range(steps):
        move(number)
        (minibatch,) = replace(update, minibatches=1).passed(context, rows, observation)
        step = update.accumulate(context, minibatch)
        if step is None or (number < steps - 1 and update.stops_after(step)):
            return None
        last = minibatch, step
    return last


def first_gradients(source: Sampler, count: int) -> Iterator[Tensor]:
    """The first ``count`` gradients of a sampler."""
    yield from (gradient for gradient, _ in zip(source.gradients(), range(count), strict=False))
