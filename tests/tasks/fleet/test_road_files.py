"""Road networks and trips from files, on a small network; and the real ones where the package is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from rheostat.errors import MissingExtra, RheostatError
from rheostat.tasks.fleet import road_files
from rheostat.tasks.fleet.city import Cities
from rheostat.tasks.fleet.city_list import make_city
from rheostat.tasks.fleet.demand import Trips
from rheostat.tasks.fleet.road_files import read_network, read_trips, roads_and_trips

NET = """<net><edge id=":a_0" function="internal"><lane id="x" speed="9" length="1"/></edge>
<edge id="ab" from="a" to="b"><lane id="ab_0" speed="5" length="300"/><lane id="ab_1" speed="10" length="290"/></edge>
<edge id="ba" from="b" to="a"><lane id="ba_0" speed="10" length="300"/></edge>
<edge id="bc" from="b" to="c"><lane id="bc_0" speed="10" length="600"/></edge>
<edge id="cb" from="c" to="b"><lane id="cb_0" speed="10" length="600"/></edge>
<junction id="a" type="priority" x="0" y="0"/><junction id="b" type="priority" x="300" y="0"/>
<junction id="c" type="priority" x="900" y="0"/><junction id=":a_0" type="internal" x="0" y="0"/></net>"""
ROUTES = """<routes><vType id="bus" vClass="bus"/><vType id="car" vClass="passenger"/>
<trip id="1" type="car" depart="130" from="ab" to="cb"/><trip id="2" type="bus" depart="10" from="ab" to="cb"/>
<trip id="3" type="car" depart="10" from="ab" to="bc"/><trip id="4" type="car" depart="20" from="cb" to="ab"/>
<trip id="5" type="car" depart="999" from="ab" to="cb"/><trip id="6" type="car" depart="30" from="ab" to="nowhere"/></routes>"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    net, routes = tmp_path / "small.net.xml", tmp_path / "small.rou.xml"
    net.write_text(NET)
    routes.write_text(ROUTES)
    return net, routes


def test_a_network_and_its_trips(files: tuple[Path, Path]) -> None:
    net, trips = read_network(files[0]), read_trips(files[1])
    assert net.edges.tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]] and net.metres.tolist() == [300, 300, 600, 600]
    assert [depart for depart, *_ in trips] == [10, 20, 30, 130, 999]  # no bus
    roads, orders = roads_and_trips(net, trips, minutes=5, pace=0.5)
    assert roads.minutes[0].tolist() == [0, 1, 3] and roads.metres[0, 2] == 900
    assert (orders.minute.tolist(), orders.pick.tolist(), orders.drop.tolist()) == ([0, 2], [1, 1], [0, 2])
    part = Trips(orders, roads, 5, 0.2)
    assert part.share == 0.5 and part.rate == pytest.approx(0.2)
    assert {len(part.draw(np.random.default_rng(seed))) for seed in range(20)} == {0, 1, 2}
    assert len(Trips(orders, roads, 5, 9.0).draw(np.random.default_rng(0))) == 2


@pytest.mark.parametrize(
    ("which", "text", "says"),
    [
        (0, "<net", "cannot be read"),
        (0, "<net></net>", "holds no edge"),
        (1, "<routes></routes>", "holds no trip by car"),
    ],
)
def test_damaged_files_are_sentences(files: tuple[Path, Path], which: int, text: str, says: str) -> None:
    files[which].write_text(text)
    with pytest.raises(RheostatError, match=says):
        (read_network, read_trips)[which](files[which])


def test_trips_elsewhere_are_a_sentence(files: tuple[Path, Path]) -> None:
    with pytest.raises(RheostatError, match="None of the recorded trips"):
        roads_and_trips(read_network(files[0]), [(0.0, "x", "y")], 5, 0.5)


def test_without_the_package_a_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"The city city-cologne needs the package 'sumo-rl', which is not installed: .*fleet"):
        make_city("city-cologne")


def test_a_city_of_the_package(files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "nets" / "RESCO" / "cologne8"
    folder.mkdir(parents=True)
    files[0].rename(folder / "cologne8.net.xml")
    files[1].rename(folder / "cologne8.rou.xml")
    monkeypatch.setattr(road_files, "package_folder", lambda name: tmp_path)
    city = make_city("city-cologne", minutes=5, vehicles=2, demand=1.0)
    assert "MIT licence" in city.licence and len(city.roads) == 3 and Cities(city, [0]).tally.orders.tolist() == [2]


@pytest.mark.skipif(importlib.util.find_spec("sumo_rl") is None, reason="the package sumo-rl is not installed")
@pytest.mark.parametrize(("name", "edges", "trips"), [("city-cologne", 149, 2046), ("city-ingolstadt", 853, 4283)])
def test_the_real_cities(name: str, edges: int, trips: int) -> None:
    stem = road_files.REAL_CITIES[name]
    folder = road_files.package_folder(name) / "nets" / "RESCO" / stem
    assert len(read_network(folder / f"{stem}.net.xml").edges) == edges
    assert 0.9 * trips < len(read_trips(folder / f"{stem}.rou.xml")) <= trips
    assert make_city(name).demand.rate == pytest.approx(8.0)
