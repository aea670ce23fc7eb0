"""Worlds of preferences: what they draw is what their papers say, and exact measurements agree with samples."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from rheostat.objectives.preference_model import win_rate
from rheostat.tasks.preferences.didactic import (
    CENTRE,
    SCALE,
    DidacticBandit,
    SequenceBandit,
    data_policy,
    kernel,
    seeded,
    win_rate_table,
)
from rheostat.tasks.preferences.game import TINY, GoldReward, PairJudge, PreferenceGame, ordered


def test_the_data_policy_is_a_histogram_of_tanh_of_a_cauchy() -> None:
    found = torch.stack([data_policy(seeded(seed, "data policy")) for seed in range(20)]).double().mean(0)
    edges = torch.linspace(-1, 1, 101, dtype=torch.float64).clamp(-1 + 1e-12, 1 - 1e-12)
    below = torch.atan((torch.atanh(edges) - CENTRE) / SCALE) / math.pi + 0.5
    below[0], below[-1] = 0, 1
    torch.testing.assert_close(found, below.diff(), atol=2e-3, rtol=0)
    assert 15 <= int(found[1:-1].argmax()) + 1 <= 25


def test_kernels() -> None:
    for name, centre, width in (("bandit-away", 70, 10), ("bandit-aligned", 20, 10), ("bandit-away-wide", 70, 30)):
        paid = kernel(name)
        assert int(paid.argmax()) == centre and float(paid[centre - width + 1]) > math.exp(-1) > float(paid[centre - width - 1])


def test_the_bandit_begins_at_its_data_and_is_measured_exactly() -> None:
    world = DidacticBandit("bandit-away", 1)
    policy, found = world.start(), world.measure(world.start(), torch.Generator())
    assert found["kl_to_reference"] < 1e-3 and found["win_rate"] == pytest.approx(0.5, abs=0.01)
    with torch.no_grad():
        policy.layers[-1].bias += 0.05 * torch.arange(100)
    found = world.measure(policy, torch.Generator())
    answer = policy.sample(world.held_out, 2000, torch.Generator().manual_seed(0))
    theirs = world.reference.sample(world.held_out, 2000, torch.Generator().manual_seed(1))
    paid, other = world.reward(world.held_out, answer), world.reward(world.held_out, theirs)
    assert found["evaluation_return"] == pytest.approx(float(paid.mean()), abs=5e-3)
    assert found["win_rate"] == pytest.approx(float(win_rate(paid - other)), abs=5e-3)
    ratio = (policy.logp(world.held_out, answer) - world.reference.logp(world.held_out, answer)).mean()
    assert found["kl_to_reference"] == pytest.approx(ratio.item(), abs=0.05)


def test_wins_count_ties_one_half() -> None:
    assert win_rate_table(torch.tensor([0.0, 1.0, 1.0])).tolist() == [[0.5, 0, 0], [1, 0.5, 0.5], [1, 0.5, 0.5]]


def test_offline_batches_are_the_same_whenever_they_are_asked_for() -> None:
    for world in (DidacticBandit("bandit-away", 2), PreferenceGame.of(2, TINY)):
        one, again, other = world.offline(1, 4, 2), world.offline(1, 4, 2), world.offline(2, 4, 2)
        assert torch.equal(one.answer, again.answer) and not torch.equal(one.answer, other.answer)


def test_the_sequence_reference_is_near_the_data() -> None:
    world = SequenceBandit("sequence-away", 0)
    drawn = world.reference.sample(world.held_out, 40, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn.flatten(), minlength=100) / drawn.numel()
    assert float((shares - world.data).abs().sum()) < 0.25
    start = world.measure(world.start(), torch.Generator().manual_seed(0))
    assert start["kl_to_reference"] == 0 and start["win_rate"] == pytest.approx(0.5, abs=0.1)


def test_gold_reward_counts_pairs_and_finds_the_motif() -> None:
    gold = GoldReward(0)
    prompt, answer = torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 2, 10, dtype=torch.int64)
    answer[0, 1, 4:6] = gold.motif
    row = torch.cat([prompt[0], answer[0, 1]])
    counts = sum(gold.hidden[24 * int(a) + int(b)] for a, b in pairwise(row))
    assert float(gold(prompt, answer)[0, 1]) == pytest.approx(float(torch.tanh(counts) @ gold.out) + 1, abs=1e-5)
    assert float(gold(prompt, answer)[0, 0]) < float(gold.out.abs().sum())


def test_a_pass_over_the_data_has_every_pair_once() -> None:
    world = PreferenceGame.of(4, TINY)
    seen = torch.cat([world.offline(turn, 20, 2).reward for turn in range(5)])
    assert torch.equal(seen.sort(0).values, world.data.reward.sort(0).values)
    assert torch.equal(world.with_data(world.data, 1).order(0), torch.arange(100))
    windows = world.with_data(world.data, 8).order(3)
    assert all(sorted(windows[begin : begin + 8].tolist()) == list(range(begin, min(begin + 8, 100))) for begin in range(0, 100, 8))


def test_the_judge_prefers_one_of_two_and_the_gold_world_has_none() -> None:
    world = PreferenceGame.of(4, TINY)
    assert isinstance(world.judge, PairJudge) and 0 <= world.accuracy <= 1
    prompt, answer = world.data.prompt[:5], world.data.answer[:5]
    told = world.reward(prompt, answer)
    torch.testing.assert_close(told[:, 0], -told[:, 1])
    torch.testing.assert_close(world.reward(prompt, answer.flip(1)), told.flip(1))
    torch.testing.assert_close(world.with_gold().reward(prompt, answer), world.gold(prompt, answer))
    best, worst = ordered(torch.tensor([[0.0, 1.0], [2.0, 2.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0]]))
    assert best.tolist() == [6.0, 7.0] and worst.tolist() == [5.0, 8.0]
