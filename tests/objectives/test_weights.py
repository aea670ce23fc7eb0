"""Importance weights and rejection against plain Python, and their laws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.ratio import combine_log_ratio, mixture_logp
from rheostat.objectives.weights import (
    Level,
    OverCap,
    Reach,
    Statistic,
    batch_exponential_weight,
    exponential_weight,
    importance_weight,
    policy_shaping_weight,
    rejection_mask,
    sided_advantage,
    stale_negative_weight,
)

seeds = st.integers(0, 2**32 - 1)


def batch(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start, sampler = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(5, 4, generator=generator) < 0.7
    mask[0] = torch.rand((), generator=generator) < 0.5
    return start, sampler, mask


@given(seed=seeds, level=st.sampled_from(["token", "sequence"]), over_cap=st.sampled_from(["truncate", "mask"]), normalise=st.booleans())
def test_against_a_loop(seed: int, level: Level, over_cap: OverCap, normalise: bool) -> None:
    start, sampler, mask = batch(seed)
    weight = importance_weight(start, sampler, mask=mask, level=level, cap=1.5, over_cap=over_cap, batch_normalise=normalise)
    expected: dict[tuple[int, int], float] = {}
    rows: list[float] = []
    for i in range(5):
        kept = [t for t in range(4) if mask[i, t]]
        gaps = {t: (start[i, t] - sampler[i, t]).item() for t in kept}
        for t in kept:
            w = math.exp(gaps[t] if level == "token" else sum(gaps.values()))
            expected[i, t] = min(w, 1.5) if over_cap == "truncate" or w <= 1.5 else 0.0
        if kept:
            rows.append(expected[i, kept[0]])
    values = list(expected.values()) if level == "token" else rows
    mean = sum(values) / len(values) if values else 1.0
    for (i, t), w in expected.items():
        assert weight[i, t].item() == pytest.approx(w / mean if normalise and mean else w)


@given(seed=seeds, level=st.sampled_from(["token", "sequence"]))
def test_masked_nan_is_harmless_and_same_policy_weighs_one(seed: int, level: Level) -> None:
    start, sampler, mask = batch(seed)
    poisoned = importance_weight(start.masked_fill(~mask, math.nan), sampler, mask=mask, level=level, batch_normalise=True)
    clean = importance_weight(start, sampler, mask=mask, level=level, batch_normalise=True)
    torch.testing.assert_close(poisoned, clean)
    assert (importance_weight(start, start, mask=mask, level=level) == 1).all()


def test_weights_are_constants_and_clamped() -> None:
    start = torch.tensor([[50.0, -50.0]], requires_grad=True)
    weight = importance_weight(start, torch.zeros(1, 2), cap=None)
    assert not weight.requires_grad
    assert weight[0].tolist() == pytest.approx([math.exp(20.0), math.exp(-20.0)])
    assert importance_weight(start, torch.zeros(1, 2), cap=None, log_clamp=None)[0, 0].item() == pytest.approx(math.exp(50.0), rel=1e-5)


@given(
    seed=seeds,
    statistic=st.sampled_from(["k1", "k2", "k3"]),
    reach=st.sampled_from(["token", "sum", "mean", "max"]),
    high=st.sampled_from([0.1, 0.5, 2.0]),
    low=st.sampled_from([None, 0.05]),
)
def test_rejection_against_a_loop(seed: int, statistic: Statistic, reach: Reach, high: float, low: float | None) -> None:
    start, sampler, mask = batch(seed)
    kept = rejection_mask(start.masked_fill(~mask, math.nan), sampler, mask, statistic=statistic, reach=reach, low=low, high=high)
    for i in range(5):
        x = {t: (sampler[i, t] - start[i, t]).item() for t in range(4) if mask[i, t]}
        k = {t: {"k1": v, "k2": v * v / 2, "k3": math.exp(-v) - 1 + v}[statistic] for t, v in x.items()}
        for t in range(4):
            if t not in k:
                assert not kept[i, t]
                continue
            value = {"token": k[t], "sum": sum(k.values()), "mean": sum(k.values()) / len(k), "max": max(k.values())}[reach]
            assert bool(kept[i, t]) == ((low is None or value >= low) and value <= high)


def test_stale_negative_rows_lose_their_tokens() -> None:
    sampler, mask = torch.zeros(3, 2), torch.tensor([[True, True], [True, True], [True, False]])
    logp = torch.tensor([[-1.0, -1.0], [-1.0, -1.0], [0.0, math.nan]])
    advantage = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    weight = stale_negative_weight(logp, sampler, advantage, mask, threshold=0.5)
    assert weight[0].tolist() == [0.0, 0.0] and weight[1].tolist() == [1.0, 1.0] and weight[2, 0].item() == 1.0


def test_policy_shaping_weight() -> None:
    logp = torch.tensor([math.log(0.1)], requires_grad=True)
    weight = policy_shaping_weight(logp, gamma=0.1)
    assert weight.item() == pytest.approx(0.5) and not weight.requires_grad


def test_mixture_logp() -> None:
    a, b = torch.tensor([math.log(0.2)]), torch.tensor([math.log(0.6)])
    assert mixture_logp([a, b]).exp().item() == pytest.approx(0.4)
    assert mixture_logp([a, b], [0.75, 0.25]).exp().item() == pytest.approx(0.3)
    with pytest.raises(RheostatError, match="share per policy"):
        mixture_logp([a, b], [1.0])
    with pytest.raises(RheostatError, match="share per policy"):
        mixture_logp([])


def test_row_ratios() -> None:
    log_ratio, mask = torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[True, True, False]])
    assert combine_log_ratio(log_ratio, "token", mask) is log_ratio
    assert combine_log_ratio(log_ratio, "sequence", mask).tolist() == [[1.5, 1.5, 1.5]]
    assert combine_log_ratio(log_ratio, "sequence-token", mask).tolist() == [[1.5, 1.5, 1.5]]
    assert combine_log_ratio(log_ratio, "sequence-product", mask).tolist() == [[3.0, 3.0, 3.0]]


def test_mistakes_are_refused() -> None:
    x, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(RheostatError, match="one shape"):
        importance_weight(x, torch.zeros(2))
    with pytest.raises(RheostatError, match="Unknown importance weight"):
        importance_weight(x, x, level="group")  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="Unknown rejection statistic"):
        rejection_mask(x, x, mask, statistic="k4")  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="Unknown reach"):
        rejection_mask(x, x, mask, reach="batch")  # type: ignore[arg-type]


@given(seed=seeds, scale=st.sampled_from([0.3, 3.0, 10.0]), cap=st.sampled_from([0.5, 5.0, 100.0]))
def test_exponential_weights_against_plain_python(seed: int, scale: float, cap: float) -> None:
    advantage = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for w, a in zip(exponential_weight(advantage, scale, cap).tolist(), advantage.tolist(), strict=True):
        assert w == pytest.approx(min(math.exp(scale * a), cap))
    exponentials = [math.exp(scale * a) for a in advantage.tolist()]
    torch.testing.assert_close(
        batch_exponential_weight(advantage, scale), torch.tensor([6 * x / sum(exponentials) for x in exponentials], dtype=torch.float64)
    )


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_exponential_weights_never_overflow(size: float) -> None:
    advantage = torch.tensor([size, -size, 0.0])
    assert exponential_weight(advantage, 10.0).tolist() == [100.0, 0.0, 1.0]
    assert batch_exponential_weight(advantage, 10.0).tolist() == [3.0, 0.0, 0.0]
    logp = torch.full((3,), -1.0, requires_grad=True)
    (-exponential_weight(advantage, 10.0) * logp).mean().backward()
    assert logp.grad is not None and logp.grad.isfinite().all()


def test_exponential_weights_are_constants_with_a_scale_for_all_or_for_each_row() -> None:
    advantage = torch.tensor([1.0, 2.0], requires_grad=True)
    per_row = exponential_weight(advantage, torch.tensor([0.5, 0.25]))
    torch.testing.assert_close(per_row, torch.full((2,), math.exp(0.5)))
    assert not per_row.requires_grad and not batch_exponential_weight(advantage, 1.0).requires_grad
    with pytest.raises(RheostatError, match=r"scale \[2, 1\]"):
        exponential_weight(advantage, torch.ones(2, 1))
    with pytest.raises(RheostatError, match="cap of exponential weights must be above 0"):
        exponential_weight(advantage, 1.0, 0.0)


@given(seed=seeds, omega=st.sampled_from([0.0, 0.3, 0.7, 1.0]), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_sided_advantages_against_plain_python(seed: int, omega: float, scale: float) -> None:
    advantage = scale * torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    numbers = advantage.tolist()
    mean = sum(numbers) / 6
    deviation = math.sqrt(sum((x - mean) ** 2 for x in numbers) / 5)
    for found, x in zip(sided_advantage(advantage, omega).tolist(), numbers, strict=True):
        standard = (x - mean) / (deviation + 1e-10)
        assert found == pytest.approx((omega if standard > 0 else 1 - omega) * standard, rel=1e-6, abs=1e-12)


def test_sided_advantages_weigh_nothing_in_the_middle_and_equal_ones_are_worth_nothing() -> None:
    advantage = torch.tensor([1.0, -1.0, 0.0], requires_grad=True)
    even = sided_advantage(advantage, 0.5)
    torch.testing.assert_close(even, torch.tensor([1.0, -1.0, 0.0]))
    assert not even.requires_grad
    assert sided_advantage(torch.full((4,), 3.0), 0.7).tolist() == [0.0] * 4
    with pytest.raises(RheostatError, match="omega"):
        sided_advantage(advantage, 1.2)
