"""Value-aware losses of a model: laws of the weighted error, of accumulated and of limited gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.value_aware import accumulated, limited, value_difference_error, value_gradient_error


def drawn(seed: int, dimensions: int, functions: int = 3) -> tuple[Tensor, Tensor]:
    """Errors ``[2, 5, D + 1]`` and gradients ``[K, 2, 5, D]``."""
    generator = torch.Generator().manual_seed(seed)
    error = torch.randn(2, 5, dimensions + 1, generator=generator, dtype=torch.float64)
    return error, torch.randn(functions, 2, 5, dimensions, generator=generator, dtype=torch.float64)


SEEDS, SIZES = st.integers(0, 10_000), st.integers(1, 6)


@given(SEEDS, SIZES, st.sampled_from(["bounded", "unbounded"]))
def test_rescaling_the_state_changes_nothing(seed: int, dimensions: int, form: str) -> None:
    """In other units of every dimension the errors are ``c e`` and the gradients ``g / c``; a squared error does change."""
    error, gradient = drawn(seed, dimensions)
    scale = torch.rand(dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1.5
    other = torch.cat([error[..., :-1] * scale, error[..., -1:]], -1)
    own = value_gradient_error(error, gradient, form=form)  # type: ignore[arg-type]
    torch.testing.assert_close(value_gradient_error(other, gradient / scale, form=form), own)  # type: ignore[arg-type]
    assert not torch.allclose(other.square().mean(), error.square().mean())


@given(SEEDS, SIZES)
def test_the_bounded_form_bounds_the_other_and_equals_it_in_one_dimension(seed: int, dimensions: int) -> None:
    error, gradient = drawn(seed, dimensions)
    error[..., -1] = 0.0
    bounded = value_gradient_error(error, gradient).sum(-1, keepdim=True)
    unbounded = value_gradient_error(error, gradient, form="unbounded")
    assert (bounded >= unbounded / dimensions - 1e-12).all()
    if dimensions == 1:
        torch.testing.assert_close(bounded, unbounded)


@given(SEEDS, SIZES)
def test_it_is_the_sum_by_hand(seed: int, dimensions: int) -> None:
    error, gradient = drawn(seed, dimensions)
    found = value_gradient_error(error, gradient)
    for e in range(2):
        for b in range(5):
            for d in range(dimensions):
                by_hand = sum(float(gradient[k, e, b, d] * error[e, b, d]) ** 2 for k in range(3)) / 3 + float(error[e, b, -1]) ** 2
                assert float(found[e, b, d]) == pytest.approx(by_hand)


def test_no_gradient_reaches_the_value_functions() -> None:
    error, gradient = (x.requires_grad_() for x in drawn(0, 3))
    value_gradient_error(error, gradient).mean().backward()
    assert gradient.grad is None and error.grad is not None
    observed = torch.ones(2, 4, requires_grad=True)
    value_difference_error(2 * observed.detach().requires_grad_(), observed, torch.zeros(4)).mean().backward()
    assert observed.grad is None


@given(SEEDS)
def test_to_first_order_itervaml_is_the_unbounded_form(seed: int) -> None:
    """Of linear values it is exactly that."""
    error, gradient = drawn(seed, 4)
    fixed = gradient[:, :1, :1].expand_as(gradient)
    predicted, observed = (fixed * error[..., :-1]).sum(-1), torch.zeros(3, 2, 5, dtype=torch.float64)
    own = value_difference_error(predicted, observed, error[..., -1])
    torch.testing.assert_close(own, value_gradient_error(error, fixed, form="unbounded")[..., 0])


def test_accumulation_adds_the_gradients_before() -> None:
    gradient = torch.tensor([[[1.0]], [[10.0]], [[100.0]]])
    assert accumulated(gradient).flatten().tolist() == [1.0, 11.0, 111.0]


@given(SEEDS, st.floats(0, 1))
def test_limited_gradients_keep_their_direction_and_are_no_longer_than_the_bound(seed: int, quantile: float) -> None:
    gradient = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(seed))
    found, bound = limited(gradient, quantile)
    norms, before = found.norm(dim=-1), gradient.norm(dim=-1)
    assert (norms <= bound[:, None] * (1 + 1e-5)).all()
    torch.testing.assert_close(found * before[..., None], gradient * norms[..., None], atol=1e-5, rtol=1e-5)
    short = before <= bound[:, None]
    torch.testing.assert_close(found[short], gradient[short])
    if quantile == 1.0:
        torch.testing.assert_close(found, gradient)


def test_limits_leave_zeros_alone_and_refuse_other_numbers() -> None:
    assert torch.equal(limited(torch.zeros(1, 4, 2), 0.5)[0], torch.zeros(1, 4, 2))
    with pytest.raises(RheostatError, match=r"between 0 and 1, not at 1\.5"):
        limited(torch.zeros(1, 4, 2), 1.5)


def test_shapes_are_refused() -> None:
    error, gradient = drawn(0, 3)
    with pytest.raises(RheostatError, match="one shape"):
        value_gradient_error(error, gradient[:, :1])
    with pytest.raises(RheostatError, match="one shape"):
        value_difference_error(torch.zeros(2, 3), torch.zeros(3), torch.zeros(3))
