"""The recurrence against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.credit.recurrence import reverse_recurrence
from rheostat.errors import RheostatError


def loop(increment: Tensor, decay: Tensor, mask: Tensor) -> Tensor:
    result = torch.zeros_like(increment)
    for row in range(len(increment)):
        x = 0.0
        for t in reversed(range(increment.shape[1])):
            if mask[row, t]:
                x = increment[row, t].item() + decay[row, t].item() * x
            result[row, t] = x
    return result


@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 70), keep=st.sampled_from([0.0, 0.5, 1.0]))
def test_against_a_loop(seed: int, length: int, keep: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    increment, decay = torch.randn(2, 3, length, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, length, generator=generator) < keep
    expected = loop(increment, decay, mask)
    torch.testing.assert_close(reverse_recurrence(increment, decay, mask), expected)
    poisoned = [x.masked_fill(~mask, math.nan) for x in (increment, decay)]
    torch.testing.assert_close(reverse_recurrence(poisoned[0], poisoned[1], mask), expected)


def test_differentiable_in_both_arguments() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: reverse_recurrence(x[0], x[1]), (x,))


def test_inputs_are_not_changed_and_one_step_is_itself() -> None:
    increment, decay = torch.ones(1, 4), torch.ones(1, 4)
    assert reverse_recurrence(increment, decay).tolist() == [[4.0, 3.0, 2.0, 1.0]]
    assert increment.tolist() == [[1.0] * 4] and decay.tolist() == [[1.0] * 4]
    assert reverse_recurrence(torch.tensor([5.0]), torch.tensor([2.0])).tolist() == [5.0]


def test_mistakes_are_refused() -> None:
    with pytest.raises(RheostatError, match="one shape"):
        reverse_recurrence(torch.zeros(2, 3), torch.zeros(3))
