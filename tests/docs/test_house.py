"""The plan of the house: what the documentation draws and writes is what the code is."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.house import test_layers as rules

ROOT = Path(__file__).parents[2]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hook that reads the plan."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "hooks"))
    return importlib.import_module("house")


def test_every_room_is_on_the_plan(house: Any) -> None:
    rooms = [room for storey in house.layers() for room in storey]
    assert sorted(rooms) == sorted({rules.room(name) for name in rules.modules()} - {"", "__main__"})
    order = {room: number for number, storey in enumerate(rules.LAYERS) for room in storey}
    assert [order[room] for room in rooms] == sorted(order[room] for room in rooms)
    assert all(house.door(room).exists() and house.what(room) for room in rooms)


def test_the_written_plan_is_that_of_the_code(house: Any) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert house.BEGIN in page and house.END in page
    assert house.with_plan(page) == page, "run `python docs/hooks/house.py --write`"
    assert all(len(line) <= 160 for line in house.plan().splitlines())
    folders = [name for name in re.findall(r"^(\w+)/", house.plan(), re.M) if name != "rheostat"]
    assert folders and all((ROOT / name).is_dir() for name in folders)


def test_a_room_without_a_storey_is_refused(house: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("__init__.py", "attic.py"):
        (tmp_path / name).touch()
    monkeypatch.setattr(house, "LIBRARY", tmp_path)
    house.layers.cache_clear()
    with pytest.raises(ValueError, match="attic in rheostat/ has no storey"):
        house.layers()
    house.layers.cache_clear()


def test_arrows_are_imports(house: Any) -> None:
    """Every arrow is an import of the code, and every import downwards follows from arrows."""
    level = {room: number for number, storey in enumerate(house.layers()) for room in storey} | {house.GROUND: 0}

    def storeyed(room: str) -> str:
        return house.GROUND if level[room] == 0 else room

    pairs = {(rules.room(name), rules.room(other)) for name in rules.modules() for other in rules.imports(name)}
    imported = {(start, storeyed(end)) for start, end in pairs if start in level and end in level and level[end] < level[start]}
    drawn = set(house.arrows())
    assert drawn and drawn <= imported
    reached: dict[str, set[str]] = {}
    for room in sorted(level, key=level.__getitem__):
        direct = {end for start, end in drawn if start == room}
        reached[room] = direct | {end for other in direct for end in reached[other]}
    assert all(end in reached[start] for start, end in imported)


def test_the_picture_shows_every_room_inside_its_frame(house: Any) -> None:
    picture = ElementTree.fromstring(house.picture())
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    space = "{http://www.w3.org/2000/svg}"
    said = " ".join(text.text or "" for text in picture.iter(f"{space}text"))
    assert all(room in said.replace(" · ", " ").split() for storey in house.layers() for room in storey)
    boxes = [tuple(float(box.attrib[name]) for name in ("x", "y", "width", "height")) for box in picture.iter(f"{space}rect")]
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)
    for number, (x, y, w, h) in enumerate(boxes):
        assert all(x + w <= a or a + c <= x or y + h <= b or b + d <= y for a, b, c, d in boxes[number + 1 :]), "boxes overlap"


def test_rooms_of_the_four_questions_exist() -> None:
    """The table of questions names rooms that are there."""
    named = re.findall(r"^\| \*?\*?(?:WHO|WHAT|HOW)[^|]*\|.*?`(\w+)/`", (ROOT / "docs" / "four-questions.md").read_text(), re.M)
    assert named == ["collect", "buffers", "credit", "objectives"]
    assert all((ROOT / "rheostat" / name / "__init__.py").exists() for name in named)
