"""Group advantages against plain Python, and the laws of equal rewards, order and validity."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.credit.group_advantages import (
    Scale,
    check_groups,
    group_statistics,
    grpo_advantage,
    informative_groups,
    reinforce_pp_baseline_advantage,
    rloo_advantage,
    to_tokens,
)
from rheostat.errors import RheostatError
from rheostat.objectives.policy_gradient import policy_gradient

seeds = st.integers(0, 2**32 - 1)


def batch(seed: int, rows: int = 14) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards of a few levels (so that equal groups happen), groups of all sizes in any order, some invalid rows."""
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randint(3, (rows,), generator=generator).double() * 0.1
    group = torch.randint(5, (rows,), generator=generator) * 7 - 3
    return reward, group, torch.rand(rows, generator=generator) < 0.8


def members(reward: Tensor, group: Tensor, valid: Tensor, row: int) -> list[float]:
    return [reward[i].item() for i in range(len(reward)) if group[i] == group[row] and valid[i]]


@given(seed=seeds, scale=st.sampled_from(["group", "batch", "none"]), unbiased=st.booleans())
def test_grpo_against_a_loop(seed: int, scale: Scale, unbiased: bool) -> None:
    reward, group, valid = batch(seed)
    advantage = grpo_advantage(reward.masked_fill(~valid, math.nan), group, scale=scale, eps=1e-4, unbiased=unbiased, valid=valid)
    spread = statistics.stdev if unbiased else statistics.pstdev
    everything = reward[valid].tolist()
    for i in range(len(reward)):
        peers = members(reward, group, valid, i)
        if not valid[i]:
            assert advantage[i] == 0
            continue
        centred = reward[i].item() - (statistics.mean(peers) if len(peers) > 1 else 0.0)
        divisor = {"group": spread(peers) if len(peers) > 1 else 1.0, "batch": spread(everything) if len(everything) > 1 else 1.0}
        expected = centred if scale == "none" else centred / (divisor[scale] + 1e-4)
        assert advantage[i].item() == pytest.approx(expected, abs=1e-9)


@given(seed=seeds)
def test_rloo_is_the_reward_minus_the_mean_of_the_others(seed: int) -> None:
    reward, group, valid = batch(seed)
    advantage = rloo_advantage(reward, group, valid=valid)
    for i in range(len(reward)):
        if not valid[i]:
            assert advantage[i] == 0
            continue
        others = members(reward, group, valid, i)
        others.remove(reward[i].item())
        expected = reward[i].item() - (statistics.mean(others) if others else 0.0)
        assert advantage[i].item() == pytest.approx(expected, abs=1e-9)


@given(seed=seeds)
def test_statistics_of_groups(seed: int) -> None:
    reward, group, valid = batch(seed)
    found = group_statistics(reward, group, valid=valid)
    for i in range(len(reward)):
        peers = members(reward, group, valid, i)
        assert found.size[i].item() == len(peers)
        assert found.mean[i].item() == pytest.approx(statistics.mean(peers) if peers else 0.0)
        assert bool(found.equal[i]) == (len(set(peers)) <= 1)


