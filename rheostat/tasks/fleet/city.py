"""The world of a fleet: several cities side by side, whose vehicles are given orders once a minute.

Order of a minute: look (:meth:`Cities.scene`), match (:meth:`Cities.accept`, which pays), drive (:meth:`Cities.drive`). A vehicle that
accepts an order stands at once where the order is picked up and is out of reach until the pick-up time is over; then it drives to its
drop-offs, in the order that is quickest, and takes further orders while a seat is free. An order that has waited too long is lost.

Reward of an acceptance, with d the direct distance in metres, tau the pick-up minutes, D what the total minutes of all orders on board grow
by, and n the number of orders on board whose total is above the limit L (40 minutes):

    r = b0 + b1 d / 1000 - b2 tau / 60 - b3 n - b4 D / 60 - [D > L] b5 (D - L) / 60

Paper: Zhao and Li 2025, arXiv 2507.15351; there a road router drives a thousand vehicles. Here travel times are a table of whole minutes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheostat.tasks.fleet.demand import Demand
from rheostat.tasks.fleet.roads import Floats, Ints, Roads

Bools = NDArray[np.bool_]
MOST_SEATS = 5
"""All orders of the stops are tried, so that there are not more."""
VEHICLE_NUMBERS, STOP_NUMBERS, ORDER_NUMBERS = 8, 5, 5
NOWHERE = -1


@dataclass(frozen=True)
class Prices:
    """Coefficients of the reward, b0 to b5, and the limit L in minutes."""

    served: float = 3.0
    distance: float = 1.0
    pick_up: float = 3.0
    late: float = 1.0
    detour: float = 3.0
    long_detour: float = 5.0
    limit: float = 40.0

    def __call__(self, metres: Floats, pick_up: Floats, late: Floats, added: Floats) -> Floats:
        """Rewards, of any shape.

        Args:
            metres: direct distance of the order.
            pick_up: minutes to the pick-up.
            late: orders on board whose total minutes are above the limit.
            added: minutes by which the totals of all orders on board grow.
        """
        beyond = np.maximum(added - self.limit, 0.0)
        paid = self.served + self.distance * metres / 1000 - self.pick_up * pick_up / 60 - self.late * late
        return np.asarray(paid - self.detour * added / 60 - self.long_detour * beyond / 60)


@dataclass(frozen=True)
class City:
    """What does not change in an episode.

    Attributes:
        name: of the task.
        roads: places and times.
        demand: who calls.
        vehicles: N.
        seats: of a vehicle, K.
        minutes: of an episode, T.
        waiting: minutes after which an order is lost.
        max_orders: open orders that a minute's table can hold; the youngest ones beyond it wait outside.
        prices: of the reward.
        licence: of the data that the city was made from.
    """

    name: str
    roads: Roads
    demand: Demand
    vehicles: int
    seats: int
    minutes: int
    waiting: int
    max_orders: int
    prices: Prices = Prices()
    licence: str = ""

    @property
    def vehicle_size(self) -> int:
        """Numbers that a policy reads of a vehicle."""
        return VEHICLE_NUMBERS + STOP_NUMBERS * self.seats


class Scene(NamedTuple):
    """What is seen in a minute, of C cities with N vehicles and at most O open orders in any of them."""

    vehicles: Floats
    """``[C, N, 8 + 5 K]``: x, y, free seats, pick-up minutes left, busy, clock, own total, mean total; of every seat the drop-off's x and
    y, its minutes left, its total minutes, and the minutes by which these are above the direct drive."""
    orders: Floats
    """``[C, O, 5]``: pick-up x and y, drop-off x and y, minute of appearance; 0 in padding."""
    open: Bools
    """``[C, O]``: which orders there are; the first ones of each row."""
    free: Bools
    """``[C, N]``: vehicles that can take an order."""
    pick_up: Ints
    """``[C, N, O]``: minutes from each vehicle to each pick-up; 0 in padding."""
    number: Ints
    """``[C, O]``: number of the order in its episode; -1 in padding."""


@dataclass
class Tally:
    """What has happened in each city, ``[C]`` each."""

    reward: Floats
    orders: Ints
    served: Ints
    pick_up: Floats
    lost: Ints
    outside: Ints

    @classmethod
    def of(cls, cities: int) -> Tally:
        """Nothing yet."""
        whole = [np.zeros(cities, np.int64) for _ in range(4)]
        return cls(np.zeros(cities), whole[0], whole[1], np.zeros(cities), whole[2], whole[3])


@dataclass
class Cities:
    """One episode of the same city for each seed. Demand and first places depend on the seed alone, not on who acts.

    Attributes:
        minute: of the episode.
        totals: cumulative reward of every vehicle, ``[C, N]``.
        tally: what has happened.
    """

    city: City
    seeds: Sequence[int]
    minute: int = 0
    totals: Floats = field(init=False)
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        city, count = self.city, len(self.seeds)
        shape, slots = (count, city.vehicles), (count, city.vehicles, city.seats)
        self.place = np.zeros(shape, np.int64)
        self.pick_up = np.zeros(shape, np.int64)
        self.stop = np.full(slots, NOWHERE, np.int64)
        self.left, self.elapsed, self.direct = (np.zeros(slots, np.int64) for _ in range(3))
        self.totals = np.zeros(shape)
        self.tally = Tally.of(count)
        drawn = []
        for index, seed in enumerate(self.seeds):
            generator = np.random.default_rng(seed)
            self.place[index] = generator.integers(len(city.roads), size=city.vehicles)
            drawn.append(city.demand.draw(generator))
        longest = max((len(each) for each in drawn), default=0)
        self.appears = np.full((count, longest), city.minutes + city.waiting + 1, np.int64)
        self.pick, self.drop = (np.zeros((count, longest), np.int64) for _ in range(2))
        for index, orders in enumerate(drawn):
            self.appears[index, : len(orders)], self.tally.orders[index] = orders.minute, len(orders)
            self.pick[index, : len(orders)], self.drop[index, : len(orders)] = orders.pick, orders.drop
        self.taken = np.zeros((count, longest), bool)

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self.minute >= self.city.minutes

    @property
    def free(self) -> Bools:
        """Vehicles that can take an order, ``[C, N]``."""
        return (self.pick_up == 0) & (self.stop == NOWHERE).any(2)

    def scene(self, totals: Floats) -> Scene:
        """What is seen now.

        Args:
            totals: cumulative rewards (or advantages) of the vehicles, ``[C, N]``, as the policy is to know them.
        """
        index = self._open()
        is_open = index >= 0
        rows = np.arange(len(index))[:, None]
        pick, drop = (np.where(is_open, each[rows, index], 0) if index.size else index for each in (self.pick, self.drop))
        pick_up = np.where(is_open[:, None, :], self.city.roads.minutes[self.place[:, :, None], pick[:, None, :]], 0)
        appears = self.appears[rows, index] if index.size else index
        x, y = self.city.roads.scaled
        orders = np.stack([x[pick], y[pick], x[drop], y[drop], appears / 60], -1) * is_open[..., None]
        return Scene(self._vehicles(totals), orders, is_open, self.free, pick_up, index)

    def _open(self) -> Ints:
        """Numbers of the open orders, the oldest first, ``[C, O]``, -1 in padding."""
        age = self.minute - self.appears
        found = (age >= 0) & (age < self.city.waiting) & ~self.taken
        many = found.sum(1)
        self.tally.outside += np.maximum(many - self.city.max_orders, 0)
        width = min(int(many.max(initial=0)), self.city.max_orders)
        first = np.argsort(~found, axis=1, kind="stable")[:, :width]
        return np.where(np.take_along_axis(found, first, 1), first, NOWHERE)

    def _vehicles(self, totals: Floats) -> Floats:
        x, y = self.city.roads.scaled
        seats = self.city.seats
        free_seats = (self.stop == NOWHERE).sum(2)
        mean = np.broadcast_to(totals.mean(1, keepdims=True), totals.shape)
        clock = np.full(totals.shape, self.minute / 60)
        own = [x[self.place], y[self.place], free_seats / seats, self.pick_up / 60, ~self.free, clock, totals / 10, mean / 10]
        taken = self.stop != NOWHERE
        total = self.elapsed + self.left
        stops = np.stack([x[self.stop], y[self.stop], self.left / 60, total / 60, (total - self.direct) / 60], -1) * taken[..., None]
        return np.concatenate([np.stack(own, -1), stops.reshape(*totals.shape, -1)], -1)

    def accept(self, scene: Scene, choice: Ints) -> Floats:
        """Give orders to vehicles.

        Args:
            scene: of this minute.
            choice: the column of the order of each vehicle, ``[C, N]``, -1 for none.

        Returns:
            Rewards, ``[C, N]``, 0 where nothing was accepted.
        """
        reward = np.zeros(choice.shape)
        city, vehicle = np.nonzero(choice >= 0)
        if not len(city):
            return reward
        order = scene.number[city, choice[city, vehicle]]
        roads, prices = self.city.roads, self.city.prices
        pick, drop = self.pick[city, order], self.drop[city, order]
        pick_up = roads.minutes[self.place[city, vehicle], pick]
        stop, left, elapsed, direct = (each[city, vehicle] for each in (self.stop, self.left, self.elapsed, self.direct))
        before = np.where(stop != NOWHERE, elapsed + left, 0).sum(1)
        slot = (stop == NOWHERE).argmax(1)
        rows = np.arange(len(city))
        stop[rows, slot], elapsed[rows, slot], direct[rows, slot] = drop, 0, roads.minutes[pick, drop]
        left = pick_up[:, None] + route(roads.minutes, pick, stop)
        total = np.where(stop != NOWHERE, elapsed + left, 0)
        metres = roads.metres[pick, drop]
        paid = prices(metres, pick_up.astype(float), (total > prices.limit).sum(1).astype(float), (total.sum(1) - before).astype(float))
        self.place[city, vehicle], self.pick_up[city, vehicle] = pick, pick_up
        self.stop[city, vehicle], self.left[city, vehicle] = stop, left
        self.elapsed[city, vehicle], self.direct[city, vehicle] = elapsed, direct
        self.taken[city, order] = True
        reward[city, vehicle] = paid
        self.totals = self.totals + reward
        self.tally.reward += reward.sum(1)
        self.tally.served += (choice >= 0).sum(1)
        np.add.at(self.tally.pick_up, city, pick_up)
        return reward

    def drive(self) -> None:
        """One minute passes."""
        on_board = self.stop != NOWHERE
        moves = (self.pick_up == 0) & on_board.any(2)
        self.pick_up = np.maximum(self.pick_up - 1, 0)
        self.left = np.where(on_board, self.left - 1, 0)
        self.elapsed = np.where(on_board, self.elapsed + 1, 0)
        nearest = np.where(on_board, self.left, np.iinfo(np.int64).max).argmin(2)[..., None]
        goal = np.take_along_axis(self.stop, nearest, 2)[..., 0]
        arrived = np.take_along_axis(self.left, nearest, 2)[..., 0] <= 0
        self.place = np.where(moves, np.where(arrived, goal, self.city.roads.towards[self.place, goal]), self.place)
        done = on_board & (self.left <= 0)
        self.stop = np.where(done, NOWHERE, self.stop)
        for each in (self.left, self.elapsed, self.direct):
            each[done] = 0
        self.minute += 1
        age = self.minute - self.appears
        self.tally.lost += ((age == self.city.waiting) & ~self.taken).sum(1)


def route(minutes: Ints, start: Ints, stops: Ints) -> Ints:
    """Minutes until every stop on the quickest tour of all of them.

    Args:
        minutes: from place to place, ``[Z, Z]``.
        start: places, ``[A]``.
        stops: places, ``[A, K]``, -1 for none.

    Returns:
        ``[A, K]``, 0 for none; of equally quick tours the first in the order of the stops.
    """
    taken = stops != NOWHERE
    best = np.zeros(stops.shape, np.int64)
    quickest = np.full(len(stops), np.iinfo(np.int64).max)
    for order in itertools.permutations(range(stops.shape[1])):
        place, time = start, np.zeros(len(stops), np.int64)
        arrival = np.zeros(stops.shape, np.int64)
        for each in order:
            time = time + np.where(taken[:, each], minutes[place, stops[:, each]], 0)
            place = np.where(taken[:, each], stops[:, each], place)
            arrival[:, each] = np.where(taken[:, each], time, 0)
        better = time < quickest
        best[better], quickest[better] = arrival[better], time[better]
    return best
