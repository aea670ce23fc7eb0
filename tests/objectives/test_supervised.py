"""Weighted likelihood and the family of expert-token weights."""

from __future__ import annotations

import math

import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.objectives.ratio import external_logp
from rheostat.objectives.supervised import squared_distance, weighted_likelihood
from rheostat.objectives.weights import expert_weight

P = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)


def pull(weight: torch.Tensor | None, **options: float) -> torch.Tensor:
    """Minus the gradient of the summed loss with respect to every log-prob."""
    logp = P.log().requires_grad_()
    weighted_likelihood(logp, weight=weight, aggregate="constant", denominator=1.0, **options).backward()
    assert logp.grad is not None
    return -logp.grad


def test_phi_cuts_the_gradient_to_p_times_one_minus_p() -> None:
    torch.testing.assert_close(pull(None), torch.ones_like(P))
    phi = pull(expert_weight(P.log(), "phi"))
    torch.testing.assert_close(phi, P * (1 - P))
    assert phi.max() <= 0.25 and P[phi.argmax()].item() == pytest.approx(0.5, abs=1e-3)
    torch.testing.assert_close(pull(expert_weight(P.log(), "importance")), P)
    torch.testing.assert_close(pull(expert_weight(P.log(), "shaping")), P / (P + 0.1))
    torch.testing.assert_close(pull(expert_weight(P.log(), "exploration", gamma=2)), (1 - P) ** 2)


def test_without_the_detach_phi_would_be_another_objective() -> None:
    logp = P.log().requires_grad_()
    (-(logp.exp() * (1 - logp.exp())) * logp).sum().backward()
    assert logp.grad is not None and (logp.grad > 0).any() and (logp.grad < 0).any()  # its sign changes; ours never does
    assert (pull(expert_weight(P.log(), "phi")) > 0).all()


def test_the_normaliser_counts_tokens_and_not_weights() -> None:
    logp = P.log().requires_grad_()
    weighted_likelihood(logp, weight=expert_weight(logp, "phi")).backward()
    assert logp.grad is not None
    torch.testing.assert_close(logp.grad, -P * (1 - P) / len(P))


def test_tokens_above_the_ceiling_give_no_gradient() -> None:
    found = pull(expert_weight(P.log(), "phi"), ceiling=0.4)
    torch.testing.assert_close(found, torch.where(P <= 0.4, P * (1 - P), 0.0), atol=1e-12, rtol=0)


def test_probabilities_at_the_edge_are_safe() -> None:
    logp = torch.tensor([0.0, 1e-7, -1e-12, -200.0])
    for kind in ("none", "importance", "phi", "shaping", "exploration"):
        weight = expert_weight(logp, kind)  # type: ignore[arg-type]
        assert bool(weight.isfinite().all()) and bool((weight >= 0).all())
    assert expert_weight(torch.tensor([-1e-9]), "exploration").item() == pytest.approx(math.sqrt(1e-9), rel=1e-4)  # not rounded to 0


def test_an_external_estimate_lies_between_the_learner_and_certainty() -> None:
    torch.testing.assert_close(external_logp(P.log()).exp(), (P + 1) / 2)
    assert torch.equal(external_logp(P.log(), flat=0.0), P.log()) and not external_logp(P.log(), flat=1.0).any()


def test_what_is_refused() -> None:
    with pytest.raises(RheostatError, match="Unknown weight of expert tokens 'psi': one of none, importance"):
        expert_weight(P.log(), "psi")  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="The ceiling of a likelihood is a probability above 0"):
        pull(None, ceiling=0.0)
    with pytest.raises(RheostatError, match=r"lies in \[0, 1\], not at 2"):
        external_logp(P.log(), flat=2)


def test_the_squared_distance_is_a_mean_over_rows_and_dimensions_of_the_policys_actions() -> None:
    action, data = torch.tensor([[1.0, 0.0], [0.0, 3.0]], requires_grad=True), torch.tensor([[0.0, 0.0], [2.0, 3.0]], requires_grad=True)
    loss = squared_distance(action, data)
    assert loss.item() == (1 + 0 + 4 + 0) / 4
    loss.backward()
    assert data.grad is None and action.grad is not None
    torch.testing.assert_close(action.grad, torch.tensor([[0.5, 0.0], [-1.0, 0.0]]))
    with pytest.raises(RheostatError):
        squared_distance(action, data[:, :1])
