"""Golden vectors of N2N: the reward and its constraints, the baseline, the gradient of both controllers' losses, rounding, distillation."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rheostat.collect.compression.search import Worth
from rheostat.credit.running_baseline import RunningMean
from rheostat.methods.compression.n2n import N2N
from rheostat.objectives.compression_reward import compression_reward, constrained_reward, logit_mse, tolerance
from rheostat.policies.compression.controllers import scores_of
from rheostat.tasks.compression.architecture import Architecture, Layer
from rheostat.tasks.compression.cutting import LOOKUP, NUMBERS, PADDING, SIZE, shrunken
from tests.vectors.methods import around, batch_of
from tests.vectors.tools import Unsupported, gradients, integer, leaf, plain, tensor

WINDOWS = ((3, 1), (3, 1), (1, 0), (5, 2))
"""Kernels and paddings of the convolutions that shrink; the file does not say them, and these give what it found."""


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name.startswith("reward"):
        return reward(inputs, params)
    if name == "running_baseline":
        return baseline(inputs["avg_reward_per_epoch"])
    if name.startswith("reinforce"):
        stage = "removal" if "removal" in name else "shrinkage"
        return plain(loss(stage, inputs["logits"], inputs["actions"], inputs["avg_reward_minus_baseline"]))
    if name == "shrink_out_channels":
        return shrink(inputs["out_channels"], inputs["action_index"], params)
    if name == "distillation_logit_mse":
        student = leaf(inputs["student_logits"])
        found = logit_mse(student, tensor(inputs["teacher_logits"]))
        return plain({"loss": found, "grad_student": gradients(found, student)[0]})
    raise Unsupported(f"the adapter does not know a case {name!r}")


def reward(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Of one network. A case has no network, only its size."""
    worth = Worth(most_parameters=int(params["size_constraint"] or 0), least_accuracy=params["acc_constraint"] or 0.0)
    free = compression_reward(inputs["acc"], inputs["params"], inputs["baseline_acc"], inputs["baseline_params"])
    found = constrained_reward(free, worth.keeps(inputs["params"], inputs["acc"]), inputs["epoch"], worth.horizon)
    return {"reward": found, "epsilon": tolerance(inputs["epoch"])}


def baseline(means: list[float]) -> dict[str, Any]:
    """In the authors' order."""
    running, found = RunningMean(authors=True), []
    for mean in means:
        found.append(running.value)
        running.add(mean)
    return {"baseline": found, "advantage": [mean - value for mean, value in zip(means, found, strict=True)]}


def loss(stage: str, logits: list[list[float]], actions: list[int], signal: float) -> dict[str, Tensor]:
    """Of one rollout, by the term of the method's own update."""
    at, action = leaf([logits]), integer([actions])
    mask = action >= 0
    batch = batch_of(mask, action=action, advantage=tensor([[signal] * len(actions)]))
    term = N2N().stage(stage).improve[0].terms[0].term
    context = around()
    found, _ = term(scores_of(at, action, mask), batch, term.denominator(batch, context), context)
    return {"loss": found, "grad_logits": gradients(found, at)[0][0]}


def shrink(sizes: list[int], actions: list[int], params: dict[str, Any]) -> dict[str, Any]:
    """Convolutions one after the other, before a layer that makes the logits."""
    assert tuple(params["lookup"]) == LOOKUP
    chain = [Layer("Conv2d", kernel, 1, size, padding) for size, (kernel, padding) in zip(sizes, WINDOWS, strict=True)]
    whole = Architecture((*chain, Layer("Flatten"), Layer("Linear", size=2)), (1, 32, 32))
    decisions = [action for each in [*actions, 0, 0] for action in [each] * NUMBERS]
    layers = [place.layer.numbers for place in shrunken(whole, decisions).places[: len(sizes)]]
    return {"new_out_channels": [each[SIZE] for each in layers], "new_kernel": [each[1] for each in layers]} | {
        "new_padding": [each[PADDING] for each in layers]
    }
