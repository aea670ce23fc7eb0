"""FamO2O: every row by its own coefficient, the balance model up the critics alone, and where chance and model pick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.api import settings_for
from rheostat.errors import RheostatError
from rheostat.learner.policy_family import BalanceStep, Coefficients
from rheostat.learner.stages import Stages
from rheostat.methods.control.famo2o import FamO2O, FamO2OCQL
from rheostat.objectives.weights import exponential_weight, family_weight
from rheostat.policies.control.balance import BalanceModel, coefficient_of, sin_cos_encoding
from rheostat.policies.parameters import OptimizedNetwork
from rheostat.training.building import build_method
from rheostat.training.run import Run
from tests.by_hand import ByHand
from tests.tiny_control import small


def built(slug: str, **options: Any) -> ByHand:
    settings = small(slug, **options)
    return ByHand(build_method(settings, settings.task))


def a_batch(method: ByHand) -> Any:
    return method.one_batch()


def test_the_encoding_interleaves_sines_and_cosines() -> None:
    found = sin_cos_encoding(torch.tensor([2.0]), 4, 100.0)
    expected = torch.tensor([[2.0, 2.0, 0.2, 0.2]])
    torch.testing.assert_close(
        found, torch.stack([expected[:, 0].sin(), expected[:, 1].cos(), expected[:, 2].sin(), expected[:, 3].cos()], -1)
    )


def test_the_map_covers_the_range_and_the_released_one_leaves_it() -> None:
    ends = torch.tensor([-1.0, 1.0])
    assert coefficient_of(ends, 0.5, 1.5).tolist() == [0.5, 1.5]
    assert coefficient_of(ends, 0.5, 1.5, released=True).tolist() == [-0.5, 1.5]


def test_weights_are_each_rows_own_and_the_broadcast_is_the_mean_over_coefficients() -> None:
    advantage, beta = torch.tensor([0.1, -0.2, 3.0]), torch.tensor([1.0, 5.0, 8.0])
    own = family_weight(advantage, beta, 50.0)
    torch.testing.assert_close(
        own, torch.stack([exponential_weight(a.view(1), b.view(1), 50.0)[0] for a, b in zip(advantage, beta, strict=True)])
    )
    mixed = family_weight(advantage, beta, 50.0, broadcast=True)
    for j in range(3):
        torch.testing.assert_close(mixed[j], torch.stack([(b * advantage[j]).exp().clamp(max=50.0) for b in beta]).mean())
    assert not torch.allclose(own, mixed)
    alike = torch.full((3,), 2.0)
    torch.testing.assert_close(family_weight(advantage, alike, broadcast=True), family_weight(advantage, alike))


def test_an_advantage_of_any_size_gives_a_finite_weight() -> None:
    assert family_weight(torch.tensor([1e4, -1e4]), torch.tensor([14.0, 14.0])).tolist() == [100.0, 0.0]


@pytest.mark.parametrize("slug", ["famo2o", "famo2o-cql"])
def test_the_balance_step_moves_the_balance_model_and_nothing_else(slug: str) -> None:
    method = built(slug)
    rows = a_batch(method)
    before = {name: part.state_dict()["parameters"].clone() for name, part in method.parts().items()}
    method.step(BalanceStep, rows)
    moved = {name for name, part in method.parts().items() if not torch.equal(part.state_dict()["parameters"], before[name])}
    assert moved == ({"balance", "balance_temperature"} if slug == "famo2o" else {"balance"})


@pytest.mark.parametrize("slug", ["famo2o", "famo2o-cql"])
def test_critics_do_not_see_the_coefficient(slug: str) -> None:
    method = built(slug)
    rows = a_batch(method)
    family = method.learner.config.family
    one, other = (family.beside(method.context, rows.observation, torch.full((len(rows),), x)) for x in (1.1, 1.4))
    assert torch.equal(method.critics.network(one, rows.action), method.critics.network(other, rows.action))
    assert not torch.equal(method.distribution(one).mean, method.distribution(other).mean)


@pytest.mark.parametrize("slug", ["famo2o", "famo2o-cql"])
def test_coefficients_are_uniform_over_data_and_the_models_once_the_policy_acts(slug: str) -> None:
    method = built(slug)
    observation = torch.zeros(2000, 3)
    drawn = method.part(Coefficients).draw(method.context, observation)
    low, high = method.config.coefficient_low, method.config.coefficient_high
    assert drawn.min() < low + 0.02 * (high - low) and drawn.max() > high - 0.02 * (high - low)
    assert abs(drawn.mean().item() - (low + high) / 2) < 0.05 * (high - low)
    while not method.acting:
        method.turn()
    model = method.balance.network
    with torch.no_grad():
        model.log_std.fill_(-10.0)  # a model that is sure
    drawn = method.part(Coefficients).draw(method.context, observation[:5])
    torch.testing.assert_close(drawn, model.mode(observation[:5]), atol=1e-3, rtol=0)


def test_the_policy_acts_by_the_models_choice() -> None:
    method = built("famo2o")
    observation = torch.randn(4, 3)
    chosen = method.learner.config.family.beside(method.context, observation, method.balance.network.mode(observation))
    assert torch.equal(method.distribution(observation).mean, method.distribution(chosen).mean)


def test_without_a_model_the_middle_of_the_range_acts() -> None:
    method = built("famo2o", balance="random")
    observation = torch.randn(4, 3)
    middle = method.learner.config.family.beside(method.context, observation, torch.full((4,), 3.0))
    assert torch.equal(method.distribution(observation).mean, method.distribution(middle).mean)


def test_the_next_state_may_be_judged_by_the_present_coefficient() -> None:
    for choice, same in (("current", True), ("own", False)):
        method = built("famo2o-cql", next_coefficient=choice)
        rows = method.credited(a_batch(method)).rows
        assert torch.equal(rows.observation[:, 3:], rows.next_observation[:, 3:]) is same


def test_with_known_values_the_balance_model_finds_the_best_coefficient_of_each_context() -> None:
    """A contextual bandit: Q is highest at beta 2 in one context and at beta 4 in the other."""
    model = BalanceModel(1, 1.0, 5.0, hidden=(16,), generator=torch.Generator().manual_seed(0))
    trained, draw = OptimizedNetwork(model, 1e-2), torch.Generator().manual_seed(1)
    context = torch.tensor([[-1.0], [1.0]]).repeat(16, 1)
    best = torch.tensor([2.0, 4.0]).repeat(16)
    for _ in range(400):
        beta, log_prob = model.draw(context, torch.randn(32, 1, generator=draw))
        trained.step((0.01 * log_prob + (beta - best).square()).mean())
    assert (model.mode(context[:2]) - best[:2]).abs().max() < 0.3


def test_refusals() -> None:
    data = {"offline": "nowhere", "steps": 10}
    with pytest.raises(RheostatError, match="leave nothing to choose between"):
        settings_for("famo2o", "Pendulum-v1", coefficient_low=3.0, coefficient_high=3.0, **data)
    with pytest.raises(RheostatError, match="come in pairs"):
        settings_for("famo2o-cql", "Pendulum-v1", encoding_size=5, **data)


def test_both_forms_go_from_data_to_acting(tmp_path: Path) -> None:
    for slug, kind in (("famo2o", FamO2O), ("famo2o-cql", FamO2OCQL)):
        run = Run.create(tmp_path / slug, small(slug)).train()
        assert isinstance(run.method, Stages) and isinstance(run.method.config, kind)
        last = run.metrics[-1]
        assert {"balance_loss", "coefficient", "meter/share_offline", "meter/share_replay"} <= set(last)
        assert run.method.context.collector.steps == 100


def test_a_run_is_not_continued_on_other_data(tmp_path: Path) -> None:
    method = built("famo2o")
    state = method.state_dict()
    with pytest.raises(RheostatError, match="began with other data"):
        method.load_state_dict(state | {"context": state["context"] | {"data": "another"}})


def test_measurements_are_made_at_the_start_where_acting_begins_and_at_the_end(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("famo2o", evaluate_every=1000, evaluation_episodes=1)).train()
    measured = [row["steps"] for row in run.metrics if "evaluation_return" in row]
    assert measured == [0, 240, 340]
