"""One method on the frozen batch, through its own code: the parts of its gradient step, token by token.

As under the microscope, the method's own update computes the gradient and nothing of it is replaced. Weights per token come from
the method itself: autograd at its log-probabilities (language), or its hand-written derivatives (control).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from rheostat.collect.language.generation.embedded import EmbeddedEngine
from rheostat.collect.language.language_collectors import Dynamic, batch_of
from rheostat.collect.language.prompt_groups import Graded
from rheostat.credit.group_advantages import informative_groups
from rheostat.credit.verifiers.verifier_interface import Scores
from rheostat.diagnostics.disagreement.batch_snapshot import Frozen
from rheostat.diagnostics.disagreement.method_specs import Spec, config_of
from rheostat.diagnostics.microscope.exact import assign
from rheostat.diagnostics.microscope.gradients import ascent_direction, walked
from rheostat.errors import RheostatError
from rheostat.learner.context import LanguageContext
from rheostat.learner.control import build as build_control
from rheostat.learner.fast_ppo import ppo_update
from rheostat.learner.language import build, composition_of
from rheostat.learner.learner import Composition, Learner, chain
from rheostat.learner.update import usable_rows
from rheostat.masking import select
from rheostat.options import options_of
from rheostat.parts import Batch
from rheostat.policies.language.model import LanguagePolicy
from rheostat.streams import Streams
from rheostat.tasks.language.task_interface import Prompt
from rheostat.training.language_setup import load_policy
from rheostat.trajectories import Trajectories


@dataclass(frozen=True)
class Replay:
    """The results of one method on the batch, ``[n]`` over all ``n`` tokens (or steps) of the frozen mask, row by row.

    Attributes:
        spec: the method.
        gradient: ``[P]`` ascent direction in the parameters of the policy, before its norm is clipped; 0 where it made no such step.
        through_tokens: ``[P]``, the part of it that goes through the log-probabilities: sum of weight times ``grad log pi``.
        weight: float64, ``-d loss / d log pi``.
        clipped: bool, the clip cuts the token's gradient.
        kept: bool, the token is in the loss.
        advantage: float64, the method's own, 0 outside.
        stopped: whether the method ended the update before this step (``target_kl``).
        added: rows of its own that the method learns from in addition to the batch (expert rows).
    """

    spec: Spec
    gradient: Tensor
    through_tokens: Tensor
    weight: Tensor
    clipped: Tensor
    kept: Tensor
    advantage: Tensor
    stopped: bool
    added: int = 0


def replay(spec: Spec, frozen: Frozen) -> Replay:
    """The frozen batch through one method.

    Raises:
        RheostatError: settings that do not fit the batch, or a loss that is not finite.
    """
    method = frozen.run.method
    try:
        if isinstance(method, Learner) and isinstance(method.context, LanguageContext):
            return _language(spec, frozen, method)
        return _control(spec, frozen, cast(Learner, method))
    except RheostatError as error:
        raise RheostatError(f"{spec.label} cannot replay this batch: {error}") from error


# --- language --------------------------------------------------------------------------------------------------------------------------


def _given(rows: Trajectories, composition: Composition) -> Batch:
    """The frozen rows as if just collected; the key of every prompt is the number of its row. Groups that dynamic sampling would have
    replaced are left out."""
    reward, valid = rows.reward.sum(1), rows.valid[:, 0]
    scores = Scores(reward, valid, torch.zeros_like(valid))
    graded = Graded(rows, [Prompt("", key=str(row)) for row in range(len(rows))], [""] * len(rows), scores)
    if any(isinstance(each, Dynamic) for each in chain(composition.collect)):
        graded = graded.select(informative_groups(reward, rows.group[:, 0], valid=valid))
    return batch_of(graded)


def _language(spec: Spec, frozen: Frozen, own: Learner) -> Replay:
    run, rows, moves = frozen.run, frozen.rows.clone(), len(frozen.path) - 1
    size = int((rows.group[:, 0] == rows.group[0, 0]).sum())
    sampling = own.context.sampling
    given = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p")} | {
        "prompts_per_batch": len(rows) // size, "group_size": size, "max_new_tokens": sampling.max_new_tokens,
        "micro_batch_rows": own.composition.update_of().micro_batch_rows,
        "epochs": moves + 1, "minibatches": 1, "evaluate_every": 0, "budget": "updates",
    }  # fmt: skip
    config = config_of(spec, run.settings, given)
    composition = composition_of(config, spec.method)
    for part in chain(composition.collect):
        if written := getattr(part, "writes", ()):
            raise RheostatError(
                f"it needs what {type(part).__name__} finds out while sampling ({', '.join(written)}), which no batch keeps."
            )
    policy = _policy(frozen, own, composition.any("needs_value_head"))  # untrained still: a reference is a copy of where the run began
    setup = replace(own.context.setup, policy=policy, engine=EmbeddedEngine(policy))
    learner = build(config, spec.method, setup, Streams(run.settings.seed), run.settings.steps, composition=composition)
    known = policy.state_dict()
    policy.load_state_dict({name: value for name, value in frozen.policy.items() if name in known}, strict=False)
    context, update = learner.context, learner.composition.update_of()
    context.updates = frozen.update
    parameters = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    batch = _given(rows, composition)
    numbers = torch.tensor([int(prompt.key) for prompt in batch.facts["graded"].prompts], dtype=torch.long)
    batch, _ = update.accepted(learner.credit(learner.retain(batch)))
    usable = usable_rows(batch)
    assign(parameters, frozen.path[-1])
    seen: list[tuple[Tensor, Tensor | None]] = []
    gradient = ascent_direction(learner, update, batch, parameters, seen)
    zeros = torch.zeros(len(usable), batch.rows.shape[1])
    dloss_dlogp = torch.cat([_gradient_or_zero(logp) for logp, _ in seen]).cpu() if seen else zeros
    cut = (
        torch.cat([torch.zeros_like(logp, dtype=torch.bool) if cut is None else cut for logp, cut in seen]).cpu() if seen else zeros.bool()
    )
    through = _through_tokens(learner, parameters, batch[usable], -dloss_dlogp)
    found = batch.rows
    advantage = torch.zeros(found.shape) if found.advantage is None else select(found.advantage, found.mask)
    count, chosen = len(numbers), frozen.rows.mask

    def on_batch(values: Tensor) -> Tensor:
        """Rows of the method's batch at their places in the frozen one; rows that the method added below are left out."""
        whole = values.new_zeros(chosen.shape)
        whole[numbers] = values[:count, : chosen.shape[1]]
        return whole[chosen]

    def of_usable(values: Tensor) -> Tensor:
        return values.new_zeros(found.shape).index_copy(0, usable, values)

    return Replay(
        spec, gradient.float(), through.float(), on_batch(of_usable(-dloss_dlogp)).double(), on_batch(of_usable(cut)), on_batch(found.mask),
        on_batch(advantage).double(), stopped=False, added=len(batch) - count,
    )  # fmt: skip


