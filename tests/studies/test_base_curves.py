"""The curves of base models: they are measured, and their page shows the committed numbers, which fit what is said of each task."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from rheostat.json_text import unsigned
from studies import base_curves


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    """The result in the repository."""
    return unsigned(json.loads(base_curves.RESULT.read_text()))


def test_it_runs_and_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["base_curves", "--smoke", "--json"])
    base_curves.main()
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["seed"] == base_curves.base_model("untrained").seed
    assert row["prompts"] == row["samples"] == 4 and set(row["pass_at"]) == {"1", "4"}
    assert row["chance"] < 0.01


def test_the_smoke_form_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["base_curves", "--smoke", "--write"])
    with pytest.raises(SystemExit) as stop:
        base_curves.main()
    assert stop.value.code == 2


def test_the_page_shows_the_committed_numbers(committed: dict[str, Any]) -> None:
    assert base_curves.page(committed) == base_curves.PAGE.read_text()


def test_the_worlds_are_what_they_are_said_to_be(committed: dict[str, Any]) -> None:
    by_task: dict[str, list[Any]] = {}
    for row in committed["rows"]:
        by_task.setdefault(row["task"], []).append(row["pass_at"])
    assert list(by_task) == [world.task for world in base_curves.WORLDS]
    for points in by_task["chain-sum-elicit"]:  # the answer is there, among many
        assert points["1"][0] < 0.5 < points["64"][0]
    for points in by_task["chain-sum-teach"]:  # it is not
        assert points["1"][0] < 0.01
    for points in by_task["word-sums"]:
        assert points["16"][0] > 2 * points["1"][0]
