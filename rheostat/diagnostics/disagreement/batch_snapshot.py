"""Freezing the batch that a run would learn from next, and the gradient steps that its own method would make on it.

The run is opened in memory at a checkpoint and collects as it always does, with its dial; its directory is only read.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheostat.buffers.retainers import MarkStale, RecentGroups
from rheostat.diagnostics.microscope.exact import flat
from rheostat.diagnostics.microscope.gradients import NO_REWARD, looked_at
from rheostat.errors import RheostatError
from rheostat.learner.context import LanguageContext
from rheostat.learner.fast_ppo import ppo_update
from rheostat.learner.learner import Learner
from rheostat.learner.update import usable_rows
from rheostat.parts import Batch
from rheostat.training import checkpoint
from rheostat.training.run import Run
from rheostat.trajectories import Trajectories


@dataclass
class Frozen:
    """A batch and the policy that is about to learn from it.

    Attributes:
        run: as opened; its method has made all steps of ``path``.
        update: number of policy updates before it.
        rows: ``[B, T]``, the rows that the run kept, before any method used them: ``mask`` marks every chosen token (or step).
        policy: state of the policy at the start of the update (language), or a copy of the network (control).
        fresh: the policy object that was passed, untrained; None where the run names its model.
        path: trainable parameters at the start of the update and after each step, ``[P]`` each.
        learner_logp: ``[n]`` over the chosen tokens, under the policy at the start of the update.
        moved_logp: the same at the end of the path.
    """

    run: Run
    update: int
    rows: Trajectories
    policy: Any
    fresh: Any
    path: list[Tensor]
    learner_logp: Tensor
    moved_logp: Tensor


def freeze(directory: str | Path, *, update: int | None = None, steps: int = 0, task: Any = None, policy: Any = None) -> Frozen:
    """Open a run, collect its next batch and make its own method's gradient steps on it.

    Args:
        directory: of the run.
        update: open it at the checkpoint made after so many policy updates; None takes the newest.
        steps: gradient steps of the run's own method on the whole batch, with its own optimiser.
        task, policy: for runs on Python objects, as in :func:`rheostat.load`.

    Raises:
        RheostatError: no run there, no checkpoint of that update, a method that collects no data of a policy, or nothing in the batch.
    """
    fresh = copy.deepcopy(policy)
    run = Run.load(directory, task=task, policy=policy)
    method: Any = run.method
    if run.settings.method in NO_REWARD or not looked_at(run.settings.method):
        reason = NO_REWARD.get(run.settings.method, "its data cannot be replayed through policy-gradient methods")
        run.close()
        raise RheostatError(f"{directory} is a run of {run.settings.method}: {reason}, so there is no batch to replay.")
    try:
        if update is not None:
            _go_to(run, update)
        if isinstance(method, Learner) and isinstance(method.context, LanguageContext):
            return _freeze_language(run, method, steps, fresh)
        return _freeze_control(run, method, steps)
    except BaseException:
        run.close()
        raise


def _go_to(run: Run, update: int) -> None:
    """Load the checkpoint made after so many updates."""
    folder, found = run.directory / "checkpoints", []
    for name in reversed(checkpoint.names(folder)):
        try:
            state = checkpoint.read(folder / name)["method"]
        except RheostatError:
            continue  # damaged: opening the run has skipped it, too
        made = state["context"]["counts"].get("policy", 0)
        if made == update:
            run.method.load_state_dict(state)
            return
        found.append(made)
    kept = " and ".join(map(str, sorted(found)))
    raise RheostatError(f"{run.directory} has no checkpoint of update {update}: the ones kept are of {kept}.")


def _freeze_language(run: Run, learner: Learner, steps: int, fresh: Any) -> Frozen:
    context, update = learner.context, learner.composition.update_of()
    made = context.updates
    batch = learner.collect()
    chosen = batch.rows.mask.clone()
    for part in learner.composition.retain:  # the dial's retainers; filters are every method's own
        if isinstance(part, MarkStale | RecentGroups):
            batch = part.retain(context, batch)
    rows = batch.rows
    rows.mask[: len(chosen), : chosen.shape[1]] |= chosen
    _require_tokens(run, rows)
    frozen = rows.clone()
    state = {name: value.detach().clone() for name, value in learner.policy.state_dict().items()}

    def logp() -> Tensor:
        with torch.no_grad():
            return context.score(frozen).logp[frozen.mask].cpu()

    start = logp()
    parameters = [parameter for parameter in learner.policy.model.parameters() if parameter.requires_grad]
    path = [flat(parameters)]
    if steps:
        moving = Batch(frozen.clone(), facts=batch.facts)
        for part in learner.composition.retain:
            if not isinstance(part, MarkStale | RecentGroups):
                moving = part.retain(context, moving)
        context.needs_old_scores |= steps > 1
        moving, _ = update.accepted(learner.credit(moving))
        usable = usable_rows(moving)
        update.prepare(context)
        for _ in range(steps):
            if len(usable):
                update.step(context, moving[usable], [])
            path.append(flat(parameters))  # without a row to learn from no parameter changes
    return Frozen(run, made, frozen, state, fresh, path, start, logp() if steps else start)


def _freeze_control(run: Run, learner: Learner, steps: int) -> Frozen:
    context, composition = learner.context, learner.composition
    while True:
        batch = learner.retain(learner.collect())
        if context.turns % composition.innermost.turns == 0:
            break
        learner.improve(learner.credit(batch))  # between two updates of the policy only the behaviour policy changes
    made, frozen = context.updates, batch.rows.clone()
    _require_tokens(run, frozen)
    model = context.models["policy"]
    network = copy.deepcopy(model.policy)

    def logp() -> Tensor:
        with torch.no_grad():
            return model.distribution(context.see(frozen.observation[frozen.mask])).log_prob(frozen.action[frozen.mask])

    start = logp().clone()
    path = [flat([model.parameters.vector])]
    if steps:
        update = ppo_update(composition)
        assert update is not None
        whole = replace(update, minibatches=1, stop=None)
        rows = learner.credit(Batch(frozen.clone(), facts=batch.facts)).rows.transitions()
        observation = context.see(rows.observation)
        for _ in range(steps):
            for minibatch in whole.passed(context, rows, observation):
                whole.gradient_step(context, minibatch)
            path.append(flat([model.parameters.vector]))
    return Frozen(run, made, frozen, network, None, path, start, logp() if steps else start)


def _require_tokens(run: Run, rows: Trajectories) -> None:
    if not bool(rows.mask.any()):
        raise RheostatError(f"The batch that {run.directory} collects next is empty: there is nothing to replay.")