def _gradient_or_zero(logp: Tensor) -> Tensor:
    return torch.zeros_like(logp) if logp.grad is None else logp.grad


def _policy(frozen: Frozen, own: Learner, value_head: bool) -> LanguagePolicy:
    """A policy of its own with the weights that the run began with."""
    settings, fresh = frozen.run.settings, frozen.fresh
    if isinstance(fresh, tuple):
        model, tokenizer = fresh
        return LanguagePolicy(copy.deepcopy(model), tokenizer, device=settings.device, value_head=value_head)
    return copy.deepcopy(fresh) if fresh is not None else load_policy(settings, own.context.setup.task, value_head)


def gradient_of(parameters: list[Any]) -> Tensor:
    """The present gradient, ``[P]``, a copy."""
    return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.detach().flatten().float().cpu() for p in parameters])


def _through_tokens(learner: Learner, parameters: list[Any], batch: Batch, weight: Tensor) -> Tensor:
    """Sum of weight times ``grad log pi`` at the end of the path, in micro-batches; rows as in ``weight`` ``[k, T]``."""
    for parameter in parameters:
        parameter.grad = None
    size = learner.composition.update_of().micro_batch_rows or max(1, len(batch))
    for part, mine in zip(batch.rows.split(size), weight.split(size), strict=True):
        if len(part):
            logp = learner.context.score(part).logp
            (logp * mine.to(logp.device)).sum().backward()
    return gradient_of(parameters)


