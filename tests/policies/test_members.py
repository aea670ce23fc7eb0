"""Several policies as one: bounds, independence, copies."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.policies.control.ensembles import GaussianEnsemble, TrainableEnsemble, soft_limits


def members(count: int = 3, seed: int = 0, **options: object) -> GaussianEnsemble:
    return GaussianEnsemble(count, 2, 1, hidden=(8, 8), generator=torch.Generator().manual_seed(seed), **options)  # type: ignore[arg-type]


def observations(rows: int = 5, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(rows, 2, generator=torch.Generator().manual_seed(9))


def test_soft_limits_are_reached_at_both_ends_and_the_second_tanh_leaves_the_middle() -> None:
    ends = torch.tensor([-1.0, 0.0, 1.0])
    torch.testing.assert_close(soft_limits(ends, -5.0, 0.0), torch.tensor([-5.0, -2.5, 0.0]))
    low, middle, high = soft_limits(ends, -5.0, 0.0, squash=True).tolist()
    assert (low, middle, high) == (pytest.approx(-4.404, abs=1e-3), -2.5, pytest.approx(-0.596, abs=1e-3))


@given(scale=st.sampled_from([1.0, 1e3, 1e6]), activation=st.sampled_from(["relu", "tanh"]))
def test_means_and_deviations_stay_inside_their_bounds(scale: float, activation: str) -> None:
    policy = members(activation=activation).distribution(observations(scale=scale))
    assert policy.mean.shape == policy.log_std.shape == (3, 5, 1)
    assert policy.mean.abs().max() <= 1 and policy.log_std.min() >= -5 and policy.log_std.max() <= 0
    assert policy.log_prob(torch.zeros(5, 1)).shape == (3, 5)


def test_initial_weights_are_orthogonal_and_differ_between_members() -> None:
    hidden = members().stack.weights[1]
    for weight in hidden:
        torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)
    assert not torch.equal(hidden[0], hidden[1])


@pytest.mark.parametrize("limit", [None, 0.05, 1e3])
def test_every_member_moves_as_if_it_were_alone(limit: float | None) -> None:
    together = TrainableEnsemble(members(), 1e-2)
    alone = [TrainableEnsemble(members(1), 1e-2) for _ in range(3)]
    for index, one in enumerate(alone):
        one.network.become(together.network, torch.tensor([index]))
    seen, goal = observations(), torch.tensor([[0.5], [-0.5], [0.1], [0.0], [0.9]])
    for _ in range(4):
        factors = torch.tensor([1.0, 5.0, 0.1])  # so that only some gradients are limited
        together.step((-together.network.distribution(seen).log_prob(goal).mean(-1) * factors).sum(), max_grad_norm=limit)
        for factor, one in zip(factors, alone, strict=True):
            one.step((-one.network.distribution(seen).log_prob(goal).mean(-1) * factor).sum(), max_grad_norm=limit)
    for mine, *theirs in zip(together.network.parameters(), *(one.network.parameters() for one in alone), strict=True):
        torch.testing.assert_close(mine, torch.cat(theirs), atol=1e-5, rtol=1e-4)


def test_becoming_and_replacing_copy_the_named_members_only() -> None:
    old, new = members(seed=1), members(seed=2)
    one = members(1)
    one.become(new, torch.tensor([2]))
    seen = observations()
    torch.testing.assert_close(one.distribution(seen).mean[0], new.distribution(seen).mean[2])
    before = old.distribution(seen).mean
    old.replace(torch.tensor([False, True, False]), new)
    after = old.distribution(seen).mean
    torch.testing.assert_close(after[1], new.distribution(seen).mean[1])
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    with torch.no_grad():
        next(new.parameters()).zero_()  # copies, not views
    torch.testing.assert_close(old.distribution(seen).mean, after)


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(RheostatError, match="did you mean"):
        members(activation="relo")
