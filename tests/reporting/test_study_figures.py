"""A study's result as records: nothing of what its arms were is lost."""

from __future__ import annotations

from typing import Any

from rheostat.reporting.study_figures import records_of

RESULT: dict[str, Any] = {
    "study": "toy",
    "provenance": {"versions": {}, "command": "c"},
    "claims": [
        {
            "name": "a",
            "title": "A",
            "arms": {"A": {"config": {"update": {"learning_rate": 0.1, "minibatches": 4}, "clip": {"low": {"at": 0.2}}}, "steps": 9}},
            "curves": {"A": {"3": {"steps": [1.0, 2.0], "reward": [0.0, None], "meter/limited_share": [0.25, 0.5]}}},
        }
    ],
}


def test_nested_options_are_shown_by_their_paths() -> None:
    (record,) = records_of(RESULT)
    assert record.settings["config"] == {"update.learning_rate": 0.1, "update.minibatches": 4, "clip.low.at": 0.2}
    assert (record.settings["seed"], record.settings["steps"], record.settings["method"]) == (3, 9, "A")


def test_curves_of_old_names_are_read_by_the_new_ones() -> None:
    (record,) = records_of(RESULT)
    assert set(record.columns) == {"steps", "reward", "meter/clip_fraction"}
    assert record.curve("meter/clip_fraction")[1].tolist() == record.curve("meter/limited_share")[1].tolist() == [0.25, 0.5]
