"""Masked reductions against plain Python, and the laws of aggregation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import (
    AGGREGATIONS,
    Aggregation,
    aggregate,
    masked_mean,
    masked_sum,
    masked_var,
    natural_denominator,
    require_same_shape,
    select,
    standardise,
)

seeds = st.integers(0, 2**32 - 1)


def batch(seed: int, rows: int = 6, length: int = 5, keep: float = 0.6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, length, generator=generator, dtype=torch.float64)
    return x, torch.rand(rows, length, generator=generator) < keep


def reference(loss: Tensor, mask: Tensor, mode: Aggregation, denominator: float | None) -> float:
    rows = [
        [value for value, kept in zip(line, keeps, strict=True) if kept] for line, keeps in zip(loss.tolist(), mask.tolist(), strict=True)
    ]
    full = [row for row in rows if row]
    if mode == "token-mean":
        return sum(map(sum, rows)) / (denominator or max(1, sum(map(len, rows))))
    if mode == "sequence-mean":
        return sum(sum(row) / len(row) for row in full) / (denominator or max(1, len(full)))
    if mode == "sequence-sum":
        return sum(map(sum, rows)) / (denominator or max(1, len(full)))
    assert denominator is not None
    return sum(map(sum, rows)) / denominator


@given(
    seed=seeds,
    mode=st.sampled_from(AGGREGATIONS),
    denominator=st.sampled_from([None, 1.0, 7.5]),
    keep=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
)
def test_aggregation_is_what_the_table_says(seed: int, mode: Aggregation, denominator: float | None, keep: float) -> None:
    denominator = 3.0 if mode == "constant" and denominator is None else denominator
    loss, mask = batch(seed, keep=keep)
    assert aggregate(loss, mask, mode, denominator=denominator).item() == pytest.approx(reference(loss, mask, mode, denominator), abs=1e-12)


@given(seed=seeds, mode=st.sampled_from(AGGREGATIONS), cut=st.integers(1, 5))
def test_micro_batches_add_up_to_the_batch(seed: int, mode: Aggregation, cut: int) -> None:
    loss, mask = batch(seed)
    denominator = torch.tensor(11.0) if mode == "constant" else natural_denominator(mask, mode)
    whole = aggregate(loss, mask, mode, denominator=denominator)
    parts = sum(aggregate(loss[part], mask[part], mode, denominator=denominator) for part in (slice(0, cut), slice(cut, None)))
    torch.testing.assert_close(torch.as_tensor(parts), whole)


@given(seed=seeds, mode=st.sampled_from(["token-mean", "sequence-mean", "sequence-sum"]))
def test_averaged_devices_give_the_batch(seed: int, mode: Aggregation) -> None:
    loss, mask = batch(seed)
    denominator = natural_denominator(mask, mode)
    devices = [
        aggregate(loss[part], mask[part], mode, denominator=denominator, data_parallel_size=2) for part in (slice(0, 2), slice(2, None))
    ]
    torch.testing.assert_close(torch.stack(devices).mean(), aggregate(loss, mask, mode))


@pytest.mark.parametrize("mode", ["token-mean", "sequence-mean", "sequence-sum"])
def test_no_mask_is_a_full_mask(mode: Aggregation) -> None:
    loss, _ = batch(0)
    full = torch.ones_like(loss, dtype=torch.bool)
    torch.testing.assert_close(aggregate(loss, None, mode), aggregate(loss, full, mode))
    torch.testing.assert_close(aggregate(loss, None, mode, denominator=4), aggregate(loss, full, mode, denominator=4))


@given(seed=seeds, mode=st.sampled_from(AGGREGATIONS), poison=st.sampled_from([math.nan, math.inf, -math.inf]))
def test_masked_poison_is_harmless_forward_and_backward(seed: int, mode: Aggregation, poison: float) -> None:
    loss, mask = batch(seed)
    clean, poisoned = loss.clone().requires_grad_(), loss.masked_fill(~mask, poison).requires_grad_()
    denominator = 5.0 if mode == "constant" else None
    totals = [aggregate(x.exp(), mask, mode, denominator=denominator) for x in (clean, poisoned)]
    torch.testing.assert_close(totals[0], totals[1])
    grads = [torch.autograd.grad(total, x)[0] for total, x in zip(totals, (clean, poisoned), strict=True)]
    torch.testing.assert_close(select(grads[0], mask), select(grads[1], mask))
    assert not clean.requires_grad or (grads[0][~mask] == 0).all()


def test_empty_batch_is_zero() -> None:
    loss, mask = torch.full((3, 4), math.nan), torch.zeros(3, 4, dtype=torch.bool)
    for mode in ("token-mean", "sequence-mean", "sequence-sum"):
        assert aggregate(loss, mask, mode).item() == 0.0
    assert masked_mean(loss, mask).item() == 0.0 and masked_var(loss, mask).item() == 0.0


@given(seed=seeds, unbiased=st.booleans())
def test_variance_over_kept_entries(seed: int, unbiased: bool) -> None:
    x, mask = batch(seed, keep=0.7)
    if mask.sum() >= 2:
        assert masked_var(x, mask, unbiased=unbiased).item() == pytest.approx(x[mask].var(correction=int(unbiased)).item())


@given(seed=seeds, inside=st.booleans())
def test_standardise_uses_the_unbiased_deviation_of_kept_entries(seed: int, inside: bool) -> None:
    x, mask = batch(seed, keep=0.7)
    if mask.sum() < 2:
        return
    kept = x[mask]
    scale = (kept.var() + 1e-2).sqrt() if inside else kept.std() + 1e-2
    result = standardise(x.masked_fill(~mask, math.nan), mask, eps=1e-2, eps_inside_root=inside)
    torch.testing.assert_close(result[mask], (kept - kept.mean()) / scale)
    assert (result[~mask] == 0).all()
    torch.testing.assert_close(standardise(kept, eps=1e-2, eps_inside_root=inside), (kept - kept.mean()) / scale)
    unfilled = standardise(x, mask, eps=1e-2, eps_inside_root=inside, fill_masked=False)
    torch.testing.assert_close(unfilled, (x - kept.mean()) / scale)


def test_standardise_leaves_a_single_entry_alone() -> None:
    assert standardise(torch.tensor([3.0])).tolist() == [3.0]
    assert standardise(torch.tensor([3.0, math.nan]), torch.tensor([True, False])).tolist() == [3.0, 0.0]


def test_sums_along_a_dimension() -> None:
    x, mask = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[True, False], [False, False]])
    assert masked_sum(x, mask, -1).tolist() == [1.0, 0.0]
    assert masked_mean(x, mask, -1).tolist() == [1.0, 0.0]


def test_mistakes_are_refused() -> None:
    with pytest.raises(RheostatError, match=r"\[3\].*\[3, 1\]"):
        require_same_shape(a=torch.zeros(3), b=torch.zeros(3, 1), c=None)
    with pytest.raises(RheostatError, match="one shape"):
        aggregate(torch.zeros(3, 1), torch.ones(3, dtype=torch.bool))
    with pytest.raises(RheostatError, match="Unknown aggregation"):
        aggregate(torch.zeros(3), None, "mean")  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="denominator"):
        aggregate(torch.zeros(3), None, "constant")
    with pytest.raises(RheostatError, match="rows of steps"):
        aggregate(torch.zeros(3), None, "sequence-mean")
    with pytest.raises(RheostatError, match="one denominator over all"):
        aggregate(torch.zeros(3), None, data_parallel_size=2)
