"""Running statistics: right, independent of the split, deaf to masked rows, exact to save."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.collect.control.normalise import RewardScale, RunningStatistics
from rheostat.errors import RheostatError


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3.0 + 5.0


def test_statistics_are_those_of_all_samples() -> None:
    data = numbers(4, 7, 2, 3)
    statistics = RunningStatistics((2, 3))
    statistics.update(data)
    flat = data.double().reshape(28, 2, 3).numpy()
    np.testing.assert_allclose(statistics.mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.variance, flat.var(0), rtol=1e-12)
    assert statistics.count == 28
    expected = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-8)
    np.testing.assert_allclose(statistics.normalise(data).reshape(28, 2, 3), expected, rtol=1e-6, atol=1e-6)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(0, 1000))
def test_the_split_does_not_matter(sizes: list[int], seed: int) -> None:
    data = numbers(max(1, sum(sizes)), 3, seed=seed)
    whole, parts, merged = RunningStatistics((3,)), RunningStatistics((3,)), RunningStatistics((3,))
    whole.update(data)
    for part in data.split([*sizes] if sum(sizes) else [1]):
        parts.update(part)
        other = RunningStatistics((3,))
        other.update(part)
        merged.merge(other)
    for other in (parts, merged):
        assert other.count == whole.count
        torch.testing.assert_close(other.mean, whole.mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(other.variance, whole.variance, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, 1e30])
def test_masked_samples_change_nothing(garbage: float) -> None:
    data, mask = numbers(5, 6, 2), torch.rand(5, 6, generator=torch.Generator().manual_seed(1)) < 0.6
    dirty = torch.where(mask[..., None], data, torch.tensor(garbage))
    statistics, clean = RunningStatistics((2,)), RunningStatistics((2,))
    statistics.update(dirty, mask)
    clean.update(data[mask])
    assert torch.equal(statistics.mean, clean.mean) and torch.equal(statistics.variance, clean.variance)
    statistics.update(dirty, torch.zeros_like(mask))
    assert statistics.count == clean.count and torch.equal(statistics.mean, clean.mean)


def test_only_update_changes_the_statistics() -> None:
    statistics = RunningStatistics((2,))
    statistics.update(numbers(9, 2))
    before = statistics.state_dict()
    statistics.normalise(numbers(50, 2, seed=4))
    assert all(torch.equal(torch.as_tensor(before[key]), torch.as_tensor(value)) for key, value in statistics.state_dict().items())


def test_normalised_numbers_are_clipped_float32() -> None:
    statistics = RunningStatistics(())
    statistics.update(torch.tensor([-1.0, 1.0]))
    x = torch.tensor([0.0, 5.0, 1000.0, -1000.0], dtype=torch.float64)
    assert statistics.normalise(x).tolist() == pytest.approx([0.0, 5.0, 10.0, -10.0])
    assert statistics.normalise(x, clip=None).tolist() == pytest.approx([0.0, 5.0, 1000.0, -1000.0])
    assert statistics.normalise(x).dtype == torch.float32


def test_before_the_first_update_normalising_only_clips() -> None:
    assert RunningStatistics(()).normalise(torch.tensor([3.0, 30.0])).tolist() == pytest.approx([3.0, 10.0])


def test_a_large_offset_loses_no_digits() -> None:
    data = 1e6 + torch.arange(8, dtype=torch.float32) * 0.125
    statistics = RunningStatistics(())
    statistics.update(data)
    exact = (data.double() - data.double().mean()) / data.double().std(unbiased=False)
    torch.testing.assert_close(statistics.normalise(data).double(), exact, rtol=1e-5, atol=1e-5)


def test_bad_samples_are_refused() -> None:
    statistics = RunningStatistics((2,))
    with pytest.raises(RheostatError, match="not finite"):
        statistics.update(torch.tensor([[0.0, torch.nan]]))
    with pytest.raises(RheostatError, match="255"):
        statistics.update(torch.zeros(3, 2, dtype=torch.uint8))
    with pytest.raises(RheostatError, match=r"\[4, 3\]"):
        statistics.update(torch.zeros(4, 3))
    with pytest.raises(RheostatError, match="mask"):
        statistics.update(torch.zeros(4, 2), torch.ones(3, dtype=torch.bool))
    with pytest.raises(RheostatError, match="merged"):
        statistics.merge(RunningStatistics((3,)))
    assert statistics.count == 0 and (statistics.mean == 0).all()


def reference_returns(reward: np.ndarray, done: np.ndarray, mask: np.ndarray, gamma: float) -> list[float]:
    """Discounted sums of the past, one environment after the other."""
    values = []
    for row in range(len(reward)):
        running = 0.0
        for t in range(reward.shape[1]):
            if mask[row, t]:
                running = gamma * running + reward[row, t]
                values.append(running)
                if done[row, t]:
                    running = 0.0
    return values


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return() -> None:
    generator = torch.Generator().manual_seed(2)
    reward = torch.randn(3, 40, generator=generator)
    done, mask = torch.rand(3, 40, generator=generator) < 0.15, torch.rand(3, 40, generator=generator) < 0.8
    dirty = torch.where(mask, reward, torch.tensor(torch.nan))
    scale = RewardScale(3, 0.9)
    scale.update(dirty[:, :13], done[:, :13], mask[:, :13])  # blocks continue in time
    scale.update(dirty[:, 13:], done[:, 13:], mask[:, 13:])
    values = reference_returns(reward.double().numpy(), done.numpy(), mask.numpy(), 0.9)
    np.testing.assert_allclose(float(scale.statistics.variance), np.var(values), rtol=1e-12)
    assert scale.statistics.count == len(values)
    expected = (reward.double() / np.sqrt(np.var(values) + 1e-8)).clamp(-0.5, 0.5).float()
    torch.testing.assert_close(scale.scale(reward, clip=0.5), expected)
    assert (expected.abs() == 0.5).any()


def test_scaling_does_not_move_the_mean_of_rewards() -> None:
    scale = RewardScale(1, 0.5)
    scale.update(torch.tensor([[1.0, 2.0, 3.0]]), torch.zeros(1, 3, dtype=torch.bool))
    assert scale.scale(torch.tensor([0.0])).item() == 0.0


def test_a_restart_forgets_the_returns_under_way_but_not_the_statistics() -> None:
    scale, fresh = RewardScale(2, 0.9), RewardScale(2, 0.9)
    block, never = torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    scale.update(block, never)
    scale.restart()
    scale.update(block, never)
    fresh.update(block, never)
    assert scale.statistics.count == 12
    torch.testing.assert_close(scale.statistics.mean, fresh.statistics.mean)


def test_saved_statistics_continue_exactly() -> None:
    generator = torch.Generator().manual_seed(5)
    blocks = [(torch.randn(2, 7, generator=generator), torch.rand(2, 7, generator=generator) < 0.2) for _ in range(4)]
    first, second = RewardScale(2, 0.99), RewardScale(2, 0.99)
    for block in blocks[:2]:
        first.update(*block)
    second.load_state_dict(first.state_dict())
    for block in blocks[2:]:
        first.update(*block)
        second.update(*block)
    assert torch.equal(first.statistics.variance, second.statistics.variance)
    assert torch.equal(first.scale(blocks[0][0]), second.scale(blocks[0][0]))
    with pytest.raises(RheostatError, match="2 environments"):
        RewardScale(3, 0.99).load_state_dict(first.state_dict())
    with pytest.raises(RheostatError, match="shape"):
        RunningStatistics((2,)).load_state_dict(RunningStatistics((3,)).state_dict())


def test_wrong_shapes_are_refused() -> None:
    scale = RewardScale(2, 0.9)
    with pytest.raises(RheostatError, match=r"\[2, T\]"):
        scale.update(torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.bool))
    with pytest.raises(RheostatError, match=r"mask \[2, 3\]"):
        scale.update(torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool))
