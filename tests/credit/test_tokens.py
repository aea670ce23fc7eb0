"""Token rewards and token returns: where the reward goes, what is skipped, and what verl does otherwise."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.credit.returns import gae
from rheostat.credit.token_returns import next_kept_value, reinforce_pp_advantage, token_gae
from rheostat.credit.token_rewards import kl_penalised_outcome, kl_shaped_reward, overlong_penalty, reward_at_last_token
from rheostat.errors import RheostatError
from rheostat.masking import standardise

seeds = st.integers(0, 2**32 - 1)
MASK = torch.tensor([[True, False, True, False], [False, False, False, False], [True, True, True, True]])


def test_reward_goes_to_the_last_kept_token() -> None:
    rewards = reward_at_last_token(torch.tensor([1.0, 2.0, 3.0]), MASK)
    assert rewards.tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 3]]


def test_kl_in_the_reward() -> None:
    start, reference = torch.full((3, 4), -1.0).masked_fill(~MASK, math.nan), torch.full((3, 4), -1.5)
    reward = torch.tensor([1.0, 2.0, 3.0])
    shaped = kl_shaped_reward(reward, start, reference, MASK, coefficient=0.1)
    torch.testing.assert_close(shaped, reward_at_last_token(reward, MASK) - 0.05 * MASK)
    outcome = kl_penalised_outcome(reward, start, reference, MASK, coefficient=0.1)
    assert outcome.tolist() == pytest.approx([0.9, 2.0, 2.8])


def test_next_kept_value() -> None:
    value = torch.tensor([[1.0, math.nan, 3.0, math.nan], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    assert next_kept_value(value, MASK).tolist() == [[3, 3, 0, 0], [0, 0, 0, 0], [2, 3, 4, 0]]


@given(seed=seeds, gamma=st.sampled_from([0.9, 1.0]), lam=st.sampled_from([0.5, 1.0]))
def test_token_gae_is_gae_of_the_kept_tokens(seed: int, gamma: float, lam: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    reward, value = torch.randn(2, 3, 9, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 9, generator=generator) < 0.6
    poisoned = value.masked_fill(~mask, math.nan)
    advantage, target = token_gae(reward, poisoned, mask, gamma=gamma, lam=lam, whiten=False)
    for row in range(3):
        r, v = reward[row, mask[row]], value[row, mask[row]]
        end = torch.arange(len(r)) == len(r) - 1
        following = torch.cat([v[1:], v.new_zeros(min(1, len(v)))])
        expected = gae(r, v, following, end, torch.zeros_like(end), gamma=gamma, lam=lam) if len(r) else (r, v)
        torch.testing.assert_close(advantage[row, mask[row]], expected[0])
        torch.testing.assert_close(target[row, mask[row]], expected[1])
    assert (advantage[~mask] == 0).all()
    if mask.sum() >= 2:
        whitened, unwhitened_target = token_gae(reward, poisoned, mask, gamma=gamma, lam=lam)
        torch.testing.assert_close(whitened, standardise(advantage, mask, eps_inside_root=True))
        torch.testing.assert_close(unwhitened_target[mask], target[mask])


def test_return_passes_through_tool_output_unless_asked_not_to() -> None:
    reward, mask = torch.tensor([[0.0, math.nan, 1.0]]), torch.tensor([[True, False, True]])
    assert reinforce_pp_advantage(reward, mask, gamma=0.5)[1].tolist() == [[0.5, 0.0, 1.0]]
    assert reinforce_pp_advantage(reward, mask, gamma=0.5, reset_at_mask=True)[1].tolist() == [[0.0, 0.0, 1.0]]


@given(seed=seeds)
def test_reinforce_pp_is_white_over_the_batch(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 7, generator=generator) < 0.7
    advantage, to_go = reinforce_pp_advantage(reward, mask, gamma=0.9)
    if mask.sum() >= 3:
        assert advantage[mask].mean().item() == pytest.approx(0.0, abs=1e-9)
        assert advantage[mask].std().item() == pytest.approx(1.0, abs=1e-6)
    for row in range(4):
        running = 0.0
        for t in reversed(range(7)):
            if mask[row, t]:
                running = reward[row, t].item() + 0.9 * running
                assert to_go[row, t].item() == pytest.approx(running)


def test_overlong_penalty() -> None:
    length = torch.tensor([0, 80, 90, 100, 110])
    assert overlong_penalty(length, max_length=100, buffer=20, factor=2.0).tolist() == pytest.approx([0.0, 0.0, -1.0, -2.0, -3.0])
    with pytest.raises(RheostatError, match="buffer"):
        overlong_penalty(length, max_length=100, buffer=0)


def test_mistakes_are_refused() -> None:
    with pytest.raises(RheostatError, match="One reward per row"):
        reward_at_last_token(torch.zeros(3, 1), MASK)
    with pytest.raises(RheostatError, match="one shape"):
        token_gae(torch.zeros(3, 4), torch.zeros(3, 1), MASK, gamma=1.0, lam=1.0)
    with pytest.raises(RheostatError, match="one shape"):
        reinforce_pp_advantage(torch.zeros(3), MASK)
