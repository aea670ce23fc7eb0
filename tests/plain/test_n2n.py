"""N2N against loops: one decision at a time from the raw LSTMs, the baseline from a list, one gradient for each controller."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.parts import Batch
from rheostat.tasks.compression.cutting import LOOKUP
from tests import tiny_compression as tiny

FREE_LAYERS = [False, True, True, True, True, True, True, True, False, False, False]
"""Of the small chain: all but its first layer, the average pool, what flattens and the linear layer may go."""
FREE_NUMBERS = {0: (1, 3, 4), 3: (1, 3, 4), 5: (1, 2), 6: (1, 3, 4)}
"""Of its layers that may shrink: which of their numbers may (kernel 1, stride 2, size 3, padding 4)."""


def numbers() -> list[list[float]]:
    """The layers as they are: type, kernel, stride, size, padding."""
    return [[float(value) for value in place.layer.numbers] for place in tiny.CHAIN.places]


def read(layer: list[float]) -> Tensor:
    """What a controller sees of a layer."""
    kind, kernel, stride, size, padding = layer
    return torch.tensor([kind / 10, kernel / 7, stride / 4, math.log2(1 + size) / 9, padding / 3])


def logp_of(logits: Tensor, action: int) -> Tensor:
    """By the definition of a softmax."""
    return torch.log(torch.exp(logits[action]) / torch.exp(logits).sum())


def removal(network: Any, actions: list[int]) -> Tensor:
    """Sum of the log-probabilities of the decisions that count."""
    seen, _ = network.memory(torch.stack([read(layer) for layer in numbers()])[None])
    total = torch.zeros(())
    for index, free in enumerate(FREE_LAYERS):
        if free:
            total = total + logp_of(network.choice(seen[0, index]), actions[index])
    return total


def shrinkage(network: Any, actions: list[int]) -> Tensor:
    """The same, with the state carried from number to number."""
    state, total = None, torch.zeros(())
    for index, layer in enumerate(numbers()):
        now = list(layer)
        for number in range(5):
            seen, state = network.memory(read(now)[None, None], state)
            if number in FREE_NUMBERS.get(index, ()):
                action = actions[5 * index + number]
                total = total + logp_of(network.choice(seen[0, 0]), action)
                now[number] *= LOOKUP[action]
    return total


PLAIN = {"removal": removal, "shrinkage": shrinkage}


def gradient(one: Any, name: str, rows: Any, signals: list[float]) -> Tensor:
    """Of - 1/N sum_i signal_i sum_t log pi."""
    network = one.context.models[name].network
    loss = torch.zeros(())
    for actions, signal in zip(rows.action.tolist(), signals, strict=True):
        loss = loss - signal * PLAIN[name](network, actions) / len(signals)
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(network.parameters()))])


def signals(rewards: list[float], before: list[float], shared: bool, authors: bool) -> list[float]:
    """Rewards less the baseline, of the means of earlier epochs."""
    mean = sum(rewards) / len(rewards)
    first = 0.0 if shared or authors else mean
    baseline = sum(before) / (len(before) + authors) if before else first
    return [(mean if shared else reward) - baseline for reward in rewards]


@pytest.mark.parametrize("name", ["removal", "shrinkage"])
@pytest.mark.parametrize(("shared", "authors"), [(False, False), (True, True)])
def test_a_step_of_a_controller_is_the_plain_one(name: str, shared: bool, authors: bool) -> None:
    options: Any = {"signal": "epoch" if shared else "rollout", "baseline_divisor": "epochs+1" if authors else "epochs"}
    one = tiny.built(removal_share=1.0 if name == "removal" else 0.0, **options)
    means: list[float] = []
    for _ in range(3):
        rows = one.retain(one.collect()).rows
        rewards = rows.reward.sum(1).tolist()
        expected = gradient(one, name, rows, signals(rewards, means, shared, authors))
        one.improve(one.credit(Batch(rows)))
        means.append(sum(rewards) / len(rewards))
        found = torch.cat([each.grad.flatten() for each in one.context.models[name].network.parameters()])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert expected.abs().max() > 1e-3
    wrong = gradient(one, name, rows, signals(rewards, means[:2], not shared, authors))
    assert not torch.allclose(found, wrong, atol=1e-5)  # the other signal is another equation


def test_the_controllers_draw_by_the_probabilities_that_they_learn_from() -> None:
    for share, name in ((1.0, "removal"), (0.0, "shrinkage")):
        one = tiny.built(removal_share=share, rollouts=4)
        rows = one.collect().rows
        for row, actions in enumerate(rows.action.tolist()):
            plain = PLAIN[name](one.context.models[name].network, actions)
            torch.testing.assert_close(rows.sampler_logp[row].sum(), plain, atol=1e-5, rtol=1e-5)


def test_one_step_per_rollout_makes_as_many_steps_of_one_row() -> None:
    one = tiny.built(step_per="rollout", removal_share=1.0)
    assert one.turn()["gradient_steps"] == tiny.OPTIONS["rollouts"]
    assert tiny.built(removal_share=1.0).turn()["gradient_steps"] == 1
