"""The meter: numbers with known answers."""

from __future__ import annotations

import math

import pytest
import torch

from rheostat.objectives.meter import effective_sample_size, gradient_snr, off_policyness, rare_tokens
from rheostat.trajectories import Source


def test_on_policy_data() -> None:
    logp = torch.randn(100)
    found = off_policyness(logp, logp, age=torch.zeros(100, dtype=torch.int64), source=torch.zeros(100, dtype=torch.int64))
    assert found["meter/ess"] == pytest.approx(1) and found["meter/gap"] == 0 and found["meter/ratio_max"] == 1
    assert found["meter/share_fresh"] == 1 and "meter/fresh/ess" not in found and "meter/age_share_0" not in found


def test_estimates_of_the_kl_converge_to_it() -> None:
    """Two Gaussians with means 0 and 0.3: the KL is 0.045 and E[w^2] = exp(0.09)."""
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = off_policyness(-0.5 * (x - 0.3) ** 2, -0.5 * x**2)
    assert found["meter/kl_behaviour_k1"] == pytest.approx(0.045, abs=2e-3)
    assert found["meter/kl_behaviour_k3"] == pytest.approx(0.045, abs=1e-3)
    assert found["meter/ess"] == pytest.approx(math.exp(-0.09), abs=5e-3)


def test_every_source_for_itself() -> None:
    source = torch.tensor([0, 0, 1, 1, 1, 3])
    learner = torch.tensor([-1.0, -1.0, -2.0, -2.0, -2.0, -5.0])
    sampler = torch.tensor([-1.0, -1.0, -1.0, -1.0, -1.0, float("nan")])
    age = torch.tensor([0, 0, 2, 3, 9, -1])
    found = off_policyness(learner, sampler, age=age, source=source, entropy=torch.arange(6.0))
    assert found["meter/fresh/gap"] == 0 and found["meter/stale/gap"] == 1 and "meter/expert/gap" not in found
    assert found["meter/stale/ratio_median"] == pytest.approx(math.exp(-1))
    assert found["meter/expert/logp"] == -5 and found["meter/stale/entropy"] == 3 and found["meter/stale/age_max"] == 9
    assert (found["meter/age_share_0"], found["meter/age_share_2_3"], found["meter/age_share_8_15"]) == (0.4, 0.4, 0.2)
    assert sum(value for name, value in found.items() if name.startswith("meter/age_share")) == pytest.approx(1)
    assert sum(found[f"meter/share_{kind.name.lower()}"] for kind in (Source.FRESH, Source.STALE, Source.EXPERT)) == pytest.approx(1)


def test_rare_tokens() -> None:
    logp = torch.tensor([0.04, 0.01, 0.049, 0.06, 0.9]).log()
    found = rare_tokens(logp, torch.tensor([1.0, -1.0, 0.0, -1.0, 1.0]))
    assert found == pytest.approx({"rare/share": 3 / 5, "rare/rewarded": 1 / 3, "rare/penalised": 1 / 3})
    assert rare_tokens(logp, None) == pytest.approx({"rare/share": 3 / 5})
    assert rare_tokens(logp[3:], torch.ones(2)) == {"rare/share": 0.0}


def test_effective_sample_size() -> None:
    assert effective_sample_size(torch.tensor([0.0, -math.inf])).item() == pytest.approx(0.5)
    assert effective_sample_size(torch.tensor([500.0, 500.0])).item() == pytest.approx(1)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0, 10.0])
def test_signal_to_noise_from_adams_moments(ratio: float) -> None:
    """Gradients of a known mean and variance, through Adam's own recursion."""
    draw = torch.Generator().manual_seed(0)
    signal = torch.randn(4000, generator=draw)
    signal *= (ratio * 4000) ** 0.5 / signal.norm()
    m, v = torch.zeros(4000), torch.zeros(4000)
    for step in range(1, 400):
        g = signal + torch.randn(4000, generator=draw)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.square()
        if step in (5, 50, 399):
            assert gradient_snr(m, v, step) == pytest.approx(ratio, rel=0.1, abs=0.05)
    assert math.isnan(gradient_snr(m, v, 1))
