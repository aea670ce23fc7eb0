"""The world of a fleet against one order at a time, and its edges: no orders, more orders than room, one vehicle."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.tasks.fleet.city import NOWHERE, Cities, City, Prices, route
from rheostat.tasks.fleet.city_list import make_city
from rheostat.tasks.fleet.demand import HotSpots, Orders, around, into_a_corner
from rheostat.tasks.fleet.roads import connected, grid, network


class Fixed:
    """Demand that is the same whatever the seed."""

    rate = 1.0

    def __init__(self, *orders: tuple[int, int, int]) -> None:
        self.orders = Orders(*np.array(orders, np.int64).reshape(-1, 3).T)

    def draw(self, generator: np.random.Generator) -> Orders:
        return self.orders

    def hot_spots(self, minute: int) -> np.ndarray:
        return np.zeros((0, 2))


def town(*orders: tuple[int, int, int], **changes: Any) -> City:
    """Ten places in a row, a minute and 100 metres apart, one vehicle with two seats."""
    place = np.arange(10.0)
    ends = np.array([(a, a + 1) for a in range(9)] + [(a + 1, a) for a in range(9)])
    roads = network(100 * place, 0 * place, ends, np.full(18, 100.0), np.full(18, 60.0))
    return replace(City("town", roads, Fixed(*orders), 1, 2, 20, 5, 8), **changes)


def begin(city: City, place: int = 0) -> Cities:
    """One copy of it, with every vehicle in one place."""
    cities = Cities(city, [0])
    cities.place[:] = place
    return cities


def test_an_order_is_fetched_driven_and_paid() -> None:
    cities = begin(town((0, 2, 5)))
    scene = cities.scene(cities.totals)
    assert scene.pick_up.tolist() == [[[2]]] and scene.open.tolist() == [[True]] and scene.free.all()
    paid = cities.accept(scene, np.array([[0]]))
    assert paid == pytest.approx(np.array([[3 + 0.3 - 3 * 2 / 60 - 3 * 5 / 60]]))
    assert cities.place[0, 0] == 2 and not cities.free.any()  # it stands there, and is out of reach
    seen = []
    for _ in range(6):
        cities.drive()
        seen.append((int(cities.place[0, 0]), bool(cities.free[0, 0]), int(cities.left[0, 0, 0])))
    assert seen == [(2, False, 4), (2, True, 3), (3, True, 2), (4, True, 1), (5, True, 0), (5, True, 0)]
    assert (cities.stop == NOWHERE).all()
    assert cities.tally.served.tolist() == [1] and cities.tally.pick_up.tolist() == [2] and cities.totals[0, 0] == paid


def test_a_second_order_on_board_costs_the_first_one_minutes() -> None:
    cities = begin(town((0, 0, 6), (0, 0, 2)))
    scene = cities.scene(cities.totals)
    cities.accept(scene, np.array([[0]]))
    cities.drive()  # at place 1, five minutes from the drop-off
    scene = cities.scene(cities.totals)
    paid = cities.accept(scene, np.array([[0]]))  # a minute back to place 0; then 2 and 6: totals 3 and 1 + 7, before 6
    assert paid == pytest.approx(np.array([[3 + 0.2 - 3 * 1 / 60 - 3 * (3 + 8 - 6) / 60]]))
    assert cities.left.tolist() == [[[7, 3]]] and not cities.free.any()
    cities.drive()
    assert not cities.free.any()  # both seats are taken
    for _ in range(2):
        cities.drive()
    assert cities.free.all() and cities.place[0, 0] == 2


def test_what_is_late_and_far_out_of_the_way_costs_more() -> None:
    prices = Prices(limit=3.0)
    cities = begin(town((0, 0, 6), prices=prices))
    paid = cities.accept(cities.scene(cities.totals), np.array([[0]]))
    assert paid == pytest.approx(np.array([[3 + 0.6 - 1 - 3 * 6 / 60 - 5 * (6 - 3) / 60]]))


def test_an_order_waits_for_so_many_minutes() -> None:
    cities = begin(town((1, 2, 5)))
    open_at = []
    for _ in range(8):
        open_at.append(int(cities.scene(cities.totals).open.sum()))
        cities.drive()
    assert open_at == [0, 1, 1, 1, 1, 1, 0, 0] and cities.tally.lost.tolist() == [1]


def test_more_orders_than_room_wait_outside_and_are_counted() -> None:
    cities = begin(town(*[(0, 1, 2 + k) for k in range(4)], max_orders=3))
    scene = cities.scene(cities.totals)
    assert scene.open.sum() == 3 and scene.number.tolist() == [[0, 1, 2]] and cities.tally.outside.tolist() == [1]
    cities.accept(scene, np.array([[1]]))
    cities.drive()
    assert cities.scene(cities.totals).number.tolist() == [[0, 2, 3]]


def test_more_orders_than_room_on_average_are_refused_before_anything_is_spent() -> None:
    with pytest.raises(RheostatError, match=r"may have 284 open orders at once \(40 per minute .* max_orders is 128: raise max_orders"):
        make_city("city", demand=40.0)
    assert make_city("city", demand=40.0, max_orders=300).max_orders == 300


def test_a_city_without_orders_is_quiet() -> None:
    cities = Cities(make_city("city", demand=0.0, minutes=4), [0, 1])
    while not cities.over:
        scene = cities.scene(cities.totals)
        assert scene.orders.shape == (2, 0, 5) and scene.pick_up.shape == (2, 40, 0)
        assert (cities.accept(scene, np.full((2, 40), -1)) == 0).all()
        cities.drive()
    assert cities.tally.orders.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"vehicles": 0}, "city: vehicles is 0; it must be at least 1 and at most 20"),
        ({"seats": 6}, "city: seats is 6; it must be at least 1 and at most 5"),
        ({"demand": -1.0}, "city: demand is -1.0; it must be at least 0"),
        ({"vehicels": 3}, "Unknown option of city 'vehicels': did you mean vehicles"),
        ({"hot_share": 2.0}, "city: hot_share is 2.0"),
        ({"minutes": "x"}, "city: minutes is 'x'"),
        ({"seats": 2.5}, "city: seats is 2.5"),
    ],
)
def test_wrong_options_are_sentences(options: dict[str, Any], says: str) -> None:
    with pytest.raises(RheostatError) as caught:
        make_city("city", **options)
    assert says in str(caught.value)


def test_what_is_no_city_is_a_sentence() -> None:
    with pytest.raises(RheostatError, match="Unknown city 'citty': did you mean city"):
        make_city("citty")
    with pytest.raises(RheostatError, match=r"dict makes \{\}, which is no"):
        make_city(dict)
    with pytest.raises(RheostatError, match="options size cannot be given to a city that is already made"):
        make_city(town(), size=3)
    with pytest.raises(RheostatError, match="town has no vehicles"):
        make_city(town(vehicles=0))
    with pytest.raises(RheostatError, match="hot_spots is 0, and its demand moves into a corner"):
        make_city("city-corner", hot_spots=0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1, 15), min_size=3, max_size=3), st.integers(0, 15))
def test_the_route_is_the_quickest_of_all(stops: list[int], start: int) -> None:
    minutes = grid(4).minutes
    real = [stop for stop in stops if stop >= 0]
    tours = []
    for order in itertools.permutations(range(3)):
        place, time, arrival = start, 0, [0, 0, 0]
        for each in order:
            if stops[each] >= 0:
                time += int(minutes[place, stops[each]])
                place, arrival[each] = stops[each], time
        tours.append((time, arrival))
    found = route(minutes, np.array([start]), np.array([stops]))[0].tolist()
    assert max(found) == min(tours)[0] if real else found == [0, 0, 0]
    assert any(found == arrival for _, arrival in tours)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.data())
def test_a_vehicle_arrives_when_its_time_is_over(size: int, data: st.DataObject) -> None:
    roads = grid(size)
    place, goal = (data.draw(st.integers(0, size * size - 1)) for _ in range(2))
    for left in range(int(roads.minutes[place, goal]), 0, -1):
        assert roads.minutes[place, goal] == left
        place = int(roads.towards[place, goal])
    assert place == goal


def test_a_network_keeps_what_can_be_reached_and_takes_the_fastest_road() -> None:
    edges = np.array([(0, 1), (1, 2), (2, 0), (0, 2), (2, 3)])  # nothing leads back from 3
    assert connected(4, edges).tolist() == [0, 1, 2]
    roads = network(np.zeros(4), np.arange(4.0), edges, np.array([100.0, 100, 500, 50, 9]), np.array([30.0, 30, 90, 100, 1]))
    assert roads.minutes.tolist() == [[0, 1, 1], [2, 0, 1], [2, 2, 0]]
    assert roads.metres.tolist() == [[0, 100, 200], [600, 0, 100], [500, 600, 0]]
    assert roads.towards[0].tolist() == [0, 1, 2] and roads.towards[2].tolist() == [2, 2, 2]  # the first edge takes more than a minute
    with pytest.raises(RheostatError, match="No two junctions"):
        network(np.zeros(2), np.zeros(2), np.array([(0, 1)]), np.ones(1), np.ones(1))


def test_demand_is_that_of_its_seed_alone_and_gathers_around_hot_spots() -> None:
    city = make_city("city", size=5, hot_spots=1)
    first, again, other = (city.demand.draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first.pick == again.pick).all() and len(first) != len(other)
    assert (first.pick != first.drop).all() and (np.diff(first.minute) >= 0).all()
    demand = city.demand
    assert isinstance(demand, HotSpots)
    weights = demand.weights(0)
    x, y = city.roads.scaled
    near = min(range(25), key=lambda place: (x[place] - 0.85) ** 2 + (y[place] - 0.5) ** 2)
    assert weights.sum() == pytest.approx(1) and weights.argmax() == near
    assert (demand.weights(0) != demand.weights(29)).any()


def test_the_corner_draws_all_hot_spots_and_drop_offs_leave_it() -> None:
    assert np.allclose(into_a_corner(3)(1.0), 0.05) and np.allclose(into_a_corner(2)(0.0), around(2, 0.0)(0.0))
    demand = make_city("city-corner", leaving=1.0).demand
    assert isinstance(demand, HotSpots)
    drop = demand.drop_weights()
    assert drop.sum() == pytest.approx(1) and drop[0] == 0 and drop[-1] > 0