# --- control ---------------------------------------------------------------------------------------------------------------------------


def _control(spec: Spec, frozen: Frozen, own: Learner) -> Replay:
    run, moves = frozen.run, len(frozen.path) - 1
    names = (
        "num_envs", "batch_steps", "window", "hidden", "activation", "tanh_mean", "normalise_observations", "normalise_rewards", "gamma",
    )  # fmt: skip
    mine = {each.short: each.value for each in options_of(own.config)}
    given = {name: mine[name] for name in names if name in mine} | {
        "behaviour_steps": mine["batch_steps"], "sampling_error_every": 0, "epochs": moves + 1, "minibatches": 1,
    }  # fmt: skip
    config, seed = config_of(spec, run.settings, given), run.settings.seed
    learner = build_control(
        config, spec.method, lambda num_envs, seed: own.context.environments, Streams(seed), run.settings.steps,
        policy=copy.deepcopy(frozen.policy),
    )  # fmt: skip
    assert isinstance(learner, Learner)
    context, update = learner.context, ppo_update(learner.composition)
    assert update is not None
    for name in ("observations", "rewards"):
        if name in context.stores and name in own.context.stores:
            context.stores[name].load_state_dict(own.context.stores[name].state_dict())
    context.updates = frozen.update
    model, rows = context.models["policy"], frozen.rows
    vector = model.parameters.vector
    acting = _acting_parameters(context, rows)
    batch = learner.credit(Batch(rows.clone()))
    last = walked(learner, update, batch, lambda step: assign([vector], frozen.path[min(step, moves)]), moves + 1)
    count = rows.count()
    gradient = torch.zeros(sum(p.numel() for p in acting), dtype=torch.float64)
    weight, clipped, advantage = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.bool), torch.zeros(count).double()
    if last is not None:
        minibatch, step = last
        gradient = -torch.cat([model.parameters.part(model.parameters.gradient, p).flatten() for p in acting]).double()
        dloss_dlogp, _ = update.objective.derivatives(step.log_prob, step.value, step.targets)
        weight[minibatch.places] = -dloss_dlogp.double()
        clipped[minibatch.places] = update.objective.policy_loss(step.log_prob, step.targets).clipped
        advantage[minibatch.places] = step.targets.advantage.double()
    assign([vector], frozen.path[-1])
    logp = _distribution(context, rows).log_prob(rows.action[rows.mask])
    found = torch.autograd.grad((logp * weight.to(logp.dtype)).sum(), acting)
    through = torch.cat([part.flatten() for part in found])
    kept = torch.ones(count, dtype=torch.bool)
    return Replay(spec, gradient.float(), through, weight, clipped, kept, advantage, stopped=last is None)


def _distribution(context: Any, rows: Trajectories) -> Any:
    return context.models["policy"].policy.distribution(context.see(rows.observation[rows.mask]))


def _acting_parameters(context: Any, rows: Trajectories) -> list[Tensor]:
    """Parameters that the distribution of actions depends on: not the critic's own."""
    everything = [p for p in context.models["policy"].policy.parameters() if p.requires_grad]
    outputs = _distribution(context, rows[:1]).parameters.sum()
    found = torch.autograd.grad(outputs, everything, allow_unused=True)
    return [parameter for parameter, gradient in zip(everything, found, strict=True) if gradient is not None]
