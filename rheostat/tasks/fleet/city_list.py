"""The cities that have a name, and how one is made.

| name | roads | demand |
|---|---|---|
| city | a grid | hot spots that go round the middle; drop-offs anywhere |
| city-corner | a grid | hot spots that end in one corner; drop-offs mostly in the other half of the city |
| city-cologne, city-ingolstadt | a part of the real city | recorded trips of one hour, of which every episode has a fresh part |

In ``city-corner`` there are more orders than vehicles can serve, and a long drive pays more now, but costs the orders that a vehicle could
have served in that time, near where all orders will be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from rheostat.errors import RheostatError, shown, unknown
from rheostat.options import by_type, check_fields, option, type_hints
from rheostat.tasks.fleet.city import MOST_SEATS, City
from rheostat.tasks.fleet.demand import HotSpots, Trips, around, into_a_corner
from rheostat.tasks.fleet.road_files import REAL_CITIES, real_city
from rheostat.tasks.fleet.roads import grid

MOST_VEHICLES, MOST_MINUTES, MOST_ORDERS = 20_000, 1440, 10_000
DEVIATIONS = 6
"""The table of open orders has room for the mean number and so many standard deviations."""


@dataclass(frozen=True)
class Fleet:
    """Options of every city."""

    vehicles: int = option(40, at_least=1, at_most=MOST_VEHICLES)
    """Vehicles."""
    seats: int = option(3, at_least=1, at_most=MOST_SEATS)
    """Seats of a vehicle."""
    minutes: int = option(30, at_least=1, at_most=MOST_MINUTES)
    """Minutes of an episode."""
    demand: float = option(8.0, at_least=0)
    """Orders per minute, in the mean."""
    waiting: int = option(5, at_least=1)
    """Minutes after which an order is lost."""
    max_orders: int = option(128, at_least=1, at_most=MOST_ORDERS)
    """Open orders that a minute's table can hold; the youngest ones beyond it wait outside, and are counted."""


@dataclass(frozen=True)
class Grid(Fleet):
    """Options of a city on a grid."""

    size: int = option(10, at_least=2, at_most=64)
    """Cells of a side; a cell is a minute."""
    metres: float = option(500.0, above=0)
    """Between neighbouring cells."""
    hot_spots: int = option(3, at_least=0)
    """Places around which orders gather."""
    hot_share: float = option(0.8, share=True)
    """Of the orders that come from hot spots."""
    width: float = option(0.08, above=0)
    """Of a hot spot, as a share of the city."""


@dataclass(frozen=True)
class Moving(Grid):
    """Options of ``city``."""

    turn: float = option(0.5)
    """Part of a full turn that the hot spots go round the middle in an episode; 0 leaves them where they are."""


@dataclass(frozen=True)
class Corner(Grid):
    """Options of ``city-corner``."""

    vehicles: int = option(10, at_least=1, at_most=MOST_VEHICLES)
    """Vehicles."""
    seats: int = option(1, at_least=1, at_most=MOST_SEATS)
    """Seats of a vehicle."""
    minutes: int = option(24, at_least=1, at_most=MOST_MINUTES)
    """Minutes of an episode."""
    demand: float = option(5.0, at_least=0)
    """Orders per minute, in the mean."""
    size: int = option(6, at_least=2, at_most=64)
    """Cells of a side; a cell is a minute."""
    metres: float = option(1000.0, above=0)
    """Between neighbouring cells."""
    leaving: float = option(0.5, share=True)
    """Share of drop-offs in the half of the city that is far from the corner."""


@dataclass(frozen=True)
class Real(Fleet):
    """Options of a real city."""

    pace: float = option(0.25, above=0, at_most=1)
    """Share of the speed limits that is driven, stops and lights included."""


def make_city(task: Any, **given: Any) -> City:
    """The city that a task stands for.

    Args:
        task: a name; a :class:`City`; or a function that makes one.
        given: its options.

    Raises:
        RheostatError: an unknown name or option, a number outside its domain, more orders than the table can hold, or a function that makes
            something else.
        MissingExtra: the package with the data of a real city is not installed.
    """
    if isinstance(task, City):
        if given:
            raise RheostatError(f"The options {', '.join(given)} cannot be given to a city that is already made.")
        return checked(task)
    if callable(task):
        made = task(**given)
        if not isinstance(made, City):
            raise RheostatError(
                f"{getattr(task, '__name__', 'The task')} makes {shown(made)}, which is no City (rheostat.tasks.fleet.city)."
            )
        return checked(made)
    if task not in CITIES:
        raise unknown("city", str(task), CITIES)
    options, make = CITIES[task]
    known = {each.name for each in fields(options)}
    for name in given:
        if name not in known:
            raise unknown(f"option of {task}", name, known)
    hints = type_hints(options)
    chosen = options(**{name: by_type(f"{task}: {name}", value, hints[name]) for name, value in given.items()})
    check_fields(chosen, lambda name: f"{task}: {name}")
    return checked(make(task, chosen))


def checked(city: City) -> City:
    """The city, if its table of open orders is large enough.

    Raises:
        RheostatError: it is not, or there is no vehicle.
    """
    if city.vehicles < 1:
        raise RheostatError(f"{city.name} has no vehicles: a fleet has at least one.")
    expected = city.demand.rate * min(city.waiting, city.minutes)
    wanted = int(expected + DEVIATIONS * expected**0.5)
    if wanted > city.max_orders:
        raise RheostatError(
            f"{city.name} may have {wanted} open orders at once ({city.demand.rate:g} per minute that wait up to {city.waiting} minutes), "
            f"and max_orders is {city.max_orders}: raise max_orders, or lower demand or waiting."
        )
    return city


def _moving(name: str, chosen: Moving) -> City:
    return _on_grid(name, chosen, leaves=None, path=around(chosen.hot_spots, chosen.turn))


def _corner(name: str, chosen: Corner) -> City:
    if not chosen.hot_spots:
        raise RheostatError("city-corner: hot_spots is 0, and its demand moves into a corner with them: set at least 1.")
    return _on_grid(name, chosen, leaves=chosen.leaving, path=into_a_corner(chosen.hot_spots))


def _on_grid(name: str, chosen: Grid, *, leaves: float | None, path: Any) -> City:
    roads = grid(chosen.size, chosen.metres)
    demand = HotSpots(roads, chosen.minutes, chosen.demand, chosen.hot_share, chosen.width, path, leaves)
    return City(name, roads, demand, chosen.vehicles, chosen.seats, chosen.minutes, chosen.waiting, chosen.max_orders)


def _real(name: str, chosen: Real) -> City:
    roads, trips, licence = real_city(name, chosen.minutes, chosen.pace)
    demand = Trips(trips, roads, chosen.minutes, chosen.demand)
    fleet = (chosen.vehicles, chosen.seats, chosen.minutes, chosen.waiting, chosen.max_orders)
    return City(name, roads, demand, *fleet, licence=licence)


CITIES: dict[str, tuple[Any, Callable[[str, Any], City]]] = {"city": (Moving, _moving), "city-corner": (Corner, _corner)}
CITIES |= dict.fromkeys(REAL_CITIES, (Real, _real))
