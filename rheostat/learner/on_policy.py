"""The composition that PPO and the methods close to it share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from rheostat.buffers.control_retainers import Window
from rheostat.collect.control.control_collectors import Rollout
from rheostat.collect.control.running_statistics import Normalisation
from rheostat.credit.control_annotations import GAE, OldValues
from rheostat.learner.control_models import PolicyNetwork
from rheostat.learner.fast_ppo import FastPPO, KLStop, SamplingErrorMeter
from rheostat.learner.learner import Composition
from rheostat.learner.measuring import Evaluations
from rheostat.learner.rhythm import every
from rheostat.objectives.control_terms import SamplerWeight


class OnPolicy(Protocol):
    """The parts that such a method has."""

    @property
    def collect(self) -> Rollout: ...
    @property
    def keep(self) -> Window: ...
    @property
    def normalisation(self) -> Normalisation: ...
    @property
    def gae(self) -> GAE: ...
    @property
    def network(self) -> Any: ...
    @property
    def sampler(self) -> SamplerWeight: ...
    @property
    def update(self) -> FastPPO: ...
    @property
    def meter(self) -> SamplingErrorMeter: ...
    @property
    def log(self) -> Evaluations: ...


def on_policy(
    method: OnPolicy,
    objective: Any,
    *,
    stop: KLStop | None = None,
    extra: Any = None,
    policy: PolicyNetwork | None = None,
    models: dict[str, Any] | None = None,
    improve: tuple[Any, ...] = (),
    credit_every: int | None = None,
) -> Composition:
    """Rows of the last batches, GAE, and PPO's update when a batch is whole.

    Args:
        method: its parts.
        objective: what a minibatch minimises.
        stop: when an update is stopped.
        extra: what is minimised besides.
        policy: the model; None has the method's network and Adam.
        models: others.
        improve: updates after that of the policy, in every turn.
        credit_every: turns between two computations of advantages; None: when the policy moves.
    """
    steps, turns = method.collect.steps, method.collect.turns
    between = turns if credit_every is None else credit_every
    update = method.update.of(
        objective, batch_steps=steps, rows=method.keep.batches * steps, sampler=method.sampler, stop=stop, extra=extra
    )
    return Composition(
        collect=method.collect,
        retain=[replace(method.normalisation, gamma=method.gae.gamma), replace(method.keep, turns=turns)],
        credit=[every(between, OldValues()), every(between, method.gae)],
        improve=[every(turns, method.meter), every(turns, update), *improve],
        models={"policy": policy or PolicyNetwork(method.network, method.update.learning_rate)} | (models or {}),
        stores=[method.log],
    )
