"""Ensembles of critics: K networks in one, whichever library multiplies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rheostat.errors import RheostatError
from rheostat.policies.control import critics
from rheostat.policies.control.critics import EnsembleQ, Stack, StateValue


def alone(stack: Stack, k: int, x: Tensor) -> Tensor:
    """Network k of a stack, written out with PyTorch's own layers."""
    last = len(stack.weights) - 1
    for index, (weight, bias) in enumerate(zip(stack.weights, stack.biases, strict=True)):
        x = nn.functional.linear(x, weight[k], bias[k, 0])
        if index < last:
            if len(stack.scales):
                x = nn.functional.layer_norm(x, x.shape[-1:], stack.scales[index][k, 0], stack.shifts[index][k, 0])
            x = x.relu()
    return x


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("width", [8, 128])  # 128: wide enough for the other library
def test_every_network_of_a_stack_is_a_plain_perceptron(width: int, normalise: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    stack = Stack(3, 5, (width, width), 2, normalise=normalise, generator=draw)
    for parameter in (*stack.scales, *stack.shifts):
        nn.init.normal_(parameter, generator=draw)
    x = torch.randn(64, 5, generator=draw, requires_grad=True)
    found, expected = stack(x), torch.stack([alone(stack, k, x) for k in range(3)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    down = torch.randn(found.shape, generator=draw)
    inputs = [x, *stack.parameters()]
    for one, other in zip(torch.autograd.grad(found, inputs, down), torch.autograd.grad(expected, inputs, down), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("networks_apart", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_all_ways_of_multiplying_agree(networks_apart: bool, frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(2, 7, (32, 32), 1, generator=torch.Generator().manual_seed(1))
    x = torch.randn(2, 16, 7, generator=torch.Generator().manual_seed(2), requires_grad=True)
    expected = torch.stack([alone(stack, k, x[k]) for k in range(2)])
    monkeypatch.setattr(critics, "by_onednn", lambda *facts: networks_apart)
    found = stack(x, frozen=frozen)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    inputs = [x] if frozen else [x, *stack.parameters()]
    for one, other in zip(torch.autograd.grad(found.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_what_happens_in_place_changes_neither_rows_nor_answers() -> None:
    stack = Stack(2, 3, (8,), 1, generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, 3, requires_grad=True)
    kept, found = x.detach().clone(), stack(x)
    first = torch.autograd.grad(found.sum(), x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(found.sum(), x)[0], first) and torch.equal(x.detach(), kept)
    with torch.no_grad():
        assert torch.equal(stack(x), found)


def test_rows_of_their_own_go_to_their_network() -> None:
    stack = Stack(2, 3, (8,), 1, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(stack(x)[1], stack(x[1])[1])


@pytest.mark.parametrize("width", [8, 128])
def test_a_subset_answers_as_it_does_among_all(width: int) -> None:
    draw = torch.Generator().manual_seed(3)
    stack, x, chosen = Stack(5, 3, (width, width), 2, normalise=True, generator=draw), torch.randn(64, 3), torch.tensor([4, 1])
    for parameter in (*stack.scales, *stack.shifts):
        nn.init.normal_(parameter, generator=draw)
    torch.testing.assert_close(stack(x, subset=chosen), stack(x)[chosen], rtol=1e-4, atol=1e-5)
    own = torch.randn(2, 64, 3)
    expected = torch.stack([alone(stack, 4, own[0]), alone(stack, 1, own[1])])
    torch.testing.assert_close(stack(own, subset=chosen), expected, rtol=1e-4, atol=1e-5)


def test_frozen_critics_pass_the_gradient_to_the_action_alone() -> None:
    critic = EnsembleQ(3, 2, hidden=(8,), generator=torch.Generator().manual_seed(0))
    observation, action = torch.randn(5, 3), torch.randn(5, 2, requires_grad=True)
    critic(observation, action, frozen=True).sum().backward()
    assert action.grad is not None and action.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in critic.parameters())
    torch.testing.assert_close(critic(observation, action), critic(observation, action, frozen=True))


def test_many_actions_of_an_observation_are_judged_one_by_one() -> None:
    critic = EnsembleQ(3, 2, hidden=(8,), generator=torch.Generator().manual_seed(0))
    observation, actions = torch.randn(5, 3), torch.randn(5, 4, 2)
    each = torch.stack([critic(observation, actions[:, i]) for i in range(4)], -1)
    torch.testing.assert_close(critic.of_many(observation, actions), each)


def test_the_state_value_is_one_number_per_row() -> None:
    assert StateValue(3, hidden=(8,))(torch.randn(5, 3)).shape == (5,)


def test_an_empty_ensemble_is_refused() -> None:
    with pytest.raises(RheostatError, match="at least 1"):
        Stack(0, 3, (8,), 1)
