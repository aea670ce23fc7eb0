"""One update on a world of preferences beside a plain implementation: loops over prompts and samples, the raw network, Adam by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.learner.preferences import build
from rheostat.policies.answers import ContextMLP, TablePolicy
from rheostat.streams import Streams
from rheostat.tasks.preferences.didactic import DidacticBandit
from rheostat.training.settings import configure

BANDIT: dict[str, dict[str, Any]] = {
    "best-of-n": {"loss": "best-of-n"},
    "worst": {"loss": "best-of-n", "negative_gradient": "worst", "negative_weight": 0.3},
    "sum": {"loss": "best-of-n", "negative_gradient": "sum-of-worse", "negative_weight": 0.1, "least_ratio": 0.5},
    "rwr": {"loss": "rwr", "temperature": 0.7},
    "ipo": {"loss": "ipo", "target_margin": 4.0, "pair_threshold": 0.05},
    "dpo": {"loss": "dpo", "beta": 0.3},
    "reinforce": {"loss": "reinforce", "entropy_coefficient": 0.1},
    "nothing pushed": {"loss": "reinforce", "loss.negative_gradient": False},
    "ppo": {"loss": "ppo", "clip": 0.05, "kl_coefficient": 0.2},
}


def logp_of(network: Any, prompt: Tensor, answer: Tensor) -> list[Tensor]:
    """Log-probability of every token of one answer, one prompt at a time, from the raw layers."""
    found = []
    if hasattr(network, "layers"):
        scores = network.layers(prompt[None])[0]
        for token in answer:
            found.append(scores[token] - torch.logsumexp(scores, 0))
        return found
    row = torch.cat([prompt, answer])
    for place in range(len(answer)):
        scores = network.network(row[None, : len(prompt) + place])[0, -1]
        found.append(scores[answer[place]] - torch.logsumexp(scores, 0))
    return found


def plain_loss(name: str, options: dict[str, Any], network: Any, reference: Any, batch: Any, normalised: list[list[float]]) -> Tensor:
    """The loss of a batch, sample by sample."""
    total, pairs, weights = torch.zeros(()), 0, [w for row in normalised for w in row]
    prompts, samples = batch.reward.shape
    for s in range(prompts):
        tokens = [logp_of(network, batch.prompt[s], batch.answer[s, k]) for k in range(samples)]
        lp = [sum(each, torch.zeros(())) for each in tokens]
        with torch.no_grad():
            ref_tokens = [[float(x) for x in reference_logp(reference, batch.prompt[s], batch.answer[s, k])] for k in range(samples)]
        ref = [sum(each) for each in ref_tokens]
        reward = batch.reward[s].tolist()
        best = reward.index(max(reward))
        if options["loss"] == "best-of-n":
            total = total - lp[best] / prompts
            weight = options.get("negative_weight", 0.0)
            if name == "worst":
                total = total + weight * lp[reward.index(min(reward))] / prompts
            if name == "sum":
                for k in range(samples):
                    if k != best and math.exp((lp[k] - lp[best]).item()) > options["least_ratio"]:
                        total = total + weight * lp[k] / prompts
        elif options["loss"] == "rwr":
            for k in range(samples):
                total = total - math.exp(reward[k] / options["temperature"]) * lp[k] / (prompts * samples)
        elif options["loss"] in ("ipo", "dpo"):
            for i in range(samples):
                for j in range(i + 1, samples):
                    if abs(reward[i] - reward[j]) < options.get("pair_threshold", 0.0):
                        continue
                    winner, loser = (i, j) if reward[i] >= reward[j] else (j, i)
                    margin = (lp[winner] - ref[winner]) - (lp[loser] - ref[loser])
                    pairs += 1
                    if options["loss"] == "ipo":
                        total = total + (margin - options["target_margin"]) ** 2
                    else:
                        total = total + torch.log1p(torch.exp(-options["beta"] * margin))
        elif options["loss"] == "reinforce":
            for k in range(samples):
                weight = normalised[s][k] - (0.0 if options.get("loss.negative_gradient", True) else min(weights))
                total = total + (options.get("entropy_coefficient", 0.0) - weight) * lp[k] / (prompts * samples)
        else:
            for k in range(samples):
                for t, token in enumerate(tokens[k]):
                    ratio = torch.exp(token - batch.old_logp[s, k, t])
                    clipped = torch.clamp(ratio, 1 - options["clip"], 1 + options["clip"])
                    worse = torch.maximum(-normalised[s][k] * ratio, -normalised[s][k] * clipped)
                    total = total + (worse + options["kl_coefficient"] * (token - ref_tokens[k][t])) / (prompts * samples)
    return total / max(pairs, 1)


def reference_logp(reference: Any, prompt: Tensor, answer: Tensor) -> list[Tensor]:
    """Of the table, or of the frozen network."""
    return [reference.table[token] for token in answer] if hasattr(reference, "table") else logp_of(reference, prompt, answer)


def running(rewards: list[list[float]]) -> list[list[float]]:
    """Every reward normalised by all up to itself."""
    seen: list[float] = []
    found = []
    for row in rewards:
        found.append([])
        for value in row:
            seen.append(value)
            mean = sum(seen) / len(seen)
            deviation = math.sqrt(max(sum(x * x for x in seen) / len(seen) - mean**2, 0.0))
            found[-1].append((value - mean) / (deviation + 1e-12))
    return found


class Exact(DidacticBandit):
    """The bandit in float64."""

    def __init__(self, name: str, seed: int) -> None:
        super().__init__(name, seed)
        self.training, self.held_out, self.kernel = self.training.double(), self.held_out.double(), self.kernel.double()
        self.reference = TablePolicy(self.data.double())

    def start(self) -> ContextMLP:
        return super().start().double()


def two_steps(name: str, options: dict[str, Any], task: str, loss: Callable[..., Tensor] = plain_loss) -> float:
    """The largest difference of a weight after two gradient steps on one batch, between the learner and the plain implementation.

    In float64: Adam turns the rounding error of a gradient that is nearly 0 into a whole step.
    """
    config = configure("suboptimal-onpolicy-prefs", {"prompts_per_batch": 3, "samples": 3, "reuse": 2, "learning_rate": 1e-2} | options)
    learner = build(config, "suboptimal-onpolicy-prefs", Exact(task, 5), Streams(5), 4)
    network = copy.deepcopy(learner.policy)
    learner.turn()
    batch = learner.context.batch
    learner.turn()
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in network.parameters()]
    normalised = running(batch.reward.tolist())
    for step in (1, 2):
        found = loss(name, options, network, learner.context.problem.reference, batch, normalised)
        gradients = torch.autograd.grad(found, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient, (first, second) in zip(network.parameters(), gradients, moments, strict=True):
                first.mul_(0.9).add_(0.1 * gradient)
                second.mul_(0.999).add_(0.001 * gradient**2)
                parameter -= 1e-2 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    return max((p - q).abs().max().item() for p, q in zip(network.parameters(), learner.policy.parameters(), strict=True))


def first_gradient(name: str, options: dict[str, Any], task: str, *, wrong: bool = False) -> float:
    """The relative difference of the first gradient, which Adam's first step cannot hide."""
    config = configure("suboptimal-onpolicy-prefs", {"prompts_per_batch": 3, "samples": 3, "reuse": 2} | options)
    learner = build(config, "suboptimal-onpolicy-prefs", task, Streams(5), 4)
    context, step = learner.context, learner.composition.improve[0]
    batch = learner.credit(learner.retain(learner.collect())).rows
    network, given = learner.policy, options
    ours = torch.autograd.grad(step.loss(network.logp(batch.prompt, batch.answer), batch)[0], list(network.parameters()))
    if wrong:
        numbers = {key: 1.5 * value for key, value in options.items() if isinstance(value, float)}
        given = options | (numbers or {"loss": "rwr", "temperature": 1.0})
    loss = plain_loss(name, given, network, context.problem.reference, batch, running(batch.reward.tolist()))
    theirs = torch.autograd.grad(loss, list(network.parameters()))
    size = math.sqrt(sum(float(g.square().sum()) for g in theirs))
    return math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(ours, theirs, strict=True))) / size


@pytest.mark.parametrize("name", BANDIT)
def test_gradient_on_the_bandit(name: str) -> None:
    assert first_gradient(name, BANDIT[name], "bandit-away") < 1e-4


@pytest.mark.parametrize("name", ["worst", "sum", "rwr", "ipo", "dpo", "ppo", "reinforce"])
def test_a_wrong_equation_is_seen(name: str) -> None:
    assert first_gradient(name, BANDIT[name], "bandit-away", wrong=True) > 1e-3


@pytest.mark.parametrize("name", ["ipo", "ppo", "worst"])
def test_gradient_on_sequences(name: str) -> None:
    assert first_gradient(name, BANDIT[name] | {"pair_threshold": 0.0} if name == "ipo" else BANDIT[name], "sequence-away") < 1e-4


@pytest.mark.parametrize("name", ["ipo", "ppo"])
def test_two_updates(name: str) -> None:
    assert two_steps(name, BANDIT[name], "bandit-away") < 1e-9
