"""Real road networks and trips, as the Python package sumo-rl ships them (MIT licence): read as files, without a traffic simulator.

A network file lists junctions with coordinates and edges with lanes; a route file lists trips with a time of departure and the edges where
they begin and end. Both are those of the traffic-light benchmark RESCO (Ault and Sharon 2021), for the cities Cologne and Ingolstadt.
Nothing of the package is imported.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from rheostat.errors import MissingExtra, RheostatError
from rheostat.tasks.fleet.demand import Orders
from rheostat.tasks.fleet.roads import Floats, Ints, Roads, connected, network

PACKAGE, EXTRA = "sumo-rl", "fleet"
REAL_CITIES = {"city-cologne": "cologne8", "city-ingolstadt": "ingolstadt21"}
"""The network of each."""
PASSENGERS = "passenger"


@dataclass(frozen=True)
class Network:
    """What a network file says.

    Attributes:
        x, y: of junctions, ``[J]``, in metres.
        edges: from which junction to which, ``[E, 2]``.
        metres, speed: of edges, ``[E]``, in metres and metres per second.
        names: of edges, by which trips name them.
    """

    x: Floats
    y: Floats
    edges: Ints
    metres: Floats
    speed: Floats
    names: dict[str, int]


def read_network(path: Path) -> Network:
    """Read a network file: edges that a car may drive, by their longest and fastest lane.

    Raises:
        RheostatError: it is missing, damaged, or has no edge.
    """
    root = _parsed(path)
    junctions = [each for each in root.iter("junction") if each.get("type") != "internal"]
    place = {each.attrib["id"]: index for index, each in enumerate(junctions)}
    ends: list[tuple[int, int]] = []
    metres: list[float] = []
    speed: list[float] = []
    names: dict[str, int] = {}
    for edge in root.iter("edge"):
        lanes = list(edge.iter("lane"))
        if edge.get("function") == "internal" or edge.get("from") not in place or edge.get("to") not in place or not lanes:
            continue
        names[edge.attrib["id"]] = len(ends)
        ends.append((place[edge.attrib["from"]], place[edge.attrib["to"]]))
        metres.append(max(float(lane.attrib["length"]) for lane in lanes))
        speed.append(max(float(lane.attrib["speed"]) for lane in lanes))
    if not ends:
        raise RheostatError(f"{path} holds no edge between two junctions: it is no road network.")
    x, y = (np.array([float(each.attrib[axis]) for each in junctions]) for axis in "xy")
    return Network(x, y, np.array(ends, np.int64), np.maximum(np.array(metres), 0.1), np.array(speed), names)


def read_trips(path: Path) -> list[tuple[float, str, str]]:
    """Read a route file: seconds of departure, first and last edge of every trip by car, in the order of departure.

    Raises:
        RheostatError: it is missing or damaged, or has no trip.
    """
    root = _parsed(path)
    kinds = {each.attrib["id"]: each.get("vClass", PASSENGERS) for each in root.iter("vType")}
    found = []
    for trip in root.iter("trip"):
        if kinds.get(trip.get("type", ""), PASSENGERS) == PASSENGERS and trip.get("from") and trip.get("to"):
            found.append((float(trip.attrib["depart"]), trip.attrib["from"], trip.attrib["to"]))
    if not found:
        raise RheostatError(f"{path} holds no trip by car.")
    return sorted(found)


def _parsed(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise RheostatError(f"{path} cannot be read ({error}): install {PACKAGE} again.") from error


def roads_and_trips(net: Network, trips: list[tuple[float, str, str]], minutes: int, pace: float) -> tuple[Roads, Orders]:
    """The roads, and the trips of the first minutes that begin and end on them.

    Args:
        net: the network.
        trips: see :func:`read_trips`.
        minutes: of an episode.
        pace: share of the speed limits that is driven.

    Raises:
        RheostatError: no trip of these minutes begins and ends on the roads.
    """
    roads = network(net.x, net.y, net.edges, net.metres, net.metres / (net.speed * pace))
    place = np.full(len(net.x), -1)
    place[connected(len(net.x), net.edges)] = np.arange(len(roads))
    began = trips[0][0]
    rows = []
    for depart, first, last in trips:
        minute = int((depart - began) // 60)
        if minute < minutes and first in net.names and last in net.names:
            pick, drop = place[net.edges[net.names[first], 1]], place[net.edges[net.names[last], 0]]
            if pick >= 0 and drop >= 0 and pick != drop:
                rows.append((minute, pick, drop))
    if not rows:
        raise RheostatError("None of the recorded trips begins and ends on the roads of the city.")
    minute, pick, drop = np.array(rows, np.int64).T
    return roads, Orders(minute, pick, drop)


@cache
def real_city(name: str, minutes: int, pace: float) -> tuple[Roads, Orders, str]:
    """Roads and trips of a real city, and a line about where they come from.

    Raises:
        MissingExtra: the package is not installed.
        RheostatError: its files are damaged.
    """
    folder = package_folder(name) / "nets" / "RESCO" / REAL_CITIES[name]
    files = [folder / f"{REAL_CITIES[name]}{kind}.xml" for kind in (".net", ".rou")]
    roads, trips = roads_and_trips(read_network(files[0]), read_trips(files[1]), minutes, pace)
    return roads, trips, licence()


def package_folder(name: str) -> Path:
    """Folder of the package.

    Raises:
        MissingExtra: it is not installed.
    """
    found = importlib.util.find_spec("sumo_rl")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra(PACKAGE, EXTRA, f"The city {name}")
    return Path(next(iter(found.submodule_search_locations)))


def licence() -> str:
    """Where the data come from, and under which licence."""
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        version = ""
    return f"RESCO (Ault and Sharon 2021), from the package {PACKAGE} {version}".rstrip() + " (MIT licence)"
