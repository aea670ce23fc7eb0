"""Who calls a vehicle, when, from where and to where: orders of a whole episode, drawn from a seed.

Hot spots move over time: a place's rate at minute t is ``demand * ((1 - share) / Z + share * mean_k w_k(z, t))``, with w_k the normalised
Gaussian bump of hot spot k around its centre at that time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rheostat.tasks.fleet.roads import Floats, Ints, Roads

Path = Callable[[float], Floats]
"""From the share of the episode that is over to the centres of all hot spots, ``[K, 2]``, in coordinates from 0 to 1."""


@dataclass(frozen=True)
class Orders:
    """The orders of one episode, in the order of their appearance.

    Attributes:
        minute: of appearance, ``[M]``.
        pick, drop: places, ``[M]``.
    """

    minute: Ints
    pick: Ints
    drop: Ints

    def __len__(self) -> int:
        return len(self.minute)


class Demand(Protocol):
    """What brings orders."""

    @property
    def rate(self) -> float:
        """Orders per minute, in the mean."""
        ...

    def draw(self, generator: np.random.Generator) -> Orders:
        """The orders of one episode."""
        ...

    def hot_spots(self, minute: int) -> Floats:
        """Centres of hot spots at a minute, ``[K, 2]``, in coordinates from 0 to 1."""
        ...


@dataclass(frozen=True)
class HotSpots:
    """Poisson demand that gathers around moving places.

    Args:
        roads: of the city.
        minutes: of an episode.
        rate: orders per minute.
        share: of the orders that come from hot spots; the others come from anywhere.
        width: of a hot spot, in coordinates from 0 to 1.
        path: where they are.
        leaves: share of drop-offs that are in the far half of the city, as seen from the hot spots' last centres; None has them anywhere.
    """

    roads: Roads
    minutes: int
    rate: float
    share: float
    width: float
    path: Path
    leaves: float | None = None

    def hot_spots(self, minute: int) -> Floats:
        """See :class:`Demand`."""
        return self.path(minute / max(1, self.minutes - 1))

    def weights(self, minute: int) -> Floats:
        """Shares of the places in the pick-ups of a minute, ``[Z]``, with sum 1."""
        x, y = self.roads.scaled
        even = np.full(len(self.roads), 1 / len(self.roads))
        centres = self.hot_spots(minute)
        if not len(centres):
            return even
        squares = (x[None] - centres[:, :1]) ** 2 + (y[None] - centres[:, 1:]) ** 2
        bumps = np.exp(-(squares - squares.min(1, keepdims=True)) / (2 * self.width**2))
        return (1 - self.share) * even + self.share * (bumps / bumps.sum(1, keepdims=True)).mean(0)

    def drop_weights(self) -> Floats:
        """Shares of the places in the drop-offs, ``[Z]``, with sum 1."""
        count = len(self.roads)
        if self.leaves is None:
            return np.full(count, 1 / count)
        x, y = self.roads.scaled
        centre = self.hot_spots(self.minutes - 1).mean(0)
        away = np.abs(x - centre[0]) + np.abs(y - centre[1])
        far = away >= np.median(away)
        return np.where(far, self.leaves / far.sum(), (1 - self.leaves) / max(1, (~far).sum()))

    def draw(self, generator: np.random.Generator) -> Orders:
        """See :class:`Demand`; an order whose drop-off is its pick-up is drawn again, and leaves where there is no other place."""
        counts = generator.poisson(self.rate, self.minutes)
        minute = np.repeat(np.arange(self.minutes), counts)
        shares = [self.weights(each) for each in range(self.minutes)]
        places = len(self.roads)
        picks = [generator.choice(places, size=count, p=share) for count, share in zip(counts, shares, strict=True)]
        pick = np.concatenate(picks).astype(np.int64) if picks else np.zeros(0, np.int64)
        weights = self.drop_weights()
        drop = generator.choice(places, size=len(pick), p=weights)
        for _ in range(50):
            same = drop == pick
            if not same.any():
                break
            drop[same] = generator.choice(places, size=int(same.sum()), p=weights)
        kept = drop != pick
        return Orders(minute[kept].astype(np.int64), pick[kept], drop[kept].astype(np.int64))


@dataclass(frozen=True)
class Trips:
    """Recorded trips, of which every episode has a fresh part.

    Args:
        orders: all trips of the episode's minutes.
        roads: of the city.
        minutes: of an episode.
        wanted: orders per minute, in the mean; all trips where there are fewer.
    """

    orders: Orders
    roads: Roads
    minutes: int
    wanted: float

    @property
    def share(self) -> float:
        """Of the trips in an episode."""
        return min(1.0, self.wanted * self.minutes / max(1, len(self.orders)))

    @property
    def rate(self) -> float:
        """See :class:`Demand`."""
        return self.share * len(self.orders) / self.minutes

    def hot_spots(self, minute: int) -> Floats:
        """None are known."""
        return np.zeros((0, 2))

    def draw(self, generator: np.random.Generator) -> Orders:
        """See :class:`Demand`."""
        kept = generator.random(len(self.orders)) < self.share
        return Orders(self.orders.minute[kept], self.orders.pick[kept], self.orders.drop[kept])


def around(spots: int, turn: float = 0.5, radius: float = 0.35) -> Path:
    """Hot spots on a circle around the middle, which they go round by a part of a turn during an episode.

    Args:
        spots: how many.
        turn: part of a full turn.
        radius: of the circle, in coordinates from 0 to 1.
    """

    def centres(over: float) -> Floats:
        angle = 2 * np.pi * (np.arange(spots) / max(1, spots) + turn * over)
        return 0.5 + radius * np.stack([np.cos(angle), np.sin(angle)], 1)

    return centres


def into_a_corner(spots: int) -> Path:
    """Hot spots that begin around the middle and all end in one corner."""
    begin = around(spots, 0.0)

    def centres(over: float) -> Floats:
        return (1 - over) * begin(0.0) + over * np.array([0.05, 0.05])

    return centres
