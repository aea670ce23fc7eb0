"""OSPO: laws of its parts, exploration, the reference, the end by patience, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rheostat
from rheostat.api import settings_for
from rheostat.collect.fleet.fleet_episodes import FleetRollout, gaps, nearest, of_policy, play, rows_of
from rheostat.collect.fleet.matching import assign, match
from rheostat.credit.fleet_advantages import FleetAdvantage, discounted_sums, fairness, standardise_groups
from rheostat.errors import RheostatError
from rheostat.learner.fleet_updates import Standing
from rheostat.objectives.clipping import Clip
from rheostat.objectives.dispatch import dispatch_loss, distance
from rheostat.parts import NonFinite
from rheostat.policies.control.dispatch_policy import Dispatcher, shares
from rheostat.tasks.fleet.city import Cities
from rheostat.tasks.fleet.city_list import make_city
from rheostat.training.run import Run
from rheostat.training.settings_from_options import task_of_prompts
from tests.tiny_control import learner

SMALL: dict[str, Any] = {"size": 5, "minutes": 8, "vehicles": 6, "demand": 3.0}
OPTIONS: dict[str, Any] = {
    "environment_options": SMALL, "steps": 64, "cities": 2, "hidden": (8,), "updates_per_turn": 2, "batch_size": 24, "judge_cities": 2,
}  # fmt: skip


def built(task: Any = "city", **options: Any) -> Any:
    return learner("ospo", task, **OPTIONS | options)


# --- laws of the policy and the matching ------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 6), st.integers(1, 5), st.integers(1, 4))
def test_orders_in_padding_change_nothing(seed: int, rows: int, orders: int, padding: int) -> None:
    """Neither the loss nor its gradient, whatever the padding holds."""
    chance = torch.Generator().manual_seed(seed)
    network = Dispatcher(4, 5, (6,), seed)
    vehicles, seen = torch.randn(rows, 1, 4, generator=chance), torch.randn(rows, orders + padding, 5, generator=chance)
    chosen = torch.randint(orders, (rows,), generator=chance)
    old, advantage = torch.rand(rows, generator=chance).log(), torch.randn(rows, generator=chance)
    found = []
    for width in (orders, orders + padding):
        is_open = torch.arange(width).expand(rows, -1) < orders
        share = shares(network(vehicles, seen[:, :width]).squeeze(1), is_open)
        reference = shares(torch.zeros(rows, width), is_open)
        loss = dispatch_loss(
            share, reference, is_open, chosen, old, advantage, clip=Clip(0.2, 0.28), beta=0.5, entropy_coefficient=0.1, direction="both"
        ).loss
        found.append((loss.detach(), torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(network.parameters()))])))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6) and torch.allclose(found[0][1], found[1][1], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.permutations(range(5)), st.permutations(range(3)))
def test_vehicles_and_orders_in_another_order_are_the_same(seed: int, vehicles: list[int], orders: list[int]) -> None:
    chance = torch.Generator().manual_seed(seed)
    network = Dispatcher(4, 5, (6,), seed)
    own, seen = torch.randn(1, 5, 4, generator=chance), torch.randn(1, 3, 5, generator=chance)
    is_open = torch.ones(1, 1, 3, dtype=torch.bool)
    share = shares(network(own, seen), is_open)[0].detach()
    other = shares(network(own[:, vehicles], seen[:, orders]), is_open)[0].detach()
    assert torch.allclose(share[vehicles][:, orders], other, atol=1e-6)
    first, second = assign(share.double().numpy()), assign(other.double().numpy())
    assert [orders[order] if order >= 0 else -1 for order in second] == first[vehicles].tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 6), st.integers(0, 6))
def test_a_matching_gives_no_order_twice_and_leaves_none_where_somebody_is_free(seed: int, vehicles: int, orders: int) -> None:
    chance = np.random.default_rng(seed)
    free, is_open = chance.random((1, vehicles)) < 0.6, chance.random((1, orders)) < 0.7
    found = match(chance.random((1, vehicles, orders)) + 1e-8, free, is_open)[0]
    taken = found[found >= 0]
    assert len(set(taken)) == len(taken) == min(free.sum(), is_open.sum())
    assert free[0][found >= 0].all() and is_open[0][taken].all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.integers(2, 5))
def test_a_distance_to_itself_is_none_and_to_others_is_of_both_sides(seed: int, orders: int) -> None:
    p, q = torch.randn(2, 3, orders, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).softmax(-1)
    is_open = torch.ones(3, orders, dtype=torch.bool)
    assert (distance(p, p, is_open, "from-policy") == 0).all()
    forth, back, both = (distance(p, q, is_open, each) for each in ("from-policy", "from-reference", "both"))
    assert torch.allclose(forth, torch.nn.functional.kl_div(q.log(), p, reduction="none").sum(1) / orders)
    assert torch.allclose(forth, distance(q, p, is_open, "from-reference")) and torch.allclose(both, (forth + back) / 2)


# --- laws of the advantages -------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.integers(0, 2**20))
def test_standardised_groups_have_mean_0_and_deviation_1(values: list[float], seed: int) -> None:
    group = torch.randint(3, (len(values),), generator=torch.Generator().manual_seed(seed))
    found = standardise_groups(torch.tensor(values, dtype=torch.float64), group)
    for each in range(3):
        own, raw = found[group == each], torch.tensor(values, dtype=torch.float64)[group == each]
        if len(own):
            assert abs(float(own.mean())) < 1e-6
            assert len(own) > 1 or float(own) == 0
            if float(raw.std(correction=0)) > 1e-3:
                assert float(own.std(correction=0)) == pytest.approx(1, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from(["one-step", "to-go"]))
def test_vehicles_have_no_names(seed: int, form: Any) -> None:
    """Other numbers for the vehicles, and other orders within a minute, give the same advantages."""
    chance = torch.Generator().manual_seed(seed)
    minute = torch.arange(4).repeat_interleave(3)
    vehicle, reward = torch.arange(3).repeat(4), torch.randn(12, generator=chance, dtype=torch.float64)
    gap = torch.where(minute < 3, 1, -1)
    fair = torch.randn(4, generator=chance, dtype=torch.float64)[minute]
    first, _ = FleetAdvantage(form).advantages(reward, minute, vehicle, gap, fair)
    names = torch.randperm(3, generator=chance)
    order = torch.cat([3 * each + torch.randperm(3, generator=chance) for each in range(4)])
    second, _ = FleetAdvantage(form).advantages(reward[order], minute[order], names[vehicle][order], gap[order], fair[order])
    assert torch.allclose(first[order], second)


def test_rewards_to_go_without_a_future_are_rewards() -> None:
    reward = torch.tensor([1.0, 2.0, 4.0])
    vehicle, gap = torch.tensor([0, 0, 1]), torch.tensor([2, -1, -1])
    assert discounted_sums(reward, vehicle, gap, 0.0).tolist() == [1, 2, 4]
    assert discounted_sums(reward, vehicle, gap, 0.5).tolist() == [1.5, 2, 4]


def test_rewards_that_drift_apart_are_punished_alike() -> None:
    before, after = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    assert fairness(before, after).tolist() == [-1] and fairness(after, before).tolist() == [1]
    minute, vehicle, gap = torch.zeros(2, dtype=torch.int64), torch.arange(2), torch.full((2,), -1)
    reward, fair = torch.tensor([1.0, 3.0]), torch.full((2,), -1.0)
    for weight, wanted in ((1.0, [-2, 0]), (-1.0, [0, 2]), (0.0, [-1, 1])):
        assert FleetAdvantage(fairness=weight).advantages(reward, minute, vehicle, gap, fair)[0].tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_minute_of_one_vehicle_says_the_fairness_term_alone() -> None:
    one = torch.zeros(1, dtype=torch.int64)
    assert FleetAdvantage().advantages(torch.tensor([7.0]), one, one, one - 1, torch.tensor([-0.5]))[0].tolist() == [-0.5]


# --- collecting -------------------------------------------------------------------------------------------------------------------------


def test_ratios_are_1_in_the_first_pass() -> None:
    one = built(exploration=0.4)
    batch = one.credit(one.retain(one.collect()))
    update = one.composition.improve[0]
    rows = batch.rows
    width = batch.facts["open"].shape[1]
    share = shares(
        one.context.policy(rows.observation.unsqueeze(1), batch.facts["orders"][batch.columns["table"]]).squeeze(1),
        batch.facts["open"][batch.columns["table"]],
    )
    assert width > 1 and torch.allclose(share.gather(1, rows.action.unsqueeze(1)).squeeze(1).log(), rows.sampler_logp, atol=1e-5)
    found = update.loss(one.context, batch, 0.0)
    assert float(found.policy.detach()) == pytest.approx(-float(rows.advantage.mean()), abs=1e-5) and float(found.clipped) == 0


def test_forced_pairs_are_taken_and_can_be_left_out() -> None:
    city = make_city("city", **SMALL)
    value = of_policy(Dispatcher(city.vehicle_size, 5, (8,), 0))
    minutes = play(Cities(city, [0, 1]), value, exploration=1.0, generator=torch.Generator().manual_seed(0))
    batch = rows_of(minutes, city, version=0)
    assert batch.columns["forced"].all() and batch.rows.sampler_logp.max() <= 1e-6  # the policy's own shares are stored
    assert not rows_of(play(Cities(city, [0, 1]), value), city, version=0).columns["forced"].any()
    some = built(exploration=0.1, forced_rows=False)
    batch = some.collect()
    assert torch.equal(batch.columns["used"], ~batch.columns["forced"]) and 0 < batch.metrics["forced_share"] < 1
    none = built(exploration=1.0, exploration_decay=1.0, forced_rows=False)
    before = none.context.models["policy"].parameters.vector.detach().clone()
    assert none.turn()["gradient_steps"] == 0 and torch.equal(before, none.context.models["policy"].parameters.vector.detach())


def test_rows_know_when_their_vehicle_accepts_again() -> None:
    found, stored = gaps(torch.tensor([0, 1, 0]), torch.tensor([0, 0, 3]), 9)
    assert found.tolist() == [3, -1, -1] and stored.tolist() == [3, 9, 9]


def test_exploration_falls_to_its_floor() -> None:
    part = FleetRollout(exploration=0.8, exploration_decay=0.5, exploration_floor=0.1)
    assert [part.probability(turn) for turn in range(5)] == [0.8, 0.4, 0.2, 0.1, 0.1]
    assert replace(part, exploration=0.0).probability(0) == 0


def test_demand_of_an_evaluation_is_that_of_no_turn_and_changes_nothing() -> None:
    one, other = built(), built()
    first, second = one.evaluate(3), one.evaluate(3)
    assert first == second and first["evaluation_episodes"] == 3 and first["evaluation_return"] != first["evaluation_nearest_return"]
    assert one.turn() == other.turn()


def test_the_nearest_vehicle_takes_the_order() -> None:
    city = make_city("city", **SMALL)
    cities = Cities(city, [3])
    while not (scene := cities.scene(cities.totals)).open.any():
        cities.drive()
    minutes = scene.pick_up[0]
    choice = match(nearest(scene), scene.free, scene.open)[0]
    taken = choice >= 0
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(minutes)
    assert minutes[taken, choice[taken]].sum() == minutes[rows, columns].sum()


def test_identical_vehicles_in_one_place_serve_different_orders() -> None:
    """A fleet of one kind in one place: all shares are equal, and the matching still gives every order once."""
    city = make_city("city", **SMALL)
    cities = Cities(city, [0])
    cities.place[:] = 0
    while (scene := cities.scene(cities.totals)).open.sum() < 2:
        cities.drive()
    value = of_policy(Dispatcher(city.vehicle_size, 5, (8,), 0))(scene)
    assert np.allclose(value[0], value[0, :1])
    taken = [int(choice) for choice in match(value, scene.free, scene.open)[0] if choice >= 0]
    assert len(set(taken)) == len(taken) == min(city.vehicles, scene.open.sum())


def test_a_minute_without_orders_is_no_row() -> None:
    one = built(environment_options=SMALL | {"demand": 0.05})
    empty = 0
    for _ in range(12):
        found = one.turn()
        empty += found["gradient_steps"] == 0
    assert 0 < empty < 12


def test_one_vehicle_learns_from_what_comes_later() -> None:
    for form in ("to-go", "critic"):
        one = built(environment_options=SMALL | {"vehicles": 1}, advantage=form, exploration=0.0)
        assert one.turn()["meter/gradient_norm"] > 0


# --- the reference ----------------------------------------------------------------------------------------------------------------------


def test_only_a_better_evaluation_replaces_the_reference() -> None:
    standing = Standing()
    assert [standing.judge(reward) for reward in (1.0, 0.5, 1.0, 2.0)] == [True, False, False, True]
    assert standing.held and standing.failed == 0 and standing.best == 2.0
    one = built(judge_every=1, learning_rate=0.05)
    reference = one.context.models["reference"].parameters.vector
    policy = one.context.models["policy"].parameters.vector
    kept = []
    for _ in range(8):
        before = reference.detach().clone()
        found = one.turn()
        kept.append(found["judged_reward"] < found["best_judged_reward"])
        assert torch.equal(reference.detach(), before if kept[-1] else policy.detach())
    assert {*kept} == {True, False}


def test_beyond_the_gate_no_step_is_made_and_the_weight_doubles() -> None:
    one = built(judge_every=1000, updates_per_turn=5)
    one.context.stores["standing"].held = True
    with torch.no_grad():
        one.context.models["reference"].parameters.vector.mul_(-4.0)
    batch = one.credit(one.retain(one.collect()))
    update = one.composition.improve[0]
    before = one.context.models["policy"].parameters.vector.detach().clone()
    _, beta, moved = update.step(one.context, batch, 0.5)
    assert not moved and beta == 1.0 and torch.equal(before, one.context.models["policy"].parameters.vector.detach())
    found = update.improve(one.context, batch)
    assert found["steps_left_out"] == 5 and found["gradient_steps"] == 0
    one.context.stores["standing"].held = False  # before an evaluation has failed there is no gate
    assert update.improve(one.context, batch)["steps_left_out"] == 0


def test_the_step_size_falls_per_turn() -> None:
    one = built(learning_rate=0.1, learning_rate_decay=0.5)
    assert [one.turn()["learning_rate"] for _ in range(3)] == [0.1, 0.05, 0.025]


def test_numbers_that_are_none_end_the_run_with_a_sentence(tmp_path: Path) -> None:
    options = OPTIONS | {"steps": 400, "learning_rate": 1e30, "evaluation_episodes": 0}
    with pytest.raises(RheostatError, match=r"not finite any more: lower the learning rate|became non-finite in update"):
        Run.create(tmp_path / "run", settings_for("ospo", "city", **options)).train()
    one = built()
    batch = one.credit(one.retain(one.collect()))
    batch.rows.advantage[:] = float("nan")
    with pytest.raises(NonFinite, match="became non-finite in update 1") as caught:
        one.improve(batch)
    assert len(caught.value.batch) == 24


def test_patience_ends_the_run(tmp_path: Path) -> None:
    options = OPTIONS | {"steps": 400, "learning_rate": 0.0, "judge_every": 2, "patience": 2, "least_turns": 5, "evaluation_episodes": 2}
    run = Run.create(tmp_path / "run", settings_for("ospo", "city", **options)).train()
    assert run.finished and run.summary["steps"] == 6 * 16
    assert "2 evaluations in a row have not improved on the best one" in " ".join(run.summary["warnings"])
    again = Run.create(tmp_path / "never", settings_for("ospo", "city", **options | {"patience": 0, "least_turns": 1000})).train()
    assert again.summary["steps"] == 400


# --- refusals and runs ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "options", "says"),
    [
        ("city", {"environment_options": {"demand": 0}}, "city has no orders, so there is nothing to learn: raise demand"),
        (
            "city",
            {"environment_options": {"vehicles": 1}},
            "city has one vehicle, and its reward is compared with those of the other vehicles",
        ),
        ("city", {"environment_options": {"vehicles": 0}}, "vehicles is 0; it must be at least 1 and at most 20,000"),
        ("city", {"environment_options": {"demand": 90}}, "raise max_orders"),
        ("city", {"gae_lambda": 0.5}, "only advantage=critic estimates advantages with it"),
        ("city", {"advantage": "to-go", "stored_minutes": True}, "nothing is compared within a minute"),
        ("city", {"exploration": 0.0, "forced_rows": False}, "exploration is 0"),
        ("city", {"kl_coefficient": 0.0, "kl_gate": 0.5}, "kl_coefficient is 0"),
        ("city", {"patience": 0, "least_turns": 3}, "patience is 0"),
        ("city", {"dial.lag": 2}, "its data are of the present policy alone"),
        ("city", {"backend": "envpool"}, "backend says who simulates a task of one agent"),
        ("city", {"compute": "fast"}, "there is none for ospo"),
        ("CartPole-v1", {}, "Unknown city 'CartPole-v1'"),
    ],
)
def test_what_cannot_be_is_a_sentence(task: str, options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError) as caught:
        Run.create(tmp_path / "run", settings_for("ospo", task, **{"hidden": (8,)} | options))
    assert says in str(caught.value) and not (tmp_path / "run").exists()


def test_what_to_train_on_is_an_example_that_works() -> None:
    for method, example in (("ospo", "city"), ("ppo", "CartPole-v1"), ("ippo", "rheostat.tasks.control.games:Coordination")):
        with pytest.raises(RheostatError, match=f"Say what to train {method} on, for example {example}"):
            task_of_prompts(method, {})


def test_a_city_is_no_task_of_one_agent(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="city is a task of fleets: train it with ospo"):
        Run.create(tmp_path / "run", settings_for("ppo", "city"))


def test_a_run_of_ones_own_city_from_python(tmp_path: Path) -> None:
    """Trained, opened again, looked at in another city, and asked for a matching."""
    own = make_city("city", **SMALL)
    options = {name: value for name, value in OPTIONS.items() if name != "environment_options"}
    run = rheostat.train("ospo", own, directory=tmp_path / "run", **options)
    opened = rheostat.load(tmp_path / "run", task=own)
    assert opened.evaluate(2) == run.evaluate(2)
    assert opened.evaluate(2, task="city-corner", environment_options={"seats": 3, "minutes": 4})["evaluation_length"] == 4
    with pytest.raises(RheostatError, match="knows vehicles of 3 seats, and those of city-corner have 1"):
        opened.evaluate(2, task="city-corner")
    cities = Cities(own, [5])
    while not (scene := cities.scene(cities.totals)).open.any():
        cities.drive()
    assert (opened.policy(scene) >= 0).sum() == scene.open.sum()
    with pytest.raises(RheostatError, match="hand over Cities"):
        opened.policy(np.zeros(3))
    with pytest.raises(RheostatError, match="has no memory"):
        opened.memory()
