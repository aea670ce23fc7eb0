"""Value losses: the published forms, and the laws they share with the policy losses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.objectives.value import value_loss

value = torch.tensor([1.0, 3.0, -2.0])
old = torch.tensor([1.1, 1.0, 0.0])
target = torch.tensor([0.0, 2.0, 0.0])


def test_closed_forms() -> None:
    assert value_loss(value, target).item() == pytest.approx(0.5 * (1 + 1 + 4) / 3)
    assert value_loss(value, target, scale=1.0).item() == pytest.approx(2.0)
    # clipped to [0.6, 1.6], [0.5, 1.5], [-0.5, 0.5]: 1.0, 1.5, -0.5
    assert value_loss(value, target, old_value=old, clip=0.5).item() == pytest.approx(0.5 * (1 + 1 + 4) / 3)
    assert value_loss(value, target, old_value=old, clip=0.5, pessimistic=False, scale=1.0).item() == pytest.approx((1 + 0.25 + 0.25) / 3)


def test_pessimism_cuts_the_gradient_only_where_the_clipped_error_is_larger() -> None:
    v = torch.tensor([3.0, 3.0], requires_grad=True)
    loss = value_loss(v, torch.tensor([4.0, 0.0]), old_value=torch.zeros(2), clip=1.0)
    grad = torch.autograd.grad(loss, v)[0]
    assert grad[0].item() == 0.0 and grad[1].item() == pytest.approx(1.5)


@given(seed=st.integers(0, 2**32 - 1), clip=st.sampled_from([None, 0.3]), pessimistic=st.booleans(), cut=st.integers(1, 4))
def test_laws(seed: int, clip: float | None, pessimistic: bool, cut: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    v, r, v0 = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(5, 4, generator=generator) < 0.6
    count = mask.sum().clamp(min=1)

    def loss(rows: slice | torch.Tensor, poison: float | None = None) -> torch.Tensor:
        fill = [x if poison is None else x.masked_fill(~mask, poison) for x in (v, r, v0)]
        return value_loss(
            fill[0][rows], fill[1][rows], old_value=fill[2][rows], clip=clip, pessimistic=pessimistic, mask=mask[rows], denominator=count
        )

    whole = loss(slice(None))
    torch.testing.assert_close(loss(slice(0, cut)) + loss(slice(cut, None)), whole)
    torch.testing.assert_close(loss(torch.randperm(5, generator=generator)), whole)
    torch.testing.assert_close(loss(slice(None), math.nan), whole)
    poisoned = v.masked_fill(~mask, math.nan).requires_grad_()
    grad = torch.autograd.grad(value_loss(poisoned, r, old_value=v0, clip=clip, pessimistic=pessimistic, mask=mask), poisoned)[0]
    assert grad.isfinite().all() and (grad[~mask] == 0).all()


def test_target_and_old_value_are_constants() -> None:
    v, r, v0 = (torch.ones(2, requires_grad=True) for _ in range(3))
    grads = torch.autograd.grad(value_loss(2 * v, r, old_value=v0, clip=5.0), [v, r, v0], allow_unused=True)
    assert grads[0] is not None and grads[1:] == (None, None)


def test_mistakes_are_refused() -> None:
    with pytest.raises(RheostatError, match=r"target \[3, 1\]"):
        value_loss(value, target.unsqueeze(-1))
    with pytest.raises(RheostatError, match="old_value"):
        value_loss(value, target, clip=0.2)
