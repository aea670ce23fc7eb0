"""A learned model of the world: what it learns, when it stops, whom it uses, and that it resumes exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.policies.control.dynamics import DynamicsEnsemble, DynamicsModel, target_of
from rheostat.trajectories import Transitions


def world(rows: int = 400, noise: float = 0.05, seed: int = 0) -> Transitions:
    """``s' = s + (a, -s_0) + noise`` and ``r = s_1``."""
    generator = torch.Generator().manual_seed(seed)
    seen, action = torch.randn(rows, 2, generator=generator), 2 * torch.rand(rows, 1, generator=generator) - 1
    change = torch.cat([action, -seen[:, :1]], -1) + noise * torch.randn(rows, 2, generator=generator)
    no = torch.zeros(rows, dtype=torch.bool)
    return Transitions(
        observation=seen,
        action=action,
        reward=seen[:, 1].clone(),
        next_observation=seen + change,
        terminated=no,
        truncated=no,
        sampler_logp=torch.zeros(rows),
        batch_size=[rows],
    )  # type: ignore[call-arg]


def model(rows: Transitions | None = None, networks: int = 3, elites: int = 2, **options: Any) -> DynamicsModel:
    ensemble = DynamicsEnsemble(2, 1, networks=networks, hidden=(16,), generator=torch.Generator().manual_seed(1))
    settings = {"batch_size": 32, "learning_rate": 1e-2} | options
    return DynamicsModel(ensemble, world() if rows is None else rows, elites=elites, generator=torch.Generator().manual_seed(2), **settings)


def train(one: DynamicsModel, steps: int, stream: torch.Generator) -> DynamicsModel:
    for _ in range(steps):
        one.step(one.rows[one.draw(1, stream)])
    return one


def test_it_learns_the_change_the_reward_and_the_noise() -> None:
    one = train(model(), 400, torch.Generator().manual_seed(0))
    one.finish()
    seen, action = torch.tensor([[0.5, -0.5]]).repeat(2000, 1), torch.tensor([[0.3]]).repeat(2000, 1)
    following, reward = one.predict(seen, action, torch.Generator().manual_seed(5))
    torch.testing.assert_close(following.mean(0), torch.tensor([0.8, -1.0]), atol=0.05, rtol=0)
    assert reward.mean().item() == pytest.approx(-0.5, abs=0.05)
    spread = following.std(0)
    assert spread.min() > 0.03 and spread.max() < 0.12  # the world's is 0.05


def test_networks_see_bootstrap_samples_of_what_is_not_held_out() -> None:
    one = model()
    assert len(one.held_out) == 80 and not set(one.held_out.tolist()) & set(one.bootstrap.unique().tolist())
    assert not torch.equal(one.bootstrap[0], one.bootstrap[1])
    drawn = one.draw(2, torch.Generator().manual_seed(0)).view(2, 3, 32)
    for network in range(3):
        assert set(drawn[:, network].flatten().tolist()) <= set(one.bootstrap[network].tolist())


def test_it_stops_when_no_network_improves_and_goes_back_to_the_best_moments() -> None:
    one, stream = model(patience=2), torch.Generator().manual_seed(0)
    train(one, 20 * one.pass_length, stream)
    best = one.best.clone()
    assert not one.stalled
    with torch.no_grad():
        one.learner.parameters.vector.add_(3.0)  # ruined
    one.learner.optimizer.param_groups[0]["lr"] = 0.0
    train(one, one.pass_length, stream)
    assert one.idle >= 1 and torch.equal(one.best, best)
    train(one, one.pass_length, stream)
    assert one.stalled
    one.finish()
    for parameter in one.ensemble.stack.parameters():
        assert torch.equal(parameter, one.learner.parameters.part(best, parameter))


def test_the_elites_are_the_networks_with_the_smallest_held_out_errors() -> None:
    one = train(model(networks=4), 60, torch.Generator().manual_seed(0))
    one.finish()
    with torch.no_grad():
        mean, _ = one.ensemble(*(getattr(one.rows[one.held_out], name) for name in ("observation", "action")))
    errors = (mean - target_of(one.rows[one.held_out])).square().mean((1, 2))
    torch.testing.assert_close(errors, one.errors)
    assert one.elites.tolist() == errors.argsort()[:2].tolist()


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_every_row_is_drawn_from_one_elite(rows: int) -> None:
    one = train(model(elites=3), 30, torch.Generator().manual_seed(0))
    one.finish()
    with torch.no_grad():
        one.used.high.fill_(-60.0)  # no spread: a row is the mean of its elite
        one.used.low.fill_(-60.0)
    seen, action = one.rows.observation[:rows], one.rows.action[:rows]
    following, reward = one.predict(seen, action, torch.Generator().manual_seed(1))
    with torch.no_grad():
        mean, _ = one.used(seen, action)
    distance = (torch.cat([following - seen, reward.unsqueeze(-1)], -1) - mean).abs().amax(-1)  # [elites, rows]
    assert (distance.amin(0) < 1e-5).all()
    counts = torch.bincount(distance.argmin(0), minlength=3)
    assert counts.max() - counts.min() <= max(1, -(-rows // 3))


def test_it_resumes_exactly_before_and_after_the_end() -> None:
    whole, halted, stream = model(), model(), torch.Generator().manual_seed(0)
    train(whole, 15, stream)
    kept = stream.get_state()
    train(halted, 15, torch.Generator().manual_seed(0))
    continued = model()
    continued.load_state_dict(halted.state_dict())
    again = torch.Generator()
    again.set_state(kept)
    for one, draws in ((whole, stream), (continued, again)):
        train(one, 15, draws)
        one.finish()
    loaded = model()
    loaded.load_state_dict(whole.state_dict())
    seen, action = whole.rows.observation[:7], whole.rows.action[:7]
    found = [one.predict(seen, action, torch.Generator().manual_seed(3))[0] for one in (whole, continued, loaded)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_constant_features_do_not_divide_by_nothing() -> None:
    rows = world()
    rows.observation[:, 1] = 7.0
    one = train(model(rows), 3, torch.Generator().manual_seed(0))
    one.finish()
    assert one.predict(rows.observation[:4], rows.action[:4], torch.Generator())[0].isfinite().all()


def test_mistakes_are_refused() -> None:
    with pytest.raises(RheostatError, match="4 elites"):
        model(elites=4)
    with pytest.raises(RheostatError, match="too few"):
        model(world(2))
