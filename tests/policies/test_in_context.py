"""Policies that read whole trials: causality, the cache, sinks, counters, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.policies.control.in_context import SinkKind, TransformerActorCritic, TrialRows, encoded_action, kept_layers
from rheostat.policies.control.sink_attention import counters, rotated, sink_attention, visible_steps

OBSERVATIONS, ACTIONS = spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Discrete(4)
SINKS = get_args(SinkKind)


def policy(*, spread: bool = True, **options: Any) -> TransformerActorCritic:
    """A small one whose outputs, and sinks, are not nearly 0."""
    sizes: dict[str, Any] = {"steps": 12, "longest_episode": 12, "layers": 2, "width": 16, "heads": 2, "inner": 8}
    network = TransformerActorCritic(OBSERVATIONS, ACTIONS, **(sizes | options))
    if spread:
        with torch.no_grad():
            chance = torch.Generator().manual_seed(1)
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter += 0.3 * torch.randn(parameter.shape, generator=chance)
    return network


def trials(rows: int = 3, steps: int = 9, seed: int = 0, unseen: bool = True) -> TrialRows:
    """Random ones; some rows are no step of an episode."""
    chance = torch.Generator().manual_seed(seed)
    begins = torch.rand(rows, steps, generator=chance) < 0.3
    begins[:, 0] = True
    seen = begins | (torch.rand(rows, steps, generator=chance) < 0.8) if unseen else torch.ones(rows, steps, dtype=torch.bool)
    action = encoded_action(torch.randint(4, (rows, steps), generator=chance), ACTIONS)
    observation, reward = torch.randn(rows, steps, 3, generator=chance), torch.randn(rows, steps, generator=chance)
    return TrialRows(observation, action, reward, begins, seen, seen)


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("sink", SINKS)
def test_a_step_does_not_depend_on_later_ones(sink: SinkKind, across: bool) -> None:
    network, rows = policy(sink=sink, across_episodes=across), trials()
    other = trials(seed=5)
    for t in (0, 4, 8):

        def mixed(name: str, t: int = t) -> Tensor:
            mine, theirs = getattr(rows, name), getattr(other, name)
            return torch.cat([mine[:, : t + 1], theirs[:, t + 1 :]], 1)

        changed = TrialRows(*map(mixed, ("observation", "action", "reward", "begins", "seen", "mask")))
        now, then = network.along(rows), network.along(changed)
        assert torch.allclose(now[:, : t + 1], then[:, : t + 1], atol=1e-5)
        assert t == 8 or not torch.allclose(now[:, t + 1 :], then[:, t + 1 :], atol=1e-2)


@pytest.mark.parametrize("across", [True, False])
def test_a_step_depends_on_earlier_episodes_exactly_where_it_sees_them(across: bool) -> None:
    network, rows = policy(across_episodes=across), trials(1, 6, unseen=False)
    rows = replace(rows, begins=torch.tensor([[True, False, False, True, False, False]]))
    observation = rows.observation.clone().requires_grad_(True)
    network.along(replace(rows, observation=observation))[0, 5].sum().backward()
    assert observation.grad is not None
    reached = observation.grad[0].abs().sum(-1) > 1e-7
    assert reached.tolist() == [across] * 3 + [True] * 3


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("sink", SINKS)
@torch.no_grad()
def test_acting_with_the_cache_equals_the_full_pass(sink: SinkKind, across: bool) -> None:
    """Whatever the rewards, beginnings and rows between episodes."""
    network, chance = policy(sink=sink, across_episodes=across), torch.Generator().manual_seed(3)
    memory, rows = network.memory(3), []
    found = []
    for t in range(9):
        acting = (torch.rand(3, generator=chance) < 0.8) | (t == 0)
        token = {name: value.clone() for name, value in memory.before(acting).items()}
        observation = torch.randn(3, 3, generator=chance)
        found.append(memory(observation, acting).parameters)
        rows.append((observation, token["action"], token["reward"], token["begins"], acting))
        action, reward = torch.randint(4, (3,), generator=chance), torch.randn(3, generator=chance)
        ended = torch.rand(3, generator=chance) < 0.3
        memory.observe(reward, ended, action, acting)
    columns = [torch.stack(column, 1) for column in zip(*rows, strict=True)]
    whole = TrialRows(*columns, columns[-1])
    assert int(whole.begins.sum()) > 3 and not bool(whole.seen.all())
    expected = network.head(network.along(whole).flatten(0, 1)).parameters.view(3, 9, -1)
    assert torch.allclose(torch.stack(found, 1)[whole.seen], expected[whole.seen], atol=1e-5)
    filled = network.memory(3)
    network.along(whole, filled.cache)  # a refresh makes the same cache
    assert filled.cache.length == memory.cache.length == 9
    for name in ("keys", "values"):
        mine, theirs = getattr(memory.cache, name)[..., :9, :], getattr(filled.cache, name)[..., :9, :]
        visible = whole.seen[None, :, None, :, None]
        assert torch.allclose(mine * visible, theirs * visible, atol=1e-5)
    assert torch.equal(memory.cache.episode[:, :9][whole.seen], filled.cache.episode[:, :9][whole.seen])


@torch.no_grad()
def test_an_empty_sink_is_softmax_plus_one() -> None:
    query, key, value = (torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    visible = visible_steps(torch.ones(2, 5, dtype=torch.bool))
    nothing = torch.zeros(2, 1, 4)
    found = sink_attention(query, key, value, visible, (nothing, nothing))
    weight = (query @ key.transpose(-1, -2) / 2).exp() * visible.unsqueeze(1)
    assert torch.allclose(found, (weight / (1 + weight.sum(-1, keepdim=True))) @ value, atol=1e-6)


@pytest.mark.parametrize(("sink", "learned"), [("key-value", 2), ("key", 1), ("value", 1), ("zero", 0), ("none", 0)])
def test_which_parts_of_a_sink_learn(sink: SinkKind, learned: int) -> None:
    network = policy(sink=sink)
    network.along(trials()).square().sum().backward()
    moved = [name for name, each in network.named_parameters() if "sink" in name and each.grad is not None and bool(each.grad.any())]
    assert len(moved) == learned * 2
    assert network.shift == (sink != "none")


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 1))
@settings(max_examples=50, deadline=None)
def test_counters_count(marks: list[bool], shift: int) -> None:
    position, episode = (each[0].tolist() for each in counters(torch.tensor([marks]), shift))
    at, number = -1, 0
    for t, begins in enumerate(marks):
        at, number = (0 if begins else at + 1), number + (begins and t > 0)
        assert (position[t], episode[t]) == (at + shift, number + shift)


def test_rotation_depends_on_the_difference_of_episodes_alone() -> None:
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def product(a: int, b: int) -> Tensor:
        return (rotated(query, torch.tensor([[a]])) * rotated(key, torch.tensor([[b]]))).sum()

    assert torch.allclose(product(3, 1), product(7, 5), atol=1e-5)
    assert torch.equal(rotated(query, torch.zeros(1, 1, dtype=torch.int64)), query)


def test_layers_are_left_out_whole() -> None:
    network, rows = policy(), trials()
    nothing = network.along(replace(rows, layers=torch.zeros(2)))
    position, _ = counters(rows.begins, network.shift)
    tokens = network.tokens(rows.observation, rows.action, rows.reward, rows.begins, position)
    assert torch.allclose(nothing, network.norm(tokens))
    assert torch.allclose(network.along(replace(rows, layers=torch.ones(2))), network.along(rows))
    drawn = torch.stack([kept_layers(4, 0.25, torch.Generator().manual_seed(seed)) for seed in range(300)])  # type: ignore[arg-type]
    assert set(drawn.unique().tolist()) == {0.0, 1.0} and abs(float(drawn.mean()) - 0.75) < 0.05


def test_a_memory_is_saved_whole() -> None:
    network = policy()
    memory, other = network.memory(2), network.memory(2)
    for _ in range(3):
        memory(torch.randn(2, 3))
        memory.observe(torch.randn(2), torch.tensor([True, False]))
    other.load_state_dict(memory.state_dict())
    seen = torch.randn(2, 3)
    assert torch.equal(memory(seen).parameters, other(seen).parameters)


def test_what_a_memory_refuses() -> None:
    network = policy(steps=4, longest_episode=2)
    memory = network.memory(1)
    with pytest.raises(RheostatError, match=r"act with run.policy\(observation, memory\) first"):
        memory.observe(0.0)
    with pytest.raises(RheostatError, match="The memory is of 1 trials, and there are 2 observations"):
        memory(torch.zeros(2, 3))
    memory(torch.zeros(1, 3))
    with pytest.raises(RheostatError, match=r"call memory.observe\(reward, ended\) after every step"):
        memory(torch.zeros(1, 3))
    memory.observe(0.0)
    memory(torch.zeros(1, 3))
    memory.observe(0.0, False)
    with pytest.raises(RheostatError, match="lasts longer than the 2 steps that this policy has positions for"):
        memory(torch.zeros(1, 3))
    memory.clear()
    for _ in range(4):
        memory(torch.zeros(1, 3))
        memory.observe(1.0, True)
    with pytest.raises(RheostatError, match="context of this policy is full: it holds the 4 steps of a trial in training"):
        memory(torch.zeros(1, 3))
    with pytest.raises(RheostatError, match="cannot judge an observation alone"):
        network.distribution(torch.zeros(1, 3))  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="A width of 12 does not divide into 4 heads of an even size: use a multiple of 8"):
        policy(width=12, heads=4)
