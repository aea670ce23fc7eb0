"""Adapter for ``relic.json``: attention with a sink, counters, GAE, the loss of an update, its schedule, and the order of episodes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rheostat.buffers.trial_order import shuffled_places
from rheostat.collect.control.trial_rollout import WholeTrial
from rheostat.methods.control.relic import ReLIC
from rheostat.parts import Batch
from rheostat.policies.control.in_context import TrialRows
from rheostat.policies.control.sink_attention import counters, sink_attention, visible_steps
from rheostat.trajectories import Trajectories
from tests.vectors.tools import Unsupported, boolean, gradients, leaf, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name.startswith("sink_kv"):
        return attention(inputs)
    if name.startswith("position_and_episode"):
        return positions(inputs["mask"], params["num_sink"])
    if name == "returns_gae":
        return worth(inputs, params)
    if name.startswith("ppo_loss"):
        return loss(inputs, params)
    if name.startswith("update_schedule"):
        return schedule(params)
    if name == "shuffle_old_episodes_index":
        starts = [*inputs["episode_starts"]]
        order = [number - 1 for number in inputs["order"] if number]  # theirs has an episode of no steps in the first place
        return {"index": shuffled_places(starts, inputs["current_step"] + 1, order)}
    raise Unsupported(f"the adapter does not know a case {name!r}")


def attention(inputs: dict[str, Any]) -> dict[str, Any]:
    """Of one row."""
    names = ("q", "k", "v", "sink_k", "sink_v")
    parts = [leaf(inputs[name]) for name in names]
    query, key, value, k0, v0 = parts
    visible = visible_steps(torch.ones(1, query.shape[1], dtype=torch.bool))
    out = sink_attention(query[None], key[None], value[None], visible, (k0, v0))[0]
    found = gradients((out * tensor(inputs["cotangent"])).sum(), *parts)
    return {"out": out} | {f"grad_{name}": each for name, each in zip(names, found, strict=True)}


def positions(mask: list[list[float]], sinks: int) -> dict[str, Any]:
    """Theirs have a column for the sink, which holds 0."""
    found = [torch.nn.functional.pad(each, (sinks, 0)) for each in counters(~boolean(mask), sinks)]
    return dict(zip(("position_ids", "sequence_ids"), found, strict=True))


def rows_of(reward: Tensor, **fields: Tensor) -> Trajectories:
    """Steps of which only these facts are known."""
    no = torch.zeros(reward.shape, dtype=torch.bool)
    known = {"action": no.long(), "mask": ~no, "terminated": no, "truncated": no, "sampler_logp": reward, "reward": reward}
    return Trajectories(**(known | fields), batch_size=list(reward.shape))  # type: ignore[arg-type]


def worth(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """By the method's annotation; an episode may end at a time limit, too."""
    value, ended = tensor(inputs["value"]), ~boolean(inputs["mask"])[:, 1:]
    following = torch.cat([value[:, 1:], tensor(inputs["next_value"]).unsqueeze(1)], 1)
    ends = {"terminated": ended & (torch.arange(ended.shape[1]) % 2 == 0), "truncated": ended & (torch.arange(ended.shape[1]) % 2 == 1)}
    rows = rows_of(tensor(inputs["reward"]), value=value, next_value=following, **ends)
    annotation = replace(ReLIC().gae, gamma=params["gamma"], lam=params["tau"])
    assert annotation in replace(ReLIC(), gae=annotation).compose().credit
    annotation(SimpleNamespace(stores={}), Batch(rows, {"seen": rows.mask}))
    return {"returns": rows.value_target, "advantage": rows.advantage}


class Recorded:
    """A network and its distribution, with recorded outputs: what it should go backward with are derivatives by log-probability, by
    entropy and by value."""

    def __init__(self, log_prob: Tensor, value: Tensor) -> None:
        self.log_prob, self.value, self.distribution = log_prob, value, self
        self.blocks: tuple[()] = ()
        one, no = torch.ones_like(log_prob), torch.zeros_like(log_prob)
        self.by_log_prob, self.by_entropy = torch.stack([one, no], -1), torch.stack([no, one], -1)
        self.found: tuple[Tensor, Tensor] = (no, no)

    def evaluate(self, rows: TrialRows, *, critic: bool = True) -> Recorded:
        return self

    def log_prob_and_gradient(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return self.log_prob, self.by_log_prob.clone()

    def entropy_gradient(self) -> Tensor:
        return self.by_entropy

    def backward(self, outputs: Tensor, value: Tensor) -> None:
        self.found = outputs, value


def loss(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """By the method's update on one minibatch of all trials, whose older steps are context."""
    logp, value, entropy = (tensor(inputs[name]) for name in ("logp", "value", "entropy"))
    method = ReLIC()
    objective = replace(method.objective, epsilon=params["clip"], value=params["clip_value"])
    settings = {"value_coefficient": params["value_coef"], "entropy_coefficient": params["entropy_coef"], "minibatches": 1}
    assert not params["normalise_advantage"] and not method.update.normalise_advantage
    update: Any = replace(method, objective=objective, update=replace(method.update, **settings)).compose().update_of()
    rows = rows_of(
        torch.zeros_like(logp),
        mask=(torch.arange(logp.shape[1]) >= params["loss_from_step"]).expand(logp.shape),
        sampler_logp=tensor(inputs["old_logp"]),
        learner_logp=torch.full_like(logp, torch.nan),
        advantage=tensor(inputs["advantage"]),
        value_target=tensor(inputs["returns"]),
        value=tensor(inputs["old_value"]),
    )
    nothing = rows.mask.float()
    trials = TrialRows(nothing, nothing.unsqueeze(-1), nothing, ~rows.mask, rows.mask, rows.mask)
    model = SimpleNamespace(parameters=SimpleNamespace(gradient=torch.zeros(1)))
    context: Any = SimpleNamespace(models={"policy": model}, streams=defaultdict(torch.Generator))
    (minibatch,) = update.passed(context, rows.transitions(), trials)
    at = minibatch.places
    model.network = Recorded(logp[rows.mask][at], value[rows.mask][at])
    step = update.accumulate(context, minibatch)
    policy, critic = objective.policy_loss(step.log_prob, step.targets), objective.value_loss(step.value, step.targets)
    outputs, by_value = model.network.found

    def spread(found: Tensor) -> Tensor:
        flat = torch.zeros(int(rows.mask.sum()), dtype=torch.float64).index_copy(0, at, found)
        return torch.zeros_like(logp).masked_scatter(rows.mask, flat)

    return {
        "loss": policy.loss + params["value_coef"] * critic - params["entropy_coef"] * entropy[rows.mask].mean(),
        "action_loss": policy.loss,
        "value_loss": critic,
        "grad_logp": spread(outputs[:, 0]),
        "grad_entropy": spread(outputs[:, 1]),
        "grad_value": spread(by_value),
    }


def schedule(params: dict[str, Any]) -> dict[str, Any]:
    """As the method keeps it; the file has the first three updates and the last two."""
    updates = params["updates_per_rollout"]
    keep = WholeTrial(full=params["full_updates_per_rollout"], updates=updates, steps=params["num_steps"])
    found = [[due.steps, "final" if due.final else "partial", due.loss_from] for due in keep.schedule]
    return {"n_updates": len(found), "first": found[:3], "last": found[-2:]}