@given(seed=seeds)
def test_row_order_and_group_names_do_not_matter(seed: int) -> None:
    reward, group, valid = batch(seed)
    order = torch.randperm(len(reward), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(len(reward), 2, dtype=torch.bool)
    for function in (grpo_advantage, rloo_advantage, lambda r, g, valid: reinforce_pp_baseline_advantage(r, g, mask, valid=valid)):
        expected = function(reward, group, valid=valid)[order]
        torch.testing.assert_close(function(reward[order], group[order], valid=valid[order]), expected)
        torch.testing.assert_close(function(reward, 1000 - group, valid=valid)[order], expected)


@given(reward=st.floats(-1e3, 1e3, width=32), size=st.integers(2, 9), groups=st.integers(1, 3))
def test_equal_rewards_give_exactly_zero_policy_gradient(reward: float, size: int, groups: int) -> None:
    """In float32, where the mean of equal numbers is not always that number."""
    rewards = torch.full((size * groups,), reward)
    group = torch.arange(groups).repeat(size)
    mask = torch.ones(len(rewards), 3, dtype=torch.bool)
    advantages = {f"grpo {scale}": to_tokens(grpo_advantage(rewards, group, scale=scale), mask) for scale in ("group", "batch", "none")}
    advantages["rloo"] = to_tokens(rloo_advantage(rewards, group), mask)
    advantages["reinforce++"] = reinforce_pp_baseline_advantage(rewards, group, mask)
    for name, advantage in advantages.items():
        logp = torch.full(mask.shape, -1.0, requires_grad=True)
        loss = policy_gradient(logp, advantage, denominator_logp=torch.full(mask.shape, -1.3), mask=mask).loss
        assert (torch.autograd.grad(loss, logp)[0] == 0).all(), name
    assert not informative_groups(rewards, group).any()


def test_groups_of_one() -> None:
    reward, group = torch.tensor([0.5, 1.0, 0.0]), torch.tensor([9, 4, 4])
    assert grpo_advantage(reward, group, eps=0.0)[0].item() == 0.5
    assert rloo_advantage(reward, group).tolist() == [0.5, 1.0, -1.0]
    assert grpo_advantage(reward, group, singleton="zero")[0].item() == 0.0
    assert rloo_advantage(reward, group, singleton="zero").tolist() == [0.0, 1.0, -1.0]
    assert informative_groups(reward, group).tolist() == [True, True, True]


def test_informative_groups_compares_exactly() -> None:
    """numpy's standard deviation of three 0.1 is not 0."""
    metric = torch.tensor([0.1, 0.1, 0.1, 0.0, 1.0, 0.0, math.nan])
    group = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    valid = torch.tensor([True] * 6 + [False])
    assert informative_groups(metric, group, valid=valid).tolist() == [False, False, False, True, True, True, True]


@given(seed=seeds)
def test_reinforce_pp_baseline_is_white_over_kept_tokens(seed: int) -> None:
    reward, group, valid = batch(seed)
    mask = torch.rand(len(reward), 6, generator=torch.Generator().manual_seed(seed)) < 0.6
    advantage = reinforce_pp_baseline_advantage(reward, group, mask, valid=valid)
    kept = mask & valid.unsqueeze(-1)
    assert (advantage[~kept] == 0).all()
    centred = to_tokens(grpo_advantage(reward, group, scale="none", valid=valid), kept)[kept]
    if len(centred) >= 2:
        torch.testing.assert_close(advantage[kept], (centred - centred.mean()) / (centred.var() + 1e-8).sqrt())


def test_group_integrity() -> None:
    check_groups(torch.tensor([3, 5, 3, 5]), 2)
    with pytest.raises(RheostatError, match=r"Group 5 has 1 members and every group must have 2 \(1 of 2"):
        check_groups(torch.tensor([3, 5, 3]), 2)
    with pytest.raises(RheostatError, match="Group 0 has 1 members and every group must have 4"):
        check_groups(torch.arange(8), 4)


def test_mistakes_are_refused() -> None:
    reward, group = torch.zeros(4), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(RheostatError, match="one shape"):
        grpo_advantage(reward, group.unsqueeze(-1))
    with pytest.raises(RheostatError, match="must be \\[B\\]"):
        rloo_advantage(reward.unsqueeze(-1), group.unsqueeze(-1))
    with pytest.raises(RheostatError, match="valid=False"):
        grpo_advantage(torch.tensor([0.0, math.nan, 0.0, 0.0]), group)
    with pytest.raises(RheostatError, match="Unknown scale"):
        grpo_advantage(reward, group, scale="row")  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="groups of one"):
        grpo_advantage(reward, group, singleton="drop")  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="One advantage per row"):
        to_tokens(reward, torch.ones(3, 2, dtype=torch.bool))
